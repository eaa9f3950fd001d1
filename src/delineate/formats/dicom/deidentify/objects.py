"""One DICOM object without what identifies a person (PS3.15 E.2). Pixels stay as they are stored.

Objects whose content cannot be cleaned by attributes are refused: encapsulated documents, raw data,
video, private classes, and images that may show text (``pixels``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from .... import __version__
from ....core import terms
from ....core.errors import FormatError
from ..header.file import VIDEO
from ..header.marks import private_marks
from . import table
from .pixels import Rectangle, blacken, text_in
from .pseudonyms import STANDARD_ROOT, Patient, Pseudonyms
from .rest import without_rest
from .table import Action
from .texts import Identities

DUMMIES = {"DA": "19000101", "DT": "19000101000000", "TM": "000000", "PN": "REMOVED"}
_DUMMY_VRS = ("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "AS", *DUMMIES)
_TEXTS = ("CS", "LO", "LT", "SH", "ST", "UC", "UT", "AS", "AE", "PN")
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_DOCUMENTS = "1.2.840.10008.5.1.4.1.1.104."  # PDF, CDA, STL, OBJ, MTL
_RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"
# Names of target volumes and outlines in radiotherapy (AAPM TG-263), besides known structures.
_TARGET = re.compile(
    r"(?i)(GTV|CTV|ITV|IGTV|PTV|BODY|EXTERNAL|SKIN)"
    r"([ _.-]*(\d{1,3}|[NTMP]|mass|node|nodes|edema|oedema|tumou?r|boost|low|high|all))*"
)


@dataclass(frozen=True)
class Profile:
    """How objects are de-identified.

    Args:
        pseudonyms: of the key.
        options: of ``table.OPTIONS``, besides the basic profile.
        rectangles: made black in images that may show text, with the option "pixels".
    """

    pseudonyms: Pseudonyms
    options: frozenset[str] = frozenset()
    rectangles: tuple[Rectangle, ...] = ()


def refusal_of(dataset: Any, profile: Profile) -> str:
    """Why an object cannot be de-identified; "" if it can. The pixels are not needed."""
    kind = str(dataset.get("SOPClassUID") or "")
    syntax = str(getattr(dataset.file_meta, "TransferSyntaxUID", ""))
    if kind and not kind.startswith(STANDARD_ROOT):
        return "its SOP class is private, so nothing says what it holds"
    if kind.startswith(_DOCUMENTS) or "EncapsulatedDocument" in dataset:
        return "it holds a document, whose text is not searched"
    if kind == _RAW_DATA:
        return "it holds raw data of the scanner"
    video = next((name for start, name in VIDEO.items() if syntax.startswith(start)), "")
    if video:
        return f"it is a video ({video}), whose pictures may show names and faces"
    why = text_in(dataset)
    if why and "pixels" not in profile.options:
        return f"its pixels may show text: {why}; the option pixels is for such images"
    return ""


def deidentify(dataset: Any, profile: Profile, patient: Patient, known: Identities) -> int:
    """De-identify pydicom's data set in place.

    Args:
        dataset: a whole object with its ``file_meta``.
        profile: how.
        patient: whose it is, from ``Pseudonyms.patient_of``.
        known: names and ids of the patient, from all headers.

    Returns:
        The number of elements that violate their VR, and were removed.

    Raises:
        FormatError: it cannot be de-identified.
    """
    if why := refusal_of(dataset, profile):
        raise FormatError(why)
    without_rest(dataset)
    if text_in(dataset):
        blacken(dataset, profile.rectangles)
    # What the reader needs of the private elements goes into public ones.
    private = private_marks(dataset)
    is_report = "ContentSequence" in dataset
    cleaner = _Cleaner(profile, patient, known)
    cleaner.clean(dataset)
    _state_marks(dataset, private)
    dataset.PatientName = dataset.PatientID = patient.pseudonym
    _state_method(dataset, profile, is_report)
    _state_file(dataset)
    return cleaner.invalid


@dataclass
class _Cleaner:
    profile: Profile
    patient: Patient
    known: Identities
    invalid: int = 0

    def clean(self, dataset: Any) -> None:
        """Apply the profile to the elements of a data set and of its sequences."""
        for tag in list(dataset.keys()):
            try:
                element = dataset[tag]
                self._apply(dataset, element, table.action_of(element, self.profile.options))
            # pydicom raises anything for a value that violates its VR; it may be a name.
            except Exception:
                del dataset[tag]
                self.invalid += 1

    def _apply(self, dataset: Any, element: Any, action: Action) -> None:
        if action is Action.REMOVE or (action is Action.DUMMY and element.VR not in _DUMMY_VRS):
            del dataset[element.tag]
        elif action is Action.ITEMS:
            for item in element.value:
                self.clean(item)
        elif element.keyword == "PatientID":
            element.value = self.patient.pseudonym
        elif action is Action.EMPTY:
            element.value = [] if element.VR == "SQ" else ""
        elif action is Action.DUMMY:
            element.value = DUMMIES.get(element.VR, "REMOVED")
        elif action is not Action.KEEP:
            self._rewrite(element, action)
        elif self._names_someone(element):
            del dataset[element.tag]

    def _names_someone(self, element: Any) -> bool:
        """Whether bytes that describe pixels, such as a colour profile, hold a name."""
        if element.keyword in _PIXELS or not isinstance(element.value, bytes):
            return False
        return self.known.are_in(element.value)

    def _rewrite(self, element: Any, action: Action) -> None:
        """Replace each value of an element."""
        if action is Action.CHECK and element.VR not in _TEXTS:
            return
        changes: dict[Action, Callable[[str], str]] = {
            Action.UID: self.profile.pseudonyms.uid,
            Action.CHECK: partial(self._checked, element.keyword),
            Action.CLEAN: self.known.cut,
            Action.STRUCTURE: self._structure,
            Action.MOVE: str if element.VR == "TM" else self.patient.moved,
        }
        change = changes[action]
        changed = [change(str(one)) for one in _values(element)]
        element.value = changed if len(changed) > 1 else "".join(changed)

    def _checked(self, name: str, text: str) -> str:
        if not self.known.is_in(text):
            return text
        return "REMOVED" if name in table.NEVER_EMPTY else ""

    def _structure(self, name: str) -> str:
        """A known name of a structure in the spelling of the tables, one that describes nothing as
        it is, and a word of the key for any other: equal names stay equal.
        """
        found = terms.structure_of(name)
        side = next((s for s in ("left ", "right ") if found.startswith(s)), "")
        if terms.is_known_structure(name) or terms.is_known_structure(found.removeprefix(side)):
            return found
        if not name.strip() or not terms.names_structure(name) or _TARGET.fullmatch(name.strip()):
            return name
        return f"structure {self.profile.pseudonyms.word('structure', found)}"


def _values(element: Any) -> Iterable[Any]:
    if element.VM == 0:
        return ()
    return element.value if element.VM > 1 else (element.value,)


def _state_marks(dataset: Any, private: dict[str, Any]) -> None:
    """State the diffusion and the part of a complex image, known from private elements."""
    if "b_value" in private and "DiffusionBValue" not in dataset:
        dataset.DiffusionBValue = float(private["b_value"])
    if len(private.get("direction", ())) == 3 and "DiffusionGradientOrientation" not in dataset:
        dataset.DiffusionGradientOrientation = list(private["direction"])
    if "component" in private and "ComplexImageComponent" not in dataset:
        dataset.ComplexImageComponent = private["component"].upper()


def _state_method(dataset: Any, profile: Profile, is_report: bool) -> None:
    """State how the object was de-identified (PS3.15 E.1.1; PS3.3 C.7.1.1 and C.12.1)."""
    from pydicom.dataset import Dataset

    codes = [
        table.BASIC,
        *(code for name, code in table.OPTIONS.items() if name in profile.options),
    ]
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = [
        f"PS3.15 {table.edition()} basic profile",
        f"delineate {__version__}",
    ]
    dataset.DeidentificationMethodCodeSequence = []
    for value, meaning in [*codes, table.STRUCTURED] if is_report else codes:
        code = Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
        dataset.DeidentificationMethodCodeSequence.append(code)
    dataset.LongitudinalTemporalInformationModified = (
        "MODIFIED" if "dates" in profile.options else "REMOVED"
    )


def _state_file(dataset: Any) -> None:
    """New file meta information without titles of the source, and an empty preamble."""
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    meta.ImplementationVersionName = "DELINEATE"
    dataset.file_meta = meta
    dataset.preamble = bytes(128)
