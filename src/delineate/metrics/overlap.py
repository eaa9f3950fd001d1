"""Overlap and volume: the voxel counts of two label maps, and the measures that follow from them.

Every measure follows from three counts per structure: true positives (TP, voxels of the structure
in both maps), false positives (FP, only in the prediction) and false negatives (FN, only in the
truth). They are counted once for all structures together. A pooled measure is computed from the sum
of the counts of all cases. The true negatives (TN) are the rest of the scan, so a measure that
needs them depends on the field of view as much as on the structure.

The definitions are those of Taha & Hanbury (BMC Medical Imaging 15:29, 2015) and Metrics Reloaded
(Maier-Hein et al., Nature Methods 21, 2024). A ratio with a zero denominator is NaN, "not defined
here", and never 0 or 1:

    truth      prediction  dice  iou   precision  recall  specificity  difference_percent
    empty      empty       NaN   NaN   NaN        NaN     1            NaN
    empty      not empty   0     0     0          NaN     TN / scan    NaN
    not empty  empty       0     0     NaN        0       1            -100
    all voxels any         by formula                     NaN          by formula

The module reads no files and knows no grid and no structure names. Array legend: L structures, in
the order of ``Counts.values``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..core.errors import GeometryError, LabelError
from ..core.labels import as_whole_numbers
from ..core.scores import judged

LARGEST_VALUE = 65535
# Voxels counted at once: the copies below stay near 20 MB for any scan size.
CHUNK_VOXELS = 1 << 20

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Weights = Literal["square", "simple", "uniform"]


@dataclass(frozen=True)
class Counts:
    """The counts of each structure; all arrays are (L,).

    Args:
        values: the structures' label values.
        tp, fp, fn: voxels, int64.
        predicted_ml, truth_ml: volumes, float64; NaN if the voxel size is unknown.
        scan_voxels: number of voxels of the scan, including the background; NaN if unknown.
    """

    values: tuple[int, ...]
    tp: Ints
    fp: Ints
    fn: Ints
    predicted_ml: Floats
    truth_ml: Floats
    scan_voxels: float = float("nan")

    @classmethod
    def from_voxels(
        cls,
        values: Sequence[int],
        tp: Ints,
        predicted: Ints,
        truth: Ints,
        voxel_ml: float,
        scan_voxels: float = float("nan"),
    ) -> Counts:
        """From the numbers of shared, predicted and true voxels, (L,) int64 each; ``voxel_ml`` is
        the volume of a voxel (NaN if unknown).
        """
        size = np.float64(voxel_ml)
        return cls(
            tuple(values),
            tp,
            predicted - tp,
            truth - tp,
            predicted * size,
            truth * size,
            scan_voxels,
        )

    @property
    def tn(self) -> Floats:
        """(L,) true negatives: voxels outside the structure in both maps; NaN if the scan's size is
        unknown.
        """
        return np.asarray(np.float64(self.scan_voxels) - (self.tp + self.fp + self.fn))

    def of(self, values: Sequence[int]) -> Counts:
        """The counts of ``values``, in that order; zeros for a value that was not counted."""
        place = {v: i for i, v in enumerate(self.values)}
        rows = [place.get(v, -1) for v in values]
        unknown_size = bool(np.isnan(self.predicted_ml).any())

        def pick(array: NDArray[Any], empty: float) -> NDArray[Any]:
            return np.array([array[r] if r >= 0 else empty for r in rows], dtype=array.dtype)

        ml = float("nan") if unknown_size else 0.0
        counts = pick(self.tp, 0), pick(self.fp, 0), pick(self.fn, 0)
        return Counts(
            tuple(values),
            *counts,
            pick(self.predicted_ml, ml),
            pick(self.truth_ml, ml),
            self.scan_voxels,
        )


def count(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    values: Sequence[int] | None = None,
    voxel_ml: float = float("nan"),
) -> Counts:
    """TP, FP and FN of every structure, in one pass over the foreground's bounding box.

    Memory beyond the input depends neither on the size of the scan nor on the number of structures
    (see ``CHUNK_VOXELS``).

    Args:
        prediction, truth: (I, J, K) label values, any real dtype; whole numbers 0..65535. Both may
            have no foreground.
        values: the structures' values; None counts every non-zero value that occurs in either map.
        voxel_ml: volume of a voxel; NaN (unknown) makes the volumes NaN and does not affect the
            counts.

    Raises:
        GeometryError: the shapes differ.
        LabelError: a value is not in ``values``, is not a whole number, or is outside 0..65535.
    """
    predicted, true, shared = _histograms(prediction, truth)
    if values is None:
        values = [int(v) for v in np.flatnonzero(predicted + true) if v != 0]
    for name, found in (("prediction", predicted), ("truth", true)):
        stray = sorted(set(np.flatnonzero(found).tolist()) - {0, *values})
        if stray:
            raise LabelError(
                f"undeclared label values {listed(stray)} in the {name}; declared are "
                f"{listed(sorted(values))}"
            )
    # The three histograms at the structures' values are the counts.
    index = np.array(values, dtype=np.intp)
    return Counts.from_voxels(
        values, shared[index], predicted[index], true[index], voxel_ml, float(truth.size)
    )


def count_foreground(
    prediction: NDArray[Any], truth: NDArray[Any], voxel_ml: float = float("nan")
) -> Counts:
    """The counts of all non-zero voxels as one structure with value 1, for pairs of masks such as
    0/63 and 0/255.

    Raises:
        GeometryError: the shapes differ.
    """
    return count(prediction != 0, truth != 0, [1], voxel_ml)


def found_values(array: NDArray[Any]) -> list[int]:
    """The non-zero label values that occur, in rising order.

    Raises:
        LabelError: a value is not a whole number or is outside 0..65535.
    """
    found = np.zeros(LARGEST_VALUE + 1, dtype=np.int64)
    for (chunk,) in memory_chunks(array):
        _add(found, whole_numbers(chunk, "mask"))
    return [int(v) for v in np.flatnonzero(found) if v != 0]


def pool(counts: Iterable[Counts]) -> Counts:
    """The sum of the counts, as if all voxels of all cases were one volume; large structures weigh
    more.

    Voxels are added, not volumes: if the spacing differs, a case with small voxels weighs more.
    ``predicted_ml`` and ``truth_ml`` are added in ml.

    Raises:
        ValueError: there is no case, or the cases were counted for different structures.
    """
    all_counts = list(counts)
    if not all_counts or any(c.values != all_counts[0].values for c in all_counts):
        raise ValueError("pooling needs at least one case, and the same structures in each")

    def total(name: str) -> NDArray[Any]:
        return np.asarray(np.sum([getattr(c, name) for c in all_counts], axis=0))

    volumes = total("predicted_ml"), total("truth_ml")
    return Counts(
        all_counts[0].values,
        total("tp"),
        total("fp"),
        total("fn"),
        *volumes,
        float(total("scan_voxels")),
    )


# ---- the measures, each (Counts) -> (L,) float64; reports print their docstrings ----


def dice(c: Counts) -> Floats:
    """Dice similarity coefficient, 2 TP / (2 TP + FP + FN) (Dice 1945). Both empty: NaN; one
    empty: 0.
    """
    return ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def iou(c: Counts) -> Floats:
    """Intersection over union, TP / (TP + FP + FN) (Jaccard 1912). Both empty: NaN; one empty:
    0.
    """
    return ratio(c.tp, c.tp + c.fp + c.fn)


def precision(c: Counts) -> Floats:
    """Positive predictive value, TP / (TP + FP). Empty prediction: NaN, for any truth."""
    return ratio(c.tp, c.tp + c.fp)


def recall(c: Counts) -> Floats:
    """Sensitivity, TP / (TP + FN). Empty truth: NaN, for any prediction."""
    return ratio(c.tp, c.tp + c.fn)


def specificity(c: Counts) -> Floats:
    """Specificity, TN / (TN + FP); it depends on the amount of background in the scan. Truth fills
    the scan, or the scan's size is unknown: NaN.
    """
    return ratio(c.tn, c.tn + c.fp)


def volume_predicted_ml(c: Counts) -> Floats:
    """Volume of the prediction in ml. Empty: 0; unknown voxel size: NaN."""
    return c.predicted_ml


def volume_truth_ml(c: Counts) -> Floats:
    """Volume of the truth in ml. Empty: 0; unknown voxel size: NaN."""
    return c.truth_ml


def volume_difference_ml(c: Counts) -> Floats:
    """Volume difference in ml, prediction - truth; positive if too much was segmented. Both empty:
    0.
    """
    return c.predicted_ml - c.truth_ml


def volume_difference_percent(c: Counts) -> Floats:
    """Relative volume difference in percent, 100 (prediction - truth) / truth. Empty truth: NaN.
    For a single case the voxel size is not needed.
    """
    # Pooled cases can have different voxel sizes: their volumes in ml decide, if they are known.
    by_voxels = ratio(100 * (c.fp - c.fn), c.tp + c.fn)
    by_ml = ratio(100 * (c.predicted_ml - c.truth_ml), c.truth_ml)
    return np.where(np.isfinite(c.truth_ml), by_ml, by_voxels)


def absolute_volume_difference_ml(c: Counts) -> Floats:
    """Absolute volume difference in ml, |prediction - truth|. Both empty: 0."""
    return np.abs(volume_difference_ml(c))


def absolute_volume_difference_percent(c: Counts) -> Floats:
    """Relative absolute volume difference in percent, 100 |prediction - truth| / truth (RAVD in
    CHAOS). Empty truth: NaN.
    """
    return np.abs(volume_difference_percent(c))


MEASURES: dict[str, tuple[str, Callable[[Counts], Floats]]] = {  # name -> (unit, function)
    "dice": ("", dice),
    "iou": ("", iou),
    "precision": ("", precision),
    "recall": ("", recall),
    "specificity": ("", specificity),
    "volume_predicted_ml": ("ml", volume_predicted_ml),
    "volume_truth_ml": ("ml", volume_truth_ml),
    "volume_difference_ml": ("ml", volume_difference_ml),
    "volume_difference_percent": ("%", volume_difference_percent),
    "absolute_volume_difference_ml": ("ml", absolute_volume_difference_ml),
    "absolute_volume_difference_percent": ("%", absolute_volume_difference_percent),
}
judged(MEASURES)


def generalised_dice(c: Counts, weights: Weights = "square") -> float:
    """Generalised Dice, one value for all structures of a case: 2 sum(w TP) / sum(w (2 TP + FP +
    FN)). Small structures have larger weights w.

    Defined by Crum et al. (TMI 25, 2006); the weights w = 1 / (TP + FN)^2 ("square") are those of
    Sudre et al. (DLMIA 2017). "simple" is 1 / (TP + FN), and "uniform" is 1. A structure that the
    truth lacks gets the largest weight of the structures that it has (1 if it has none), as in
    MONAI, so false positives of an absent structure lower the value. The background is not
    included, unless it was counted as a structure (``confusion.Confusion.counts``).

    Both masks empty: NaN. For pooled counts the value is that of all cases together, not the mean
    over cases.
    """
    size = (c.tp + c.fn).astype(np.float64)
    weight = ratio(np.ones(len(size)), size ** {"square": 2, "simple": 1, "uniform": 0}[weights])
    # The weight of a structure that the truth lacks would be infinite.
    weight[np.isnan(weight)] = np.nanmax(weight) if np.isfinite(weight).any() else 1.0
    below = float(weight @ (2 * c.tp + c.fp + c.fn))
    return 2 * float(weight @ c.tp) / below if below else float("nan")


# ---- counting ----


def _histograms(prediction: NDArray[Any], truth: NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """Voxels of each label value in the prediction, in the truth, and in both at the same position;
    (65536,) each.

    TP, FP and FN follow from these three histograms; a joint histogram would grow with the square
    of the number of structures.
    """
    if prediction.shape != truth.shape:
        raise GeometryError(
            f"prediction of shape {prediction.shape} against truth of shape {truth.shape}"
        )
    predicted, true, shared = (np.zeros(LARGEST_VALUE + 1, dtype=np.int64) for _ in range(3))
    box = foreground_box(prediction, truth)
    for p, t in memory_chunks(prediction[box], truth[box]):
        p, t = whole_numbers(p, "prediction"), whole_numbers(t, "truth")
        _add(predicted, p)
        _add(true, t)
        _add(shared, p[p == t])
    return predicted, true, shared


def _add(total: Ints, chunk: NDArray[Any]) -> None:
    """Add the chunk's histogram to ``total``, in place."""
    found = np.bincount(chunk.astype(np.intp, copy=False))
    total[: len(found)] += found


def whole_numbers(chunk: NDArray[Any], name: str) -> NDArray[Any]:
    """Label values with an integer dtype, as every metric uses them; ``name`` is for messages.

    Raises:
        LabelError: a value is not a whole number or is outside 0..65535.
    """
    whole = as_whole_numbers(chunk)
    if (
        whole.dtype not in (np.uint8, np.uint16)
        and whole.size
        and (int(whole.min()) < 0 or int(whole.max()) > LARGEST_VALUE)
    ):
        raise LabelError(
            f"label values must be in 0..{LARGEST_VALUE}, found "
            f"{int(whole.min())}..{int(whole.max())} in the {name}"
        )
    return whole


def foreground_box(*arrays: NDArray[Any]) -> tuple[slice, ...]:
    """The bounding box of the non-zero voxels of all arrays together; an empty box if there are
    none.
    """
    box = [slice(None)] * arrays[0].ndim
    # The slowest axis in memory first, so that the others only read a smaller block.
    by_stride = np.argsort([-abs(s) for s in arrays[0].strides])
    for axis in by_stride.tolist():
        others = tuple(a for a in range(arrays[0].ndim) if a != axis)
        used = np.flatnonzero(
            np.logical_or.reduce([a[tuple(box)].any(axis=others) for a in arrays])
        )
        box[axis] = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
    return tuple(box)


def memory_chunks(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """Corresponding voxels of all arrays as 1-D chunks of about ``CHUNK_VOXELS``, along the slowest
    axis of the first array.
    """
    if not arrays[0].size:
        return
    axis = int(np.argmax(np.abs(arrays[0].strides)))
    moved = [np.moveaxis(a, axis, 0) for a in arrays]
    # Order the other axes by memory too, the same for all arrays, so that ravel reads it in order.
    rest = np.argsort([-abs(s) for s in moved[0].strides[1:]]).tolist()
    moved = [m.transpose(0, *(1 + r for r in rest)) for m in moved]
    step = max(1, CHUNK_VOXELS * len(moved[0]) // moved[0].size)
    for start in range(0, len(moved[0]), step):
        yield tuple(m[start : start + step].ravel() for m in moved)


def ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    """``above`` / ``below``, arrays of one shape; NaN where the denominator is not positive."""
    out = np.full(np.shape(below), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def listed(values: Sequence[int], most: int = 10) -> str:
    """Label values as text for an error message, at most ``most`` of them."""
    text = ", ".join(map(str, values[:most]))
    return (text or "none") + (f" and {len(values) - most} more" if len(values) > most else "")
