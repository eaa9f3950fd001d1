"""What headers state about a volume that its geometry and pixels do not show: slices that may be
missing, and rescales that contradict each other.

Nothing here changes a voxel or refuses one: each function returns sentences for ``meta["notes"]``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from .header.file import Plane, Series

SAME_GAP = 0.02  # share by which a gap may differ from a multiple of what is stated
OWN_RESCALE = ("PT", "NM")  # modalities in which every slice has a rescale of its own
MOST_RESCALES = 3  # that are listed
FEWEST, SAME_ANGLE = 3, 0.5  # slices with a direction; degrees


def missing_images(planes: Sequence[Plane], every: Sequence[Plane]) -> tuple[str, ...]:
    """What the numbers of the images say about slices that geometry cannot miss.

    Args:
        planes: of stacks.
        every: all planes of the series, with those that were set aside.
    """
    notes = []
    counts = Counter(one.marks.acquisition for one in planes)
    stated = {one.marks.acquisition: one.marks.images for one in planes if one.marks.images}
    short = [(n, images) for n, images in stated.items() if images > counts[n]]
    if short and len(planes) < max(images for _, images in short):
        notes.append(
            f"ImagesInAcquisition is {short[0][1]}, but {counts[short[0][0]]} images are here: "
            "slices may be missing at an end"
        )
    notes += _fewer_than_counted(planes, every)
    times = {one.marks.temporal for one in planes} - {None}
    most = max((one.marks.temporals or 0 for one in planes), default=0)
    if times and most > len(times):
        notes.append(f"NumberOfTemporalPositions is {most}, but {len(times)} are here")
    numbers = sorted(one.marks.number for one in planes if one.marks.number is not None)
    if len(numbers) == len(planes) > 1 and planes[0].frame is None:
        if numbers[0] > 1:
            notes.append(f"InstanceNumber begins at {numbers[0]}: slices may be missing at an end")
        notes += _left_out({one.path: one.marks.number for one in every}.values(), len(planes))
    return tuple(notes)


def _fewer_than_counted(planes: Sequence[Plane], every: Sequence[Plane]) -> list[str]:
    """Sentences about numbers of slices and files that are larger than those here."""
    notes = []
    places = {tuple(round(mm, 2) for mm in one.position) for one in planes}
    slices = max((one.marks.slices or 0 for one in planes), default=0)
    if slices > len(places):
        notes.append(f"{slices} slices are stated, but {len(places)} are here: some may be missing")
    files = len({one.path for one in every})
    related = max((one.marks.related or 0 for one in every), default=0)
    if related > files:
        notes.append(f"NumberOfSeriesRelatedInstances is {related}, but {files} files are here")
    return notes


def _left_out(numbers: Iterable[int | None], count: int) -> list[str]:
    """A sentence about InstanceNumbers that no file has between the lowest and the highest."""
    known = sorted({one for one in numbers if one is not None})
    if len(known) < max(count, 2):
        return []  # numbers that repeat count something else
    steps = set(np.diff(known).tolist())
    missing = known[-1] - known[0] + 1 - len(known)
    if not missing or (len(steps) > 1 and missing > len(known)):
        return []
    return [
        f"{missing} of the InstanceNumbers from {known[0]} to {known[-1]} are missing: slices may "
        "be missing"
    ]


def doubts_about(series: Series, ordered: Sequence[Plane]) -> tuple[str, ...]:
    """All sentences about the planes of a volume, which are in the order of their positions."""
    return (
        *_wide_gaps(series, ordered),
        *_untilted(ordered),
        *_overruled(ordered),
        *_unmapped(ordered),
        *_mixed_units(series, ordered),
        *_unscaled(ordered),
        *_mixed_signs(ordered),
        *_rescales(series, ordered),
    )


def _wide_gaps(series: Series, ordered: Sequence[Plane]) -> tuple[str, ...]:
    """A sentence about a gap that is a multiple of the one that is stated."""
    first = ordered[0]
    if len(ordered) < 2 or series.fixed or not (first.position and first.orientation):
        return ()
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    extent = np.subtract(ordered[-1].position, first.position) @ normal
    gap = abs(float(extent)) / (len(ordered) - 1)
    between, thick = (
        abs(float(np.median([getattr(one, name) for one in ordered])))
        for name in ("between", "thick")
    )

    def is_near(mm: float, other: float = gap) -> bool:
        return abs(other - mm) <= SAME_GAP * gap

    # Some scanners state the empty space between slices; equal values are distances of centres.
    is_space = bool(between) and is_near(between + thick) and not is_near(between, thick)
    if is_near(between) or is_space:
        return ()
    for name, mm in (("SpacingBetweenSlices", between), ("SliceThickness", thick)):
        times = round(gap / mm) if mm else 0
        if times > 1 and is_near(times * mm):
            share = "every second slice" if times == 2 else f"{times - 1} of {times} slices"
            return (
                f"the slices are {gap:.4g} mm apart, {times} times {name}: {share} may be missing",
            )
    return ()


def _untilted(ordered: Sequence[Plane]) -> tuple[str, ...]:
    """A sentence about a gantry whose angle is not that of the stack."""
    first, last, stated = ordered[0], ordered[-1], ordered[0].marks.tilt
    if len(ordered) < FEWEST or not stated or not (first.position and first.orientation):
        return ()
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    way = np.subtract(last.position, first.position)
    height = abs(float(way @ normal))
    angle = float(np.degrees(np.arctan2(np.linalg.norm(np.cross(way, normal)), height)))
    if abs(angle - abs(stated)) <= SAME_ANGLE:
        return ()
    return (
        f"GantryDetectorTilt is {stated:g} degrees, but the slices are stacked {angle:.2f} degrees "
        "off the normal of their planes",
    )


def _overruled(planes: Sequence[Plane]) -> tuple[str, ...]:
    """A sentence about what files state outside of their functional groups."""
    names = dict.fromkeys(name for one in planes for name in one.overruled)
    if not names:
        return ()
    return (
        f"its frames state another {' and another '.join(names)} than the whole file; those of "
        "the frames are used",
    )


def _unmapped(planes: Sequence[Plane]) -> tuple[str, ...]:
    """A sentence about real-world value maps that are not the rescales of their frames."""
    count = sum(one.is_unmapped for one in planes)
    if not count:
        return ()
    return (
        f"{count} of {len(planes)} frames have a real-world value map that differs between frames "
        "and is not their rescale; the rescale is used",
    )


def _mixed_units(series: Series, planes: Sequence[Plane]) -> tuple[str, ...]:
    """A sentence about slices in different units, of PET also about those without one."""
    counts = Counter(one.units or "none" for one in planes)
    if len(counts) - (series.modality != "PT" and "none" in counts) < 2:
        return ()
    listed = ", ".join(f"{name} ({count} slices)" for name, count in counts.most_common())
    return (f"the slices are in different units: {listed}",)


def _unscaled(planes: Sequence[Plane]) -> tuple[str, ...]:
    """A sentence about slices without a rescale among others that have one."""
    count = sum(not (one.rescaled or one.lookup) for one in planes)
    if count in (0, len(planes)):
        return ()
    return (f"{count} of {len(planes)} slices state no rescale: their stored values are kept",)


def _mixed_signs(planes: Sequence[Plane]) -> tuple[str, ...]:
    """A sentence about slices with signed pixels among unsigned ones."""
    count = sum(one.signed for one in planes)
    if count in (0, len(planes)):
        return ()
    return (f"{count} of {len(planes)} slices have signed pixels (PixelRepresentation)",)


def _rescales(series: Series, planes: Sequence[Plane]) -> tuple[str, ...]:
    """Sentences about slices with a rescale of their own where one is usual, and with a table."""
    notes = []
    if count := sum(one.lookup and one.rescaled for one in planes):
        notes.append(
            f"{count} of {len(planes)} slices state a rescale and a modality lookup table, which "
            "is used"
        )
    counts = Counter((one.slope, one.intercept) for one in planes if one.rescaled)
    if len(counts) > 1 and series.modality not in OWN_RESCALE:
        listed = ", ".join(
            f"slope {slope:g} and intercept {intercept:g} ({count} slices)"
            for (slope, intercept), count in counts.most_common(MOST_RESCALES)
        )
        more = f" and {len(counts) - MOST_RESCALES} others" if len(counts) > MOST_RESCALES else ""
        notes.append(f"the slices have different rescales, each is used: {listed}{more}")
    return tuple(notes)
