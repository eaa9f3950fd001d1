"""Left and right: structures on the wrong side of each other, or of the middle of the body.

The one rule for truths (``doctor``) and for predictions (``trust.plausibility``). Positions are in
RAS+ mm, where x grows towards the patient's right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...core.labels import Label, LabelSet
from ...core.volume import Volume

# A structure is suspect if it is farther than this on the wrong side.
SIDE_MM = 3.0


def wrong_sides(
    label: Volume, labels: LabelSet, middle_mm: float, width_mm: float
) -> dict[int, float]:
    """Label value -> distance in mm on the wrong side. A structure with a partner is compared with
    it, one without with the middle of the body.

    Args:
        label: (I, J, K) label values.
        labels: the structures.
        middle_mm, width_mm: of the body along x, from ``body_x``.
    """
    x = _centroids_x(label, [b for b in labels if b.side], labels)
    pairs = [(left, right) for left, right in labels.pairs if left in x and right in x]
    paired = {v for pair in pairs for v in pair}
    alone = [b for b in labels if b.value in x and b.value not in paired]
    return _exchanged_pairs(x, pairs) | _beyond_middle(x, alone, middle_mm, width_mm)


def _exchanged_pairs(x: Mapping[int, float], pairs: Sequence[tuple[int, int]]) -> dict[int, float]:
    """Value -> distance in mm by which the left partner is to the right of the right one, for both
    structures of each suspect pair.
    """
    return {
        v: x[left] - x[right]
        for left, right in pairs
        if x[left] - x[right] > SIDE_MM
        for v in (left, right)
    }


def _beyond_middle(
    x: Mapping[int, float], structures: Sequence[Label], middle_mm: float, width_mm: float
) -> dict[int, float]:
    """Value -> distance in mm by which a structure is beyond the middle of the body.

    The tolerance is ``SIDE_MM`` or 10 % of the body's width, because organs may cross the middle.
    """
    wrong = {}
    # In RAS+, the patient's left is at small x: a left structure is wrong at larger x.
    for b in structures:
        beyond = (x[b.value] - middle_mm) * (1 if b.side == "left" else -1)
        if beyond > max(SIDE_MM, 0.1 * width_mm):
            wrong[b.value] = beyond
    return wrong


def _centroids_x(label: Volume, of: Sequence[Label], labels: LabelSet) -> dict[int, float]:
    """Value -> x of the centroid in RAS+ mm, in one pass over the voxels; one pass for each of the
    structures that overlap.
    """
    if labels.overlapping:
        apart = [label.with_array(labels.inside(label.array, b) * b.value) for b in of]
        alone = [LabelSet((b,)) for b in of]
        found = [_centroids_x(one, own.labels, own) for one, own in zip(apart, alone, strict=True)]
        return {value: x for each in found for value, x in each.items()}
    if not of:
        return {}
    # Plane by plane as they lie in memory, because the positions of all voxels of a scan take many
    # times its memory. Only the first row of the affine is needed for x.
    slowest = int(np.argmax(np.abs(label.array.strides)))
    across = [axis for axis in range(3) if axis != slowest]
    planes, row = np.moveaxis(label.array, slowest, 0), label.grid.affine[0]
    i, j = (row[axis] * np.arange(label.array.shape[axis]) for axis in across)
    in_plane = i[:, None] + j[None, :] + row[3]
    size = 1 + max(b.value for b in of)
    total, count = np.zeros(size), np.zeros(size)
    for number, plane in enumerate(planes):
        inside = (plane > 0) & (plane < size)
        held, x = plane[inside].astype(np.intp), in_plane[inside] + row[slowest] * number
        # Sum and number of voxels per label value.
        total += np.bincount(held, weights=x, minlength=size)
        count += np.bincount(held, minlength=size)
    return {b.value: float(total[b.value] / count[b.value]) for b in of if count[b.value]}


def body_x(image: Volume) -> tuple[float, float]:
    """Middle and width of the body along x, in mm.

    The body is estimated from the voxels brighter than the mean, on every fourth voxel per axis.
    """
    # Every fourth voxel is enough for an estimate in mm.
    array = image.channels_array[0][::4, ::4, ::4]
    bright = np.argwhere(array > array.mean()) * 4
    if not len(bright):
        return float(image.grid.centre_mm[0]), 0.0
    x = image.grid.to_mm(bright)[:, 0]
    # Percentiles instead of extremes ignore single stray voxels.
    low, high = np.percentile(x, (1, 99))
    return float(low + high) / 2, float(high - low)
