"""Label values: what they mean, and how the values in a file are converted to them.

``LabelSet`` describes the values that a model knows: value, name, colour, code, side.
``LabelMapping`` describes how the values of one source become values of a set: by intensity ranges,
RGB colours, 0/255 masks, one file per structure, or by selecting and merging values. Background is
always 0. This module knows no files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import LabelError

Side = Literal["left", "right", None]
BACKGROUND = 0
# The value in converted label maps of voxels whose truth is unknown: they are neither learnt from
# nor scored.
IGNORED = 65535
FOREGROUND = "foreground"  # the only structure of masks that name none
MOST_OVERLAPPING = 15  # structures: their combinations stay below ``IGNORED``
COUNTED_TOGETHER = 1 << 20  # voxels
WHOLE_TOLERANCE = 0.01  # largest distance of a label value stored as float from a whole number
NOISE = 1e-6  # rounding errors leave values up to this where 0 is meant
# The colours of Okabe & Ito, which colour-blind readers can distinguish. After these, hues follow
# at steps of the golden angle.
_OKABE_ITO = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
# A side as a separate word, and its forms that mean left.
# ("L1" is a vertebra), in English, German, Dutch, French, Spanish, Italian, Chinese and Japanese.
_LEFT = r"left|lh|l(?!\d)|links|linke[rsn]?|gauche|izquierd[oa]|sinistr[oa]|左"
_RIGHT = r"right|rh|r(?!\d)|rechts|rechte[rsn]?|droite?|derech[oa]|destr[oa]|右"
_SIDED = re.compile(rf"(?i)(?<![a-z])(?:(?P<left>{_LEFT})|{_RIGHT})(?![a-z])")


@dataclass(frozen=True)
class Label:
    """One structure: positive value, unique name, RGB colour, optional terminology code, side.

    ``parts``: the values of a label map whose voxels together are the structure, if these are
    others than its own value (a region of nnU-Net).
    """

    value: int
    name: str
    colour: tuple[int, int, int]
    code: str = ""
    side: Side = None
    parts: tuple[int, ...] = ()


def side_of(name: str) -> tuple[Side, str]:
    """The side in ``name``, and the name without it ("Left kidney" -> left, "kidney").

    The name is in lower case with single spaces; the side is None if ``name`` has none.
    """
    # "LeftKidney" and "left_kidney" become separate words.
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    found = _SIDED.search(words.replace("_", " "))
    if found is None:
        return None, " ".join(words.replace("_", " ").replace("-", " ").lower().split())
    # Remove only the first side.
    rest = _SIDED.sub(" ", words.replace("_", " "), count=1)
    return ("left" if found["left"] else "right"), " ".join(
        re.sub(r"[-.]", " ", rest).lower().split()
    )


def default_colour(index: int) -> tuple[int, int, int]:
    """The colour of the ``index``-th structure (from 0)."""
    if index < len(_OKABE_ITO):
        return _OKABE_ITO[index]
    import colorsys

    # Steps of the golden angle keep hues far apart; saturation and brightness alternate.
    hue = (index * 0.61803398875) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(
        hue, 0.55 + 0.4 * (index % 2), 0.95 - 0.25 * (index % 3) / 2
    )
    return round(red * 255), round(green * 255), round(blue * 255)


@dataclass(frozen=True)
class LabelSet:
    """The structures of a task in order of value; background (0) is not listed.

    Structures may be ``overlapping``: then they are in the given order, and a label map of the set
    holds codes: bit n of a voxel is set if the voxel belongs to structure n (from 0).

    Raises:
        LabelError: a value outside 1..65535, a value or name given twice, or too many structures
            that overlap.

    >>> labels = LabelSet.from_names({1: "left kidney", 2: "right kidney", 5: "liver"})
    >>> labels.values, labels.names, labels.named("liver").value, labels.dtype
    ([1, 2, 5], ['left kidney', 'right kidney', 'liver'], 5, <class 'numpy.uint8'>)
    >>> labels.pairs, labels.is_sided, labels.can_mirror_sides
    ([(1, 2)], True, True)

    Class indices, counted from 1; the same after a flip; and with both sides as one:

    >>> labels.compact(), labels.swap_table(), labels.merged().names, labels.merge_table()
    ({1: 1, 2: 2, 5: 3}, array([0, 2, 1, 3]), ['kidney', 'liver'], array([0, 1, 1, 2]))
    >>> LabelSet.from_json(labels.to_json()) == labels
    True

    A voxel of two structures that overlap:

    >>> nested = LabelSet.from_names({1: "whole", 2: "core"}, overlapping=True)
    >>> nested.inside(np.array([0, 1, 3]), nested.named("core")), nested.codes
    (array([False, False,  True]), 4)
    >>> codes = np.array([0, 1, 1])
    >>> nested.add(codes, [False, False, True], 2)
    >>> codes, nested.painted(codes), nested.can_be_painted, nested.swap_codes()
    (array([0, 1, 3]), array([0, 1, 2], dtype=uint8), False, array([0, 1, 2, 3]))
    """

    labels: tuple[Label, ...]
    overlapping: bool = False

    def __post_init__(self) -> None:
        if not self.overlapping:
            ordered = tuple(sorted(self.labels, key=lambda label: label.value))
            object.__setattr__(self, "labels", ordered)
        elif len(self.labels) > MOST_OVERLAPPING:
            raise LabelError(
                f"at most {MOST_OVERLAPPING} structures may overlap, found {len(self.labels)}; "
                "select some with --labels"
            )
        values, names = self.values, self.names
        if any(v <= 0 or v > 65535 for v in values):
            raise LabelError(f"label values must be 1..65535 (0 is background), found {values}")
        for kind, given in (("value", [str(v) for v in values]), ("name", names)):
            twice = sorted({item for item in given if given.count(item) > 1})
            if twice:
                raise LabelError(f"label {kind} given twice: {', '.join(twice)}")

    @classmethod
    def from_names(cls, names: dict[int, str], overlapping: bool = False) -> LabelSet:
        """A set from value -> name; 0 is ignored; colours and sides are derived."""
        pairs = [(int(v), str(n)) for v, n in names.items() if int(v) != BACKGROUND]
        pairs = pairs if overlapping else sorted(pairs)
        return cls(
            tuple(
                Label(v, n, default_colour(i), "", side_of(n)[0]) for i, (v, n) in enumerate(pairs)
            ),
            overlapping,
        )

    @property
    def values(self) -> list[int]:
        return [label.value for label in self.labels]

    @property
    def names(self) -> list[str]:
        return [label.name for label in self.labels]

    @property
    def dtype(self) -> type[np.unsignedinteger[Any]]:
        """The smallest unsigned dtype that holds all values, or all codes."""
        most = self.codes - 1 if self.overlapping else max(self.values, default=0)
        return np.uint8 if most < 256 else np.uint16

    @property
    def codes(self) -> int:
        """Number of states of a voxel: background and each structure; of structures that overlap,
        their combinations.
        """
        return 2 ** len(self) if self.overlapping else len(self) + 1

    def inside(self, array: NDArray[Any], label: Label) -> NDArray[np.bool_]:
        """The voxels of a structure of the set in a label map of the set, of any shape."""
        if self.overlapping:
            bit = 1 << self.values.index(label.value)
            return np.asarray((array & bit != 0) & (array != IGNORED))
        return np.asarray(np.isin(array, label.parts) if label.parts else array == label.value)

    def add(self, array: NDArray[Any], inside: Any, value: int) -> None:
        """Add the voxels ``inside`` of the structure with this value to a label map, in place; in
        an overlap the later structure wins, unless structures of the set may overlap.
        """
        if self.overlapping:
            array[inside] |= 1 << self.values.index(value)
        else:
            array[inside] = value

    def painted(self, codes: NDArray[Any]) -> NDArray[Any]:
        """The label map of ``codes`` of structures that overlap: each voxel gets the value of its
        last structure.
        """
        high = max(self.values, default=0)
        out = np.zeros_like(codes, dtype=np.uint8 if high < 256 else np.uint16)
        for label in self:
            out[self.inside(codes, label)] = label.value
        return out

    @property
    def can_be_painted(self) -> bool:
        """Whether one label map can hold structures that overlap: each states the values that
        belong to it, and its own is one of them (nnU-Net's regions with their class order).
        """
        return self.overlapping and all(label.value in label.parts for label in self)

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
        """(left value, right value) of every structure that exists on both sides."""
        # Partners have the same name without the side.
        lefts = {side_of(label.name)[1]: label.value for label in self if label.side == "left"}
        rights = {side_of(label.name)[1]: label.value for label in self if label.side == "right"}
        return [(value, rights[stem]) for stem, value in lefts.items() if stem in rights]

    @property
    def is_sided(self) -> bool:
        """Whether any structure has a side, so that a left-right flip changes its name."""
        return any(label.side is not None for label in self)

    @property
    def can_mirror_sides(self) -> bool:
        """Whether swapping values corrects a left-right flip: every structure with a side has its
        partner.
        """
        paired = {value for pair in self.pairs for value in pair}
        return all(label.value in paired for label in self if label.side is not None)

    def compact(self) -> dict[int, int]:
        """Value -> class index 1..N of the network output, in order of value."""
        return {value: index for index, value in enumerate(self.values, start=1)}

    def swap_table(self) -> NDArray[np.intp]:
        """(N + 1,) the class index of each class after a left-right flip (0 is background)."""
        index = self.compact()
        table = np.arange(len(self) + 1)
        for left, right in self.pairs:
            table[index[left]], table[index[right]] = index[right], index[left]
        return table

    def swap_codes(self) -> NDArray[np.intp]:
        """(codes,) the code, or class index, of each one after a left-right flip."""
        if not self.overlapping:
            return self.swap_table()
        table, codes = self.swap_table()[1:] - 1, np.arange(self.codes)
        moved = [(codes >> n & 1) << int(to) for n, to in enumerate(table)]
        return np.asarray(np.bitwise_or.reduce(moved), dtype=np.intp)

    def merged(self) -> LabelSet:
        """The set with both sides of each pair as one structure: the smaller of the two values, the
        name without the side, no code.

        If that name is empty or belongs to another structure, both names are joined ("left kidney +
        right kidney").
        """
        # Of each pair the smaller value is kept; names of all unpaired structures are taken.
        pairs = {min(pair): max(pair) for pair in self.pairs}
        gone, by_value = set(pairs.values()), {label.value: label for label in self}
        taken = {
            label.name for label in self if label.value not in gone and label.value not in pairs
        }
        # Paired structures lose their side, the larger value of each pair disappears.
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
        """(N + 1,) the class index in ``merged`` of each class (0 is background)."""
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
                **({"parts": list(b.parts)} if b.parts else {}),
            }
            for b in self
        ]

    @classmethod
    def from_json(cls, data: Iterable[dict[str, Any]], overlapping: bool = False) -> LabelSet:
        return cls(
            tuple(
                Label(
                    int(d["value"]),
                    d["name"],
                    (int(d["colour"][0]), int(d["colour"][1]), int(d["colour"][2])),
                    d.get("code", ""),
                    d.get("side"),
                    tuple(int(v) for v in d.get("parts", ())),
                )
                for d in data
            ),
            overlapping,
        )


@dataclass(frozen=True)
class Range:
    """Values from ``low`` to ``high`` (both included) become ``value``."""

    low: float
    high: float
    value: int


@dataclass(frozen=True)
class LabelMapping:
    """How the values of one source become values of a ``LabelSet``.

    A mapping has exactly one kind:
      ``values``  value on disk -> value (several may be merged into one)
      ``ranges``  intensity ranges, both ends included (CHAOS MR: liver 55-70); also for 0/255 masks
      ``rgb``     colour -> value; the source has three channels
      ``files``   masks of single structures: structure of the source, or file stem -> value; voxels
                  above zero belong to it
      ``channels`` one mask per structure in one file: channel -> value; voxels above zero
      ``segments`` segment name -> value; each file states the values of its own segments
    An empty mapping means that the values on disk are already the values of the set, or of the
    parts of its structures. Of structures that overlap, several may have the same source.

    ``rest`` decides what happens to other non-zero values: "refuse" (an error that lists them) or
    "background". Voxels with a value in ``ignore`` (of colours, a code 0xRRGGBB) are ignored,
    whatever the kind: they become ``IGNORED``.

    Raises:
        LabelError: more than one kind.

    >>> labels = LabelSet.from_names({1: "liver"})
    >>> LabelMapping(ignore=(255,)).apply(np.array([[[0, 1, 255]]], np.uint8), labels)
    array([[[    0,     1, 65535]]], dtype=uint16)
    """

    KINDS: ClassVar[tuple[str, ...]] = ("values", "ranges", "rgb", "files", "channels", "segments")

    values: tuple[tuple[int, int], ...] = ()
    ranges: tuple[Range, ...] = ()
    rgb: tuple[tuple[tuple[int, int, int], int], ...] = ()
    files: tuple[tuple[str, int], ...] = ()
    channels: tuple[tuple[int, int], ...] = ()
    segments: tuple[tuple[str, int], ...] = ()
    rest: Literal["refuse", "background"] = "refuse"
    ignore: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        kinds = [name for name in self.KINDS if getattr(self, name)]
        if len(kinds) > 1:
            raise LabelError(f"a label mapping has only one kind, found {' and '.join(kinds)}")

    def apply(
        self, array: NDArray[Any], labels: LabelSet, segments: Mapping[int, str] | None = None
    ) -> NDArray[Any]:
        """Convert values on disk to values of ``labels``.

        Args:
            array: (I, J, K), any real dtype; (3 or 4, I, J, K) for ``rgb``, (C, I, J, K) for
                ``channels``.
            segments: value -> name of the segments that the file itself states; for ``segments``.

        Returns:
            (I, J, K) of ``labels.dtype``: values, or codes of structures that overlap; uint16 if
            some values are ignored.

        Raises:
            LabelError: undeclared values if ``rest`` is "refuse"; non-integer or NaN values; or
                another number of channels than the mapping needs.
        """
        if self.ignore:
            ignored = self.ignored_in(array)
            rest = replace(self, ignore=())
            return marked(rest.apply(np.where(ignored, 0, array), labels, segments), ignored)
        if self.rgb:
            return self._apply_rgb(array, labels)
        if self.channels:
            return self._apply_channels(array, labels)
        if self.segments and segments is not None:
            return self._apply_segments(array, labels, segments)
        if array.ndim == 4:
            raise LabelError(f"found {array.shape[0]} channels, but the cohort's masks have one")
        if self.segments:
            return self._apply_segments(array, labels, {})
        if self.ranges:
            return self._apply_ranges(array, labels)
        own = [(part, label.value) for label in labels for part in label.parts or (label.value,)]
        return self._apply_values(array, labels, self.values or own)

    def ignored_in(self, array: NDArray[Any]) -> NDArray[np.bool_]:
        """(I, J, K) the voxels of ``array`` (see ``apply``) that are ignored: those with a value in
        ``ignore``, in any channel.

        Raises:
            LabelError: values that are not whole numbers.
        """
        if self.rgb:
            found = np.isin(_colour_codes(array), self.ignore)
        else:
            found = np.isin(array if self.ranges else as_whole_numbers(array), self.ignore)
        return np.asarray(found.any(axis=0) if found.ndim == 4 else found)

    def _apply_values(
        self, array: NDArray[Any], labels: LabelSet, sources: Iterable[tuple[int, int]]
    ) -> NDArray[Any]:
        whole = as_whole_numbers(array)
        found = unique_values(whole)
        pairs: dict[int, int] = {}
        for source, value in sources:
            bit = 1 << labels.values.index(value) if labels.overlapping and value else 0
            pairs[source] = pairs.get(source, 0) | bit if labels.overlapping else value
        unknown = [v for v in found if v != BACKGROUND and v not in pairs]
        if unknown and self.rest == "refuse":
            raise LabelError(
                f"undeclared label values {_listed(unknown)}; declared are {_listed(sorted(pairs))}"
            )
        # Look values up in a table, which is far faster than one comparison per value. Negative
        # values shift its start.
        low = min(found[0], 0) if found else 0
        table = np.zeros((found[-1] if found else 0) - low + 1, dtype=labels.dtype)
        for v in found:
            table[v - low] = pairs.get(v, BACKGROUND)
        if low == 0:
            return np.asarray(table[whole])
        return np.asarray(table[whole.astype(np.int64) - low])

    def _apply_channels(self, array: NDArray[Any], labels: LabelSet) -> NDArray[Any]:
        most = max(channel for channel, _ in self.channels) + 1
        if array.ndim != 4 or array.shape[0] < most:
            found = array.shape[0] if array.ndim == 4 else 1
            raise LabelError(
                f"found {found} channel(s), but the cohort's masks have one for each structure, at "
                f"least {most}"
            )
        out = np.zeros(array.shape[1:], dtype=labels.dtype)
        for channel, value in self.channels:
            inside = as_whole_numbers(array[channel]) > 0
            others = (out[inside] != 0) & (out[inside] != value)
            both = 0 if labels.overlapping else int(np.count_nonzero(others))
            if both:
                raise LabelError(
                    f"channel {channel} overlaps with an earlier one in {both} voxels, but a voxel "
                    "can have only one structure; `overlapping: true` in a --labels file keeps both"
                )
            labels.add(out, inside, value)
        return out

    def _apply_segments(
        self, array: NDArray[Any], labels: LabelSet, segments: Mapping[int, str]
    ) -> NDArray[Any]:
        known = {name.casefold(): value for name, value in self.segments}
        strange = [name for name in segments.values() if name.casefold() not in known]
        if strange and self.rest == "refuse":
            raise LabelError(
                f"undeclared segments {', '.join(strange)}; declared are "
                f"{', '.join(name for name, _ in self.segments)}"
            )
        pairs = [(v, known[n.casefold()]) for v, n in segments.items() if n.casefold() in known]
        if array.ndim == 3:
            return self._apply_values(array, labels, pairs)
        # Segments that overlap: one channel each, numbered from 1.
        channels = tuple((number - 1, value) for number, value in pairs)
        return replace(self, segments=(), channels=channels).apply(array, labels)

    def _apply_ranges(self, array: NDArray[Any], labels: LabelSet) -> NDArray[Any]:
        # Later ranges overwrite earlier ones; 0 is background unless a range includes it.
        out = np.zeros(array.shape, dtype=labels.dtype)
        known = array == 0
        for r in self.ranges:
            inside = (array >= r.low) & (array <= r.high)
            labels.add(out, inside, r.value)
            known |= inside
        if self.rest == "refuse" and not known.all():
            stray = np.unique(array[~known])
            spans = ", ".join(f"{r.low:g}..{r.high:g}" for r in self.ranges)
            raise LabelError(
                f"intensities {_listed(stray.tolist())} are outside the declared ranges {spans}"
            )
        return out

    def _apply_rgb(self, array: NDArray[Any], labels: LabelSet) -> NDArray[Any]:
        if array.ndim != 4 or array.shape[0] not in (3, 4):
            raise LabelError(
                f"an RGB mapping needs an image with 3 or 4 channels, found shape {array.shape}"
            )
        code = _colour_codes(array)
        # Black is background.
        out = np.zeros(code.shape, dtype=labels.dtype)
        known = code == 0
        for (red, green, blue), value in self.rgb:
            inside = code == (red << 16 | green << 8 | blue)
            labels.add(out, inside, value)
            known |= inside
        if self.rest == "refuse" and not known.all():
            stray = [f"#{c:06x}" for c in np.unique(code[~known])[:8]]
            raise LabelError(f"undeclared colours {', '.join(stray)}")
        return out

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"rest": self.rest}
        if self.values:
            data["values"] = [list(p) for p in self.values]
        if self.ranges:
            data["ranges"] = [[r.low, r.high, r.value] for r in self.ranges]
        if self.rgb:
            data["rgb"] = [[list(c), v] for c, v in self.rgb]
        for kind in ("files", "channels", "segments"):
            if getattr(self, kind):
                data[kind] = [list(p) for p in getattr(self, kind)]
        if self.ignore:
            data["ignore"] = list(self.ignore)
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LabelMapping:
        return cls(
            values=tuple((int(a), int(b)) for a, b in data.get("values", ())),
            ranges=tuple(Range(float(a), float(b), int(v)) for a, b, v in data.get("ranges", ())),
            rgb=tuple(((int(c[0]), int(c[1]), int(c[2])), int(v)) for c, v in data.get("rgb", ())),
            files=tuple((str(a), int(b)) for a, b in data.get("files", ())),
            channels=tuple((int(a), int(b)) for a, b in data.get("channels", ())),
            segments=tuple((str(a), int(b)) for a, b in data.get("segments", ())),
            rest=data.get("rest", "refuse"),
            ignore=tuple(int(v) for v in data.get("ignore", ())),
        )


def marked(array: NDArray[Any], ignored: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """The label map (I, J, K) as uint16, with ``IGNORED`` where ``ignored`` is set.

    Raises:
        LabelError: the map has a structure with this value.
    """
    if array.max(initial=0) >= IGNORED:
        raise LabelError(f"the value {IGNORED} marks ignored voxels and can be no structure")
    found = array.astype(np.uint16)
    found[ignored] = IGNORED
    return found


def _colour_codes(array: NDArray[Any]) -> NDArray[np.int64]:
    """0xRRGGBB of each voxel of (3 or 4, I, J, K): one number is faster to compare than three."""
    red, green, blue = array[:3].astype(np.int64)
    return np.asarray((red << 16) | (green << 8) | blue)


def as_whole_numbers(array: NDArray[Any], path: str | None = None) -> NDArray[Any]:
    """The same label values with an integer dtype (no copy if they already have one).

    All readers and metrics convert label values here, so that all of them round the same way.
    Programs that resample or scale masks leave values such as 0.9999: a value within
    ``WHOLE_TOLERANCE`` of a whole number becomes that number.

    Args:
        array: any shape and real dtype; may be empty.
        path: the file that the values come from, for the error message.

    Raises:
        LabelError: a value that is not finite or is too far from a whole number (the error names
            the value that is farthest); or an array whose values would all become 0, although they
            are larger than rounding errors.
    """
    if array.dtype.kind in "iu":
        return array
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype.kind != "f":
        raise LabelError(f"label values must be whole numbers, found {array.dtype}", path=path)
    # Floats: all must be finite and close to a whole number.
    finite = np.isfinite(array)
    if not finite.all():
        bad = int(array.size - np.count_nonzero(finite))
        raise LabelError(
            f"label values must be whole numbers, found {bad} voxel(s) that are NaN or infinite",
            path=path,
        )
    # The error names the worst voxel.
    whole = np.rint(array)
    off = np.abs(whole - array)
    if off.size and (worst := float(off.max())) > WHOLE_TOLERANCE:
        value = float(array.flat[int(off.argmax())])
        message = (
            f"label values must be whole numbers, found {value:.6g}, which is {worst:.3g} from "
            f"the nearest (at most {WHOLE_TOLERANCE:g} is allowed)"
        )
        raise LabelError(message, path=path)
    high = float(np.abs(whole).max(initial=0))
    # A mask divided by 255 or 65535 is within the tolerance of 0, but it is not all background.
    if not high and (most := float(off.max(initial=0))) > NOISE:
        raise LabelError(
            f"no label value reaches 1, the highest is {most:.6g}: label values must be whole "
            "numbers, these look scaled",
            path=path,
        )
    integers: NDArray[Any] = whole.astype(np.int32 if high < 2**31 else np.int64)
    return integers


def value_counts(array: NDArray[Any]) -> dict[int, int]:
    """Distinct values in ascending order -> number of voxels; ``array`` has an integer dtype."""
    if array.size == 0:
        return {}
    if int(array.min()) >= 0 and (high := int(array.max())) <= 65535:
        counts, flat = np.zeros(high + 1, np.int64), array.ravel(order="K")
        # In parts, because numpy converts what it counts to 64 bits.
        for first in range(0, flat.size, COUNTED_TOGETHER):
            counts += np.bincount(flat[first : first + COUNTED_TOGETHER], minlength=high + 1)
        return {int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    values, counts = np.unique(array, return_counts=True)
    return {int(v): int(n) for v, n in zip(values, counts, strict=True)}


def unique_values(array: NDArray[Any]) -> list[int]:
    """Distinct values in ascending order."""
    return list(value_counts(array))


def _listed(values: Sequence[Any], most: int = 10) -> str:
    text = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values[:most])
    return text + (f" and {len(values) - most} more" if len(values) > most else "")
