"""The structures of a cohort's masks: from the values in the files, or selected by the user.

``derive`` reads some label files and declares the values in them. ``StructureSelection`` is the
``labels`` section of a description or of a ``--labels`` file: structures by name, each from
values, grey ranges, colours, file stems or structures of the cohort, one or several; they are
numbered 1, 2, ... in the order written.
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
from ..findings import Draft
from ..reading import read_raw_label
from .tree import is_raster

MOST_FILES, MOST_BYTES = 200, 64 << 20  # of label files that are read to learn their values
MOST_COLOURS = 64
_RANGE = re.compile(r"^\s*(-?\d+(?:\.\d+)?)\s*(?:-|\.\.|to)\s*(-?\d+(?:\.\d+)?)\s*$")
_COLOUR = re.compile(r"^#([0-9a-fA-F]{6})$")
Item = int | str


# ---- learning from files ----


@dataclass
class _MaskValues:
    """Non-zero values and how often they occur, or colours, over the files read."""

    values: dict[int, int] = field(default_factory=dict)
    colours: set[int] = field(default_factory=set)
    raster: bool = False
    errors: list[str] = field(default_factory=list)


def derive(draft: Draft) -> None:
    """Set ``draft.labels`` and ``draft.mapping`` from the values in the label files (all, or some
    spread evenly).

    One value is one structure ("foreground" unless named); values mean grey ranges only where the
    layout has some (CHAOS); a picture whose edges are smoothed is cut at half; colours each are a
    structure.
    """
    with_truth = [c for c in draft.cases if c.label]
    chosen = list(_sample(with_truth))
    if not chosen:
        draft.labels = LabelSet(())
        return
    seen = _look(chosen, draft)
    if not seen.values and not seen.colours:
        draft.labels = LabelSet(())
        draft.refusal = (
            seen.errors[0] if seen.errors else "no label file holds any structure: all values are 0"
        )
        return
    draft.labels, draft.mapping = _declared(draft, seen)
    shown = ", ".join(draft.labels.names[:8]) + (" ..." if len(draft.labels) > 8 else "")
    message = (
        f"structures were told from the values in {len(chosen)} of {len(with_truth)} label "
        f"files: {shown}"
    )
    draft.note("values", message, read=len(chosen), of=len(with_truth))


def _sample(cases: Sequence[Case]) -> Iterator[Case]:
    """Cases spread evenly, until the bytes allowed are spent; at least one."""
    step = max(1, -(-len(cases) // MOST_FILES))
    spent = 0
    for case in cases[::step]:
        path = Path(case.label[0].path)
        yield case
        spent += (
            path.stat().st_size
            if path.is_file()
            else sum(p.stat().st_size for p in path.glob("*") if p.is_file())
        )
        if spent > MOST_BYTES:
            return


def _look(cases: Sequence[Case], draft: Draft) -> _MaskValues:
    seen = _MaskValues(
        raster=is_raster(Path(cases[0].label[0].path)) or bool(cases[0].label[0].like)
    )
    manifest = Manifest((), draft.channels)
    for case in cases:
        try:
            array = read_raw_label(case, manifest)[0][1].array
            if array.ndim == 4:
                codes = (
                    (array[0].astype(np.int64) << 16)
                    | (array[1].astype(np.int64) << 8)
                    | array[2].astype(np.int64)
                )
                seen.colours |= set(unique_values(codes)) - {0}
                continue
            whole = as_whole_numbers(array, case.label[0].path)
        except DelineateError as error:  # the doctor names each; here it is enough to go on
            seen.errors.append(str(error))
            continue
        for v in unique_values(whole):
            if v != 0:
                seen.values[v] = seen.values.get(v, 0) + (
                    int((whole == v).sum()) if seen.raster else 1
                )
    return seen


def _declared(draft: Draft, seen: _MaskValues) -> tuple[LabelSet, LabelMapping]:
    if seen.colours:
        if len(seen.colours) > MOST_COLOURS:
            raise LabelError(
                f"{len(seen.colours)} colours in the label pictures; name those that mean "
                "something with --labels, such as 'liver: \"#ff0000\"'"
            )
        colours = sorted(seen.colours)
        rgb = tuple(((c >> 16, c >> 8 & 255, c & 255), n) for n, c in enumerate(colours, start=1))
        return LabelSet.from_names(
            {n: f"colour {c:06x}" for n, c in enumerate(colours, start=1)}
        ), LabelMapping(rgb=rgb)
    values = sorted(seen.values)
    if any(v < 0 or v > 65535 for v in values):
        raise LabelError(
            f"label values lie in 0..65535, found {values[0]} to {values[-1]}; choose some with "
            "--labels",
            path=draft.cases[0].label[0].path,
        )
    if len(values) == 1:
        name = draft.names.get(values[0], "foreground")
        return LabelSet.from_names({1: name}), LabelMapping(values=((values[0], 1),)) if values[
            0
        ] != 1 else LabelMapping()
    if draft.ranges is not None and all(
        any(r.low <= v <= r.high for r in draft.ranges[1].ranges) for v in values
    ):
        return draft.ranges
    if (
        seen.raster
        and len(values) > 8
        and sum(n for v, n in seen.values.items() if v > 127) > 0.8 * sum(seen.values.values())
    ):
        draft.note(
            "values",
            "the masks have smoothed edges; values of 128 and more are the structure, those "
            "below are background",
            low=128,
        )
        return LabelSet.from_names({1: draft.names.get(255, "foreground")}), LabelMapping(
            ranges=(Range(128, 255, 1),), rest="background"
        )
    # A file that names values declares them: others are for the doctor to report.
    declared = [v for v in values if v in draft.names]
    return named(declared or values, draft.names), LabelMapping()


def named(values: Sequence[int], names: dict[int, str]) -> LabelSet:
    """A set of ``values``, called as in ``names`` or "label N"; where a name occurs twice its value
    is added.
    """
    called = {v: names.get(v, f"label {v}") for v in values if v > 0}
    held = list(called.values())
    return LabelSet.from_names(
        {v: (n if held.count(n) == 1 else f"{n} ({v})") for v, n in called.items()}
    )


# ---- choosing ----


@dataclass(frozen=True)
class StructureSelection:
    """Structures by name, in the order in which they are numbered; ``rest`` is what becomes of
    other values.
    """

    structures: dict[str, tuple[Item, ...]]
    rest: Literal["refuse", "background"] = "background"

    @classmethod
    def from_data(cls, data: Any, path: str | Path = "") -> StructureSelection:
        """From YAML: ``{labels: {name: item or [items]}, rest: background|refuse}``, or the inner
        mapping alone.

        Raises:
            LabelError: of another shape, or empty.
        """
        inner = (
            data["labels"]
            if isinstance(data, dict) and isinstance(data.get("labels"), dict)
            else data
        )
        rest: Any = data.get("rest", "background") if inner is not data else "background"
        if not isinstance(inner, dict) or not inner or rest not in ("refuse", "background"):
            raise LabelError(
                "expected 'labels:' with lines 'name: 48', 'name: [44, 45]', 'name: 55-70', "
                "'name: \"#ff0000\"' or 'name: other name', "
                "and perhaps 'rest: background' or 'rest: refuse'",
                path=path or None,
            )
        extra = sorted(set(data) - {"labels", "rest"}) if inner is not data else []
        if extra:
            raise LabelError(
                f"unknown key {', '.join(map(str, extra))}; allowed are labels and rest",
                path=path or None,
            )
        structures = {}
        for name, items in inner.items():
            listed = items if isinstance(items, list) else [items]
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
            InputError: it cannot be read or is not YAML.
            LabelError: it is of another shape.
        """
        return cls.from_data(read_yaml(path), path)

    def needs_names(self) -> bool:
        """Whether an item names a structure of the cohort, which must then be known."""
        return any(
            isinstance(i, str) and not _RANGE.match(i) and not _COLOUR.match(i)
            for items in self.structures.values()
            for i in items
        )

    def apply(self, labels: LabelSet, mapping: LabelMapping) -> tuple[LabelSet, LabelMapping]:
        """The chosen structures, numbered from 1, and their mapping; ``labels`` and ``mapping`` are
        the cohort's own.

        Raises:
            LabelError: a name that the cohort does not have, or items of kinds that do not go
                together.
        """
        parts = [
            part
            for value, (_, items) in enumerate(self.structures.items(), start=1)
            for i in items
            for part in _resolve(i, value, labels, mapping)
        ]
        chosen = LabelSet.from_names(dict(enumerate(self.structures, start=1)))
        kinds = {kind for kind, _, _ in parts}
        if kinds == {"values", "ranges"}:
            parts = [
                ("ranges", (low, low) if kind == "values" else low, v) for kind, low, v in parts
            ]
            kinds = {"ranges"}
        if len(kinds) != 1:
            raise LabelError(
                f"the chosen labels mix {' and '.join(sorted(kinds))}; all are of one kind"
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
    """(kind, source, value) of one item."""
    if isinstance(item, int):
        inside = [r for r in mapping.ranges if r.low <= item <= r.high]
        return (
            [("ranges", (r.low, r.high), value) for r in inside]
            if inside
            else [("values", item, value)]
        )
    if found := _RANGE.match(item):
        return [("ranges", (float(found[1]), float(found[2])), value)]
    if found := _COLOUR.match(item):
        code = int(found[1], 16)
        return [("rgb", (code >> 16, code >> 8 & 255, code & 255), value)]
    return _of_structure(item, value, labels, mapping)


def _of_structure(
    name: str, value: int, labels: LabelSet, mapping: LabelMapping
) -> list[tuple[str, Any, int]]:
    """The sources of the cohort's own structure called ``name`` (letters' case and the stem of its
    file count as well).
    """
    stems = dict(mapping.files)
    if name in stems:
        return [("files", name, value)]
    own = next((b.value for b in labels if b.name.lower() == " ".join(name.lower().split())), None)
    if own is None:
        near = difflib.get_close_matches(name, [*labels.names, *stems], n=3, cutoff=0.4)
        hint = (
            f"did you mean {', '.join(near)}?"
            if near
            else f"known are {', '.join(labels.names[:20]) or 'none'}"
        )
        raise LabelError(f"no structure of the cohort is called {name!r}; {hint}")
    for kind, pairs in (("values", mapping.values), ("rgb", mapping.rgb), ("files", mapping.files)):
        if pairs:
            return [(kind, source, value) for source, v in pairs if v == own]
    if mapping.ranges:
        return [("ranges", (r.low, r.high), value) for r in mapping.ranges if r.value == own]
    return [("values", own, value)]


def read_yaml(path: str | Path) -> Any:
    """The data in a YAML file.

    Raises:
        InputError: it cannot be read, or is not YAML.
    """
    import yaml

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", path=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"is not YAML ({' '.join(str(error).split())})", path=path) from error
