"""Overlap and volume: how many voxels two label maps share, and what follows from it.

Everything here follows from three counts per structure: true positives (TP: both maps say it),
false positives (FP: only the prediction says it) and false negatives (FN: only the truth says it).
They are counted once, for all structures together, and every measure is computed from them; so is
the pooled value, from the sum of the counts. The true negatives (TN) are what remains of the scan,
so that what needs them says as much of the scan's frame as of the structure.

The definitions are those of Taha & Hanbury (BMC Medical Imaging 15:29, 2015) and Metrics Reloaded
(Maier-Hein et al., Nature Methods 21, 2024). Where a ratio has nothing below the line it is NaN,
"not defined
here", and never 0 or 1:

    truth    prediction   dice  iou   precision  recall  specificity  difference_percent
    empty    empty        NaN   NaN   NaN        NaN     1            NaN
    empty    something    0     0     0          NaN     TN / scan    NaN
    something empty       0     0     NaN        0       1            -100
    all voxels any        of the above                   NaN

It knows no file, no grid and no name of a structure. Array legend: L structures, in the order of
``Counts.values``.
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
# Counted at a time: the copies below stay near 20 MB whatever the scan's size.
CHUNK_VOXELS = 1 << 20

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Weights = Literal["square", "simple", "uniform"]


@dataclass(frozen=True)
class Counts:
    """What was counted of each structure; all arrays (L,).

    Args:
        values: the structures' label values.
        tp, fp, fn: voxels, int64.
        predicted_ml, truth_ml: volumes, float64; NaN where the voxel size is unknown.
        scan_voxels: all voxels of the scan, background too; NaN where unknown.
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
        """From voxels shared, voxels of the prediction and voxels of the truth."""
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
        """(L,) voxels that neither map gives to the structure; NaN where the scan's size is
        unknown.
        """
        return np.asarray(np.float64(self.scan_voxels) - (self.tp + self.fp + self.fn))

    def of(self, values: Sequence[int]) -> Counts:
        """The counts of ``values``, in that order; zeros where a value was not counted."""
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
    """TP, FP and FN of every structure, in one pass over the block that holds any foreground.

    Memory beyond the input does not depend on the size of the scan or the number of structures: see
    ``CHUNK_VOXELS``.

    Args:
        prediction, truth: (I, J, K) label values, any real dtype; whole numbers 0..65535. Both may
            be empty of foreground.
        values: the structures' values; None counts every non-zero value that occurs in either.
        voxel_ml: volume of a voxel; NaN (unknown) makes the volumes NaN and leaves the counts as
            they are.

    Raises:
        GeometryError: the shapes differ.
        LabelError: a value that is not in ``values``, is not a whole number, or lies outside
            0..65535.
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
    index = np.array(values, dtype=np.intp)
    return Counts.from_voxels(
        values, shared[index], predicted[index], true[index], voxel_ml, float(truth.size)
    )


def count_foreground(
    prediction: NDArray[Any], truth: NDArray[Any], voxel_ml: float = float("nan")
) -> Counts:
    """The counts of one structure with value 1: whatever is not zero, for masks written as 0/63
    against 0/255.

    Raises:
        GeometryError: the shapes differ.
    """
    return count(prediction != 0, truth != 0, [1], voxel_ml)


def found_values(array: NDArray[Any]) -> list[int]:
    """The non-zero label values that occur, in rising order.

    Raises:
        LabelError: a value is not a whole number or lies outside 0..65535.
    """
    found = np.zeros(LARGEST_VALUE + 1, dtype=np.int64)
    for (chunk,) in memory_chunks(array):
        _add(found, whole_numbers(chunk, "mask"))
    return [int(v) for v in np.flatnonzero(found) if v != 0]


def pool(counts: Iterable[Counts]) -> Counts:
    """The sum of the counts, as if all voxels of all cases lay in one volume; large structures
    weigh more.

    The counts are of voxels: where spacings differ, a finely sampled case has more of them. Volumes
    are added in ml.

    Raises:
        ValueError: there is nothing to add, or the cases were counted for different structures.
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


# ---- the measures, each (Counts) -> (L,) float64 ----


def dice(c: Counts) -> Floats:
    """Dice similarity coefficient 2 TP / (2 TP + FP + FN) (Dice 1945). Both empty: NaN; one empty:
    0.
    """
    return ratio(2 * c.tp, 2 * c.tp + c.fp + c.fn)


def iou(c: Counts) -> Floats:
    """Intersection over union TP / (TP + FP + FN) (Jaccard 1912). Both empty: NaN; one empty: 0."""
    return ratio(c.tp, c.tp + c.fp + c.fn)


def precision(c: Counts) -> Floats:
    """Positive predictive value TP / (TP + FP). Empty prediction: NaN, whatever the truth."""
    return ratio(c.tp, c.tp + c.fp)


def recall(c: Counts) -> Floats:
    """Sensitivity TP / (TP + FN). Empty truth: NaN, whatever the prediction."""
    return ratio(c.tp, c.tp + c.fn)


def specificity(c: Counts) -> Floats:
    """Specificity TN / (TN + FP); it depends on how much background the scan shows. Truth fills the
    scan, or its size is unknown: NaN.
    """
    return ratio(c.tn, c.tn + c.fp)


def volume_predicted_ml(c: Counts) -> Floats:
    """Volume of the prediction in ml; 0 where empty, NaN where the voxel size is unknown."""
    return c.predicted_ml


def volume_truth_ml(c: Counts) -> Floats:
    """Volume of the truth in ml; 0 where empty, NaN where the voxel size is unknown."""
    return c.truth_ml


def volume_difference_ml(c: Counts) -> Floats:
    """Prediction minus truth in ml, so positive where too much was drawn; 0 where both are
    empty.
    """
    return c.predicted_ml - c.truth_ml


def volume_difference_percent(c: Counts) -> Floats:
    """100 (prediction - truth) / truth. Empty truth: NaN. Needs no voxel size within one case."""
    by_voxels = ratio(100 * (c.fp - c.fn), c.tp + c.fn)
    by_ml = ratio(100 * (c.predicted_ml - c.truth_ml), c.truth_ml)
    return np.where(np.isfinite(c.truth_ml), by_ml, by_voxels)


def absolute_volume_difference_ml(c: Counts) -> Floats:
    """The volume difference in ml without its sign."""
    return np.abs(volume_difference_ml(c))


def absolute_volume_difference_percent(c: Counts) -> Floats:
    """The volume difference in percent of the truth without its sign (the RAVD of CHAOS). Empty
    truth: NaN.
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
    """Generalised Dice: one figure for all structures of a case, 2 sum(w TP) / sum(w (2 TP + FP +
    FN)), small structures weighing more.

    Crum et al. (TMI 25, 2006); with the weights w = 1 / (TP + FN)^2 ("square") that of Sudre et al.
    (DLMIA 2017). "simple" is 1 / (TP + FN), and "uniform" is 1. A structure that the truth lacks
    has the largest weight of those that it has (1 where it has none), as in MONAI: what the
    prediction says of it lowers the figure. The background is no structure, unless it was counted
    as one (``confusion.Confusion.counts``).

    Both masks empty: NaN. Of pooled counts it is the figure of all cases together,
    which is not the mean of theirs.
    """
    size = (c.tp + c.fn).astype(np.float64)
    weight = ratio(np.ones(len(size)), size ** {"square": 2, "simple": 1, "uniform": 0}[weights])
    weight[np.isnan(weight)] = np.nanmax(weight) if np.isfinite(weight).any() else 1.0
    below = float(weight @ (2 * c.tp + c.fp + c.fn))
    return 2 * float(weight @ c.tp) / below if below else float("nan")


# ---- counting ----


def _histograms(prediction: NDArray[Any], truth: NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """(65536,) voxels of each value in the prediction, in the truth, and in both at the same place.

    Three histograms by value hold all that TP, FP and FN need; a joint one would grow with the
    square of the structures.
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
    found = np.bincount(chunk.astype(np.intp, copy=False))
    total[: len(found)] += found


def whole_numbers(chunk: NDArray[Any], name: str) -> NDArray[Any]:
    """Label values with an integer dtype, refused where a value is none: what every metric sees."""
    whole = as_whole_numbers(chunk)
    if (
        whole.dtype not in (np.uint8, np.uint16)
        and whole.size
        and (int(whole.min()) < 0 or int(whole.max()) > LARGEST_VALUE)
    ):
        raise LabelError(
            f"label values lie in 0..{LARGEST_VALUE}, found "
            f"{int(whole.min())}..{int(whole.max())} in the {name}"
        )
    return whole


def foreground_box(*arrays: NDArray[Any]) -> tuple[slice, ...]:
    """The smallest block outside which all arrays are zero; an empty one where they are zero
    everywhere.
    """
    box = [slice(None)] * arrays[0].ndim
    # The slowest axis first: the later ones see a smaller block.
    by_stride = np.argsort([-abs(s) for s in arrays[0].strides])
    for axis in by_stride.tolist():
        others = tuple(a for a in range(arrays[0].ndim) if a != axis)
        used = np.flatnonzero(
            np.logical_or.reduce([a[tuple(box)].any(axis=others) for a in arrays])
        )
        box[axis] = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)
    return tuple(box)


def memory_chunks(*arrays: NDArray[Any]) -> Iterator[tuple[NDArray[Any], ...]]:
    """The same voxels of all arrays, flat, about ``CHUNK_VOXELS`` at a time, along the first one's
    slowest axis.
    """
    if not arrays[0].size:
        return
    axis = int(np.argmax(np.abs(arrays[0].strides)))
    moved = [np.moveaxis(a, axis, 0) for a in arrays]
    rest = np.argsort(
        [-abs(s) for s in moved[0].strides[1:]]
    ).tolist()  # ravel in memory order, the same for all
    moved = [m.transpose(0, *(1 + r for r in rest)) for m in moved]
    step = max(1, CHUNK_VOXELS * len(moved[0]) // moved[0].size)
    for start in range(0, len(moved[0]), step):
        yield tuple(m[start : start + step].ravel() for m in moved)


def ratio(above: NDArray[Any], below: NDArray[Any]) -> Floats:
    """Both (L,); NaN where nothing is below the line."""
    out = np.full(np.shape(below), np.nan)
    np.divide(above, below, out=out, where=below > 0)
    return out


def listed(values: Sequence[int], most: int = 10) -> str:
    """Label values as an error names them."""
    text = ", ".join(map(str, values[:most]))
    return (text or "none") + (f" and {len(values) - most} more" if len(values) > most else "")
