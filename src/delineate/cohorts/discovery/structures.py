"""The structures of a cohort's masks: derived from the label files, or selected by the user.

``derive`` reads some label files and declares the values in them. ``StructureSelection`` is the
``labels`` section of a description or of a ``--labels`` file. It gives each structure a name and
one or several items: values, value ranges, colours, file stems or structures of the cohort. The
structures are numbered 1, 2, ... in the order of the file.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...core.errors import DelineateError, InputError, LabelError
from ...core.labels import LabelMapping, LabelSet, Range, as_whole_numbers, unique_values
from ...core.manifest import Case, Manifest
from ...extend.findings import Draft
from ..reading import read_raw_label
from .tree import is_raster

MOST_FILES, MOST_BYTES = 200, 64 << 20  # limits on the label files read to derive their values
MOST_COLOURS = 64  # more colours than this are not a palette of structures
SMOOTHED_VALUES, SMOOTHED_SHARE = 8, 0.8  # see _has_smoothed_edges
# Forms of an item that is a string: "55-70", "55..70" or "55 to 70", and "#ff0000".
_RANGE = re.compile(r"^\s*(-?\d+(?:\.\d+)?)\s*(?:-|\.\.|to)\s*(-?\d+(?:\.\d+)?)\s*$")
_COLOUR = re.compile(r"^#([0-9a-fA-F]{6})$")
Item = int | str


# ---- deriving structures from files ----


@dataclass
class _MaskValues:
    """Values or colours in the label files that were read.

    Args:
        values: non-zero value -> count, of voxels for 2-D images and of files otherwise.
        colours: codes 0xRRGGBB except black.
        raster: whether the labels are 2-D images, or slices of a series.
        errors: messages of the files that could not be read.
    """

    values: dict[int, int] = field(default_factory=dict)
    colours: set[int] = field(default_factory=set)
    raster: bool = False
    errors: list[str] = field(default_factory=list)


def derive(draft: Draft) -> None:
    """Set ``draft.labels`` and ``draft.mapping`` from the values in the label files.

    All files are read, or an evenly spaced sample of a large cohort. Rules: each colour is a
    structure; a single value is one structure ("foreground" unless the layout names it); values are
    matched to value ranges only if the layout defines some (CHAOS); 2-D masks with smoothed edges
    are thresholded at 128; otherwise each value is a structure.

    Without ground truth the labels are empty. If no file contains a structure, they are empty too,
    and ``draft.refusal`` gives the reason.

    Raises:
        LabelError: too many colours, or values outside 0..65535.
    """
    # Read a sample of the label files.
    with_truth = [c for c in draft.cases if c.label]
    chosen = list(_sample(with_truth))
    if not chosen:
        draft.labels = LabelSet(())
        return
    seen = _read_values(chosen, draft)
    if not seen.values and not seen.colours:
        draft.labels = LabelSet(())
        draft.refusal = (
            seen.errors[0] if seen.errors else "all label files are empty: all values are 0"
        )
        return
    # Decide what the values mean, and report it.
    draft.labels, draft.mapping = _declared(draft, seen)
    shown = ", ".join(draft.labels.names[:8]) + (" ..." if len(draft.labels) > 8 else "")
    message = (
        f"structures were derived from the values in {len(chosen)} of {len(with_truth)} label "
        f"files: {shown}"
    )
    draft.note("values", message, read=len(chosen), of=len(with_truth))


def _sample(cases: Sequence[Case]) -> Iterator[Case]:
    """Evenly spaced cases, at most ``MOST_FILES``, until ``MOST_BYTES`` are read; at least one."""
    step = max(1, -(-len(cases) // MOST_FILES))
    spent = 0
    for case in cases[::step]:
        path = Path(case.label[0].path)
        yield case
        # A label may be a file or a folder of slices.
        spent += (
            path.stat().st_size
            if path.is_file()
            else sum(p.stat().st_size for p in path.glob("*") if p.is_file())
        )
        if spent > MOST_BYTES:
            return


def _read_values(cases: Sequence[Case], draft: Draft) -> _MaskValues:
    seen = _MaskValues(
        raster=is_raster(Path(cases[0].label[0].path)) or bool(cases[0].label[0].like)
    )
    manifest = Manifest((), draft.channels)
    for case in cases:
        try:
            array = read_raw_label(case, manifest)[0][1].array
            # A colour image: one code per voxel, and only the set of codes matters.
            if array.ndim == 4:
                codes = (
                    (array[0].astype(np.int64) << 16)
                    | (array[1].astype(np.int64) << 8)
                    | array[2].astype(np.int64)
                )
                seen.colours |= set(unique_values(codes)) - {0}
                continue
            whole = as_whole_numbers(array, case.label[0].path)
        except DelineateError as error:  # `check` reports each file; the others suffice here
            seen.errors.append(str(error))
            continue
        # Voxel counts are needed only for 2-D masks, to recognise smoothed edges.
        for v in unique_values(whole):
            if v != 0:
                seen.values[v] = seen.values.get(v, 0) + (
                    int((whole == v).sum()) if seen.raster else 1
                )
    return seen


def _declared(draft: Draft, seen: _MaskValues) -> tuple[LabelSet, LabelMapping]:
    """The structures and the mapping for the values that were read; the rules are in ``derive``."""
    if seen.colours:
        return _colour_structures(seen.colours)
    values = sorted(seen.values)
    if any(v < 0 or v > 65535 for v in values):
        raise LabelError(
            f"label values must be in 0..65535, found {values[0]} to {values[-1]}; select some "
            "with --labels",
            path=draft.cases[0].label[0].path,
        )
    if len(values) == 1:
        return _single_structure(values[0], draft.names)
    if draft.ranges is not None and _all_in_ranges(values, draft.ranges[1]):
        return draft.ranges
    if _has_smoothed_edges(seen):
        draft.note(
            "values",
            "the masks have smoothed edges; values of 128 and more are the structure, lower "
            "values are background",
            low=128,
        )
        return LabelSet.from_names({1: draft.names.get(255, "foreground")}), LabelMapping(
            ranges=(Range(128, 255, 1),), rest="background"
        )
    # A file that names values declares them. Other values are then reported by the checks.
    declared = [v for v in values if v in draft.names]
    return named(declared or values, draft.names), LabelMapping()


def _colour_structures(codes: set[int]) -> tuple[LabelSet, LabelMapping]:
    """One structure per colour (0xRRGGBB), in order of the codes."""
    if len(codes) > MOST_COLOURS:
        raise LabelError(
            f"{len(codes)} colours in the label images; name the meaningful ones with --labels, "
            "such as 'liver: \"#ff0000\"'"
        )
    colours = sorted(codes)
    rgb = tuple(((c >> 16, c >> 8 & 255, c & 255), n) for n, c in enumerate(colours, start=1))
    names = {n: f"colour {c:06x}" for n, c in enumerate(colours, start=1)}
    return LabelSet.from_names(names), LabelMapping(rgb=rgb)


def _single_structure(value: int, names: dict[int, str]) -> tuple[LabelSet, LabelMapping]:
    """One structure with label value 1, whatever its value on disk (often 255)."""
    labels = LabelSet.from_names({1: names.get(value, "foreground")})
    return labels, LabelMapping(values=((value, 1),)) if value != 1 else LabelMapping()


def _all_in_ranges(values: Sequence[int], mapping: LabelMapping) -> bool:
    return all(any(r.low <= v <= r.high for r in mapping.ranges) for v in values)


def _has_smoothed_edges(seen: _MaskValues) -> bool:
    """Whether the labels look like one mask 0/255 with interpolated edges: 2-D images with many
    values, most of them near 255.
    """
    return (
        seen.raster
        and len(seen.values) > SMOOTHED_VALUES
        and sum(n for v, n in seen.values.items() if v > 127)
        > SMOOTHED_SHARE * sum(seen.values.values())
    )


def named(values: Sequence[int], names: dict[int, str]) -> LabelSet:
    """A label set of the positive ``values``, named as in ``names`` or "label N".

    A name that occurs twice gets its value as a suffix.
    """
    called = {v: names.get(v, f"label {v}") for v in values if v > 0}
    held = list(called.values())
    return LabelSet.from_names(
        {v: (n if held.count(n) == 1 else f"{n} ({v})") for v, n in called.items()}
    )


# ---- selecting structures ----


@dataclass(frozen=True)
class StructureSelection:
    """Structures selected by the user.

    Args:
        structures: name -> items; the order gives the label values 1, 2, ...
        rest: what happens to other values: "background", or "refuse" to make them an error.
    """

    structures: dict[str, tuple[Item, ...]]
    rest: Literal["refuse", "background"] = "background"

    @classmethod
    def from_data(cls, data: Any, path: str | Path = "") -> StructureSelection:
        """From YAML data: ``{labels: {name: item or [items]}, rest: background|refuse}``, or only
        the inner mapping.

        Raises:
            LabelError: the data have another form, or are empty.
        """
        # The key "labels" is optional: a file may also contain only the structures.
        inner = (
            data["labels"]
            if isinstance(data, dict) and isinstance(data.get("labels"), dict)
            else data
        )
        rest: Any = data.get("rest", "background") if inner is not data else "background"
        if not isinstance(inner, dict) or not inner or rest not in ("refuse", "background"):
            raise LabelError(
                "expected 'labels:' with lines 'name: 48', 'name: [44, 45]', 'name: 55-70', "
                "'name: \"#ff0000\"' or 'name: other name', and optionally 'rest: background' or "
                "'rest: refuse'",
                path=path or None,
            )
        # Unknown keys are usually spelling mistakes.
        extra = sorted(set(data) - {"labels", "rest"}) if inner is not data else []
        if extra:
            raise LabelError(
                f"unknown key {', '.join(map(str, extra))}; allowed are labels and rest",
                path=path or None,
            )
        # Each structure has one item or a list of items.
        structures = {}
        for name, items in inner.items():
            listed = items if isinstance(items, list) else [items]
            # YAML reads yes and no as booleans, which Python counts as integers.
            if not listed or not all(
                isinstance(i, int | str) and not isinstance(i, bool) for i in listed
            ):
                raise LabelError(
                    f"structure {name}: expected a value, a range, a colour or a name, or a list "
                    f"of them, found {items!r}",
                    path=path or None,
                )
            structures[str(name)] = tuple(listed)
        return cls(structures, rest)

    @classmethod
    def load(cls, path: str | Path) -> StructureSelection:
        """Read a YAML file.

        Raises:
            InputError: the file cannot be read or is not YAML.
            LabelError: the data have another form.
        """
        return cls.from_data(read_yaml(path), path)

    def needs_names(self) -> bool:
        """Whether an item is the name of a structure of the cohort, which must then be known."""
        return any(
            isinstance(i, str) and not _RANGE.match(i) and not _COLOUR.match(i)
            for items in self.structures.values()
            for i in items
        )

    def apply(self, labels: LabelSet, mapping: LabelMapping) -> tuple[LabelSet, LabelMapping]:
        """The selected structures, numbered from 1, and their mapping.

        Args:
            labels: the cohort's own structures.
            mapping: the cohort's own mapping.

        Raises:
            LabelError: the cohort has no structure of a given name, or the items mix kinds that
                cannot be combined.
        """
        parts = [
            part
            for value, (_, items) in enumerate(self.structures.items(), start=1)
            for i in items
            for part in _resolve(i, value, labels, mapping)
        ]
        # The position of a structure in the selection is its new label value.
        chosen = LabelSet.from_names(dict(enumerate(self.structures, start=1)))
        kinds = {kind for kind, _, _ in parts}
        # Values and ranges can be combined: a value is a range of one.
        if kinds == {"values", "ranges"}:
            parts = [
                ("ranges", (low, low) if kind == "values" else low, v) for kind, low, v in parts
            ]
            kinds = {"ranges"}
        # A mapping reads label files in one way only: by value, range, colour or file.
        if len(kinds) != 1:
            raise LabelError(
                f"the selected labels mix {' and '.join(sorted(kinds))}; all must be of one kind"
            )
        pairs = [(source, value) for _, source, value in parts]
        if "ranges" in kinds:
            return chosen, LabelMapping(
                ranges=tuple(Range(float(s[0]), float(s[1]), v) for s, v in pairs), rest=self.rest
            )
        only: dict[str, Any] = {kinds.pop(): tuple(pairs)}
        return chosen, LabelMapping(**only, rest=self.rest)


def _resolve(
    item: Item, value: int, labels: LabelSet, mapping: LabelMapping
) -> list[tuple[str, Any, int]]:
    """Parts (kind, source, label value) of one item; kind is a field of ``LabelMapping``."""
    # In a cohort with value ranges (CHAOS MR), a value stands for the range that contains it.
    if isinstance(item, int):
        inside = [r for r in mapping.ranges if r.low <= item <= r.high]
        return (
            [("ranges", (r.low, r.high), value) for r in inside]
            if inside
            else [("values", item, value)]
        )
    # A string is a range, a colour, or the name of a structure.
    if found := _RANGE.match(item):
        return [("ranges", (float(found[1]), float(found[2])), value)]
    if found := _COLOUR.match(item):
        code = int(found[1], 16)
        return [("rgb", (code >> 16, code >> 8 & 255, code & 255), value)]
    return _of_structure(item, value, labels, mapping)


def _of_structure(
    name: str, value: int, labels: LabelSet, mapping: LabelMapping
) -> list[tuple[str, Any, int]]:
    """Parts of the cohort's own structure ``name``: the stem of its file, or its name (ignoring
    case and extra spaces).
    """
    stems = dict(mapping.files)
    if name in stems:
        return [("files", name, value)]
    # Names are compared without case and extra spaces.
    own = next((b.value for b in labels if b.name.lower() == " ".join(name.lower().split())), None)
    if own is None:
        # Suggest similar names, because most errors are spelling mistakes.
        near = difflib.get_close_matches(name, [*labels.names, *stems], n=3, cutoff=0.4)
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else f"the cohort has {', '.join(labels.names[:20]) or 'none'}"
        )
        raise LabelError(f"the cohort has no structure called {name!r}; {hint}")
    # The structure's sources are those of the cohort's mapping, whatever their kind.
    for kind, pairs in (("values", mapping.values), ("rgb", mapping.rgb), ("files", mapping.files)):
        if pairs:
            return [(kind, source, value) for source, v in pairs if v == own]
    if mapping.ranges:
        return [("ranges", (r.low, r.high), value) for r in mapping.ranges if r.value == own]
    return [("values", own, value)]


def read_yaml(path: str | Path) -> Any:
    """The data in a YAML file.

    Raises:
        InputError: the file cannot be read, or is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"is not YAML ({' '.join(str(error).split())})", path=path) from error
