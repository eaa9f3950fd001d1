"""What the voxel values of a mask mean, and how the values found on disk become them.

``LabelSet`` names the values a model knows: value, name, colour, code, side. ``LabelMapping`` says
how one source (grey ranges, RGB colours, 0/255 masks, one file a structure, or a subset and merging
of values) becomes values of a set. Background is 0 and always there. It knows no file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import LabelError

Side = Literal["left", "right", None]
BACKGROUND = 0
WHOLE_TOLERANCE = 0.01  # of label values stored as floats: how far one may be from a whole number
NOISE = 1e-6  # what arithmetic leaves of a 0
# Okabe & Ito's eight colours (distinguishable for colour-blind readers) first, then a golden-angle
# walk of hues.
_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
_SIDED = re.compile(r"(?i)(?<![a-z])(left|right|lh|rh|l|r)(?![a-z])")
_LEFT = {"left", "lh", "l"}


@dataclass(frozen=True)
class Label:
    """One structure: positive value, unique name, RGB colour, optional terminology code, side."""

    value: int
    name: str
    colour: tuple[int, int, int]
    code: str = ""
    side: Side = None


def side_of(name: str) -> tuple[Side, str]:
    """The side that ``name`` tells, and the name without it ("Left kidney" -> left, "kidney")."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    found = _SIDED.search(words.replace("_", " "))
    if found is None:
        return None, " ".join(words.replace("_", " ").replace("-", " ").lower().split())
    rest = _SIDED.sub(" ", words.replace("_", " "), count=1)
    return ("left" if found.group(1).lower() in _LEFT else "right"), " ".join(
        re.sub(r"[-.]", " ", rest).lower().split()
    )


def default_colour(index: int) -> tuple[int, int, int]:
    """The colour of the ``index``-th structure (from 0)."""
    if index < len(_OKABE_ITO):
        return _OKABE_ITO[index]
    import colorsys

    hue = (index * 0.61803398875) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(
        hue, 0.55 + 0.4 * (index % 2), 0.95 - 0.25 * (index % 3) / 2
    )
    return round(red * 255), round(green * 255), round(blue * 255)


@dataclass(frozen=True)
class LabelSet:
    """The structures of a task, in order of value; 0 is background and not listed.

    Raises:
        LabelError: a value that is not positive, or a value or name given twice.
    """

    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "labels", tuple(sorted(self.labels, key=lambda label: label.value))
        )
        values, names = self.values, self.names
        if any(v <= 0 or v > 65535 for v in values):
            raise LabelError(f"label values lie in 1..65535 (0 is background), found {values}")
        for kind, given in (("value", [str(v) for v in values]), ("name", names)):
            twice = sorted({item for item in given if given.count(item) > 1})
            if twice:
                raise LabelError(f"label {kind} given twice: {', '.join(twice)}")

    @classmethod
    def from_names(cls, names: dict[int, str]) -> LabelSet:
        """A set from value -> name; 0 is left out; colours and sides are derived."""
        pairs = sorted((int(v), str(n)) for v, n in names.items() if int(v) != BACKGROUND)
        return cls(
            tuple(
                Label(v, n, default_colour(i), "", side_of(n)[0]) for i, (v, n) in enumerate(pairs)
            )
        )

    @property
    def values(self) -> list[int]:
        return [label.value for label in self.labels]

    @property
    def names(self) -> list[str]:
        return [label.name for label in self.labels]

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """Smallest unsigned dtype that holds every value."""
        return np.uint8 if max(self.values, default=0) < 256 else np.uint16

    def __len__(self) -> int:
        return len(self.labels)

    def __iter__(self) -> Iterator[Label]:
        return iter(self.labels)

    def named(self, name: str) -> Label:
        """The structure called ``name``.

        Raises:
            LabelError: there is none.
        """
        for label in self.labels:
            if label.name == name:
                return label
        raise LabelError(f"no structure is called {name!r}; known are {', '.join(self.names)}")

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(left value, right value) of every structure that is named on both sides."""
        lefts = {side_of(label.name)[1]: label.value for label in self if label.side == "left"}
        rights = {side_of(label.name)[1]: label.value for label in self if label.side == "right"}
        return [(value, rights[stem]) for stem, value in lefts.items() if stem in rights]

    @property
    def is_sided(self) -> bool:
        """Whether any structure has a side: then mirroring left to right changes what it is
        called.
        """
        return any(label.side is not None for label in self)

    @property
    def can_mirror_sides(self) -> bool:
        """Whether a left-right flip can be mended by swapping values: every sided structure has its
        partner.
        """
        paired = {value for pair in self.pairs for value in pair}
        return all(label.value in paired for label in self if label.side is not None)

    def compact(self) -> dict[int, int]:
        """Value -> class index 1..N of a network's output, in order of value."""
        return {value: index for index, value in enumerate(self.values, start=1)}

    def swap_table(self) -> NDArray[np.intp]:
        """(N + 1,) class index -> class index after a left-right flip (0 is background)."""
        index = self.compact()
        table = np.arange(len(self) + 1)
        for left, right in self.pairs:
            table[index[left]], table[index[right]] = index[right], index[left]
        return table

    def merged(self) -> LabelSet:
        """The set with both sides of each pair as one structure: the smaller value of the two, the
        name without the side, no code.

        Where that name is empty or another structure's, both names stand in it ("left kidney +
        right kidney").
        """
        pairs = {min(pair): max(pair) for pair in self.pairs}
        gone, by_value = set(pairs.values()), {label.value: label for label in self}
        taken = {
            label.name for label in self if label.value not in gone and label.value not in pairs
        }
        kept = []
        for label in self:
            if label.value in pairs:
                stem = side_of(label.name)[1]
                name = (
                    stem
                    if stem and stem not in taken
                    else f"{label.name} + {by_value[pairs[label.value]].name}"
                )
                kept.append(replace(label, name=name, code="", side=None))
            elif label.value not in gone:
                kept.append(label)
        return LabelSet(tuple(kept))

    def merge_table(self) -> NDArray[np.intp]:
        """(N + 1,) class index -> class index of ``merged`` (0 is background)."""
        index, partner = self.merged().compact(), {max(pair): min(pair) for pair in self.pairs}
        return np.array([0, *(index[partner.get(value, value)] for value in self.values)])

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "value": b.value,
                "name": b.name,
                "colour": list(b.colour),
                "code": b.code,
                "side": b.side,
            }
            for b in self
        ]

    @classmethod
    def from_json(cls, data: Iterable[dict[str, Any]]) -> LabelSet:
        return cls(
            tuple(
                Label(
                    int(d["value"]),
                    d["name"],
                    (int(d["colour"][0]), int(d["colour"][1]), int(d["colour"][2])),
                    d.get("code", ""),
                    d.get("side"),
                )
                for d in data
            )
        )


@dataclass(frozen=True)
class Range:
    """Values from ``low`` to ``high`` (both inside) become ``value``."""

    low: float
    high: float
    value: int


@dataclass(frozen=True)
class LabelMapping:
    """How the values of one source become values of a ``LabelSet``.

    Exactly one kind is meant by a mapping:
      ``values``  value on disk -> value (several may merge into one)
      ``ranges``  grey ranges, both ends inside (CHAOS MR: liver 55-70); used too for 0/255 masks
      ``rgb``     colour -> value; the source has three channels
      ``files``   one mask a structure: file stem -> value; any voxel above zero belongs to it
    An empty mapping means: the values on disk are the values of the set.

    ``rest`` says what becomes of other non-zero values: "refuse" (an error that lists them), or
    "background".
    """

    values: tuple[tuple[int, int], ...] = ()
    ranges: tuple[Range, ...] = ()
    rgb: tuple[tuple[tuple[int, int, int], int], ...] = ()
    files: tuple[tuple[str, int], ...] = ()
    rest: Literal["refuse", "background"] = "refuse"

    def __post_init__(self) -> None:
        kinds = [name for name in ("values", "ranges", "rgb", "files") if getattr(self, name)]
        if len(kinds) > 1:
            raise LabelError(f"a label mapping is of one kind, found {' and '.join(kinds)}")

    def apply(self, array: NDArray[Any], labels: LabelSet) -> NDArray[Any]:
        """Values on disk to values of ``labels``.

        Args:
            array: (I, J, K), any real dtype, or (3 or 4, I, J, K) for ``rgb``.

        Returns:
            (I, J, K) of ``labels.dtype``.

        Raises:
            LabelError: values that were not declared, where ``rest`` is "refuse"; non-integer or
                NaN values.
        """
        if self.rgb:
            return self._apply_rgb(array, labels)
        if array.ndim == 4:
            raise LabelError(
                f"a mask has one channel, found {array.shape[0]}; colours need an rgb mapping"
            )
        if self.ranges:
            return self._apply_ranges(array, labels)
        pairs = dict(self.values) if self.values else {v: v for v in labels.values}
        return self._apply_values(array, labels, pairs)

    def _apply_values(
        self, array: NDArray[Any], labels: LabelSet, pairs: dict[int, int]
    ) -> NDArray[Any]:
        whole = as_whole_numbers(array)
        found = unique_values(whole)
        unknown = [v for v in found if v != BACKGROUND and v not in pairs]
        if unknown and self.rest == "refuse":
            raise LabelError(
                f"undeclared label values {_listed(unknown)}; declared are {_listed(sorted(pairs))}"
            )
        low = min(found[0], 0) if found else 0
        table = np.zeros((found[-1] if found else 0) - low + 1, dtype=labels.dtype)
        for v in found:
            table[v - low] = pairs.get(v, BACKGROUND)
        if low == 0:
            return np.asarray(table[whole])
        return np.asarray(table[whole.astype(np.int64) - low])

    def _apply_ranges(self, array: NDArray[Any], labels: LabelSet) -> NDArray[Any]:
        out = np.zeros(array.shape, dtype=labels.dtype)
        known = array == 0
        for r in self.ranges:
            inside = (array >= r.low) & (array <= r.high)
            out[inside] = r.value
            known |= inside
        if self.rest == "refuse" and not known.all():
            stray = np.unique(array[~known])
            spans = ", ".join(f"{r.low:g}..{r.high:g}" for r in self.ranges)
            raise LabelError(
                f"grey values {_listed(stray.tolist())} lie in none of the declared ranges {spans}"
            )
        return out

    def _apply_rgb(self, array: NDArray[Any], labels: LabelSet) -> NDArray[Any]:
        if array.ndim != 4 or array.shape[0] not in (3, 4):
            raise LabelError(
                f"an rgb mapping needs an image of three colour channels, found shape {array.shape}"
            )
        colours = array[:3].astype(np.int64)
        code = (colours[0] << 16) | (colours[1] << 8) | colours[2]
        out = np.zeros(code.shape, dtype=labels.dtype)
        known = code == 0
        for (red, green, blue), value in self.rgb:
            inside = code == (red << 16 | green << 8 | blue)
            out[inside] = value
            known |= inside
        if self.rest == "refuse" and not known.all():
            stray = [f"#{c:06x}" for c in np.unique(code[~known])[:8]]
            raise LabelError(f"colours {', '.join(stray)} are not declared")
        return out

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"rest": self.rest}
        if self.values:
            data["values"] = [list(p) for p in self.values]
        if self.ranges:
            data["ranges"] = [[r.low, r.high, r.value] for r in self.ranges]
        if self.rgb:
            data["rgb"] = [[list(c), v] for c, v in self.rgb]
        if self.files:
            data["files"] = [list(p) for p in self.files]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LabelMapping:
        return cls(
            values=tuple((int(a), int(b)) for a, b in data.get("values", ())),
            ranges=tuple(Range(float(a), float(b), int(v)) for a, b, v in data.get("ranges", ())),
            rgb=tuple(((int(c[0]), int(c[1]), int(c[2])), int(v)) for c, v in data.get("rgb", ())),
            files=tuple((str(a), int(b)) for a, b in data.get("files", ())),
            rest=data.get("rest", "refuse"),
        )


def as_whole_numbers(array: NDArray[Any], path: str | None = None) -> NDArray[Any]:
    """The same label values with an integer dtype (no copy where they have one).

    Every reader and every metric converts here, so that none rounds what another truncates.
    Programs that resample or scale masks leave values such as 0.9999; a value is taken for the
    nearest whole number within ``WHOLE_TOLERANCE``.

    Args:
        array: any shape and real dtype; empty is allowed.
        path: the file they come from, for the error.

    Raises:
        LabelError: a value that is not finite, or is further from a whole number; the value that is
            furthest is named. Or values that would all become 0 and are more than noise.
    """
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind != "f":
        raise LabelError(f"label values are whole numbers, found {array.dtype}", path=path)
    finite = np.isfinite(array)
    if not finite.all():
        bad = int(array.size - np.count_nonzero(finite))
        raise LabelError(
            f"label values are whole numbers, found {bad} voxel(s) that are NaN or infinite",
            path=path,
        )
    whole = np.rint(array)
    off = np.abs(whole - array)
    if off.size and (worst := float(off.max())) > WHOLE_TOLERANCE:
        value = float(array.flat[int(off.argmax())])
        message = (
            f"label values are whole numbers, found {value:.6g}, which is {worst:.3g} from "
            f"one (allowed is {WHOLE_TOLERANCE:g})"
        )
        raise LabelError(message, path=path)
    high = float(np.abs(whole).max(initial=0))
    # Values divided by 255 or 65535: within the tolerance of 0, and no background.
    if not high and (most := float(off.max(initial=0))) > NOISE:
        raise LabelError(
            f"no label value reaches 1, and the highest is {most:.6g}: label values are whole "
            "numbers, these look scaled",
            path=path,
        )
    integers: NDArray[Any] = whole.astype(np.int32 if high < 2**31 else np.int64)
    return integers


def unique_values(array: NDArray[Any]) -> list[int]:
    """Distinct values in rising order; by counting where the values are small, which is far faster
    than sorting.
    """
    if array.size == 0:
        return []
    low, high = int(array.min()), int(array.max())
    if low >= 0 and high <= 65535:
        return [int(v) for v in np.flatnonzero(np.bincount(array.ravel(order="K"), minlength=1))]
    return [int(v) for v in np.unique(array)]


def _listed(values: Sequence[Any], most: int = 10) -> str:
    text = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values[:most])
    return text + (f" and {len(values) - most} more" if len(values) > most else "")
