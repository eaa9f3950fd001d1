"""The structures of a cohort's masks as the user selects them.

``StructureSelection`` is the ``labels`` section of a description or of a ``--labels`` file. It
gives each structure a name and one or several items: values, value ranges, colours, file stems or
structures of the cohort (also as a pattern: "GTV*"). The structures are numbered 1, 2, ... in the
order of the file.
"""

from __future__ import annotations

import difflib
import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ...core.errors import LabelError
from ...core.inputs import read_yaml
from ...core.labels import LabelMapping, LabelSet, Range
from ...core.terms import names_structure, structure_of

# Forms of an item that is a string: "55-70", "55..70" or "55 to 70", and "#ff0000".
_RANGE = re.compile(r"^\s*(-?\d+(?:\.\d+)?)\s*(?:-|\.\.|to)\s*(-?\d+(?:\.\d+)?)\s*$")
_COLOUR = re.compile(r"^#([0-9a-fA-F]{6})$")
Item = int | str


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
        values: other label values, in that order.
        rest: what happens to other values: "background", or "refuse" to make them an error.
        ignore: values (of colours, codes 0xRRGGBB) whose voxels are ignored.
        overlapping: a voxel may belong to several structures; so too if two name the same value.
    """

    structures: dict[str, tuple[Item, ...]]
    rest: Literal["refuse", "background"] = "background"
    values: tuple[int, ...] = ()
    ignore: tuple[int, ...] = ()
    overlapping: bool = False

    @classmethod
    def of_labels(cls, labels: LabelSet) -> StructureSelection:
        """The structures of a model, by their names, with the model's values."""
        structures: dict[str, tuple[Item, ...]] = {name: (name,) for name in labels.names}
        return cls(structures, values=tuple(labels.values), overlapping=labels.overlapping)

    @classmethod
    def from_data(cls, data: Any, path: str | Path = "") -> StructureSelection:
        """From YAML data: ``{labels: {name: item or [items]}, rest: background|refuse, ignore:
        value or [values]}``, or only the inner mapping.

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
        allowed = ("labels", "rest", "ignore", "overlapping")
        extra = sorted(set(data) - {*allowed}) if inner is not data else []
        if extra:
            raise LabelError(
                f"unknown key {', '.join(map(str, extra))}; allowed are {', '.join(allowed)}",
                path=path or None,
            )
        structures = {str(name): _listed_items(name, items, path) for name, items in inner.items()}
        stated = {} if inner is data else data
        overlapping = stated.get("overlapping", False)
        if not isinstance(overlapping, bool):
            raise LabelError(
                f"overlapping is true or false, found {overlapping!r}", path=path or None
            )
        ignored = ignored_values(stated.get("ignore"), path)
        return cls(structures, rest, ignore=ignored, overlapping=overlapping)

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
        """The selected structures, with ``values`` or numbered from 1, and their mapping.

        Args:
            labels: the cohort's own structures.
            mapping: the cohort's own mapping.

        Raises:
            LabelError: the cohort has no structure of a given name, or the items mix kinds that
                cannot be combined.
        """
        values = self.values or range(1, len(self.structures) + 1)
        parts = [
            part
            for value, items in zip(values, self.structures.values(), strict=True)
            for i in items
            for part in _resolve(i, value, labels, mapping)
        ]
        names = dict(zip(values, self.structures, strict=True))
        chosen = LabelSet.from_names(names, self._overlap(labels, parts))
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
                ranges=tuple(Range(float(s[0]), float(s[1]), v) for s, v in pairs),
                rest=self.rest,
                ignore=mapping.ignore,
            )
        only: dict[str, Any] = {kinds.pop(): tuple(pairs)}
        return chosen, LabelMapping(**only, rest=self.rest, ignore=mapping.ignore)

    def _overlap(self, labels: LabelSet, parts: list[tuple[str, Any, int]]) -> bool:
        """Whether the selected structures may overlap: as stated, as those of the cohort, or
        because two structures have the same source.
        """
        sources = {(kind, source) for kind, source, _ in parts}
        pairs = {(kind, source, value) for kind, source, value in parts}
        several = len(self.structures) > 1
        return several and (self.overlapping or labels.overlapping or len(sources) < len(pairs))


def _listed_items(name: Any, items: Any, path: str | Path) -> tuple[Item, ...]:
    """The items of a structure: one, or a list of them.

    Raises:
        LabelError: none, or something else.
    """
    listed = items if isinstance(items, list) else [items]
    # YAML reads yes and no as booleans, which Python counts as integers.
    if not listed or not all(isinstance(i, int | str) and not isinstance(i, bool) for i in listed):
        raise LabelError(
            f"structure {name}: expected a value, a range, a colour or a name, or a list of them, "
            f"found {items!r}",
            path=path or None,
        )
    return tuple(listed)


def ignored_values(data: Any, path: str | Path = "") -> tuple[int, ...]:
    """The values of a key ``ignore``: a value, a colour such as "#ffffff" (then its code), or a
    list of them; () for None.

    Raises:
        LabelError: anything else.
    """
    listed = [] if data is None else data if isinstance(data, list) else [data]
    found = []
    for item in listed:
        colour = _COLOUR.match(item) if isinstance(item, str) else None
        if colour is None and (not isinstance(item, int) or isinstance(item, bool)):
            raise LabelError(
                f'ignore: expected a value such as 255, a colour such as "#ffffff", or a list of '
                f"them, found {item!r}",
                path=path or None,
            )
        found.append(item if colour is None else int(colour[1], 16))
    return tuple(found)


def all_ignored(
    own: Sequence[int], choice: StructureSelection | None, stated: Sequence[int]
) -> tuple[int, ...]:
    """The ignored values of a layout or manifest, of the user's selection and of ``--ignore``."""
    return tuple(sorted({*own, *(() if choice is None else choice.ignore), *stated}))


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
    """Parts of the cohort's own structure ``name``: the stem of its file, its name (ignoring case
    and extra spaces), its name in some files, or all of them that a pattern with * or ? fits.
    """
    stems = dict(mapping.files)
    stem = name if name in stems else _same(name, stems)
    if stem is not None:
        return [("files", stem, value)]
    same = _same(name, labels.names)
    if same is None:
        return _of_other_names(name, value, labels, mapping)
    own = labels.named(same).value
    # The structure's sources are those of the cohort's mapping, whatever their kind.
    for kind in (one for one in mapping.KINDS if one != "ranges"):
        if pairs := getattr(mapping, kind):
            return [(kind, source, value) for source, v in pairs if v == own]
    if parts := labels.named(same).parts:
        return [("values", part, value) for part in parts]
    if mapping.ranges:
        return [("ranges", (r.low, r.high), value) for r in mapping.ranges if r.value == own]
    return [("values", own, value)]


def _of_other_names(
    name: str, value: int, labels: LabelSet, mapping: LabelMapping
) -> list[tuple[str, Any, int]]:
    """Parts of a name that only some files use, or of all names that a pattern fits.

    Raises:
        LabelError: there is none.
    """
    stems, sources = dict(mapping.files), dict(mapping.segments)
    if (source := _same(name, sources)) is not None:
        return [("segments", source, value)]
    if fitting := _fitting(name, (*stems, *labels.names, *sources)):
        every = [part for one in fitting for part in _of_structure(one, value, labels, mapping)]
        return list(dict.fromkeys(every))
    # Suggest similar names, because most errors are spelling mistakes.
    near = difflib.get_close_matches(name, [*labels.names, *stems], n=3, cutoff=0.4)
    hint = (
        f"did you mean {', '.join(near)}?"
        if near
        else f"the cohort has {', '.join(labels.names[:20]) or 'none'}"
    )
    raise LabelError(f"the cohort has no structure called {name!r}; {hint}")


def _fitting(pattern: str, names: Iterable[str]) -> list[str]:
    """The names that fit a pattern with * or ?, in any case of letters."""
    if not re.search(r"[*?]", pattern):
        return []
    plain = pattern.casefold().replace("[", "[[]")
    return [name for name in names if fnmatch.fnmatchcase(name.casefold(), plain)]


def _same(name: str, others: Iterable[str]) -> str | None:
    """The one of ``others`` that is the same name but for case and extra spaces, else the one that
    means the same structure; None if there is none.
    """
    others = list(others)
    plain = " ".join(name.lower().split())
    for other in others:
        if other.lower() == plain:
            return other
    if not names_structure(name):
        return None
    meant = structure_of(name)
    return next((other for other in others if structure_of(other) == meant), None)
