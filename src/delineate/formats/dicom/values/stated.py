"""What the header of an image states about its values apart from the rescale (padding, MONOCHROME1,
scales that are not applied), and about its origin. Nothing here changes a value; it becomes
``meta``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np

from ..header.enhanced import GROUPS, REAL_WORLD
from ..header.file import Plane
from ..header.marks import items_in, number, numbers, private_tag, text

PHILIPS_SCALE = (0x2005100E, "Philips MR Imaging DD 001")  # ScaleSlope, a factor of stored values
TISSUE_HU = (-1000.0, 3071.0)  # values of a 12-bit CT above air
MONOCHROME1 = "MONOCHROME1: low values are bright; the stored values are kept"
INVERSE = "PresentationLUTShape is INVERSE: low values are bright; the stored values are kept"

# PhotometricInterpretation of one value a pixel, PS3.3 C.7.6.3.1.2.
INTENSITIES = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
MOST_ABOUT = 100  # characters of the name of a scanner
SEXES = ("F", "M", "O")
YEARS = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}  # units of an age in a year
EXACT = ("CT", "MR", "PT", "NM")  # modalities whose values are measurements
# Where the letters of PatientOrientation are (LPS, PS3.3 C.7.6.1.1.1).
SIDES = {
    **{"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0)},
    **{"A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)},
}
SAME_SIDE = 0.25  # least cosine of a direction and its first letter
# Of ``meta``, where files may differ.
NOT_APPLIED = {
    "real_world": "real-world value map than the first; none is applied",
    "philips_scale": "private scale of Philips than the first; none is applied",
    "stored_padding": "PixelPaddingValue than the first; none is marked as padding",
}
NO_SLOPE = "RescaleSlope is 0, which is read as 1"
NO_INTERCEPT = "RescaleSlope is stated without RescaleIntercept, which is read as 0"


def stated_in(dataset: Any) -> dict[str, Any]:
    """The ``meta`` of a header. Keys: notes, philips_scale (not applied), real_world
    (maps of stored values to units, not applied), stored_padding (lowest and highest) and about
    (see ``about``).
    """
    found: dict[str, Any] = {}
    if notes := _notes(dataset):
        found["notes"] = notes
    tag, creator = PHILIPS_SCALE
    place = private_tag(dataset, tag, creator)
    if place and (scale := number(dataset, place)) is not None:
        found["philips_scale"] = scale
    if maps := _real_world(dataset):
        found["real_world"] = maps
    if padding := _padding(dataset):
        found["stored_padding"] = padding
    if origin := about(dataset):
        found["about"] = origin
    return found


def _notes(dataset: Any) -> list[str]:
    """Sentences about the values."""
    notes = _notes_of_grey(dataset)
    if text(dataset, "LossyImageCompression") == "01" and text(dataset, "Modality") in EXACT:
        notes.append("the pixels were compressed with loss (LossyImageCompression)")
    ratio = numbers(dataset, "PixelAspectRatio")
    if len(set(ratio)) > 1 and "PixelSpacing" not in dataset:
        notes.append(f"the pixels are not square (PixelAspectRatio {ratio[0]:g}:{ratio[1]:g})")
    if any("RealWorldValueLUTData" in item for item in _maps_in(dataset)):
        notes.append("values are mapped to a unit by a table (RealWorldValueLUTData), not applied")
    notes += [one for one in (_other_sides(dataset), dataset.doubt) if one]
    slope, intercept = (number(dataset, name) for name in ("RescaleSlope", "RescaleIntercept"))
    if slope == 0:
        notes.append(NO_SLOPE)
    elif slope is not None and intercept is None and GROUPS[1] not in dataset:
        notes.append(NO_INTERCEPT)
    return notes


def _notes_of_grey(dataset: Any) -> list[str]:
    """Sentences about which values are bright."""
    shown = text(dataset, "PhotometricInterpretation").upper()
    if shown == "MONOCHROME1":
        return [MONOCHROME1]
    if shown == "MONOCHROME2" and text(dataset, "PresentationLUTShape") == "INVERSE":
        return [INVERSE]
    if shown not in INTENSITIES and (number(dataset, "SamplesPerPixel") or 1) == 1:
        return [f"PhotometricInterpretation is {shown or 'missing'}; the pixels are read as grey"]
    return []


def _other_sides(dataset: Any) -> str:
    """A sentence about a PatientOrientation that is not that of ImageOrientationPatient; "" if
    there is none, and for animals, whose sides have other letters.
    """
    letters = [one.strip()[:1] for one in text(dataset, "PatientOrientation").upper().split("\\")]
    cosines = numbers(dataset, "ImageOrientationPatient")
    is_biped = text(dataset, "AnatomicalOrientationType") in ("", "BIPED")
    if len(letters) != 2 or len(cosines) != 6 or not is_biped:
        return ""
    rows = (cosines[:3], cosines[3:])
    along = [
        float(np.dot(SIDES[letter], row)) if letter in SIDES else 1.0
        for letter, row in zip(letters, rows, strict=True)
    ]
    if min(along) >= SAME_SIDE:
        return ""
    return (
        f"PatientOrientation states rows towards {letters[0]} and columns towards {letters[1]}; "
        "ImageOrientationPatient states others, which count"
    )


def about(dataset: Any) -> dict[str, Any]:
    """What groups of scans are made of, of what a header states: scanner (maker and model), year of
    the study, sex, and age in years, 0 for the first one. Nothing else about a patient.
    """
    maker, model = (text(dataset, key) for key in ("Manufacturer", "ManufacturerModelName"))
    # Some models begin with their maker.
    named = model if model.lower().startswith(maker.lower()) else f"{maker} {model}"
    date, sex = text(dataset, "StudyDate"), text(dataset, "PatientSex").upper()
    age = text(dataset, "PatientAge").upper()
    count, unit = age[:-1], age[-1:]
    found: dict[str, Any] = {"scanner": " ".join(named.split())[:MOST_ABOUT]}
    found["year"] = int(date[:4]) if date[:4].isdecimal() and len(date) >= 4 else None
    found["sex"] = sex if sex in SEXES else None
    is_age = count.isdecimal() and unit in YEARS
    found["age"] = int(int(count) / YEARS[unit]) if is_age else None
    return {key: value for key, value in found.items() if value not in ("", None)}


def merged(stated: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all headers of a volume state alike, in ``meta``; a note of some has their number, and
    what they state differently is noted.
    """
    first = stated[0]
    found = {k: deepcopy(v) for k, v in first.items() if all(one.get(k) == v for one in stated)}
    counts = Counter(note for one in stated for note in one.get("notes", ()))
    notes = [
        note if count == len(stated) else f"{count} of {len(stated)} files: {note}"
        for note, count in counts.items()
    ]
    for key, name in NOT_APPLIED.items():
        if others := sum(one.get(key) != first.get(key) for one in stated):
            notes.append(f"{others} of {len(stated)} files state another {name}")
    return found | ({"notes": notes} if notes else {})


def padding_of(stored: Sequence[float], planes: Sequence[Plane], unit: str) -> list[float] | None:
    """The lowest and highest value of padding after the rescale; None if it differs between planes,
    or if it is a value that tissue has in CT, so that it may be tissue.
    """
    ends = {tuple(sorted(v * one.slope + one.intercept for v in stored)) for one in planes}
    if len(ends) > 1 or any(one.lookup for one in planes):
        return None
    low, high = ends.pop()
    is_tissue = unit == "HU" and high > TISSUE_HU[0] and low < TISSUE_HU[1]
    return None if is_tissue else [low, high]


def _padding(dataset: Any) -> tuple[int, int] | None:
    """The range of stored values that are padding (PS3.3 C.7.5.1.1.2), lowest first.

    Its sign follows PixelRepresentation, also in files that state it with the other one.
    """
    ends = [number(dataset, n) for n in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    if ends[0] is None or not dataset.get("BitsStored"):
        return None
    bits, signed = int(dataset.BitsStored), bool(dataset.get("PixelRepresentation", 0))
    values = []
    for end in ends:
        if end is None:
            continue
        value = int(end) & ((1 << bits) - 1)
        values.append(value - (1 << bits) if signed and value >> (bits - 1) else value)
    return min(values), max(values)


def _maps_in(dataset: Any) -> Iterator[Any]:
    """The real-world value maps of an object and of its frames."""
    yield from items_in(dataset, REAL_WORLD)
    for group in GROUPS:
        yield from items_in(dataset, group, REAL_WORLD)


def _real_world(dataset: Any) -> list[dict[str, Any]]:
    """The linear maps of stored values to physical units (PS3.3 C.7.6.16.2.11)."""
    maps = []
    for item in (*items_in(dataset, REAL_WORLD), *items_in(dataset, GROUPS[0], REAL_WORLD)):
        slope = number(item, "RealWorldValueSlope")
        intercept = number(item, "RealWorldValueIntercept")
        if slope is None or intercept is None:
            continue
        codes = item.get("MeasurementUnitsCodeSequence") or ()
        unit = text(codes[0], "CodeValue") if codes else ""
        maps.append({"slope": slope, "intercept": intercept, "unit": unit})
    return maps
