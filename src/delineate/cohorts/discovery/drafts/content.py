"""Whether a file is an image or a mask, by its content.

A mask has few values, and most neighbours inside its structures are equal. An image has many, and
most neighbours differ. Names are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ....core.errors import DelineateError
from ....core.volume import Volume
from ....formats.label_files import is_coloured, read_label_file, without_alpha
from ...reading import is_grey

Kind = Literal["image", "mask", ""]
FEW_VALUES = 4  # a file with so few values is a mask, even where no neighbours are equal
MASK_VALUES = 64  # more values than this need flatter areas to be a mask
MOST_VALUES = 1024  # more values than this are no mask
FLAT, VERY_FLAT = 0.6, 0.8  # shares of equal neighbours inside the structures of a mask
IMAGE_VALUES = 8  # with more values and fewer equal neighbours than FLAT a file is an image
NEAR_ENDS, SMOOTHED = 16, 0.9  # a mask saved as JPEG: most values are near 0 and 255
FRACTIONS = 0.01  # share of values that are not whole in an image
SLICES = 8  # slices that are examined of a volume
COMPARED = 5  # cases in which two masks are compared
APART, INSIDE = 0.02, 0.95  # shares of the smaller mask that the larger one covers


@dataclass(frozen=True)
class Content:
    """What one file contains.

    Args:
        kind: "image", "mask", or "" if the content does not show it (a constant file).
        shape: (I, J, K); () if the file cannot be read.
        values: number of different values in the slices that were examined.
        channels: 1, or more for colours and stacked channels.
        problem: why it cannot be read, or "".
    """

    kind: Kind
    shape: tuple[int, ...] = ()
    values: int = 0
    channels: int = 1
    problem: str = ""


@dataclass(frozen=True)
class Overlap:
    """How two masks of the same images overlap, in a few cases that have both.

    Args:
        first, second: their mean sizes.
        covered: share of the smaller one that the other covers; 1 if no case has both.
        are_equal: whether both are the same in all these cases.
    """

    first: float
    second: float
    covered: float
    are_equal: bool = False

    @property
    def is_nested(self) -> bool:
        """Whether one is inside the other and clearly smaller."""
        small, large = sorted((self.first, self.second))
        return self.covered >= INSIDE and small < (1 - APART) * large

    @property
    def is_unclear(self) -> bool:
        """Whether they overlap, but neither is inside the other."""
        return self.covered > APART and not self.is_nested


def content_of(path: Path) -> Content:
    """The content of a file or of a folder of DICOM slices."""
    try:
        volume = without_alpha(read_label_file(path))
    except DelineateError as error:
        return Content("", problem=str(error))
    array = _one_channel(volume)
    kind, values = _kind(array)
    channels = 1 if is_grey(volume.array) else volume.channels
    # Channels that are no colours may hold a mask each.
    if volume.channels > 1 and not is_coloured(volume):
        kinds = {_kind(channel)[0] for channel in volume.channels_array}
        kind = kinds.pop() if len(kinds) == 1 else ("image" if "image" in kinds else kind)
    return Content(kind, volume.grid.shape, values, channels)


def foreground(path: Path) -> NDArray[np.bool_] | None:
    """Where a mask is not its background, (I, J, K); None if it cannot be read. The background is
    0.
    """
    try:
        array = _one_channel(read_label_file(path))
    except DelineateError:
        return None
    # Smoothed edges of a JPEG are no foreground.
    return np.asarray(array > array.max() / 2 if len(np.unique(array)) > MASK_VALUES else array > 0)


def overlap_of(pairs: Iterable[tuple[Path, Path]]) -> Overlap:
    """The overlap of pairs of masks; those that are empty or cannot be read are left out."""
    rows: list[tuple[int, int, int]] = []
    for one, other in pairs:
        if len(rows) == COMPARED:
            break
        mine, theirs = foreground(one), foreground(other)
        if mine is not None and theirs is not None and mine.shape == theirs.shape:
            counts = int(mine.sum()), int(theirs.sum()), int((mine & theirs).sum())
            rows += [counts] if counts[0] and counts[1] else []
    if not rows:
        return Overlap(0, 0, 1)
    first, second, both = (float(sum(numbers)) for numbers in zip(*rows, strict=True))
    covered = both / max(1.0, min(first, second))
    return Overlap(first / len(rows), second / len(rows), covered, first == second == both)


def intensities(path: Path) -> NDArray[np.float64] | None:
    """The first channel of an image, (I, J, K); None if it cannot be read."""
    try:
        return np.asarray(read_label_file(path).channels_array[0], np.float64)
    except DelineateError:
        return None


def _one_channel(volume: Volume) -> NDArray[Any]:
    """(I, J, K): the only channel, a code for each colour, or the first channel."""
    array = volume.array
    if array.ndim == 3:
        return array
    if is_coloured(volume) and not is_grey(array) and array.dtype == np.uint8:
        red, green, blue = (channel.astype(np.int64) for channel in array[:3])
        return np.asarray(red << 16 | green << 8 | blue)
    return np.asarray(array[0])


def _kind(array: NDArray[Any]) -> tuple[Kind, int]:
    array = _slices(array)
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array
    values, counts = np.unique(finite, return_counts=True)
    if len(values) < 2:
        return "", len(values)
    if array.dtype.kind == "f" and (np.mod(finite, 1) != 0).mean() > FRACTIONS:
        return "image", len(values)
    if len(values) <= FEW_VALUES:
        return "mask", len(values)
    if array.dtype == np.uint8 and _is_smoothed(finite):
        return "mask", len(values)
    flat = _equal_neighbours(array, values[np.argmax(counts)])
    if flat >= (FLAT if len(values) <= MASK_VALUES else VERY_FLAT):
        return ("mask" if len(values) <= MOST_VALUES else "image"), len(values)
    return ("image" if len(values) > IMAGE_VALUES else ""), len(values)


def _slices(array: NDArray[Any]) -> NDArray[Any]:
    """A few slices, spread over those that are not constant."""
    full = [k for k in range(array.shape[2]) if (array[..., k] != array[0, 0, k]).any()]
    step = max(1, len(full) // SLICES)
    return array[..., full[::step][:SLICES]] if full else array[..., :1]


def _is_smoothed(values: NDArray[Any]) -> bool:
    """Whether nearly all values are near 0 or 255, and more are near 255 than between."""
    low, high = (values <= NEAR_ENDS).mean(), (values >= 255 - NEAR_ENDS).mean()
    return bool(low > 0 and low + high > SMOOTHED and high > 1 - low - high)


def _equal_neighbours(array: NDArray[Any], background: Any) -> float:
    """Share of equal pairs among neighbours that are no background: the smaller one of i and j."""
    shares = []
    for axis in (0, 1):
        one, other = np.delete(array, 0, axis), np.delete(array, -1, axis)
        inside = (one != background) & (other != background)
        if inside.any():
            shares.append(float((one == other)[inside].mean()))
    return min(shares, default=0.0)
