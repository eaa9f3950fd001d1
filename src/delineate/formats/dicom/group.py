"""The volumes of a series: its planes, grouped by what tells them apart.

A SeriesInstanceUID does not name a volume: vendors store echoes, b-values, phases and time points
under one. Planes that differ in what a volume must share (patient, modality, frame of reference,
size, orientation, pixel spacing, part of a complex image) are never one volume. All other
attributes may differ within a plain stack (an AcquisitionNumber or a time for each slice), so they
divide planes only if positions repeat, if the planes form no even stack but those with equal values
do, or if even stacks that show different things (echo, b-value, kernel) lie between each other.
Where no attribute tells equal positions apart, the order of acquisition does.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import InputError
from .. import archive
from ..disk import natural_key
from .doubts import missing_images
from .geometry import SAME_DIRECTION, grid_of
from .header.file import Plane, Series, SeriesFacts
from .values import same_values

SAME_PLACE_MM = 0.01
SAME_SPACING = 1e-3  # mm
PLAIN = "plain"  # the name of a volume without what the others have
FEWEST = 3  # planes that prove a stack; two always lie evenly

# ---- what divides planes ----


@dataclass(frozen=True)
class _Mark:
    """An attribute that may tell volumes apart, and how a volume with its value is named: by the
    value, or by its rank among the values of the series ("").
    """

    value: Callable[[Plane], Any]
    name: str
    shown: str = ""  # format of the value


def _of(field: str, digits: int | None = None) -> Callable[[Plane], Any]:
    def value(one: Plane) -> Any:
        found = getattr(one.marks, field)
        return round(found, digits) if digits is not None and found is not None else found

    return value


def _direction(one: Plane) -> tuple[float, ...]:
    return tuple(round(value, 4) for value in one.marks.direction)


KIND = _Mark(lambda one: one.kind, "")  # ImageType
# In the order in which they are tried: what an image shows comes before when it was acquired.
SHOWN = (
    _Mark(_of("stack"), "stack", "{}"),
    KIND,
    _Mark(_of("echo"), "echo", "{}"),
    _Mark(_of("echo_time", 3), "te", "{:g}"),
    _Mark(_of("inversion_time", 3), "ti", "{:g}"),
    _Mark(_of("flip_angle", 3), "fa", "{:g}"),
    _Mark(_of("b_value", 1), "b", "{:g}"),
    _Mark(_direction, "dir"),
    _Mark(_of("label"), "", "{}"),
    _Mark(_of("kernel"), "", "{}"),
    _Mark(_of("kvp", 1), "kv", "{:g}"),
)
PHASES = (
    _Mark(_of("cardiac_phase", 2), "phase", "{:g}"),
    _Mark(_of("respiratory_phase", 2), "resp", "{:g}"),
    _Mark(_of("temporal"), "t"),
)
ACQUISITION = _Mark(_of("acquisition"), "acq", "{}")
SERIES_NUMBER = _Mark(_of("series_number"), "series", "{}")
MARKS = (
    *SHOWN,
    *PHASES,
    _Mark(_of("dimensions"), "d"),
    _Mark(_of("trigger_time", 3), "t"),
    _Mark(_of("frame_time", 3), "t"),
    ACQUISITION,
    _Mark(_of("acquired"), "t"),
    _Mark(_of("content_time"), "t"),
    SERIES_NUMBER,
    _Mark(_of("comment"), "comment"),
)
# Identifiers that all planes of a volume share, and how parts are named that differ in them: by the
# value, or by this word and the rank of the value. Names are those of patients without an ID.
SHARED: tuple[tuple[Callable[[Plane], str], str], ...] = (
    (lambda one: one.marks.patient, "patient"),
    (lambda one: "" if one.marks.patient else one.marks.name, "patient"),
    (lambda one: one.marks.issuer, "issuer"),  # who gave the patient this ID
    (lambda one: one.marks.modality.lower(), ""),
    (lambda one: one.marks.frame_of_reference, "frame"),
    (lambda one: one.marks.component, ""),
)
# What files of one PatientID may not state differently.
ONE_PERSON = (("names", "name"), ("dates of birth", "birth"), ("sexes", "sex"))
# Attributes that all files of a series state, or none.
NEEDED = (
    ("PatientID", "patient"),
    ("Modality", "modality"),
    ("FrameOfReferenceUID", "frame_of_reference"),
)
# The order of acquisition, and how a note names it.
ORDERS = (
    (_of("temporal"), "temporal position"),
    (_of("cardiac_phase"), "cardiac phase"),
    (_of("respiratory_phase"), "respiratory phase"),
    (_of("trigger_time"), "trigger time"),
    (_of("frame_time"), "frame reference time"),
    (_of("acquired"), "acquisition time"),
    (_of("acquisition"), "acquisition number"),
    (_of("number"), "instance number"),
    # Images may be reconstructed in another order than they were acquired.
    (_of("content_time"), "content time"),
)


@dataclass(frozen=True)
class _Part:
    """Planes of one volume, the words of its name, and sentences about it; ``problem`` is why they
    are no volume.
    """

    planes: tuple[Plane, ...]
    words: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""


def volumes(planes: Sequence[Plane], facts: SeriesFacts) -> list[Series]:
    """The volumes of the planes that share a SeriesInstanceUID, in the order of their values.

    Files that are no part of a stack (localisers, colour, dose pages) are set aside if the others
    are one.

    Returns:
        At least one series; a series whose planes are no volume is refused by ``layout``.
    """
    ordered = sorted(
        planes, key=lambda one: (natural_key(one.path), one.frame or 0, one.tile or ())
    )
    kept, aside, notes = _set_aside(ordered)
    kept, copies, clash = _without_copies(kept)
    problem = clash or _missing_parts(kept)
    if not problem and all(one.is_flat for one in kept):
        return _images(kept, facts, (*notes, *copies))
    notes = (*notes, *copies, *missing_images(kept, ordered), *_several_stated(kept))
    stated = {one.name: getattr(facts, one.name) for one in fields(SeriesFacts)}
    found = []
    for shared, members in _apart(kept).items():
        parts = _divided(_Part(members))
        fullest = max(len(part.planes) for part in parts)
        for part in parts:
            incomplete = (
                (f"has {len(part.planes)} of the {fullest} slices of the other volumes",)
                if len(parts) > 1 and len(part.planes) < fullest
                else ()
            )
            found.append(
                Series(
                    **stated | _facts_of_part(part.planes[0]),
                    files=tuple(dict.fromkeys(one.path for one in part.planes)),
                    planes=part.planes,
                    part="_".join(word for word in (shared, *part.words) if word),
                    family=shared,
                    notes=(*notes, *part.notes, *incomplete),
                    set_aside=aside,
                    problem=problem or part.problem,
                )
            )
    return _with_unique_parts(found)


def _facts_of_part(one: Plane) -> dict[str, str]:
    """What parts of a series may state differently."""
    marks = one.marks
    return {"patient_id": marks.patient, "study": marks.study, "modality": marks.modality}


def _several_stated(planes: Sequence[Plane]) -> tuple[str, ...]:
    """Sentences about several persons under one PatientID, whose names are not part of it, about
    what some files do not state, and about several studies.
    """
    notes = []
    for words, field in ONE_PERSON:
        stated: dict[str, set[str]] = defaultdict(set)
        for one in planes:
            stated[one.marks.patient].add(getattr(one.marks, field))
        several = max((len(of - {""}) for patient, of in stated.items() if patient), default=0)
        if several > 1:
            notes.append(f"its files state {several} {words} of one PatientID")
    if len(poses := {one.marks.pose for one in planes} - {""}) > 1:
        notes.append(
            f"its files state several values of PatientPosition: {', '.join(sorted(poses))}"
        )
    for name, field in NEEDED:
        files = {one.path: getattr(one.marks, field) for one in planes}
        if 0 < (count := sum(not stated for stated in files.values())) < len(files):
            notes.append(f"{count} of its {len(files)} files state no {name}, as the others do")
    # Some archives give each file a study of its own.
    studies = len({one.marks.study for one in planes})
    if 1 < studies < len(planes):
        notes.append(f"its files are of {studies} studies")
    return tuple(notes)


def _images(planes: Sequence[Plane], facts: SeriesFacts, notes: tuple[str, ...]) -> list[Series]:
    """2-D images as volumes of their own, named by their file and frame."""
    files = list(dict.fromkeys(one.path for one in planes))
    digits = len(str(max(one.frames for one in planes)))
    found = []
    for one in planes:
        words = [f"image{files.index(one.path) + 1}"] if len(files) > 1 else []
        clip = "_".join(words)
        words += [] if one.frame is None else [f"frame{one.frame + 1:0{digits}d}"]
        found.append(
            Series(
                **vars(facts) | {"patient_id": one.marks.patient},
                files=(one.path,),
                planes=(one,),
                part="_".join(words),
                family=clip,
                notes=notes,
            )
        )
    return found


def _with_unique_parts(found: Sequence[Series]) -> list[Series]:
    counts, seen = Counter(one.part for one in found), Counter[str]()
    named = []
    for one in found:
        seen[one.part] += 1
        number = f"{one.part}_{seen[one.part]}" if one.part else str(seen[one.part])
        named.append(replace(one, part=number) if counts[one.part] > 1 else one)
    return named


# ---- files that are no part of a stack ----


def _set_aside(
    planes: Sequence[Plane],
) -> tuple[list[Plane], tuple[tuple[Path, str], ...], tuple[str, ...]]:
    """The planes of stacks, the files without one, with the reason, and notes about these and about
    single frames; all planes are kept if there is no stack.
    """
    stacked = [one for one in planes if not _reason(one)]
    kinds = {(one.sop_class, one.kind) for one in stacked}
    kept: list[Plane] = []
    aside: dict[tuple[Path, str], int] = Counter()
    for one in planes:
        reason = _reason(one)
        # A slice of the stack that lacks its position is a fault of the stack.
        if not stacked or not reason or (reason == NO_PLACE and (one.sop_class, one.kind) in kinds):
            kept.append(one)
        else:
            aside[one.path, reason] += 1
    files = {one.path: one for one in kept}
    notes = tuple(
        f"{count} of {files[path].frames} frames of {path.name} "
        f"{'is' if count == 1 else 'are'} set aside: {reason}"
        if path in files
        else f"{path.name} is set aside: {reason}"
        for (path, reason), count in aside.items()
    )
    return kept, tuple(one for one in aside if one[0] not in files), notes


NO_PLACE = "has no position and orientation"


def _reason(one: Plane) -> str:
    """Why a plane is no slice of a stack; "" if it may be one."""
    if one.samples != 1 or one.photometric == "PALETTE COLOR":
        return "a colour image"
    if "LOCALIZER" in one.kind:
        return "a localiser"
    if one.problem:
        return one.problem
    return "" if one.position and one.orientation else NO_PLACE


def _without_copies(planes: Sequence[Plane]) -> tuple[list[Plane], tuple[str, ...], str]:
    """Each plane once; a note for planes that several files hold, and why the series is refused if
    files with one SOPInstanceUID differ.
    """
    first: dict[tuple[Any, ...], Plane] = {}
    copies: dict[Path, Path] = {}
    kept = []
    for one in planes:
        known = first.setdefault((one.instance or one.path, one.frame, one.tile), one)
        if known is one:
            kept.append(one)
        elif (known.path, one.path) not in copies.items():
            if not _is_copy(one, known):
                clash = (
                    f"{known.path.name} and {one.path.name} have the same SOPInstanceUID and differ"
                )
                return list(planes), (), clash
            copies[one.path] = known.path
    if not copies:
        return kept, (), ""
    copy, original = next(iter(copies.items()))
    what = (
        "1 file is an exact copy and is"
        if len(copies) == 1
        else f"{len(copies)} files are exact copies and are"
    )
    note = f"{what} not counted ({copy.name} of {original.name})"
    return kept, (note,), ""


def _is_copy(one: Plane, other: Plane) -> bool:
    """Whether two files hold the same planes: header and pixels."""
    if _same_bytes(one.path, other.path):
        return True
    header = replace(one, path=other.path, marks=other.marks, frame=other.frame)
    return header == other and same_values(one, other)


def _same_bytes(one: Path, other: Path) -> bool:
    with archive.opened(one) as first, archive.opened(other) as second:
        while True:
            found = first.read(1 << 20)
            if found != second.read(1 << 20):
                return False
            if not found:
                return True


# ---- what a volume shares ----


def _apart(planes: Sequence[Plane]) -> dict[str, tuple[Plane, ...]]:
    """The planes by what all slices of a volume share, with a name ("" if all share it)."""
    several = [len({value(one) for one in planes} - {""}) > 1 for value, _ in SHARED]
    # A plane that lacks one of them belongs to the others, as a fault of their stack.
    orientations = [next((one.orientation for one in planes if one.orientation), ())]
    spacings = [next((one.spacing for one in planes if one.spacing), ())]
    groups: dict[tuple[Hashable, ...], list[Plane]] = defaultdict(list)
    for one in planes:
        stated = (
            value(one) if more else "" for (value, _), more in zip(SHARED, several, strict=True)
        )
        key = (
            *stated,
            (one.columns, one.rows),
            _nearest(one.orientation, orientations, SAME_DIRECTION),
            _nearest(one.spacing, spacings, SAME_SPACING),
        )
        groups[key].append(one)
    names = _names(list(groups), orientations, spacings)
    return {name: tuple(found) for name, found in zip(names, groups.values(), strict=True)}


def _nearest(vector: tuple[float, ...], known: list[tuple[float, ...]], tolerance: float) -> int:
    """The index of an equal vector among ``known``, to which a new one is added; 0 for none."""
    for index, other in enumerate(known):
        if not vector or all(abs(a - b) <= tolerance for a, b in zip(vector, other, strict=True)):
            return index
    known.append(vector)
    return len(known) - 1


def _names(
    keys: Sequence[tuple[Any, ...]],
    orientations: Sequence[tuple[float, ...]],
    spacings: Sequence[tuple[float, ...]],
) -> list[str]:
    """A name for each group, from what differs. Identifiers of patients are not part of it."""

    def identified(column: int, word: str) -> Callable[[Any], str]:
        values = sorted({key[column] for key in keys})
        return lambda value: f"{word}{values.index(value) + 1}" if word else value or PLAIN

    shown: tuple[Callable[[Any], str], ...] = (
        *(identified(n, word) for n, (_, word) in enumerate(SHARED)),
        lambda value: f"{value[0]}x{value[1]}",
        lambda value: _plane_name(orientations[value]),
        lambda value: "x".join(f"{mm:.3g}" for mm in spacings[value]) + "mm",
    )
    differ = [n for n in range(len(shown)) if len({key[n] for key in keys}) > 1]
    names = ["_".join(shown[n](key[n]) for n in differ) for key in keys]
    total, seen = Counter(names), Counter[str]()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(f"{name}{seen[name]}" if total[name] > 1 else name)
    return unique


def _plane_name(orientation: tuple[float, ...]) -> str:
    """The nearest anatomical plane."""
    if len(orientation) != 6:
        return "unplaced"
    normal = np.abs(np.cross(orientation[:3], orientation[3:]))
    return ("sagittal", "coronal", "axial")[int(np.argmax(normal))]


# ---- repeated positions ----


def _divided(part: _Part) -> list[_Part]:
    """Divide planes until no position repeats."""
    places = _places(part.planes)
    counts = Counter(places)
    most = max(counts.values())
    if most == 1:
        if not _is_even(part.planes):
            return _by_even_parts(part) or [part]
        return _by_interleaved_parts(part) or [_with_differences(part)]
    whole = _by_whole_volumes(part, places)
    if whole:
        return [one for inner in whole for one in _divided(inner)]
    found = (
        _by_unequal_volumes(part, places, most)
        or _by_order(part, places)
        or _by_number(part, places)
    )
    problem = (
        f"{len(places)} slices at {len(counts)} positions, up to {most} at one, and no attribute "
        "(such as the echo, b-value, time or instance number) tells the volumes apart "
        f"({_repeated(part.planes, places)})"
    )
    return found or [replace(part, problem=problem)]


def _by_whole_volumes(part: _Part, places: Sequence[int]) -> list[_Part]:
    """Parts by the first attribute whose every value is at every position."""
    for mark in MARKS:
        values = _by_value(mark, part.planes)
        if len(values) > 1 and all(
            {places[n] for n in members} == set(places) for members in values.values()
        ):
            return _named(part, mark, values)
    return []


def _by_unequal_volumes(part: _Part, places: Sequence[int], most: int) -> list[_Part]:
    """Volumes that are not complete, or overlap: parts by the first attribute for each value of
    which no position repeats.
    """
    for mark in MARKS:
        values = _by_value(mark, part.planes)
        if any(len({places[n] for n in members}) < len(members) for members in values.values()):
            continue
        found = _named(part, mark, values)
        if len(values) == most or all(
            len(one.planes) >= FEWEST and _is_even(one.planes) for one in found
        ):
            return found
    return []


def _repeated(planes: Sequence[Plane], places: Sequence[int]) -> str:
    """The names of two files at one position."""
    first: dict[int, Plane] = {}
    for one, place in zip(planes, places, strict=True):
        if place in first:
            return f"{first[place].path.name} and {one.path.name} have the same position"
        first[place] = one
    return ""


def _places(planes: Sequence[Plane]) -> list[int]:
    """For each plane the index of its position; planes at one position have equal ones."""
    positions = np.array([one.position or (np.nan,) * 3 for one in planes], float)
    orientation = planes[0].orientation
    if len(orientation) != 6 or np.isnan(positions).any():
        return list(range(len(planes)))
    pixel = min((mm for one in planes for mm in one.spacing if mm > 0), default=1.0)
    tolerance = min(SAME_PLACE_MM, 0.1 * pixel)
    heights = positions @ np.cross(orientation[:3], orientation[3:])
    order = np.argsort(heights, kind="stable")
    # Planes of equal height, then those of them at the same position within it.
    places = [0] * len(planes)
    leaders: list[int] = []
    first = 0
    for n in order:
        while first < len(leaders) and heights[n] - heights[leaders[first]] > tolerance:
            first += 1
        for index in range(first, len(leaders)):
            if np.abs(positions[n] - positions[leaders[index]]).max() <= tolerance:
                places[n] = index
                break
        else:
            places[n] = len(leaders)
            leaders.append(int(n))
    return places


def _by_value(mark: _Mark, planes: Sequence[Plane]) -> dict[Any, list[int]]:
    """The indices of the planes of each value."""
    values: dict[Any, list[int]] = defaultdict(list)
    for n, one in enumerate(planes):
        values[mark.value(one)].append(n)
    return values


def _named(part: _Part, mark: _Mark, values: dict[Any, list[int]]) -> list[_Part]:
    """A part for each value, in the order of the values."""
    ordered = sorted(values, key=_sorting)
    digits = max(2, len(str(len(ordered)))) if mark.name != "t" else 3
    found = []
    for rank, value in enumerate(ordered, start=1):
        if mark is KIND:
            word = _differing(value, ordered)
        elif value in (None, "", ()):
            word = f"no_{mark.name}" if mark.name else "none"
        elif mark.shown:
            word = mark.name + mark.shown.format(value).lower()
        else:
            word = f"{mark.name}{rank:0{digits}d}"
        planes = tuple(part.planes[n] for n in values[value])
        found.append(replace(part, planes=planes, words=(*part.words, word)))
    return found


def _differing(kind: tuple[str, ...], others: Sequence[tuple[str, ...]]) -> str:
    """The words of an ImageType that not all others have."""
    shared = set(others[0]).intersection(*others[1:])
    return "_".join(word.lower() for word in kind if word not in shared) or PLAIN


def _sorting(value: Any) -> tuple[bool, Any]:
    """Values that are not stated come first."""
    return (value is not None, value if value is not None else 0)


def _is_even(planes: Sequence[Plane]) -> bool:
    try:
        grid_of(planes)
    except InputError:
        return False
    return True


def _by_even_parts(part: _Part) -> list[_Part]:
    """Parts of a stack with uneven gaps that are even: those of the first attribute for which all
    of them are; none if there is no such attribute.
    """
    for mark in MARKS:
        values = _by_value(mark, part.planes)
        fewest = 1 if mark is KIND else 2
        sizes = [len(members) for members in values.values()]
        if len(sizes) < 2 or min(sizes) < fewest or max(sizes) < FEWEST:
            continue
        found = _named(part, mark, values)
        if all(_is_even(one.planes) for one in found):
            note = f"{len(found)} stacks are distinguished by their gaps"
            return [replace(one, notes=(*one.notes, note)) for one in found]
    return []


def _by_interleaved_parts(part: _Part) -> list[_Part]:
    """Parts of an even stack that show different things, lie between each other and are even
    stacks themselves; none if there are no such parts.
    """
    for mark in SHOWN:
        values = _by_value(mark, part.planes)
        if len(values) < 2 or min(map(len, values.values())) < FEWEST:
            continue
        found = _named(part, mark, values)
        if _lie_between(found) and all(_is_even(one.planes) for one in found):
            return [one for inner in found for one in _divided(inner)]
    return []


def _lie_between(parts: Sequence[_Part]) -> bool:
    """Whether each part begins before the one below it ends."""
    spans = sorted(_span(one.planes) for one in parts)
    return all(low < end for (_, end), (low, _) in pairwise(spans))


def _span(planes: Sequence[Plane]) -> tuple[float, float]:
    """The lowest and highest place along the normal, in mm."""
    orientation = planes[0].orientation
    heights = [
        float(np.dot(one.position, np.cross(orientation[:3], orientation[3:]))) for one in planes
    ]
    return min(heights), max(heights)


def _with_differences(part: _Part) -> _Part:
    """A stack with a note about what several of its slices each show or state differently."""
    notes = []
    for mark in (*SHOWN, *PHASES, ACQUISITION, SERIES_NUMBER):
        values = _by_value(mark, part.planes)
        if len(values) > 1 and min(map(len, values.values())) >= FEWEST:
            found = _named(part, mark, values)
            # Beds and breaths follow each other.
            if mark is ACQUISITION and not _lie_between(found):
                continue
            listed = ", ".join(f"{one.words[-1]} ({len(one.planes)})" for one in found)
            notes.append(f"the slices of this stack differ: {listed}")
    return replace(part, notes=(*part.notes, *notes))


def _by_order(part: _Part, places: Sequence[int]) -> list[_Part]:
    """Volumes of planes that are equally often at each position, in the order of acquisition; none
    if no attribute orders them.
    """
    at: dict[int, list[Plane]] = defaultdict(list)
    for one, place in zip(part.planes, places, strict=True):
        at[place].append(one)
    count = len(at[0])
    if any(len(members) != count for members in at.values()):
        return []
    for value, name in ORDERS:
        if all(
            len({value(one) for one in members} - {None, ""}) == count for members in at.values()
        ):
            ranked = [sorted(members, key=value) for members in at.values()]
            note = f"{count} volumes at the same positions are in the order of their {name}"
            return [
                replace(
                    part,
                    planes=tuple(members[n] for members in ranked),
                    words=(*part.words, f"t{n + 1:03d}"),
                    notes=(*part.notes, note),
                )
                for n in range(count)
            ]
    return []


def _by_number(part: _Part, places: Sequence[int]) -> list[_Part]:
    """Volumes of a series that was interrupted: instance numbers follow the same order of positions
    in each volume. None if they do not.
    """
    numbers = [one.marks.number for one in part.planes]
    if None in numbers or len(set(numbers)) < len(numbers):
        return []
    order = sorted(range(len(places)), key=lambda n: numbers[n] or 0)
    size = len(set(places))
    # The order of positions within a volume, by the first volume that is complete.
    cycle: dict[int, int] = {}
    start = 0
    for begin in range(len(order) - size + 1):
        run = order[begin : begin + size]
        steps = [numbers[n] or 0 for n in run]
        if len({places[n] for n in run}) == size and steps[-1] - steps[0] == size - 1:
            cycle, start = {places[n]: k for k, n in enumerate(run)}, steps[0]
            break
    if not cycle:
        return []
    # Every other plane must be where its number says.
    found: dict[int, list[Plane]] = defaultdict(list)
    for n in order:
        volume, rank = divmod((numbers[n] or 0) - start, size)
        if rank != cycle[places[n]]:
            return []
        found[volume].append(part.planes[n])
    note = f"{len(found)} volumes at the same positions are in the order of their instance number"
    return [
        replace(
            part,
            planes=tuple(found[volume]),
            words=(*part.words, f"t{n:03d}"),
            notes=(*part.notes, note),
        )
        for n, volume in enumerate(sorted(found), start=1)
    ]


# ---- missing parts ----


def _missing_parts(planes: Sequence[Plane]) -> str:
    """Why files are no whole concatenations: an object that was cut into several, of which a stack
    may lack an end, or a series points in time, without a gap that would be noticed. "" if they
    are, or belong to none.
    """
    files = {one.path: one for one in planes if one.concatenation}
    several: dict[str, list[Plane]] = defaultdict(list)
    for one in files.values():
        several[one.concatenation[0] if one.concatenation else ""].append(one)
    return next((why for parts in several.values() if (why := _unlike_a_whole(parts))), "")


def _unlike_a_whole(parts: Sequence[Plane]) -> str:
    """Why planes, one of each part of a concatenation, are no whole; "" if they are."""
    stated = [(one.concatenation or ("", None, None, None))[1:] for one in parts]
    totals = {total for _, _, total in stated if total}
    files = {
        n: (offset, one.frames) for (n, offset, _), one in zip(stated, parts, strict=True) if n
    }
    if len(files) < len(parts) or len(totals) > 1:
        return "parts of a concatenation without a number, or with contradictory ones"
    last = int(max({*totals, *files}))
    if missing := [str(n) for n in range(1, last + 1) if n not in files]:
        named = f"parts {', '.join(missing)}" if len(missing) > 1 else f"part {missing[0]}"
        return f"{named} of {last} of a concatenation missing"
    end = 0
    for n, (offset, frames) in sorted(files.items()):
        if offset is not None and offset != end:
            return f"part {n:g} of a concatenation begins at frame {offset:g}, not at {end}"
        end += frames
    return ""
