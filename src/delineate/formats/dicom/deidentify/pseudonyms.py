"""New UIDs, patient ids and dates from a secret key: the same key gives the same pseudonyms, and
nobody without it can compute them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import uuid
from base64 import b32encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from ....core.errors import InputError

# Days by which the dates of a patient move back.
LEAST_DAYS, MOST_DAYS = 30, 3650
# UIDs below this root are those of the standard: classes, syntaxes, well-known frames.
STANDARD_ROOT = "1.2.840.10008."

_DAY = re.compile(r"(\d{4})([.]?)(\d\d)\2(\d\d)")  # with points before DICOM 3.0


@dataclass(frozen=True)
class Patient:
    """A patient: the id that the file states, and the one that replaces it."""

    stated: str
    pseudonym: str
    days: int  # by which dates move

    def moved(self, text: str) -> str:
        """A date, or a date and time, of this patient moved back; "" if it has no whole date.

        >>> Patient("", "", 30).moved("20240131120000.5+0100"), Patient("", "", 30).moved("2024")
        ('20240101120000.5+0100', '')
        """
        if (found := _DAY.match(text.strip())) is None:
            return ""
        try:
            day = date(int(found[1]), int(found[3]), int(found[4])) - timedelta(self.days)
        except (ValueError, OverflowError):
            return ""
        return f"{day:%Y%m%d}".zfill(8) + text.strip()[found.end() :]


@dataclass(frozen=True)
class Pseudonyms:
    """The pseudonyms of a key.

    Args:
        key: the secret.
        given: patient id -> pseudonym; all other patients are refused. None derives them.

    >>> names = Pseudonyms(b"secret of this project")
    >>> names.uid("1.2.3") == names.uid("1.2.3"), names.uid("1.2.3") == names.uid("1.2.4")
    (True, False)
    >>> names.uid("1.2.840.10008.5.1.4.1.1.2")
    '1.2.840.10008.5.1.4.1.1.2'
    """

    key: bytes = field(repr=False)
    given: Mapping[str, str] | None = field(default=None, repr=False)

    def uid(self, stated: str) -> str:
        """The UID that replaces another, of the form 2.25.N (PS3.5 B.2); those of the standard and
        empty ones stay.
        """
        if not stated or f"{stated}.".startswith(STANDARD_ROOT):
            return stated
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', stated)[:16], version=5).int}"

    def word(self, kind: str, stated: str) -> str:
        """Ten letters and digits that replace a name."""
        return b32encode(self._digest(kind, stated))[:10].decode()

    def patient_of(self, dataset: Any) -> Patient:
        """The patient of an object. Without a PatientID, a person is known by name and birth date,
        and without these by the study.

        Raises:
            InputError: ``given`` does not have the patient.
        """
        # Values of any kind: elements may violate the standard.
        stated = _text(dataset, "PatientID")
        who = stated or "|".join(
            ["?", *(_text(dataset, name) for name in ("PatientName", "PatientBirthDate"))]
        )
        if not who.strip("?|"):
            who = f"?study {_text(dataset, 'StudyInstanceUID')}"
        if self.given is not None and stated not in self.given:
            raise InputError("the table of pseudonyms does not have the patient of this file")
        named = self.word("patient", who) if self.given is None else self.given[stated]
        days = int.from_bytes(self._digest("days", who)[:8], "big") % (MOST_DAYS - LEAST_DAYS)
        return Patient(who, named, days + LEAST_DAYS)

    def _digest(self, kind: str, stated: str) -> bytes:
        return hmac.digest(self.key, f"{kind}\0{stated}".encode(), hashlib.sha256)


def _text(dataset: Any, name: str) -> str:
    return str(dataset.get(name) or "").strip()
