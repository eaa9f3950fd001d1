"""Enhanced multi-frame objects: the geometry, rescale and marks of each frame.

They are recognised by their functional groups (PS3.3 C.7.6.16), not by their class: enhanced and
legacy-converted CT, MR and PET, X-ray 3-D, breast tomosynthesis, cone-beam CT. What frames share is
in one sequence, what differs in another; a frame has what either states. An object is refused if
these are different positions or rescales. A real-world value map (C.7.6.16.2.11) replaces a rescale
that is missing if it differs between frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ....core.errors import FormatError
from .marks import Marks, component_of, items_in, kind_of, number, numbers, text
from .mosaic import has_tiles, is_mosaic

# Dimensions that say where a frame is, not what it shows: StackID, InStackPositionNumber,
# ImagePositionPatient, ImagePositionVolume, and the index of the plane position in tiled objects.
PLACES = {0x00209056, 0x00209057, 0x00200032, 0x00209301, 0x0020930E, 0x00209113}
# Of ultrasound volumes, whose frame of reference is the volume and not the patient.
VOLUME_POSITION = ("PlanePositionVolumeSequence", "ImagePositionVolume")
VOLUME_ORIENTATION = ("PlaneOrientationVolumeSequence", "ImageOrientationVolume")
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
INDICES, REAL_WORLD = "DimensionIndexSequence", "RealWorldValueMappingSequence"
# Attributes that shared and per-frame groups may not state differently.
PROVED = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "ImagePositionVolume",
    "ImageOrientationVolume",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
)
# RescaleType, or Units of PET, by the unit of a real-world value map (UCUM).
UNITS = {"Bq/ml": "BQML", "g/ml{SUVbw}": "GML", "{SUVbw}g/ml": "GML", "[hnsf'U]": "HU"}
UNKNOWN = "unit of a map"  # that is none of UNITS
MOST_FRAMES = 1 << 20  # instance numbers of one file leave room for those of another


@dataclass(frozen=True)
class Frame:
    """What one frame states; fields as those of ``file.Plane``. ``slope`` is None without a
    rescale.
    """

    kind: tuple[str, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    between: float
    thick: float
    slope: float | None
    intercept: float
    units: str
    is_mosaic: bool
    marks: Marks
    in_patient: bool = True
    is_unmapped: bool = False  # maps differ between frames, and that of this one is not its rescale


def frames_of(dataset: Any, marks: Marks, count: int) -> list[Frame]:
    """The frames of an object with functional groups; [] of any other.

    Args:
        dataset: the header.
        marks: what it states for all its frames.
        count: NumberOfFrames.

    Raises:
        FormatError: groups are missing, or contradict each other.
    """
    shared, each = (list(items_in(dataset, name)) for name in GROUPS)
    if not each:
        return []
    if len(shared) > 1:
        raise FormatError(f"functional groups that frames share {len(shared)} times")
    if len(each) != count:
        raise FormatError(f"{count} frames, but functional groups of {len(each)}")
    groups = [_Groups(n, one, shared[0] if shared else None) for n, one in enumerate(each)]
    pointers = [int(one.get("DimensionIndexPointer", 0)) for one in items_in(dataset, INDICES)]
    start = int(number(dataset, "ConcatenationFrameOffsetNumber") or 0)
    mapped = {_real_world(one) for one in groups}
    return [_frame(one, marks, pointers, start, len(mapped) > 1) for one in groups]


def flattened(dataset: Any) -> Any:
    """A pydicom dataset with the elements of the functional groups of its first frame."""
    shared, each = (list(items_in(dataset, name))[:1] for name in GROUPS)
    for one in each:
        dataset.update(_Groups(0, one, shared[0] if shared else None).merged())
    return dataset


class _Groups:
    """The functional groups of frame ``n``, from 0."""

    def __init__(self, n: int, own: Any, shared: Any) -> None:
        self.n = n
        self._datasets = [one for one in (own, shared) if one is not None]

    def item(self, name: str) -> Any:
        """The first item of a functional group, own before shared; None if there is none."""
        return next((i[0] for one in self._datasets if (i := list(items_in(one, name)))), None)

    def find(self, name: str, attribute: str) -> tuple[float, ...]:
        """The numbers of an attribute in a functional group, own before shared; () if it has
        none.
        """
        several = [list(items_in(one, name)) for one in self._datasets]
        found = [values for one in several for i in one if (values := numbers(i, attribute))]
        if attribute in PROVED and any(values != found[0] for values in found):
            twice = any(len(items) > 1 for items in several)
            how = "states several" if twice else "has one {} of its own and shares another"
            raise FormatError(
                f"frame {self.n + 1} {how.format(attribute)}" + f" {attribute}" * twice
            )
        return found[0] if found else ()

    def one(self, name: str, attribute: str) -> float | None:
        found = self.find(name, attribute)
        return found[0] if found else None

    def text(self, name: str, attribute: str) -> str:
        item = self.item(name)
        return "" if item is None else text(item, attribute)

    def merged(self) -> Any:
        """The elements of the first items of all groups."""
        from pydicom.dataset import Dataset

        found = Dataset()
        for one in reversed(self._datasets):
            for element in one:
                if element.VR == "SQ" and element.value:
                    found.update(element.value[0])
        return found

    def frame_type(self) -> Any:
        """The item with the FrameType, whose group has a name of its own in each modality."""
        for one in self._datasets:
            for element in one:
                if element.keyword.endswith("FrameTypeSequence") and element.value:
                    return element.value[0]
        return None


def _frame(groups: _Groups, marks: Marks, pointers: list[int], start: int, use_map: bool) -> Frame:
    measures = "PixelMeasuresSequence"
    slope, intercept, units, is_unmapped = _rescale_of(groups, use_map)
    frame_type = groups.frame_type()
    kind = () if frame_type is None else frame_type.get("FrameType") or ()
    kind = kind_of(kind)
    stated = "" if frame_type is None else text(frame_type, "ComplexImageComponent")
    position = groups.find("PlanePositionSequence", "ImagePositionPatient")
    orientation = groups.find("PlaneOrientationSequence", "ImageOrientationPatient")
    in_volume = not position and bool(groups.find(*VOLUME_POSITION))
    return Frame(
        kind=kind,
        position=groups.find(*VOLUME_POSITION) if in_volume else position,
        orientation=groups.find(*VOLUME_ORIENTATION) if in_volume else orientation,
        spacing=groups.find(measures, "PixelSpacing"),
        between=groups.one(measures, "SpacingBetweenSlices") or 0.0,
        thick=groups.one(measures, "SliceThickness") or 0.0,
        slope=slope,
        intercept=intercept,
        units=units,
        # Private elements are those of all frames.
        is_mosaic=has_tiles(kind) or (groups.n == 0 and is_mosaic(groups.merged())),
        marks=_marks(groups, marks, component_of(stated, kind), pointers, start + groups.n),
        in_patient=not in_volume,
        is_unmapped=is_unmapped,
    )


def _rescale_of(groups: _Groups, use_map: bool) -> tuple[float | None, float, str, bool]:
    """Slope, intercept and unit of a frame, and whether its map is another one."""
    rescale = "PixelValueTransformationSequence"
    slope, intercept = groups.one(rescale, "RescaleSlope"), groups.one(rescale, "RescaleIntercept")
    mapped = _real_world(groups)
    is_mapped = slope is None and use_map and mapped is not None
    if is_mapped:
        slope, intercept = mapped or (None, None)
    units = groups.text(rescale, "RescaleType")
    # "US" is unspecified; the unit is that of the map if it has the same scale.
    if units in ("", "US") and slope is not None and mapped == (slope, intercept):
        codes = items_in(groups.item(REAL_WORLD), "MeasurementUnitsCodeSequence")
        other = UNKNOWN if is_mapped else units
        units = next((UNITS.get(text(one, "CodeValue"), other) for one in codes), other)
    is_unmapped = use_map and mapped not in (None, (slope, intercept or 0.0))
    return slope, intercept or 0.0, units, is_unmapped


def _marks(groups: _Groups, marks: Marks, component: str, pointers: list[int], index: int) -> Marks:
    """The marks of a frame: its own, else those of the whole object."""
    content, heart = "FrameContentSequence", "CardiacSynchronizationSequence"
    diffusion = groups.item("MRDiffusionSequence")
    directions = (
        () if diffusion is None else list(items_in(diffusion, "DiffusionGradientDirectionSequence"))
    )
    values = groups.find(content, "DimensionIndexValues")
    own: dict[str, Any] = {
        "component": component,
        "echo_time": groups.one("MREchoSequence", "EffectiveEchoTime"),
        "inversion_time": groups.one("MRModifierSequence", "InversionTimes"),
        "flip_angle": groups.one("MRTimingAndRelatedParametersSequence", "FlipAngle"),
        "b_value": None if diffusion is None else number(diffusion, "DiffusionBValue"),
        "direction": numbers(directions[0], "DiffusionGradientOrientation") if directions else (),
        "temporal": _whole(groups.one(content, "TemporalPositionIndex")),
        "trigger_time": groups.one(heart, "NominalCardiacTriggerDelayTime"),
        "cardiac_phase": groups.one(heart, "NominalPercentageOfCardiacPhase"),
        "respiratory_phase": groups.one(
            "RespiratorySynchronizationSequence", "NominalPercentageOfRespiratoryPhase"
        ),
        "frame_time": groups.one("TemporalPositionSequence", "TemporalPositionTimeOffset"),
        "acquisition": _whole(groups.one(content, "FrameAcquisitionNumber")),
        "acquired": groups.text(content, "FrameAcquisitionDateTime"),
        "kernel": groups.text("CTReconstructionSequence", "ConvolutionKernel"),
        "kvp": groups.one("CTXRayDetailsSequence", "KVP"),
        "stack": groups.text(content, "StackID"),
        "label": groups.text("MRArterialSpinLabelingSequence", "ASLContext").lower(),
        "dimensions": tuple(
            int(value)
            for pointer, value in zip(pointers, values, strict=False)
            if pointer not in PLACES
        ),
        "number": (marks.number or 0) * MOST_FRAMES + index,
    }
    stated = {name: value for name, value in own.items() if value not in (None, "", ())}
    return Marks(**{**vars(marks), **stated})


def _real_world(groups: _Groups) -> tuple[float, float] | None:
    """Slope and intercept of the real-world value map of a frame, if it is linear."""
    slope = groups.one(REAL_WORLD, "RealWorldValueSlope")
    intercept = groups.one(REAL_WORLD, "RealWorldValueIntercept")
    return None if slope is None or intercept is None else (slope, intercept)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
