"""The structures of a cohort's masks, derived from the label files.

Some files are read, and what most of them agree on is the rule. The file that differs is reported
and makes no structure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ....core.errors import LabelError
from ....core.labels import (
    MOST_OVERLAPPING,
    LabelMapping,
    LabelSet,
    Range,
)
from ....core.manifest import Source
from ....extend.findings import Draft, Finding
from ....formats import dicom
from ..structures import named
from ..tree import has_dicom_mark, is_raster
from .colour_scales import ColourScale, evenly_grey, scale_of
from .files import SMOOTHED_VALUES, MaskFile, read_files, sample_of

MOST_COLOURS = 64  # more colours than this are not a palette of structures
SMOOTHED_SHARE = 0.8  # see _has_smoothed_edges
STRAY_VOXELS = 8  # a value in so few voxels of one file alone is a slip of the pen
AGREEING = 5  # files that agree on their values; the one that differs is then refused
# Masks whose values count objects: share of them, and the largest number at least.
AGREEING_OBJECTS, FEWEST_OBJECTS = 0.8, 5
MOST_OBJECTS = 2**31 - 1
BACKGROUND_NAME = "background"
IGNORED_NAMES = ("ignore", "ignored", "void")
USUAL_IGNORED = 255  # marks voxels of unknown truth in many data sets
ONE_MASK = ((1, 255), (1, 65535), (255, 65535))  # the same mask, stored with different maxima


def derive(draft: Draft) -> None:
    """Set ``draft.labels`` and ``draft.mapping`` from the values in the label files.

    All files are read, or an evenly spaced sample of a large cohort. What most files agree on is
    the rule; the file that differs is reported. Rules: segments that the files name are structures
    by name; each colour is a structure, and each channel, except one that is the background of the
    others; an index of a palette is a value; a single value is one structure ("foreground" unless
    the layout names it); values are matched to value ranges only if the layout defines some
    (CHAOS); 2-D masks with smoothed edges are thresholded at 128; otherwise each value is a
    structure.

    Values in ``draft.ignore`` make no structure. Without ground truth the labels are empty. If no
    file contains a structure, they are empty too, and ``draft.refusal`` gives the reason.

    Raises:
        LabelError: too many colours, or values outside 0..65535 in most files.
    """
    # Read a sample of the label files.
    with_truth = [c for c in draft.cases if c.label]
    chosen = list(sample_of(with_truth))
    if not chosen:
        draft.labels = LabelSet(())
        return
    found, errors = read_files(chosen, draft)
    if not any(one.counts or one.colours or one.channels for one in found):
        draft.labels = LabelSet(())
        draft.refusal = errors[0] if errors else "all label files are empty: all values are 0"
        return
    # Decide what the values mean, and report it.
    raster = _is_picture(chosen[0].label[0])
    alike = _of_common_form(draft, found)
    background = _background(alike, draft)
    if (scale := _scale(draft, alike, background)) is not None:
        # Every file counts: the colours of one may be scaled by its own highest label.
        if len(chosen) < len(with_truth):
            alike = _of_common_form(draft, read_files(with_truth, draft)[0])
            scale = _scale(draft, alike, background) or scale
        draft.labels, draft.mapping = _scale_structures(draft, alike, scale)
    else:
        outside = _value_outside(alike, draft) if background is None else None
        alike = alike if background is None else [one.without(background) for one in alike]
        if outside is not None:
            draft.labels, draft.mapping = _with_zero_inside(alike, draft, outside)
        else:
            draft.labels, draft.mapping = _declared(draft, alike, raster)
            draft.mapping = _with_background(draft, draft.labels, background)
    shown = ", ".join(draft.labels.names[:8]) + (" ..." if len(draft.labels) > 8 else "")
    message = (
        f"structures were derived from the values in {len(chosen)} of {len(with_truth)} label "
        f"files: {shown}"
    )
    draft.note("values", message, read=len(chosen), of=len(with_truth))


def _is_picture(one: Source) -> bool:
    """Whether a mask is a 2-D image, or slices that have the geometry of their scan."""
    path = Path(one.path)
    return bool(one.like) or is_raster(path) or (has_dicom_mark(path) and dicom.is_flat_image(path))


def _of_common_form(draft: Draft, found: Sequence[MaskFile]) -> list[MaskFile]:
    """The files of the most common form; each of the others is an error of its case."""
    # An empty mask has no form of its own.
    full = [one for one in found if one.counts or one.colours or one.channels]
    forms = Counter(one.form for one in full)
    common = forms.most_common(1)[0][0]
    for one in full:
        if one.form != common:
            draft.problem(
                one.case,
                "values",
                f"the mask has {one.form}, but {forms[common]} of {len(full)} have {common}",
                path=one.path,
            )
    return [one for one in full if one.form == common]


def _background(found: Sequence[MaskFile], draft: Draft) -> int | None:
    """The value or colour of the background if it is not 0 or black: no mask has 0, and all corners
    of all masks have this one; None if that is not so, or the user's table names it.
    """
    corners = {one.corner for one in found}
    value = next(iter(corners))
    named_ = {**draft.names, **draft.colours}.get(value, BACKGROUND_NAME)
    others = any(one.codes - {value} for one in found)
    if len(corners) > 1 or not value or any(one.has_zero for one in found) or not others:
        return None
    if named_.casefold() != BACKGROUND_NAME:
        return None
    return value


def _value_outside(found: Sequence[MaskFile], draft: Draft) -> int | None:
    """The value of the background if 0 is a structure: all corners of all masks have it, there is
    another value, and 0 is inside the picture in every mask (an optic cup of 0 in a disc of 128).
    """
    corners = {one.corner for one in found}
    values = frozenset().union(*(one.counts for one in found))
    if len(corners) > 1 or 0 in corners or len(values) < 2 or set(draft.names) & corners:
        return None
    is_inside = all(one.has_zero and not one.zero_at_border for one in found)
    return corners.pop() if is_inside else None


def _with_zero_inside(
    found: Sequence[MaskFile], draft: Draft, outside: int
) -> tuple[LabelSet, LabelMapping]:
    values = sorted(frozenset().union(*(one.counts for one in found)) - {outside})
    number = {v: n for n, v in enumerate([*values, 0], start=1)}
    words = (
        f"all corners of every mask have the value {outside}, and 0 is inside the picture: "
        f"{outside} is the background and 0 a structure"
    )
    draft.findings.append(Finding("", "values", "warning", words, {"value": outside}))
    labels = LabelSet.from_names({n: draft.names.get(v, f"label {v}") for v, n in number.items()})
    return labels, LabelMapping(values=(*number.items(), (outside, 0)))


def _with_background(draft: Draft, labels: LabelSet, background: int | None) -> LabelMapping:
    """The mapping with ``background`` as 0, and a warning."""
    mapping = draft.mapping
    if background is None:
        return mapping
    shown = f"#{background:06x}" if mapping.rgb else background
    words = (
        f"all corners of every mask have the value {shown}, and no mask has 0: {shown} is the "
        "background; to keep it, select the structures with --labels"
    )
    draft.findings.append(Finding("", "values", "warning", words, {"value": background}))
    if mapping.rgb:
        code = background >> 16, background >> 8 & 255, background & 255
        return replace(mapping, rgb=(*mapping.rgb, (code, 0)))
    values = mapping.values or tuple((v, v) for v in labels.values)
    return replace(mapping, values=(*values, (background, 0)))


def _scale(draft: Draft, found: Sequence[MaskFile], background: int | None) -> ColourScale | None:
    """The colour scale of a plotting program with which the masks were drawn, if there is one."""
    if found[0].channels or any(one.names for one in found):
        return None
    codes = [one.codes for one in found]
    if background is None:
        if found[0].colours:
            return None
        tables = [frozenset(table) for table in draft.editions]
        return evenly_grey(codes, [] if draft.names else tables)
    scale = scale_of(codes, grey=not found[0].colours)
    return scale if scale is not None and scale.labels.get(background) == 0 else None


def _scale_structures(
    draft: Draft, found: Sequence[MaskFile], scale: ColourScale
) -> tuple[LabelSet, LabelMapping]:
    """The labels of a colour scale. Cases whose colours do not tell their labels are errors, and
    left out.
    """
    for n in scale.unclear:
        draft.problem(
            found[n].case,
            "values",
            f"the colours were scaled by the highest label of this slice, which is not known "
            f"({scale.name}: {len(found[n].codes)} colours, others have "
            f"{max(scale.labels.values()) + 1}); store labels as values",
            path=found[n].path,
        )
    unclear = {found[n].case for n in scale.unclear}
    draft.cases = [case for case in draft.cases if case.id not in unclear]
    clear = [one for n, one in enumerate(found) if n not in scale.unclear]
    pairs = sorted(
        (scale.labels[code], code) for code in frozenset().union(*(one.codes for one in clear))
    )
    draft.note("values", f"the masks were drawn with the colour scale {scale.name}")
    values = sorted({label for label, _ in pairs} - {0})
    _choose_names(draft, values)
    labels = named(values, draft.names)
    if len(values) == 1:
        labels = LabelSet.from_names({values[0]: _name_of_one(1, draft)})
    if not found[0].colours:
        return labels, LabelMapping(values=tuple((code, label) for label, code in pairs))
    return labels, LabelMapping(
        rgb=tuple(((c >> 16, c >> 8 & 255, c & 255), label) for label, c in pairs)
    )


def _choose_names(draft: Draft, values: Iterable[int]) -> None:
    """Set the names of the one published table in ``draft.editions`` that has all values; a warning
    if several tables have them.
    """
    fitting = [table for table in draft.editions if set(values) <= set(table)]
    if draft.names or not fitting:
        return
    agreed = {v: n for v, n in fitting[0].items() if all(t.get(v) == n for t in fitting)}
    if set(values) <= set(agreed):
        draft.names, draft.usual = dict(fitting[0]), True
        shown = ", ".join(f"{v} {draft.names[v]}" for v in values)
        draft.note("names", f"structures are called as in the published data set: {shown}")
        return
    tables = " or ".join(", ".join(f"{v} {t[v]}" for v in sorted(values)) for t in fitting)
    draft.problem(
        "",
        "names",
        f"the values have another meaning in each edition of this data set ({tables}); name them "
        "with --labels",
        "warning",
    )


def _in_several(found: Sequence[MaskFile]) -> list[int]:
    """The values that more than one file has; all values of few files."""
    files_with = Counter(v for one in found for v in one.counts)
    return [v for v, n in files_with.items() if n > 1 or len(found) < AGREEING]


def _name_of_one(value: int, draft: Draft) -> str:
    """The name of the only structure, stored as ``value``."""
    if value not in draft.names and draft.only:
        draft.note("names", f"the one structure is called {draft.only}, as the paths state")
    return draft.names.get(value) or draft.only or "foreground"


def _declared(
    draft: Draft, found: Sequence[MaskFile], raster: bool
) -> tuple[LabelSet, LabelMapping]:
    """The structures and the mapping for the files that were read; the rules are in ``derive``."""
    # A file of background alone has no colour left.
    if any(one.colours for one in found):
        _refuse_lossy_colours(found)
        if not draft.colours and _are_objects(found):
            return _one_of_objects(found, draft)
        codes = frozenset().union(*(one.colours for one in found))
        return _colour_structures(codes, draft, any(one.is_lossy for one in found))
    if found[0].channels:
        return _channel_structures(found, draft)
    if _palettes_contradict(found):
        draft.note("values", "the palettes of the masks differ, so colours are the structures")
        return _colour_structures({c for one in found for c in one.palette.values()}, draft)
    return _named_structures(found, draft) or _value_structures(draft, found, raster)


def _value_structures(
    draft: Draft, found: Sequence[MaskFile], raster: bool
) -> tuple[LabelSet, LabelMapping]:
    """The structures of masks with one channel of values without names of their own."""
    total: Counter[int] = Counter()
    for one in found:
        total.update(one.counts)
    _warn_of_background(found, draft)
    if not (draft.names or draft.editions) and _are_objects(found):
        return _one_of_objects(found, draft)
    if raster and _has_smoothed_edges(found, total):
        draft.note(
            "values",
            "the masks have smoothed edges; values of 128 and more are the structure, lower "
            "values are background",
            low=128,
        )
        labels = LabelSet.from_names({1: _name_of_one(255, draft)})
        return labels, LabelMapping(ranges=(Range(128, 255, 1),), rest="background")
    if not set(total) <= set(draft.names):
        _refuse_edges(found, total)
    if draft.ranges is not None and _are_ranges(total, draft.ranges[1], draft.names):
        return draft.ranges
    _choose_names(draft, _in_several(found))
    counts = _usual_values(found, total, draft)
    values = sorted(v for v in counts if counts[v])
    _suggest_ignoring(values, draft)
    if len(values) == 1 and len(counts) == 1:
        return _single_structure(values[0], draft)
    if _is_one_mask(found, values):
        low, high = values
        draft.note("values", f"one structure, stored as 0 and {low} or as 0 and {high}")
        labels = LabelSet.from_names({1: _name_of_one(high, draft)})
        return labels, LabelMapping(values=((low, 1), (high, 1)))
    return _several_structures(draft, found, counts)


def _are_objects(found: Sequence[MaskFile]) -> bool:
    """Whether the values count the objects of each picture, such as cells: how many there are
    differs from picture to picture.
    """
    numbers = [one.objects for one in found if one.counts or one.colours]
    counted = [n for n in numbers if n]
    return (
        len(counted) >= AGREEING_OBJECTS * len(numbers)
        and len(set(counted)) >= min(3, len(counted))
        and max(counted, default=0) >= FEWEST_OBJECTS
    )


def _one_of_objects(found: Sequence[MaskFile], draft: Draft) -> tuple[LabelSet, LabelMapping]:
    most = max(one.objects for one in found)
    words = (
        f"the values count the objects of each picture (up to {most}), so all are one structure; "
        "--labels makes values structures"
    )
    draft.findings.append(Finding("", "values", "warning", words, {"value": most}))
    labels = LabelSet.from_names({1: _name_of_one(1, draft)})
    if codes := frozenset().union(*(one.colours for one in found)):
        # Further pictures may have more objects: all shades of the channels that are used.
        shifts = [shift for shift in (16, 8, 0) if any(code >> shift & 255 for code in codes)]
        shades = [number << shift for shift in shifts for number in range(1, 256)]
        return labels, LabelMapping(rgb=tuple((_rgb(shade), 1) for shade in shades))
    return labels, LabelMapping(ranges=(Range(1, MOST_OBJECTS, 1),))


def _several_structures(
    draft: Draft, found: Sequence[MaskFile], counts: Mapping[int, int]
) -> tuple[LabelSet, LabelMapping]:
    """A structure for each value, and 0 for those without a count."""
    values = sorted(v for v in counts if counts[v])
    # A file that names values declares them. Other values are then reported by the checks.
    declared = [v for v in values if v in draft.names] + _unnamed_but_common(draft, found, values)
    labels = named(declared or values, draft.names)
    stray = [v for v in counts if not counts[v]]
    if not stray:
        return labels, LabelMapping()
    return labels, LabelMapping(
        values=tuple((v, v) for v in labels.values) + tuple((v, 0) for v in stray)
    )


def _unnamed_but_common(
    draft: Draft, found: Sequence[MaskFile], values: Sequence[int]
) -> list[int]:
    """The values that most files have although the published data set does not name them; a warning
    reports them.
    """
    if not (draft.usual and draft.names):
        return []
    common = [
        v
        for v in values
        if v not in draft.names and 2 * sum(v in one.counts for one in found) > len(found)
    ]
    if common:
        draft.problem(
            "",
            "names",
            f"most masks have the value {_listed(common)}, which the published {draft.layout} does "
            f"not define (it has {', '.join(f'{v} {n}' for v, n in sorted(draft.names.items()))})",
            "warning",
        )
    return common


def _usual_values(
    found: Sequence[MaskFile], total: Mapping[int, int], draft: Draft
) -> dict[int, int]:
    """``total``, value -> number of voxels in all files, without the values of a file that differs
    from all others; 0 for a value that becomes background.

    Raises:
        LabelError: most files have values outside 0..65535; names the first one.
    """
    files_with: Counter[int] = Counter(v for one in found for v in one.counts)
    outside = {v for v in total if not 0 < v <= 65535}
    _refuse_most_outside(found, outside)
    kept = {v: n for v, n in total.items() if v not in outside}
    for one in found:
        for v in one.counts:
            if files_with[v] > 1 or v in draft.names:
                continue
            if v in outside:
                words = f"the mask has the value {v}; label values must be in 0..65535"
                draft.problem(one.case, "values", words, path=one.path)
            elif draft.names:
                continue  # values that a table does not name are reported by the checks
            elif len(found) > 2 and one.counts[v] <= STRAY_VOXELS and len(kept) > 1:
                words = f"value {v} is in {one.counts[v]} voxel(s) of this case alone: background"
                draft.problem(one.case, "values", words, "warning", path=one.path)
                kept[v] = 0
            elif (shared := _shared_by_others(one, found)) and v > max(shared) + 1:
                words = f"value {v} is in this case alone; all others have {_listed(shared)}"
                draft.problem(one.case, "values", words, path=one.path)
                kept.pop(v)
    return kept


def _refuse_most_outside(found: Sequence[MaskFile], outside: set[int]) -> None:
    holders = [one for one in found if outside & set(one.counts)]
    if len(holders) > len(found) / 2:
        values = sorted(holders[0].counts)
        raise LabelError(
            f"label values must be in 0..65535, found {values[0]} to {values[-1]}; select some "
            f"with --labels, or state that {values[0]} marks voxels to ignore (--ignore "
            f"{values[0]})",
            path=holders[0].path,
        )


def _suggest_ignoring(values: Sequence[int], draft: Draft) -> None:
    """Warn about a structure that a table calls "ignore" or "void", and about 255 far above two or
    more other values: by custom it marks unknown voxels.
    """
    others = [v for v in values if v != USUAL_IGNORED]
    far = len(values) > len(others) > 1 and max(others) <= len(others) + 1
    named = [v for v in values if draft.names.get(v, "").casefold() in IGNORED_NAMES]
    for value in named or ([USUAL_IGNORED] if far and USUAL_IGNORED not in draft.names else []):
        rest = [v for v in values if v != value]
        words = (
            f"{value} is a structure besides {_listed(rest)}; if it marks voxels to ignore, state "
            f"it with --ignore {value}"
        )
        draft.findings.append(Finding("", "values", "warning", words, {"value": value}))


def _shared_by_others(one: MaskFile, found: Sequence[MaskFile]) -> set[int]:
    """The values of all other files, if at least ``AGREEING`` have the same; else none."""
    others = {frozenset(other.counts) for other in found if other is not one}
    return set(*others) if len(found) > AGREEING and len(others) == 1 else set()


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(values)[:8]))


def _is_one_mask(found: Sequence[MaskFile], values: Sequence[int]) -> bool:
    """Whether some masks are stored as 0 and 1, the others as 0 and 255 (or 65535)."""
    return tuple(values) in ONE_MASK and all(len(one.counts) == 1 for one in found)


def _palettes_contradict(found: Sequence[MaskFile]) -> bool:
    """Whether a colour has different indices: the files were saved with palettes of their own, as
    programs do that reduce the number of colours, and only the colours have a meaning.
    """
    index_of: dict[int, set[int]] = {}
    for one in found:
        if len(set(one.palette.values())) < len(one.palette):
            return False  # two indices have one colour, so the colours do not tell them apart
        for index, colour in one.palette.items():
            index_of.setdefault(colour, set()).add(index)
    return any(len(indices) > 1 for indices in index_of.values())


def _named_structures(
    found: Sequence[MaskFile], draft: Draft
) -> tuple[LabelSet, LabelMapping] | None:
    """The structures that the files name; None if they name none. Files may give one name
    different values: then structures are matched by name.
    """
    # Names next to the folders are those of the user.
    if draft.names or not all(one.names for one in found):
        return None
    pairs = list(dict.fromkeys((v, n) for one in found for v, n in sorted(one.names.items())))
    overlapping = any(one.overlapping for one in found)
    agree = _agree({(v, draft.called.get(name, name)) for v, name in pairs})
    if agree and not overlapping and not draft.called:
        return named([v for v, _ in pairs], dict(pairs)), LabelMapping()
    if overlapping or not agree:
        draft.note(
            "values",
            "segments overlap: a voxel may belong to several structures, which are matched by name"
            if overlapping
            else "the files give one structure different values; they are matched by name",
        )
    return _by_name(_structure_of_each([name for _, name in pairs], draft), overlapping, draft)


def _agree(pairs: set[tuple[int, str]]) -> bool:
    """Whether each value has one name, and each name one value."""
    return len(pairs) == len({value for value, _ in pairs}) == len({name for _, name in pairs})


def _by_name(
    sources: Mapping[str, str], overlapping: bool, draft: Draft
) -> tuple[LabelSet, LabelMapping]:
    """The structures of ``sources``, name in the files -> structure, matched by name."""
    names = list({name.casefold(): name for name in sources.values()}.values())
    if overlapping and len(names) > MOST_OVERLAPPING:
        draft.refusal = (
            f"the masks have {len(names)} structures that overlap, and at most {MOST_OVERLAPPING} "
            "may; select some with --labels"
        )
        overlapping = False
    value_of = {name.casefold(): v for v, name in enumerate(names, start=1)}
    labels = LabelSet.from_names(dict(enumerate(names, start=1)), overlapping)
    segments = ((name, value_of[called.casefold()]) for name, called in sources.items())
    return labels, LabelMapping(segments=tuple(segments))


def _structure_of_each(found: Sequence[str], draft: Draft) -> dict[str, str]:
    """Name in the files, in one spelling -> structure; also for files that were not read."""
    spelt: dict[str, str] = {}
    for name in (*found, *draft.called):
        spelt.setdefault(name.casefold(), name)
    return {name: draft.called.get(name, name) for name in spelt.values()}


def _channel_structures(found: Sequence[MaskFile], draft: Draft) -> tuple[LabelSet, LabelMapping]:
    """One structure per channel, except a background channel."""
    channels = list(range(found[0].channels))
    ends = [one.ends for one in found if one.ends is not None]
    if len(ends) == len(found):
        # The background is the first channel by custom; some programs put it last.
        first, last = (sum(sizes) for sizes in zip(*ends, strict=True))
        channels = channels[1:] if first >= last else channels[:-1]
    names = {n: draft.names.get(n, f"channel {c}") for n, c in enumerate(channels, start=1)}
    mapping = LabelMapping(channels=tuple((c, n) for n, c in enumerate(channels, start=1)))
    overlapping = [one.case for one in found if one.overlapping]
    if overlapping:
        words = f"the channels of {len(overlapping)} masks overlap, such as in {overlapping[0]}"
        draft.note("values", f"{words}: a voxel may belong to several structures")
    return LabelSet.from_names(names, bool(overlapping)), mapping


def _colour_structures(
    codes: Iterable[int], draft: Draft, are_lossy: bool = False
) -> tuple[LabelSet, LabelMapping]:
    """One structure per colour (0xRRGGBB): the named ones in the order of their file, all colours
    in order of their codes if none is named. Other colours are then reported by the checks.
    """
    colours = [c for c in draft.colours if c in set(codes)] or sorted(codes)
    if are_lossy:
        draft.note(
            "values", "JPEG changed the colours of the masks; each pixel has the nearest one"
        )
    if len(colours) > MOST_COLOURS:
        raise LabelError(
            f"{len(colours)} colours in the label images; name the meaningful ones with --labels, "
            "such as 'liver: \"#ff0000\"'"
        )
    rgb = tuple((_rgb(code), n) for n, code in enumerate(colours, start=1))
    names = {n: draft.colours.get(c, f"colour {c:06x}") for n, c in enumerate(colours, start=1)}
    return LabelSet.from_names(names), LabelMapping(rgb=rgb)


def _rgb(code: int) -> tuple[int, int, int]:
    """Red, green and blue of 0xRRGGBB."""
    return code >> 16, code >> 8 & 255, code & 255


def _single_structure(value: int, draft: Draft) -> tuple[LabelSet, LabelMapping]:
    """One structure with label value 1, whatever its value on disk (often 255)."""
    labels = LabelSet.from_names({1: _name_of_one(value, draft)})
    return labels, LabelMapping(values=((value, 1),)) if value != 1 else LabelMapping()


def _are_ranges(total: Mapping[int, int], mapping: LabelMapping, names: Mapping[int, str]) -> bool:
    """Whether all values are in the ranges; a single value that has a name is that structure."""
    is_named = len(total) == 1 and next(iter(total)) in names
    return not is_named and all(any(r.low <= v <= r.high for r in mapping.ranges) for v in total)


def _has_smoothed_edges(found: Sequence[MaskFile], total: Mapping[int, int]) -> bool:
    """Whether the labels look like one mask 0/255 whose edges were interpolated, or changed by
    compression: most of their voxels near 255, the others at edges.
    """
    if len(total) > SMOOTHED_VALUES and _share_near_255(total, lowest=1) > SMOOTHED_SHARE:
        return True
    # Compression leaves values near 0 too, so only those in the middle count against a mask.
    return (
        any(one.is_lossy for one in found)
        and _share_near_255(total, lowest=64) > SMOOTHED_SHARE
        and all(min(one.counts, default=255) > 127 for one in found if not one.is_lossy)
    )


def _refuse_lossy_colours(found: Sequence[MaskFile]) -> None:
    """Refuse coloured masks whose format changed the colours.

    Raises:
        LabelError: names the file with the most colours.
    """
    worst = max(found, key=lambda one: one.is_lossy * len(one.colours))
    if worst.is_lossy and len(worst.colours) > SMOOTHED_VALUES:
        raise LabelError(
            f"the mask has {len(worst.colours)} colours: JPEG changes colours, so the structures "
            "cannot be separated; store masks without loss",
            path=worst.path,
        )


def _refuse_edges(found: Sequence[MaskFile], total: Mapping[int, int]) -> None:
    """Refuse masks most of whose values are found at edges only, or are noise.

    Raises:
        LabelError: names the file with the most values.
    """
    lossy = [one for one in found if one.is_lossy and len(one.counts) > 1]
    solid = frozenset().union(*(one.solid for one in found))
    if lossy or (len(total) > SMOOTHED_VALUES and 2 * len(solid) < len(total)):
        worst = max(lossy or found, key=lambda one: len(one.counts))
        cause = (
            "JPEG changes values" if lossy else "it was resampled with interpolation, or is no mask"
        )
        raise LabelError(
            f"the mask has {len(worst.counts)} values, most of them at edges only: {cause}, so the "
            "structures cannot be separated; store masks without loss, or state ranges with "
            "--labels",
            path=worst.path,
        )


def _warn_of_background(found: Sequence[MaskFile], draft: Draft) -> None:
    """Warn if the corners of all masks are in one structure, which is then the background of an
    inverted mask, or of values that count from 1.
    """
    corners = {one.corner for one in found}
    if len(corners) == 1 and corners != {0}:
        value = corners.pop()
        words = (
            f"all corners of every mask have the value {value}; if it is the background (an "
            "inverted mask, or values that count from 1), select the structures with --labels"
        )
        draft.findings.append(Finding("", "values", "warning", words, {"value": value}))


def _share_near_255(counts: Mapping[int, int], lowest: int) -> float:
    """The share of values above 127 among those of at least ``lowest``, by number of voxels."""
    high = sum(n for v, n in counts.items() if v > 127)
    return high / max(1, sum(n for v, n in counts.items() if v >= lowest))
