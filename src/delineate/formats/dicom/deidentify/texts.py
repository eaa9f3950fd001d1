"""Names and ids of persons in free text: collected from headers, found in texts, cut out of them.

Case, accents and separators do not count. A word of at least ``LONG`` characters is also found
inside other words; a shorter one only as a word of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

SHORT, LONG = 3, 5
# Attributes besides names that identify a person or a place.
IDS = (
    "PatientID",
    "OtherPatientIDs",
    "AccessionNumber",
    "AdmissionID",
    "MedicalRecordLocator",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "InstitutionName",
    "InstitutionAddress",
)
# Words in name fields of files that name nobody.
NOBODY = {"anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "null", "removed"}

_UMLAUTS = str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe", "æ": "ae"})
_WORD = re.compile(r"[^\W_]+")
# Six digits or more, and dates with separators.
_NUMBER = re.compile(r"\d{6,}|\d{1,4}([-./])\d{1,2}\1\d{1,4}")


@dataclass(frozen=True)
class Identities:
    """Words that identify persons, in lower case without accents and separators.

    >>> known = Identities(frozenset({"mueller", "eva"}))
    >>> known.is_in("Head of MÜLLER"), known.is_in("evaluated"), known.is_in("xx_muellerhans")
    (True, False, True)
    >>> known.cut("CT Müller, Eva 2024-01-31 thorax")
    'CT thorax'
    """

    words: frozenset[str] = frozenset()

    @classmethod
    def of(cls, dataset: Any) -> Identities:
        """Those that a header states, in its sequences and private elements too."""
        found: set[str] = set()
        for element in _elements(dataset):
            if element.VR == "PN":
                for spelling in _spellings(str(element.value).replace("^", " ")):
                    found.update(spelling)
            elif element.keyword in IDS:
                several = element.value if element.VM > 1 else [element.value]
                for one in map(str, several):
                    found.update("".join(spelling) for spelling in _spellings(one))
        return cls(frozenset(w for w in found - NOBODY if len(w) >= (SHORT if w.isascii() else 2)))

    def __or__(self, other: Identities) -> Identities:
        return Identities(self.words | other.words)

    def is_in(self, text: str) -> bool:
        """Whether a text has one of the words."""
        return any(
            not self.words.isdisjoint(spelling) or self._is_part("".join(spelling))
            for spelling in _spellings(text)
        )

    def are_in(self, content: bytes) -> bool:
        """Whether bytes have one of the long words; short ones may be there by chance."""
        return any(
            self._is_part("".join(spelling)) for spelling in _spellings(content.decode("latin-1"))
        )

    def cut(self, text: str) -> str:
        """The text without the words, long numbers and dates; "" if one of them remains."""
        # Words and the separators between them, in turn.
        parts = re.split(r"([\s,;^_/]+)", _NUMBER.sub(" ", text))
        kept = [part for n, part in enumerate(parts) if n % 2 or not self.is_in(part)]
        rest = re.sub(r"[\s,;^]{2,}", " ", "".join(kept)).strip(" ,;^_/-")
        return "" if self.is_in(rest) else rest

    def masked(self, path: str) -> str:
        """A relative path whose parts with one of the words are "*"."""
        return "/".join("*" if self._is_path_part(part) else part for part in path.split("/"))

    def _is_path_part(self, part: str) -> bool:
        whole = ["".join(spelling) for spelling in _spellings(part)]
        return any(word in one for word in self.words for one in whole)

    def _is_part(self, whole: str) -> bool:
        return any(len(word) >= LONG and word in whole for word in self.words)


def _spellings(text: str) -> Iterator[list[str]]:
    """The words of a text in lower case, without accents, and with umlauts written as two letters
    if there are any.
    """
    low = unicodedata.normalize("NFC", text).casefold()
    for one in dict.fromkeys((low, low.translate(_UMLAUTS))):
        plain = unicodedata.normalize("NFKD", one)
        yield _WORD.findall("".join(c for c in plain if not unicodedata.combining(c)))


def _elements(dataset: Any) -> Iterator[Any]:
    """All elements that can be converted, those in sequences too."""
    for tag in list(dataset.keys()):
        try:
            element = dataset[tag]
        # pydicom raises anything for values that violate the standard.
        except Exception:
            continue
        if element.VR == "SQ":
            yield from _elements_of(element.value)
        else:
            yield element


def _elements_of(items: Iterable[Any]) -> Iterator[Any]:
    for item in items:
        yield from _elements(item)
