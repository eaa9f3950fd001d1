"""What can distinguish the volumes of one series: echo, b-value, time, part of a complex image.

The standard has no attribute that names the volumes of a series, so every attribute that vendors
use for it is read, and ``group`` finds the ones that explain repeated positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, MutableSequence
from dataclasses import dataclass
from typing import Any

from .elements import creators_of

# Private attributes: what they hold, their tag, and the creator of their block (PS3.5 7.8.1).
PRIVATE = (
    ("b_value", 0x0019100C, "SIEMENS MR HEADER"),
    ("direction", 0x0019100E, "SIEMENS MR HEADER"),
    ("b_value", 0x00431039, "GEMS_PARM_01"),
    ("b_value", 0x20011003, "Philips Imaging DD 001"),
    ("b_value", 0x00651009, "Image Private Header"),
    ("direction", 0x00651037, "Image Private Header"),
    ("component", 0x0043102F, "GEMS_PARM_01"),
    ("slices", 0x0021104F, "GEMS_RELA_01"),
)
GE_COMPONENTS = ("magnitude", "phase", "real", "imaginary")
COMPONENTS = {
    **dict.fromkeys(("M", "MAGNITUDE", "M_FFE", "M_SE", "M_IR"), "magnitude"),
    **dict.fromkeys(("P", "PHASE", "PHASE MAP", "P_FFE", "P_SE", "P_IR"), "phase"),
    **dict.fromkeys(("R", "REAL", "R_FFE", "R_SE", "R_IR"), "real"),
    **dict.fromkeys(("I", "IMAGINARY", "I_FFE", "I_SE", "I_IR"), "imaginary"),
}


@dataclass(frozen=True)
class Marks:
    """The attributes of one plane; None, "" or () if the file does not state them. Times of the
    acquisition are strings as in the file, which sort; all others are in the units of the standard
    (ms, s/mm2, degrees, kV).
    """

    patient: str = ""
    name: str = ""  # of the patient, in small letters without separators
    issuer: str = ""  # of PatientID
    birth: str = ""
    sex: str = ""
    pose: str = ""  # PatientPosition
    study: str = ""
    modality: str = ""
    frame_of_reference: str = ""
    component: str = ""  # magnitude, phase, real, imaginary, or another ComplexImageComponent
    echo: int | None = None
    echo_time: float | None = None
    inversion_time: float | None = None
    flip_angle: float | None = None
    b_value: float | None = None
    direction: tuple[float, ...] = ()
    temporal: int | None = None
    trigger_time: float | None = None
    cardiac_phase: float | None = None
    respiratory_phase: float | None = None
    frame_time: float | None = None
    acquisition: int | None = None
    acquired: str = ""
    content_time: str = ""
    kernel: str = ""
    kvp: float | None = None
    stack: str = ""
    label: str = ""  # of arterial spin labelling
    dimensions: tuple[int, ...] = ()  # indices of a frame that do not say where it is
    number: int | None = None  # InstanceNumber; of frames, with their place in the file
    images: int | None = None  # ImagesInAcquisition
    slices: int | None = None  # NumberOfSlices of PET and NM, or the locations of GE
    related: int | None = None  # NumberOfSeriesRelatedInstances, the count of an archive
    tilt: float | None = None  # GantryDetectorTilt
    temporals: int | None = None  # NumberOfTemporalPositions
    series_number: int | None = None
    comment: str = ""  # of the image: phases of breathing in some CT


def marks_of(dataset: Any, kind: tuple[str, ...]) -> Marks:
    """The marks of a header with the ImageType ``kind``."""
    private = private_marks(dataset)
    b_value = number(dataset, "DiffusionBValue")
    acquired = text(dataset, "AcquisitionDateTime") or (
        text(dataset, "AcquisitionDate") + text(dataset, "AcquisitionTime")
    )
    return Marks(
        patient=text(dataset, "PatientID"),
        name=" ".join(text(dataset, "PatientName").replace("^", " ").casefold().split()),
        issuer=text(dataset, "IssuerOfPatientID"),
        birth=text(dataset, "PatientBirthDate"),
        sex=text(dataset, "PatientSex"),
        pose=text(dataset, "PatientPosition"),
        study=text(dataset, "StudyInstanceUID"),
        modality=text(dataset, "Modality"),
        frame_of_reference=text(dataset, "FrameOfReferenceUID"),
        component=component_of(text(dataset, "ComplexImageComponent"), kind)
        or private.get("component", ""),
        echo=_whole(dataset, "EchoNumbers"),
        echo_time=number(dataset, "EchoTime"),
        inversion_time=number(dataset, "InversionTime"),
        flip_angle=number(dataset, "FlipAngle"),
        b_value=private.get("b_value") if b_value is None else b_value,
        direction=numbers(dataset, "DiffusionGradientOrientation") or private.get("direction", ()),
        temporal=_whole(dataset, "TemporalPositionIdentifier")
        or _whole(dataset, "TemporalPositionIndex"),
        trigger_time=number(dataset, "TriggerTime"),
        cardiac_phase=number(dataset, "NominalPercentageOfCardiacPhase"),
        respiratory_phase=number(dataset, "NominalPercentageOfRespiratoryPhase"),
        frame_time=number(dataset, "FrameReferenceTime"),
        acquisition=_whole(dataset, "AcquisitionNumber"),
        acquired=acquired,
        content_time=text(dataset, "ContentTime"),
        kernel=text(dataset, "ConvolutionKernel"),
        kvp=number(dataset, "KVP"),
        stack=text(dataset, "StackID"),
        number=_whole(dataset, "InstanceNumber"),
        images=_whole(dataset, "ImagesInAcquisition"),
        slices=_whole(dataset, "NumberOfSlices") or private.get("slices"),
        related=_whole(dataset, "NumberOfSeriesRelatedInstances"),
        tilt=number(dataset, "GantryDetectorTilt"),
        temporals=_whole(dataset, "NumberOfTemporalPositions"),
        series_number=_whole(dataset, "SeriesNumber"),
        comment=text(dataset, "ImageComments"),
    )


def kind_of(value: Any) -> tuple[str, ...]:
    """The words of an ImageType or FrameType in capital letters, as the standard has them."""
    words = (value,) if isinstance(value, str) else value or ()
    return tuple(str(word).strip().upper() for word in words)


def component_of(stated: str, kind: tuple[str, ...]) -> str:
    """The part of a complex image, by ComplexImageComponent or else by the words of ImageType."""
    if stated and stated != "MIXED":
        return COMPONENTS.get(stated, stated.lower())
    return next((COMPONENTS[word] for word in kind[2:] if word in COMPONENTS), "")


def items_in(dataset: Any, *names: str) -> Iterator[Any]:
    """The items of a sequence in all items of the sequences around it."""
    for item in dataset.get(names[0]) or ():
        yield from items_in(item, *names[1:]) if len(names) > 1 else (item,)


def text(dataset: Any, name: str) -> str:
    """The value as text, "" if it is missing or cannot be read; several values are joined."""
    value = _value(dataset, name)
    if value is None or isinstance(value, str):
        return _as_utf8(value.strip()) if value else ""
    if isinstance(value, MutableSequence):
        return "\\".join(map(str, value)).strip()
    return _as_utf8(str(value).strip())


def _as_utf8(value: str) -> str:
    """A text whose bytes were read in a set of 8 bits, and are UTF-8: writers leave out the set, or
    state a wrong one. Texts in these sets are no valid UTF-8.

    >>> _as_utf8("Ã¼"), _as_utf8("Müller"), _as_utf8("liver")
    ('ü', 'Müller', 'liver')
    """
    if value.isascii():
        return value
    try:
        return value.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return value


def number(dataset: Any, name: str | int) -> float | None:
    """The (first) value as a finite number, or None."""
    found = numbers(dataset, name)
    return found[0] if found else None


def numbers(dataset: Any, name: str | int) -> tuple[float, ...]:
    """All values as finite numbers, or () if one of them is not."""
    value = _value(dataset, name)
    if value is None or isinstance(value, bytes):
        return ()
    if isinstance(value, float | int):
        return (float(value),) if math.isfinite(value) else ()
    several = value if not isinstance(value, str) and hasattr(value, "__iter__") else (value,)
    try:
        found = tuple(float(one) for one in several)
    except (TypeError, ValueError):
        return ()
    return found if all(map(math.isfinite, found)) else ()


def _value(dataset: Any, name: str | int) -> Any:
    # pydicom converts an element when it is asked for; one that violates the standard must not
    # cost the image.
    try:
        found = dataset.get(name)
    except Exception:
        return None
    return found.value if isinstance(name, int) and found is not None else found


def _whole(dataset: Any, name: str) -> int | None:
    found = number(dataset, name)
    return None if found is None else int(found)


def private_marks(dataset: Any) -> dict[str, Any]:
    """The private attributes whose block has the creator that defines them."""
    found: dict[str, Any] = {}
    creators = creators_of(dataset)
    for name, tag, creator in PRIVATE if creators else ():
        # The creator first: other vendors use the same tags, and creators cost less to read.
        place = _place_in(creators, tag, creator)
        values = numbers(dataset, place) if place else ()
        if not values:
            continue
        if name == "component":
            if values[0] in range(len(GE_COMPONENTS)):
                found[name] = GE_COMPONENTS[int(values[0])]
        elif name == "slices":
            found[name] = int(values[0])
        else:
            # GE adds a multiple of 1e9 to tell how the value was given.
            found[name] = values[0] % 1e9 if name == "b_value" else values
    return found


def private_tag(dataset: Any, tag: int, creator: str) -> int:
    """The tag that a private attribute has here: its creator may have reserved another block than
    the usual one of ``tag`` (PS3.5 7.8.1). 0 if the creator has none.
    """
    return _place_in(creators_of(dataset), tag, creator)


def _place_in(creators: dict[int, str], tag: int, creator: str) -> int:
    usual = (tag & 0xFFFF0000) | (tag & 0xFFFF) >> 8
    if creators.get(usual) == creator:
        return tag
    for own, name in creators.items():
        if own >> 16 == tag >> 16 and name == creator:
            return (tag & 0xFFFF0000) | (own & 0xFF) << 8 | tag & 0xFF
    return 0
