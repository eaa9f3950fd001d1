"""An archive by DICOMweb (PS3.18): QIDO-RS and STOW-RS by dicomweb-client, WADO-RS by requests.

dicomweb-client holds an instance in memory several times and decodes it in this process. Here an
answer of WADO-RS is written as it arrives, and decoded by nobody but the readers of files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence
from email.message import Message
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core.errors import InputError
from ...web import CHUNK_BYTES, TIMEOUT_S, TRANSIENT, innermost_reason
from .access import CA_FILE, PASSWORD, TOKEN, USER, Access
from .address import Address, is_uid
from .archive import Identity, Receive, RemoteSeries, UnreachableError
from .multipart import parts

if TYPE_CHECKING:
    import requests

DICOM = "application/dicom"
# The transfer syntax in which each instance is stored (PS3.18, 8.7.3.5.2).
ACCEPT = f'multipart/related; type="{DICOM}"; transfer-syntax=*'
STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"
MODALITY, DESCRIPTION, COUNT = "00080060", "0008103E", "00201209"
MOST_PAGES = 10_000


class DicomWeb:
    """A DICOMweb service; see ``archive.Archive``.

    Args:
        address: its ``url`` is the base of all three services.
    """

    def __init__(self, address: Address, access: Access):
        from dicomweb_client.api import DICOMwebClient

        self._url, self._session = address.url, _session(access)
        self._client = DICOMwebClient(self._url, session=self._session, timeout=TIMEOUT_S)
        self._client.set_http_retry_params(retry=False)

    def series(self, study: str, series: str = "") -> list[RemoteSeries]:
        filters = {"SeriesInstanceUID": series} if series else {}

        def search(offset: int | None) -> Any:
            return self._client.search_for_series(study, offset=offset, search_filters=filters)

        return [
            RemoteSeries(study, uid, _text(row, MODALITY), _text(row, DESCRIPTION), _count(row))
            for uid, row in _rows(SERIES, search).items()
            if series in ("", uid)
        ]

    def instances(self, study: str, series: str) -> set[str]:
        def search(offset: int | None) -> Any:
            return self._client.search_for_instances(study, series, offset=offset)

        return set(_rows(INSTANCE, search))

    def retrieve(self, study: str, series: str, wanted: Collection[str], receive: Receive) -> None:
        place = f"{self._url}/studies/{study}/series/{series}"
        for url in [f"{place}/instances/{uid}" for uid in wanted] or [place]:
            with _errors():
                self._receive(url, receive)

    def _receive(self, url: str, receive: Receive) -> None:
        headers = {"Accept": ACCEPT, "Accept-Encoding": "identity"}
        with self._session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            answer.raise_for_status()
            stated = Message()
            stated["Content-Type"] = answer.headers.get("Content-Type", "")
            chunks, kind = answer.iter_content(CHUNK_BYTES), stated.get_content_type()
            # Some services answer a single instance without a frame around it.
            if kind == DICOM:
                receive(chunks)
                return
            boundary = stated.get_boundary()
            if kind != "multipart/related" or not boundary:
                raise InputError(f"the archive answered with {kind} instead of {ACCEPT}")
            for part in parts(chunks, boundary):
                receive(part)

    def store(self, path: Path, identity: Identity) -> str:
        import pydicom
        import requests

        with _errors():
            try:
                answer = self._client.store_instances([pydicom.dcmread(path)])
            except requests.HTTPError as error:
                # Of PS3.18, 10.5.3.1: none was stored, for instance because it is there already.
                if _status(error) != HTTPStatus.CONFLICT:
                    raise
                return _refusal(HTTPStatus.CONFLICT)
        failed: Sequence[Any] = answer.get("FailedSOPSequence") or ()
        reasons = [int(one.get("FailureReason") or 0) for one in failed]
        return f"failure reason 0x{reasons[0]:04X}" if reasons else ""


class _NothingError(InputError):
    """The service has nothing there."""


def _rows(key: str, search: Callable[[int | None], Any]) -> dict[str, dict[str, Any]]:
    """UID -> answer of QIDO-RS. A service may give some of them at a time, or ignore the offset."""
    found: dict[str, dict[str, Any]] = {}
    for _ in range(MOST_PAGES):
        page = _page(search, len(found))
        new = {uid: row for row in page if (uid := _text(row, key)) not in found}
        if not new:
            break
        found |= new
    return {uid: row for uid, row in found.items() if is_uid(uid)}


def _page(search: Callable[[int | None], Any], offset: int) -> list[Any]:
    """One answer of QIDO-RS; empty if the service has nothing there."""
    try:
        with _errors():
            page = search(offset or None)
    except _NothingError:
        return []
    return page if isinstance(page, list) else []


def _session(access: Access) -> requests.Session:
    import requests
    from requests.auth import AuthBase, HTTPBasicAuth

    class Bearer(AuthBase):
        def __call__(self, request: Any) -> Any:
            request.headers["Authorization"] = f"Bearer {access.token}"
            return request

    class Session(requests.Session):
        def merge_environment_settings(self, url: Any, proxies: Any, *more: Any) -> Any:
            # Otherwise REQUESTS_CA_BUNDLE would replace the stated certificates.
            found = super().merge_environment_settings(url, proxies, *more)
            return {**found, "verify": access.ca_file} if access.ca_file else found

    session = Session()
    if access.token:
        session.auth = Bearer()
    elif access.user:
        session.auth = HTTPBasicAuth(access.user.encode(), access.password.encode())
    if access.cert_file:
        session.cert = (access.cert_file, access.key_file) if access.key_file else access.cert_file
    return session


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """Failures of requests as ours. Their own texts may repeat what was sent, so none is quoted
    but the innermost reason of a connection.
    """
    import requests

    try:
        yield
    except requests.HTTPError as error:
        code = _status(error)
        if code in TRANSIENT:
            raise UnreachableError(f"it answered {_refusal(code)}") from None
        kind = _NothingError if code == HTTPStatus.NOT_FOUND else InputError
        raise kind(f"the archive answered {_refusal(code)}") from None
    except requests.exceptions.SSLError as error:
        raise InputError(
            f"the archive's certificate is not accepted ({innermost_reason(error)}); {CA_FILE} "
            "names the certificate of its authority"
        ) from None
    except (
        requests.ConnectionError,
        requests.Timeout,
        requests.exceptions.ChunkedEncodingError,
    ) as error:
        raise UnreachableError(innermost_reason(error)) from None
    except (requests.RequestException, ValueError) as error:
        raise InputError(f"the archive's answer cannot be used ({type(error).__name__})") from None


def _status(error: requests.HTTPError) -> int:
    return 0 if error.response is None else error.response.status_code


def _refusal(code: int) -> str:
    """A status in words. The server's own phrase is not repeated."""
    name = HTTPStatus(code).phrase if code in set(HTTPStatus) else ""
    hint = ""
    if code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        hint = f"; {TOKEN}, or {USER} and {PASSWORD}, identify this program"
    return " ".join(filter(None, (str(code), name))) + hint


def _text(row: Any, key: str) -> str:
    """A value of DICOM JSON (PS3.18, F.2); "" if there is none."""
    values = row.get(key, {}).get("Value") if isinstance(row, dict) else None
    return str(values[0]) if isinstance(values, list) and values else ""


def _count(row: Any) -> int | None:
    text = _text(row, COUNT)
    return int(text) if text.isdecimal() else None
