"""What a class of images must state, and what is not known of a volume (PS3.3 A.3, A.4, A.8, A.21).

CT, MR and PET have classes of their own. Everything else is a Secondary Capture with the position
of a slice, which its class allows and readers of volumes use. Attributes that must have a value and
are not known get the term of the standard for what was not stated.
"""

from __future__ import annotations

from typing import Any

from ..header.file import SECONDARY_CAPTURE

__all__ = ["MULTI_FRAME", "OTHER", "attributes_of", "class_of"]

OTHER = "OT"  # the modality of what has none of its own
_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
DERIVED = ("DERIVED", "SECONDARY")
# Modality -> class of highdicom.legacy (PS3.3 A.70 to A.72).
MULTI_FRAME = {
    "CT": "LegacyConvertedEnhancedCTImage",
    "MR": "LegacyConvertedEnhancedMRImage",
    "PT": "LegacyConvertedEnhancedPETImage",
}
_UNITS = {"Bq/ml": "BQML", "SUV": "GML"}  # of PET (C.8.9.1.1.3)


def class_of(modality: str) -> str:
    """The SOP class of single slices of a modality.

    >>> class_of("CT") == class_of("XA"), class_of("US") == SECONDARY_CAPTURE
    (False, True)
    """
    return _CLASSES.get(modality, SECONDARY_CAPTURE)


def attributes_of(modality: str, unit: str, slices: int) -> dict[str, Any]:
    """The attributes of all slices that the class of a modality adds.

    Args:
        modality: "CT", "MR", "PT" or another one.
        unit: of the volume.
        slices: their number.
    """
    if modality == "CT":  # C.8.2.1
        return {
            "ImageType": [*DERIVED, "AXIAL"],
            "PatientPosition": "",
            "KVP": None,
            "AcquisitionNumber": None,
            # Maps of iodine and the like are no HU; the terms of C.11.1.1.2 have none for them.
            "RescaleType": "HU" if unit == "HU" else "UNSPECIFIED",
        }
    if modality == "MR":  # C.8.3.1
        return {
            "ImageType": [*DERIVED, "OTHER"],
            "PatientPosition": "",
            "ScanningSequence": "RM",
            "SequenceVariant": "NONE",
            "ScanOptions": "",
            "MRAcquisitionType": "",
            "RepetitionTime": None,
            "EchoTime": None,
            "EchoTrainLength": None,
        }
    if modality == "PT":  # C.8.9.1, C.8.9.2, C.8.9.4
        return {
            "ImageType": ["DERIVED", "PRIMARY"],  # C.8.9.4.1.1 allows no other
            "Units": _UNITS.get(unit, "NONE"),
            "CountsSource": "EMISSION",
            "SeriesType": ["STATIC", "IMAGE"],
            "NumberOfSlices": slices,
            "CorrectedImage": "",
            "DecayCorrection": "NONE",
            "CollimatorType": "",
            "RadiopharmaceuticalInformationSequence": [],
            "PatientOrientationCodeSequence": [],
            "PatientGantryRelationshipCodeSequence": [],
            "AcquisitionDate": "",
            "AcquisitionTime": "",
            "FrameReferenceTime": 0,
            "ActualFrameDuration": 0,
        }
    return {"ImageType": [*DERIVED], "ConversionType": "WSD", "PatientOrientation": ""}  # C.8.6.1
