"""How archives are named: ``dicomweb:URL/studies/UID/series/UID`` and
``dimse:AE@host:port/STUDY/SERIES``.

An address never contains a credential, because addresses are printed and recorded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ....core.errors import UsageError

DICOMWEB, DIMSE = "dicomweb:", "dimse:"
_UID = r"[0-9]+(?:\.[0-9]+)*"
LONGEST_UID = 64  # PS3.5, section 9.1
_RESOURCE = re.compile(rf"(.*?)(?:/studies/({_UID})(?:/series/({_UID}))?)?/*")
_PEER = re.compile(rf"([^@\\/]{{1,16}})@([^@/]+):([0-9]+)(?:/({_UID})(?:/({_UID}))?)?/*")


def is_remote(source: str | Path) -> bool:
    """Whether an input is the address of an archive.

    >>> is_remote("dicomweb:https://pacs/dicom-web/studies/1.2"), is_remote("CT/")
    (True, False)
    """
    return str(source).startswith((DICOMWEB, DIMSE))


def is_uid(text: str) -> bool:
    """Whether a text is a UID, so that it can be a file name too (PS3.5, section 9.1)."""
    return len(text) <= LONGEST_UID and re.fullmatch(_UID, text) is not None


@dataclass(frozen=True)
class Address:
    """An archive, or a study or series in it.

    Args:
        archive: such as "dicomweb:https://pacs/dicom-web" or "dimse:PACS@host:104".
        study: StudyInstanceUID, or "".
        series: SeriesInstanceUID, or "".
    """

    archive: str
    study: str = ""
    series: str = ""

    @classmethod
    def of(cls, text: str | Path) -> Address:
        """Read an address.

        Raises:
            UsageError: another form, or credentials in it.

        >>> Address.of("dicomweb:https://pacs/dicom-web/studies/1.2/series/1.2.3").series
        '1.2.3'
        >>> str(Address.of("dimse:PACS@10.0.0.5:104/1.2"))
        'dimse:PACS@10.0.0.5:104/1.2'
        """
        given = str(text)
        found = _of_url(given) if given.startswith(DICOMWEB) else _of_peer(given)
        if found is None or not all(is_uid(uid) for uid in (found.study, found.series) if uid):
            # Without the text: it may contain a password.
            raise UsageError(
                "an archive is dicomweb:URL/studies/UID, dicomweb:URL/studies/UID/series/UID, "
                "dimse:AE@host:port/STUDY_UID or dimse:AE@host:port/STUDY_UID/SERIES_UID (without "
                "UIDs where objects are only sent); the URL begins with http:// or https:// and "
                "has no user, password, ? or #"
            )
        return found

    @property
    def is_dicomweb(self) -> bool:
        return self.archive.startswith(DICOMWEB)

    @property
    def url(self) -> str:
        """The base of a DICOMweb service."""
        return self.archive.removeprefix(DICOMWEB)

    @property
    def peer(self) -> tuple[str, str, int]:
        """AE title, host and port of a DIMSE service."""
        title, _, place = self.archive.removeprefix(DIMSE).partition("@")
        host, _, port = place.rpartition(":")
        return title, host.strip("[]"), int(port)

    def __str__(self) -> str:
        names = ("/studies/", "/series/") if self.is_dicomweb else ("/", "/")
        uids = zip(names, (self.study, self.series), strict=True)
        return self.archive + "".join(f"{name}{uid}" for name, uid in uids if uid)


def _of_url(given: str) -> Address | None:
    try:
        parts = urlsplit(given.removeprefix(DICOMWEB))
        port = parts.port
    except ValueError:
        return None
    resource = _RESOURCE.fullmatch(parts.path)
    if (
        parts.scheme not in ("http", "https")
        or not parts.hostname
        or port == 0
        or "@" in parts.netloc
        or {"?", "#"} & set(given)
        or resource is None
        or "/studies" in resource[1]
    ):
        return None
    base = f"{DICOMWEB}{parts.scheme}://{parts.netloc}{resource[1].rstrip('/')}"
    return Address(base, resource[2] or "", resource[3] or "")


def _of_peer(given: str) -> Address | None:
    found = _PEER.fullmatch(given.removeprefix(DIMSE))
    if not given.startswith(DIMSE) or found is None or not 0 < int(found[3]) < 1 << 16:
        return None
    return Address(f"{DIMSE}{found[1]}@{found[2]}:{found[3]}", found[4] or "", found[5] or "")
