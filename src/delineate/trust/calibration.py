"""Calibration of probabilities: of all voxels with a probability of 0.8 for liver, are 80 % liver?

Confidence   For all classes together: the largest probability of a voxel; it is correct if that
             class is the true one (Guo et al., On Calibration of Modern Neural Networks, ICML
             2017). For one structure: its own probability, however small; it is correct if the
             voxel belongs to the structure.
Bins         Of equal width, (0, 1/B], (1/B, 2/B] ... ((B-1)/B, 1], as in Guo 2017; 15 by default. A
             probability of 0 is in the first bin.
ECE          Expected calibration error: the mean over bins of |accuracy - mean confidence|,
             weighted by the number of voxels in the bin (Naeini et al., AAAI 2015). Other binnings
             (with equal counts, adaptive) give other values.
MCE          Maximum calibration error: the largest of these differences, over bins with a voxel.
Brier        For all classes: the mean over voxels of the sum over classes of (p - o)^2, where o is
             1 for the true class and 0 for the others. Range 0 to 2, as in Brier (Monthly Weather
             Review 78, 1950). For one structure: the mean of (p - o)^2, range 0 to 1, which is half
             of Brier's score for the two classes "structure" and "not structure".

Most of a scan is background, which is easy and hides the errors of the structures (Metrics
Reloaded, Nature Methods 21, 2024). ``near_foreground`` gives a better region to evaluate: the
bounding box of the true structures with a margin. A structure that is absent from the region has
values too: any probability assigned to it is wrong. An empty region has none: NaN.

It knows no files, grids or names of structures. Shapes: probabilities (C, I, J, K), truth (I, J,
K). Legend: C classes, the background first; L = C - 1 structures; B bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core.errors import GeometryError, InputError, LabelError
from ..metrics.overlap import Floats, Ints, foreground_box, listed, ratio, whole_numbers

BINS = 15
SLAB_VOXELS = 1 << 18  # voxels processed at once, with all classes: 4 bytes each as float32
ROUNDING = 0.01  # tolerance of a voxel's probabilities and their sum: half precision, averaged


@dataclass(frozen=True)
class Reliability:
    """Sums over voxels by bin of confidence, the data of a reliability diagram. The values of
    several scans together follow from the added sums (``pool``).

    Args:
        count: (B,) number of voxels, int64.
        confidence: (B,) sum of their confidences.
        right: (B,) number of correct voxels, or of voxels of the structure, int64.
        squares: sum over voxels of the squares in the Brier score.
    """

    count: Ints
    confidence: Floats
    right: Ints
    squares: float

    @property
    def voxels(self) -> int:
        """Number of voxels in all bins."""
        return int(self.count.sum())

    @property
    def mean_confidence(self) -> Floats:
        """(B,) mean confidence of each bin; NaN if the bin is empty."""
        return ratio(self.confidence, self.count)

    @property
    def accuracy(self) -> Floats:
        """(B,) fraction of correct voxels (or voxels of the structure) in each bin; NaN if the bin
        is empty.
        """
        return ratio(self.right, self.count)

    @property
    def ece(self) -> float:
        """Expected calibration error; NaN if there is no voxel."""
        return (
            float(np.abs(self.right - self.confidence).sum() / self.voxels)
            if self.voxels
            else float("nan")
        )

    @property
    def mce(self) -> float:
        """Maximum calibration error; NaN if there is no voxel."""
        return (
            float(np.nanmax(np.abs(self.accuracy - self.mean_confidence)))
            if self.voxels
            else float("nan")
        )

    @property
    def brier(self) -> float:
        """Brier score: 0 to 2 for all classes, 0 to 1 for a structure; NaN if there is no voxel."""
        return self.squares / self.voxels if self.voxels else float("nan")

    def rows(self) -> list[dict[str, float | int]]:
        """One row per bin, for a diagram: its limits (above the lower, up to the upper), number of
        voxels, mean confidence, accuracy.
        """
        ends = np.arange(len(self.count) + 1) / len(self.count)
        columns = zip(
            ends[:-1].tolist(),
            ends[1:].tolist(),
            self.count.tolist(),
            self.mean_confidence.tolist(),
            self.accuracy.tolist(),
            strict=True,
        )
        return [
            dict(zip(("above", "up_to", "voxels", "mean_confidence", "accuracy"), row, strict=True))
            for row in columns
        ]


@dataclass(frozen=True)
class Calibration:
    """The calibration of all classes together, and of each structure (L,) in the order of
    ``values``.
    """

    values: tuple[int, ...]
    together: Reliability
    structures: tuple[Reliability, ...]


def calibration(
    probabilities: NDArray[Any],
    truth: NDArray[Any],
    values: Sequence[int] | None = None,
    bins: int = BINS,
    region: tuple[slice, ...] | NDArray[np.bool_] | None = None,
) -> Calibration:
    """Compare probabilities with the truth, in one pass over slabs. Memory in addition to the input
    does not depend on the scan's size.

    Args:
        probabilities: (C, I, J, K) or (C, I, J), any float dtype, also memory-mapped. The
            background comes first; each voxel adds up to 1.
        truth: (I, J, K) label values.
        values: the label value of each class but the background; None means 1 ... L.
        bins: number of bins, B.
        region: the voxels to evaluate, as a box of slices or a mask (I, J, K); None evaluates all.
            See ``near_foreground``.

    Raises:
        GeometryError: the shapes do not match.
        LabelError: the truth has a value that is not in ``values``, or is not a whole number in
            0..65535.
        InputError: the probabilities of a voxel are below 0, above 1 or NaN, or do not add up to 1
            within 0.01.
        ValueError: fewer than one bin.
    """
    values = tuple(range(1, len(probabilities)) if values is None else values)
    mask = region if isinstance(region, np.ndarray) else None
    _check(probabilities, truth, values, mask, bins)
    # A box is cut out once; a mask is applied slab by slab.
    if region is not None and mask is None:
        probabilities, truth = probabilities[(slice(None), *region)], truth[region]
    # Table from label value to class index; -1 marks undeclared values.
    class_of = np.full(1 << 16, -1, np.int64)
    class_of[[0, *values]] = np.arange(len(values) + 1)
    sums = _CalibrationSums(
        np.zeros((len(values) + 1, bins), np.int64),
        np.zeros((len(values) + 1, bins)),
        np.zeros((len(values) + 1, bins), np.int64),
        np.zeros(len(values) + 1),
    )
    # Process slabs of about SLAB_VOXELS along the first axis.
    rows = max(1, SLAB_VOXELS * len(truth) // max(truth.size, 1))
    for start in range(0, len(truth), rows):
        here = slice(start, start + rows)
        _add_slab(
            sums,
            probabilities[:, here],
            truth[here],
            None if mask is None else mask[here],
            class_of,
        )
    reliabilities = [
        Reliability(sums.count[n], sums.confidence[n], sums.right[n], float(sums.squares[n]))
        for n in range(len(values) + 1)
    ]
    return Calibration(values, reliabilities[0], tuple(reliabilities[1:]))


def pool(found: Iterable[Calibration]) -> Calibration:
    """Add the sums of several scans, as if they were one. Scans with more voxels weigh more.

    Raises:
        ValueError: there is no scan, or structures or bins differ.
    """
    cases = list(found)
    if not cases or any(
        c.values != cases[0].values or len(c.together.count) != len(cases[0].together.count)
        for c in cases
    ):
        raise ValueError(
            "pooling needs at least one case, and the same structures and bins in all cases"
        )

    def added(parts: Sequence[Reliability]) -> Reliability:
        count, confidence, right = (
            np.sum([getattr(p, name) for p in parts], axis=0)
            for name in ("count", "confidence", "right")
        )
        return Reliability(count, confidence, right, sum(p.squares for p in parts))

    return Calibration(
        cases[0].values,
        added([c.together for c in cases]),
        tuple(added(of) for of in zip(*(c.structures for c in cases), strict=True)),
    )


def near_foreground(
    truth: NDArray[Any], spacing_mm: Sequence[float], margin_mm: float = 20.0
) -> tuple[slice, ...]:
    """The bounding box of all structures with a margin on every side, clipped to the scan; an empty
    box if ``truth`` (I, J, K) has no structure.
    """
    box = foreground_box(truth)
    if any(b.stop == b.start for b in box):
        return box
    # The margin in voxels along each axis, rounded up.
    steps = [int(np.ceil(margin_mm / s)) for s in spacing_mm]
    return tuple(
        slice(max(0, b.start - n), min(size, b.stop + n))
        for b, n, size in zip(box, steps, truth.shape, strict=True)
    )


# ---- sums ----


@dataclass(frozen=True)
class _CalibrationSums:
    """(C, B), and ``squares`` (C,). Row 0 is for all classes together, then one per structure."""

    count: Ints
    confidence: Floats
    right: Ints
    squares: Floats


def _check(
    probabilities: NDArray[Any],
    truth: NDArray[Any],
    values: Sequence[int],
    mask: NDArray[Any] | None,
    bins: int,
) -> None:
    if probabilities.shape[1:] != truth.shape or len(probabilities) != len(values) + 1:
        raise GeometryError(
            f"probabilities of shape {probabilities.shape} do not match {len(values)} structures "
            f"with background and a truth of shape {truth.shape}"
        )
    if mask is not None and mask.shape != truth.shape:
        raise GeometryError(
            f"the region of shape {mask.shape} does not match a truth of shape {truth.shape}"
        )
    if bins < 1:
        raise ValueError(f"bins must be at least 1, found {bins}")


def _add_slab(
    sums: _CalibrationSums,
    probabilities: NDArray[Any],
    truth: NDArray[Any],
    mask: NDArray[Any] | None,
    class_of: Ints,
) -> None:
    """Add the voxels of one slab to the sums, those of ``mask`` only if it is given."""
    # Flatten to (C, n) and (n,).
    if mask is None:
        p, labels = probabilities.reshape(len(probabilities), -1), truth.reshape(-1)
    else:
        p, labels = probabilities[:, mask != 0], truth[mask != 0]
    labels = whole_numbers(labels, "truth")
    classes = class_of[labels]
    if (classes < 0).any():
        raise LabelError(
            f"undeclared label values {listed(sorted(set(labels[classes < 0].tolist())))} in the "
            "truth"
        )
    # Two dtypes only, so that the loop is compiled at most twice.
    p = np.ascontiguousarray(p, dtype=np.float64 if p.dtype == np.float64 else np.float32)
    worst = _add_voxels(p, classes, sums.count, sums.confidence, sums.right, sums.squares)
    if not worst <= ROUNDING:
        raise InputError(
            "probabilities must be in 0..1 and add up to 1 in each voxel; found a difference of "
            f"{worst:g}"
        )


@njit(cache=True, nogil=True)
def _add_voxels(p, classes, count, confidence, right, squares):  # type: ignore[no-untyped-def]
    """Add voxels p (C, n) with true ``classes`` (n,) to the sums (C, B) and (C,).

    Returns the largest difference of a voxel's sum from 1; infinite if a value is NaN or out of
    range.
    """
    bins, worst = count.shape[1], 0.0
    for n in range(p.shape[1]):
        total, best, error = 0.0, 0, 0.0
        for c in range(p.shape[0]):
            here, true = float(p[c, n]), classes[n] == c
            if not (-ROUNDING <= here <= 1 + ROUNDING):
                return np.inf
            total += here
            best = c if here > p[best, n] else best
            square = (here - true) ** 2
            error += square
            # Each structure counts with its own probability.
            if c:
                squares[c] += square
                bin_ = _bin(here, bins)
                count[c, bin_] += 1
                confidence[c, bin_] += here
                right[c, bin_] += true
        # All classes together: the most probable class counts.
        worst = max(worst, abs(total - 1))
        bin_ = _bin(float(p[best, n]), bins)
        count[0, bin_] += 1
        confidence[0, bin_] += p[best, n]
        right[0, bin_] += classes[n] == best
        squares[0] += error
    return worst


@njit(nogil=True)
def _bin(value, bins):  # type: ignore[no-untyped-def]
    """The bin of a value: above n / bins, up to (n + 1) / bins."""
    if value <= 1 / bins:  # the most frequent case
        return 0
    # The product can be rounded to the wrong side of a limit; compare with the limits themselves.
    n = min(int(np.ceil(value * bins)) - 1, bins - 1)
    if value <= n / bins:
        return n - 1
    if n < bins - 1 and value > (n + 1) / bins:
        return n + 1
    return n
