"""The content of label files, from which the structures of a cohort are derived."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core.errors import DelineateError
from ....core.labels import as_whole_numbers, unique_values, value_counts
from ....core.manifest import Case, Manifest
from ....core.volume import Volume
from ....extend.findings import Draft
from ....formats import archive
from ....formats.label_files import LOSSY, is_coloured
from ...reading import read_raw_label

MOST_FILES, MOST_BYTES = 200, 64 << 20  # limits on the label files read to derive their values
SMOOTHED_VALUES = 8  # masks of more values may have smoothed edges
GAPS, WHOLE = 1.25, 0.9  # largest number of an object per object; share of those in one part


@dataclass(frozen=True)
class MaskFile:
    """The content of one label file.

    Args:
        case: id of its case.
        path: the file.
        counts: non-zero value -> number of voxels; {} for colours and channels.
        colours: codes 0xRRGGBB except black, of a coloured picture.
        channels: number of channels that are no colours; 0 for one.
        ends: number of voxels of the first and of the last channel, if every voxel is in exactly
            one channel, so that one channel is the background.
        names: value -> name, as the file itself states; of segments that overlap, their numbers.
        overlapping: whether channels or segments overlap.
        palette: value -> colour code, of a picture with a palette.
        solid: the values that have a voxel whose four neighbours in its slice have it too; values
            without one are found at edges only.
        corner: the value of all corners of the mask (of colours, the code); 0 if they differ.
        has_zero: whether any voxel has the value 0, or is black.
        zero_at_border: whether one of them is at the border of a slice.
        objects: number of values of a picture that count objects: they are 1, 2, 3 ... with few
            gaps, and nearly each is one connected component; 0 for any other mask.
    """

    case: str
    path: str
    counts: dict[int, int] = field(default_factory=dict)
    colours: frozenset[int] = frozenset()
    channels: int = 0
    ends: tuple[int, int] | None = None
    names: dict[int, str] = field(default_factory=dict)
    overlapping: bool = False
    palette: dict[int, int] = field(default_factory=dict)
    solid: frozenset[int] = frozenset()
    corner: int = 0
    has_zero: bool = True
    zero_at_border: bool = True
    objects: int = 0

    @property
    def codes(self) -> frozenset[int]:
        """All values or colours, with that of the background."""
        return frozenset(self.counts) | self.colours | ({0} if self.has_zero else set())

    def without(self, code: int) -> MaskFile:
        """The file with ``code`` as background."""
        counts = {v: n for v, n in self.counts.items() if v != code}
        return replace(self, counts=counts, colours=self.colours - {code})

    @property
    def is_lossy(self) -> bool:
        return self.path.lower().endswith(LOSSY)

    @property
    def form(self) -> str:
        if self.channels:
            return f"{self.channels} channels"
        return "colours" if self.colours else "one channel"


def sample_of(cases: Sequence[Case]) -> Iterator[Case]:
    """Evenly spaced cases, at most ``MOST_FILES``, until ``MOST_BYTES`` are read; at least one."""
    step = max(1, -(-len(cases) // MOST_FILES))
    spent = 0
    for case in cases[::step]:
        yield case
        # A label may be a file, a member of an archive, a folder of slices, or a broken link.
        with contextlib.suppress(OSError, DelineateError):
            spent += archive.size_of(Path(case.label[0].path))
        if spent > MOST_BYTES:
            return


def read_files(cases: Sequence[Case], draft: Draft) -> tuple[list[MaskFile], list[str]]:
    """The content of each file, and the messages of those that could not be read."""
    found, errors = [], []
    manifest = Manifest((), draft.channels)
    for case in cases:
        try:
            for source, volume in read_raw_label(case, manifest):
                found.append(_content(case.id, source.path, volume, draft.ignore))
        except DelineateError as error:  # `check` reports each file; the others suffice here
            errors.append(str(error))
    return found, errors


def _content(case: str, path: str, volume: Volume, ignore: tuple[int, ...]) -> MaskFile:
    """The content of a label file; values in ``ignore`` are left out."""
    array = volume.array
    if array.ndim == 4 and is_coloured(volume):
        # One code per voxel, and only the set of codes matters.
        codes = _codes(*(channel.astype(np.int64) for channel in array[:3]))
        colours = frozenset(unique_values(codes))
        return MaskFile(
            case,
            path,
            colours=colours - {0, *ignore},
            corner=_corner(codes),
            has_zero=0 in colours,
            objects=_objects_in_channel(codes),
        )
    if array.ndim == 4:
        whole = (as_whole_numbers(channel, path) for channel in array)
        masks = [(channel > 0) & ~np.isin(channel, ignore) for channel in whole]
        if names := volume.meta.get("names"):  # segments in layers that overlap
            counts = {n: int(mask.sum()) for n, mask in enumerate(masks, start=1)}
            return MaskFile(case, path, counts, names=dict(names), overlapping=True)
        ends, rest = _background_ends(masks)
        overlapping = bool((np.sum(rest, axis=0) > 1).any())
        return MaskFile(case, path, channels=len(array), ends=ends, overlapping=overlapping)
    labels = as_whole_numbers(array, path)
    every = value_counts(labels)
    counts = {v: n for v, n in every.items() if v not in (0, *ignore)}
    colours = volume.meta.get("palette", {})
    palette = {v: _codes(*colours[v]) for v in counts if v in colours}
    names = {v: n for v, n in volume.meta.get("names", {}).items() if v != 0}
    return MaskFile(
        case,
        path,
        counts,
        names=names,
        palette=palette,
        solid=_solid(labels, counts),
        corner=_corner(labels),
        has_zero=0 in every,
        zero_at_border=_is_at_border(labels == 0),
        objects=_objects(labels, counts),
    )


def _is_at_border(mask: NDArray[np.bool_]) -> bool:
    edges = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return any(bool(edge.any()) for edge in edges)


def _objects_in_channel(codes: NDArray[Any]) -> int:
    """``MaskFile.objects`` of colours that are shades of red, green or blue alone."""
    used = int(np.bitwise_or.reduce(codes, axis=None))
    shift = next((n for n in (0, 8, 16) if used and not used & ~(0xFF << n)), None)
    if shift is None:
        return 0
    values = codes >> shift
    return _objects(values, {v: n for v, n in value_counts(values).items() if v})


def _objects(array: NDArray[Any], counts: Mapping[int, int]) -> int:
    """See ``MaskFile``."""
    number = len(counts)
    if not number or array.shape[2] > 1 or not 0 < min(counts) <= max(counts) <= GAPS * number:
        return 0
    from scipy import ndimage  # takes long to import, and few masks come here

    plane = array[..., 0].astype(np.int32)
    boxes = ndimage.find_objects(plane)
    single = sum(ndimage.label(plane[boxes[v - 1]] == v, np.ones((3, 3)))[1] == 1 for v in counts)
    return number if single >= WHOLE * number else 0


def _corner(array: NDArray[Any]) -> int:
    """The value of all corners; 0 if they differ."""
    steps = (slice(None, None, max(n - 1, 1)) for n in array.shape)
    corners = unique_values(array[tuple(steps)])
    return corners[0] if len(corners) == 1 else 0


def _solid(array: NDArray[Any], counts: Mapping[int, int]) -> frozenset[int]:
    """See ``MaskFile``; all values if they are few, or if the array is too small."""
    if len(counts) <= SMOOTHED_VALUES or min(array.shape[:2]) < 3:
        return frozenset(counts)
    inner = array[1:-1, 1:-1]
    same = np.ones(inner.shape, bool)
    for other in (array[:-2, 1:-1], array[2:, 1:-1], array[1:-1, :-2], array[1:-1, 2:]):
        same &= inner == other
    return frozenset(unique_values(inner[same])) - {0}


def _background_ends(
    masks: list[NDArray[np.bool_]],
) -> tuple[tuple[int, int] | None, list[NDArray[np.bool_]]]:
    """See ``MaskFile.ends``; and the masks without the channel that can only be the background."""
    sizes = int(masks[0].sum()), int(masks[-1].sum())
    if (np.sum(masks, axis=0) == 1).all():
        return sizes, masks
    # The others may overlap: the background is what none of them has.
    for ends, one, others in (
        ((sizes[0], 0), masks[0], masks[1:]),
        ((0, sizes[1]), masks[-1], masks[:-1]),
    ):
        if np.array_equal(one, ~np.any(others, axis=0)):
            return ends, others
    return None, masks


def _codes(red: Any, green: Any, blue: Any) -> Any:
    return (red << 16) | (green << 8) | blue
