"""Whether probabilities mean what they say: of all voxels called liver with 80 %, are 80 % liver?

Confidence   Over all classes together: the largest probability of a voxel, and whether that class
             is the true one (Guo et al., On Calibration of Modern Neural Networks, ICML 2017). Of
             one structure: its own probability, however small, and whether the voxel is of it.
Bins         Equal in width, (0, 1/B], (1/B, 2/B] ... ((B-1)/B, 1], as in Guo 2017; 15 by default. A
             probability of 0 is in the first.
ECE          Expected calibration error: the mean over bins of |accuracy - mean confidence|, each
             weighing as many voxels as it has (Naeini et al., AAAI 2015). Other binnings (equally
             full bins, adaptive ones) give other figures.
MCE          Maximum calibration error: the largest of these differences, over bins with a voxel.
Brier        Over all classes: mean over voxels of the sum over classes of (p - o)^2, o 1 for the
             true class and 0 for the others: 0 to 2, as Brier (Monthly Weather Review 78, 1950) has
             it. Of one structure: mean of (p - o)^2, 0 to 1, half of Brier's for the two classes it
             and not it.

Background is most of a scan and easy, and so hides what structures suffer (Metrics Reloaded, Nature
Methods 21, 2024): ``near_foreground`` gives the region to judge instead, the box of the truth's
structures with a margin. A structure that is not in the region has figures too: probability given
to it is wrong. An empty region has none: NaN.

It knows no file, no grid and no name of a structure. Legend: C classes, the background first; L = C
- 1 structures; B bins.
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
SLAB_VOXELS = 1 << 18  # of all classes, looked at together: 4 bytes each as float32
ROUNDING = (
    0.01  # by how much the probabilities of a voxel may miss 1: half precision, and averages of it
)


@dataclass(frozen=True)
class Reliability:
    """Sums over voxels, by bin of confidence: what a reliability diagram shows. Figures of several
    scans are those of their sums (``pool``).

    Args:
        count: (B,) voxels, int64.
        confidence: (B,) sum of their confidences.
        right: (B,) how many of them were right, or of the structure.
        squares: sum over voxels of Brier's squares.
    """

    count: Ints
    confidence: Floats
    right: Ints
    squares: float

    @property
    def voxels(self) -> int:
        return int(self.count.sum())

    @property
    def mean_confidence(self) -> Floats:
        """(B,) of each bin; NaN where it is empty."""
        return ratio(self.confidence, self.count)

    @property
    def accuracy(self) -> Floats:
        """(B,) share of each bin that is right, or of the structure; NaN where it is empty."""
        return ratio(self.right, self.count)

    @property
    def ece(self) -> float:
        """Expected calibration error; NaN where there is no voxel."""
        return (
            float(np.abs(self.right - self.confidence).sum() / self.voxels)
            if self.voxels
            else float("nan")
        )

    @property
    def mce(self) -> float:
        """Maximum calibration error; NaN where there is no voxel."""
        return (
            float(np.nanmax(np.abs(self.accuracy - self.mean_confidence)))
            if self.voxels
            else float("nan")
        )

    @property
    def brier(self) -> float:
        """Brier score; 0 to 2 over all classes, 0 to 1 of a structure; NaN where there is no
        voxel.
        """
        return self.squares / self.voxels if self.voxels else float("nan")

    def rows(self) -> list[dict[str, float | int]]:
        """A row a bin: its ends (above the lower, up to the upper), voxels, mean confidence,
        accuracy; for a diagram.
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
    """Of all classes together, and of each structure (L,) for itself, in the order of
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
    """Compare probabilities with the truth, in one pass over slabs; memory beyond the input does
    not depend on the scan's size.

    Args:
        probabilities: (C, I, J, K), or (C, I, J), any float dtype; a memory-mapped file will do.
            The background first; each voxel adds up to 1.
        truth: (I, J, K) label values.
        values: the label value of each class but the first; None takes 1 ... L.
        bins: B.
        region: a box of slices, or a mask (I, J, K) of the voxels to judge; None judges all. See
            ``near_foreground``.

    Raises:
        GeometryError: the shapes do not fit.
        LabelError: the truth has a value that is not in ``values``, or one that is no whole number
            in 0..65535.
        InputError: what is given are no probabilities: below 0, above 1, not adding up to 1 within
            0.01, or NaN.
        ValueError: less than one bin.
    """
    values = tuple(range(1, len(probabilities)) if values is None else values)
    mask = region if isinstance(region, np.ndarray) else None
    _check(probabilities, truth, values, mask, bins)
    if region is not None and mask is None:
        probabilities, truth = probabilities[(slice(None), *region)], truth[region]
    place = np.full(1 << 16, -1, np.int64)
    place[[0, *values]] = np.arange(len(values) + 1)
    sums = _CalibrationSums(
        np.zeros((len(values) + 1, bins), np.int64),
        np.zeros((len(values) + 1, bins)),
        np.zeros((len(values) + 1, bins), np.int64),
        np.zeros(len(values) + 1),
    )
    rows = max(1, SLAB_VOXELS * len(truth) // max(truth.size, 1))
    for start in range(0, len(truth), rows):
        here = slice(start, start + rows)
        _add_slab(
            sums, probabilities[:, here], truth[here], None if mask is None else mask[here], place
        )
    of = [
        Reliability(sums.count[n], sums.confidence[n], sums.right[n], float(sums.squares[n]))
        for n in range(len(values) + 1)
    ]
    return Calibration(values, of[0], tuple(of[1:]))


def pool(found: Iterable[Calibration]) -> Calibration:
    """The sums of several scans, as if they were one; large regions and finely sampled scans weigh
    more.

    Raises:
        ValueError: there is nothing to add, or structures or bins differ.
    """
    cases = list(found)
    if not cases or any(
        c.values != cases[0].values or len(c.together.count) != len(cases[0].together.count)
        for c in cases
    ):
        raise ValueError(
            "pooling needs at least one case, and the same structures and bins in each"
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
    """The box of all structures with a margin on every side, cut off where the scan ends; an empty
    one where the truth is.
    """
    box = foreground_box(truth)
    if any(b.stop == b.start for b in box):
        return box
    steps = [int(np.ceil(margin_mm / s)) for s in spacing_mm]
    return tuple(
        slice(max(0, b.start - n), min(size, b.stop + n))
        for b, n, size in zip(box, steps, truth.shape, strict=True)
    )


# ---- sums ----


@dataclass(frozen=True)
class _CalibrationSums:
    """(C, B) and (C,): row 0 of all classes together, then of each structure."""

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
            f"probabilities of shape {probabilities.shape} for {len(values)} structures and a "
            f"background, against truth of shape {truth.shape}"
        )
    if mask is not None and mask.shape != truth.shape:
        raise GeometryError(f"a region of shape {mask.shape} in a truth of shape {truth.shape}")
    if bins < 1:
        raise ValueError(f"at least one bin, found {bins}")


def _add_slab(
    sums: _CalibrationSums,
    probabilities: NDArray[Any],
    truth: NDArray[Any],
    mask: NDArray[Any] | None,
    place: Ints,
) -> None:
    if mask is None:
        p, labels = probabilities.reshape(len(probabilities), -1), truth.reshape(-1)
    else:
        p, labels = probabilities[:, mask != 0], truth[mask != 0]
    labels = whole_numbers(labels, "truth")
    classes = place[labels]
    if (classes < 0).any():
        raise LabelError(
            f"undeclared label values {listed(sorted(set(labels[classes < 0].tolist())))} in the "
            "truth"
        )
    p = np.ascontiguousarray(p, dtype=np.float64 if p.dtype == np.float64 else np.float32)
    worst = _add_voxels(p, classes, sums.count, sums.confidence, sums.right, sums.squares)
    if not worst <= ROUNDING:
        raise InputError(
            "probabilities lie in 0..1 and add up to 1 in each voxel; found values that miss it "
            f"by {worst:g}"
        )


@njit(cache=True, nogil=True)
def _add_voxels(p, classes, count, confidence, right, squares):  # type: ignore[no-untyped-def]
    """Adds voxels (C, n) to the sums; returns by how much the worst misses being probabilities,
    infinite where it is NaN.
    """
    bins, worst = count.shape[1], 0.0
    for n in range(p.shape[1]):
        total, best, wrong = 0.0, 0, 0.0
        for c in range(p.shape[0]):
            here, true = float(p[c, n]), classes[n] == c
            if not (-ROUNDING <= here <= 1 + ROUNDING):
                return np.inf
            total += here
            best = c if here > p[best, n] else best
            square = (here - true) ** 2
            wrong += square
            if c:
                squares[c] += square
                bin_ = _bin(here, bins)
                count[c, bin_] += 1
                confidence[c, bin_] += here
                right[c, bin_] += true
        worst = max(worst, abs(total - 1))
        bin_ = _bin(float(p[best, n]), bins)
        count[0, bin_] += 1
        confidence[0, bin_] += p[best, n]
        right[0, bin_] += classes[n] == best
        squares[0] += wrong
    return worst


@njit(nogil=True)
def _bin(value, bins):  # type: ignore[no-untyped-def]
    """The bin that holds a value: above n / bins, up to (n + 1) / bins."""
    if value <= 1 / bins:  # most of all values
        return 0
    n = min(int(np.ceil(value * bins)) - 1, bins - 1)
    if value <= n / bins:  # the product was rounded up
        return n - 1
    if n < bins - 1 and value > (n + 1) / bins:
        return n + 1
    return n
