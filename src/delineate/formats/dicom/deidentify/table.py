"""What happens to an attribute: the table E.1-1 of PS3.15, kept by dicom-anonymizer, with the
options of E.3, and a rule for attributes that the table does not name.

Where the table gives several actions, the first one that keeps the object valid is chosen without
knowing its type: an empty or a dummy value rather than none. Attributes that the table does not
name are removed if their kind of value (VR) may name a person.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from enum import Enum
from typing import Any

# Option -> its code in CID 7050 (PS3.16) and its meaning.
OPTIONS = {
    "dates": ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "descriptors": ("113105", "Clean Descriptors Option"),
    "patient": ("113108", "Retain Patient Characteristics Option"),
    "pixels": ("113101", "Clean Pixel Data Option"),
}
BASIC = ("113100", "Basic Application Confidentiality Profile")
STRUCTURED = ("113104", "Clean Structured Content Option")

# K in the column "Rtn. Dev. Id. Opt." of table E.1-1.
DEVICE = frozenset(
    {
        "CassetteID",
        "DetectorID",
        "DeviceDescription",
        "DeviceLabel",
        "DeviceSerialNumber",
        "DeviceUID",
        "GantryID",
        "GeneratorID",
        "LensMake",
        "LensModel",
        "LensSerialNumber",
        "LensSpecification",
        "ManufacturerDeviceClassUID",
        "ManufacturerDeviceIdentifier",
        "PerformedStationAETitle",
        "PerformedStationGeographicLocationCodeSequence",
        "PerformedStationName",
        "PerformedStationNameCodeSequence",
        "PlateID",
        "ScheduledProcedureStepLocation",
        "ScheduledStationAETitle",
        "ScheduledStationGeographicLocationCodeSequence",
        "ScheduledStationName",
        "ScheduledStationNameCodeSequence",
        "ScheduledStudyLocation",
        "ScheduledStudyLocationAETitle",
        "SourceManufacturer",
        "SourceSerialNumber",
        "StationName",
        "TransducerIdentificationSequence",
        "TreatmentMachineName",
        "UDISequence",
        "UniqueDeviceIdentifier",
        "XRayDetectorID",
        "XRayDetectorLabel",
        "XRaySourceID",
    }
)
# K in the column "Rtn. Pat. Chars. Opt.".
PATIENT = frozenset(
    {
        "EthnicGroup",
        "PatientAge",
        "PatientSex",
        "PatientSexNeutered",
        "PatientSize",
        "PatientWeight",
        "PregnancyStatus",
        "SmokingStatus",
    }
)
# C in the column "Clean Desc. Opt.", of texts about the examination, not about the patient.
DESCRIPTORS = frozenset(
    {
        "AcquisitionDeviceProcessingDescription",
        "AcquisitionProtocolDescription",
        "ContrastBolusAgent",
        "DerivationDescription",
        "FrameComments",
        "ImageComments",
        "PerformedProcedureStepDescription",
        "ProtocolName",
        "ROIDescription",
        "ROIGenerationDescription",
        "ROIObservationDescription",
        "ROIObservationLabel",
        "RTPlanDescription",
        "RTPlanLabel",
        "RTPlanName",
        "RequestedProcedureDescription",
        "SeriesDescription",
        "StructureSetDescription",
        "StructureSetLabel",
        "StructureSetName",
        "StudyDescription",
    }
)
# Free text that the table does not name: kept under the same option.
_OTHER_DESCRIPTORS = ("SegmentDescription", "ContentDescription", "TextValue")
STRUCTURES = ("ROIName", "SegmentLabel")
# Checked attributes that are of type 1 in some objects.
NEVER_EMPTY = ("Manufacturer", "ManufacturerModelName", "CodeValue", "CodeMeaning")
# Sequences that the table replaces, and whose items are cleaned one by one.
_CLEANED = (
    "ContentSequence",
    "GraphicAnnotationSequence",
    "VerifyingObserverSequence",
    "ReferencedImageSequence",
    "SourceImageSequence",
)
_PATIENT_GROUPS = (0x0010, 0x0032, 0x0038, 0x4008)
_PIXEL_GROUPS = (0x0028, 0x0048, 0x7FE0)
_TIMES = ("DA", "DT", "TM")
_NARRATIVE = re.compile(r"(Description|Comments?|Remarks|Notes?|Address|History|ProtocolName)$")


class Action(Enum):
    """What happens to an element. ``CLEAN`` cuts names and ids, ``CHECK`` empties texts that have
    them, ``ITEMS`` cleans the items of a sequence, ``MOVE`` moves a date.
    """

    KEEP = "K"
    REMOVE = "X"
    EMPTY = "Z"
    DUMMY = "D"
    UID = "U"
    CLEAN = "C"
    CHECK = "check"
    ITEMS = "items"
    MOVE = "move"
    STRUCTURE = "structure"


@functools.cache
def edition() -> str:
    """The edition of the standard that the table is of, such as "2026c"."""
    return str(_module().__name__).rpartition("_")[2]


def action_of(element: Any, options: frozenset[str]) -> Action:
    """What the profile does with an element of the data set.

    Args:
        element: pydicom's, converted.
        options: of ``OPTIONS``.
    """
    tag, vr, name = element.tag, element.VR, element.keyword
    group = tag.group
    # Private and unknown elements, group lengths, curves and overlays.
    is_drawn = group >> 8 in (0x50, 0x60)
    if tag.is_private or not name or tag.element == 0 or is_drawn:
        return Action.REMOVE
    named = _table().get(int(tag))
    kept = _by_option(name, vr, group, options)
    if kept is not None:
        return kept
    if named is not None:
        return _named(named, vr, name)
    return _unnamed(name, vr, group)


def _by_option(name: str, vr: str, group: int, options: frozenset[str]) -> Action | None:
    """The action by the options and the rule for structures; None if they have none."""
    if name in STRUCTURES:
        return Action.CLEAN if "descriptors" in options else Action.STRUCTURE
    if name in DEVICE and "device" in options:
        return Action.ITEMS if vr == "SQ" else Action.KEEP if vr == "UI" else Action.CHECK
    if name in PATIENT and "patient" in options:
        return Action.CHECK
    if "descriptors" in options and (name in DESCRIPTORS or name in _OTHER_DESCRIPTORS):
        return Action.CLEAN
    # The dates of a birth and of other events of the life are not those of an examination.
    if vr in _TIMES and "dates" in options and group != 0x0010:
        return Action.MOVE
    return None


def _named(action: str, vr: str, name: str) -> Action:
    """The action of the table for an attribute."""
    if vr == "SQ":
        if name in _CLEANED:
            return Action.ITEMS
        return Action.EMPTY if action in ("Z", "X/Z") else Action.REMOVE
    if name in ("SeriesDate", "SeriesTime"):  # of type 1 in PET (PS3.3 C.8.9.1)
        return Action.DUMMY
    return {
        "X": Action.REMOVE,
        "X/D": Action.REMOVE,
        "Z": Action.EMPTY,
        "X/Z": Action.EMPTY,
        "U": Action.UID,
    }.get(action, Action.DUMMY)


def _unnamed(name: str, vr: str, group: int) -> Action:
    """The action for an attribute that the table does not name."""
    if vr == "SQ":
        return Action.ITEMS
    if vr == "UI":
        return Action.KEEP if name == "CodingSchemeUID" else Action.UID
    if vr in ("OB", "UN"):
        return Action.KEEP if group in _PIXEL_GROUPS else Action.REMOVE
    if name == "ContentDescription":  # of type 2
        return Action.EMPTY
    if name in ("LongCodeValue", "LossyImageCompressionMethod"):
        return Action.CHECK
    if vr in ("ST", "LT", "UT", "UC"):  # of type 1 in some objects
        return Action.DUMMY
    if vr in ("PN", "AE", "AS", "UR", *_TIMES):
        return Action.REMOVE
    if vr in ("LO", "SH"):
        is_free = group in _PATIENT_GROUPS or _NARRATIVE.search(name)
        return Action.REMOVE if is_free else Action.CHECK
    return Action.CHECK if vr == "CS" and group not in _PIXEL_GROUPS else Action.KEEP


@functools.cache
def _module() -> Any:
    """The newest table of dicom-anonymizer."""
    from dicomanonymizer import dicom_anonymization_databases as editions

    names = [one.name for one in pkgutil.iter_modules(editions.__path__)]
    newest = max(name for name in names if name.startswith("dicomfields_"))
    return importlib.import_module(f"{editions.__name__}.{newest}")


@functools.cache
def _table() -> dict[int, str]:
    """Tag -> the action of the basic profile, such as "X/Z". Overlays and curves are not in it."""
    found: dict[int, str] = {}
    for name, tags in vars(_module()).items():
        if name.endswith("_TAGS") and name != "ALL_TAGS":
            action = name.removesuffix("_TAGS").replace("U_STAR", "U*").replace("_", "/")
            found |= {(one[0] << 16) + one[1]: action for one in tags if len(one) == 2}
    return found
