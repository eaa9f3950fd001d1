"""The confusion matrix, and the rates per structure that ``overlap`` does not have.

The confusion matrix counts voxels: rows are the labels of the truth, columns the predicted labels,
and the background comes first in both. Off-diagonal entries show with which structure another one
was confused, which no measure of a single structure can show. All counts of ``overlap``, and those
of the background, are sums over its rows and columns.

The rates are those of a two-class table (structure or not) of TP, FP, FN and TN, as in MONAI's
``ConfusionMatrixMetric``. All except the false discovery rate, the miss rate and the
Fowlkes-Mallows index need TN, and so depend on how much background the scan contains (Metrics
Reloaded, Nature Methods 21, 2024): they can compare models on one set of scans, but not one set of
scans with another. A rate with a zero denominator is NaN, never 0 or 1:

    the truth is empty                miss_rate, balanced_accuracy, informedness,
                                      prevalence_threshold, fowlkes_mallows, matthews
    the truth fills the scan          fall_out, balanced_accuracy, informedness,
                                      prevalence_threshold, matthews
    the prediction is empty           false_discovery_rate, markedness, prevalence_threshold,
                                      fowlkes_mallows, matthews
    the prediction fills the scan     negative_predictive_value, false_omission_rate, markedness,
                                      matthews
    the scan's size is unknown        all that need TN

The module reads no files and knows no grid and no structure names. Array legend: L structures, in
the order of ``Confusion.values``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core.errors import GeometryError, LabelError
from .overlap import (
    LARGEST_VALUE,
    Counts,
    Floats,
    Ints,
    listed,
    memory_chunks,
    precision,
    ratio,
    recall,
    specificity,
    whole_numbers,
)


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix of voxels.

    Args:
        values: the structures' label values, without the background (0).
        voxels: (L+1, L+1) int64, truth x prediction, the background first.
    """

    values: tuple[int, ...]
    voxels: Ints

    def counts(self, voxel_ml: float = float("nan"), background: bool = False) -> Counts:
        """The counts that ``overlap.count`` gives; with ``background``, those of the background
        too, as the first entry and with value 0.

        ``voxel_ml`` is the volume of a voxel; NaN if unknown.
        """
        first = 0 if background else 1
        tp, predicted, truth = (
            a[first:] for a in (np.diagonal(self.voxels), self.voxels.sum(0), self.voxels.sum(1))
        )
        return Counts.from_voxels(
            (0, *self.values)[first:], tp, predicted, truth, voxel_ml, float(self.voxels.sum())
        )

    def of(self, values: Sequence[int]) -> Confusion:
        """The rows and columns of ``values``, in that order; zeros for a value that was not
        counted. Other structures are left out.
        """
        place = {0: 0} | {v: n for n, v in enumerate(self.values, start=1)}
        known = [(n, place[v]) for n, v in enumerate((0, *values)) if v in place]
        voxels = np.zeros((len(values) + 1,) * 2, np.int64)
        new, old = (list(side) for side in zip(*known, strict=True))
        voxels[np.ix_(new, new)] = self.voxels[np.ix_(old, old)]
        return Confusion(tuple(values), voxels)

    def shares(self) -> Floats:
        """(L+1, L+1) row-normalised matrix: the share of each true structure's voxels that got each
        predicted label. Rows add up to 1; the row of a structure that the truth lacks is NaN.
        """
        return ratio(
            self.voxels, np.broadcast_to(self.voxels.sum(1, keepdims=True), self.voxels.shape)
        )


def confusion(
    prediction: NDArray[Any], truth: NDArray[Any], values: Sequence[int] | None = None
) -> Confusion:
    """The confusion matrix of two label maps, in one compiled pass.

    Label maps are constant over long runs of voxels, and a run costs one addition. Memory beyond
    the input does not depend on the scan's size.

    Args:
        prediction, truth: (I, J) or (I, J, K) label values, any real dtype; whole numbers 0..65535.
            Both may have no foreground.
        values: the structures' values; None uses every non-zero value that occurs in either map.

    Raises:
        GeometryError: the shapes differ.
        LabelError: a value is not in ``values``, is not a whole number, or is outside 0..65535.
    """
    if prediction.shape != truth.shape:
        raise GeometryError(
            f"prediction of shape {prediction.shape} against truth of shape {truth.shape}"
        )
    if values is None:
        values = sorted(_values_in(prediction, "prediction") | _values_in(truth, "truth"))
    # Label value -> row or column. An extra last row and column count undeclared values.
    place = np.full(LARGEST_VALUE + 1, len(values) + 1, np.int64)
    place[[0, *values]] = np.arange(len(values) + 1)
    voxels = np.zeros((len(values) + 2,) * 2, np.int64)
    for p, t in memory_chunks(prediction, truth):
        p, t = _narrow(whole_numbers(p, "prediction"), whole_numbers(t, "truth"))
        _add_runs(p, t, place, voxels)
    # Name the undeclared values: only now are the maps read again to find them.
    for name, undeclared, array in (
        ("prediction", voxels[:, -1], prediction),
        ("truth", voxels[-1], truth),
    ):
        if undeclared.any():
            raise LabelError(
                f"undeclared label values {listed(sorted(_values_in(array, name) - {*values}))} in "
                f"the {name}; declared are {listed(sorted(values))}"
            )
    return Confusion(tuple(values), voxels[:-1, :-1])


def pool(found: Iterable[Confusion]) -> Confusion:
    """The sum of the matrices, as if all cases were one; large structures and cases with small
    voxels weigh more.

    Raises:
        ValueError: there is no case, or the cases were counted for different structures.
    """
    cases = list(found)
    if not cases or any(c.values != cases[0].values for c in cases):
        raise ValueError("pooling needs at least one case, and the same structures in each")
    return Confusion(cases[0].values, np.sum([c.voxels for c in cases], axis=0))


def _values_in(array: NDArray[Any], name: str) -> set[int]:
    """The non-zero values that occur in a label map; ``name`` is for error messages."""
    seen = np.zeros(LARGEST_VALUE + 1, np.bool_)
    for (chunk,) in memory_chunks(array):
        _mark_runs(_narrow(whole_numbers(chunk, name))[0], seen)
    return {int(v) for v in np.flatnonzero(seen)} - {0}


def _narrow(*chunks: NDArray[Any]) -> list[NDArray[Any]]:
    """All chunks as uint8 if all are uint8, else all as uint16, so that only two variants are
    compiled and not one for each pair of dtypes.
    """
    dtype = np.uint8 if all(c.dtype == np.uint8 for c in chunks) else np.uint16
    return [c.astype(dtype, copy=False) for c in chunks]


@njit(cache=True, nogil=True)
def _mark_runs(p, seen):  # type: ignore[no-untyped-def]
    """Set ``seen`` at every value that occurs in ``p``, once per run of equal values."""
    last = -1
    for value in p:
        if value != last:
            seen[value] = True
            last = value


@njit(cache=True, nogil=True)
def _add_runs(p, t, place, voxels):  # type: ignore[no-untyped-def]
    """Add the voxels to the matrix, one run of equal (prediction, truth) pairs at a time."""
    size, began = len(p), 0
    while began < size:
        end = began + 1
        while end < size and p[end] == p[began] and t[end] == t[began]:
            end += 1
        voxels[place[t[began]], place[p[began]]] += end - began
        began = end


# ---- rates per structure, each (Counts) -> (L,) float64 ----


def negative_predictive_value(c: Counts) -> Floats:
    """Negative predictive value, TN / (TN + FN). Prediction fills the scan: NaN."""
    return ratio(c.tn, c.tn + c.fn)


def miss_rate(c: Counts) -> Floats:
    """Miss rate (false negative rate), FN / (TP + FN) = 1 - recall. Empty truth: NaN."""
    return ratio(c.fn, c.tp + c.fn)


def fall_out(c: Counts) -> Floats:
    """Fall-out (false positive rate), FP / (FP + TN) = 1 - specificity. Truth fills the scan:
    NaN.
    """
    return ratio(c.fp, c.fp + c.tn)


def false_discovery_rate(c: Counts) -> Floats:
    """False discovery rate, FP / (TP + FP) = 1 - precision. Empty prediction: NaN."""
    return ratio(c.fp, c.tp + c.fp)


def false_omission_rate(c: Counts) -> Floats:
    """False omission rate, FN / (FN + TN) = 1 - negative predictive value. Prediction fills the
    scan: NaN.
    """
    return ratio(c.fn, c.fn + c.tn)


def accuracy(c: Counts) -> Floats:
    """Accuracy, the share of correct voxels, (TP + TN) / scan. For a small structure it is near 1
    for any prediction.
    """
    return ratio(c.tp + c.tn, c.tp + c.tn + c.fp + c.fn)


def balanced_accuracy(c: Counts) -> Floats:
    """Balanced accuracy, the mean of recall and specificity (Brodersen et al., ICPR 2010). Truth
    empty or filling the scan: NaN.
    """
    return (recall(c) + specificity(c)) / 2


def informedness(c: Counts) -> Floats:
    """Informedness (Youden's J), recall + specificity - 1 (Youden, Cancer 3, 1950). Truth empty or
    filling the scan: NaN.
    """
    return recall(c) + specificity(c) - 1


def markedness(c: Counts) -> Floats:
    """Markedness, precision + negative predictive value - 1 (Powers 2011). Prediction empty or
    filling the scan: NaN.
    """
    return precision(c) + negative_predictive_value(c) - 1


def matthews(c: Counts) -> Floats:
    """Matthews correlation coefficient, (TP TN - FP FN) / sqrt((TP+FP)(TP+FN)(TN+FP)(TN+FN))
    (Matthews 1975). Either mask empty or filling the scan: NaN.
    """
    # The product of four counts can exceed 2^63.
    tp, fp, fn = (a.astype(np.float64) for a in (c.tp, c.fp, c.fn))
    return ratio(tp * c.tn - fp * fn, np.sqrt((tp + fp) * (tp + fn) * (c.tn + fp) * (c.tn + fn)))


def fowlkes_mallows(c: Counts) -> Floats:
    """Fowlkes-Mallows index, the geometric mean of precision and recall (Fowlkes & Mallows 1983).
    Either mask empty: NaN.
    """
    return np.sqrt(precision(c) * recall(c))


def prevalence_threshold(c: Counts) -> Floats:
    """Prevalence threshold, the prevalence below which precision falls fastest: sqrt(fall-out) /
    (sqrt(recall) + sqrt(fall-out)) (Balayla, PLoS One 15, 2020).

    It equals Balayla's quotient, which is 0 / 0 if recall = fall-out (MONAI: NaN); this form gives
    1/2 there. Truth empty or filling the scan, or recall and fall-out both 0: NaN.
    """
    hit, false = np.sqrt(recall(c)), np.sqrt(fall_out(c))
    return ratio(false, hit + false)


# Rates without a unit. Recall, precision, specificity, dice (F1) and iou (threat score) are in
# ``overlap``.
RATES: dict[str, Callable[[Counts], Floats]] = {
    "negative_predictive_value": negative_predictive_value,
    "miss_rate": miss_rate,
    "fall_out": fall_out,
    "false_discovery_rate": false_discovery_rate,
    "false_omission_rate": false_omission_rate,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "informedness": informedness,
    "markedness": markedness,
    "matthews": matthews,
    "fowlkes_mallows": fowlkes_mallows,
    "prevalence_threshold": prevalence_threshold,
}
