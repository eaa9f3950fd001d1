"""Lesion-wise detection: which lesions of the truth were found, and which predicted lesions are
false alarms.

A lesion is a connected component, with 26-connectivity (faces, edges and corners; the default),
18-connectivity (faces and edges) or 6-connectivity (faces only); in a 2-D image 8 or 4.
Implementations differ most in the definition of a match, so each definition has a name here:

overlap   The default: a lesion matches if the other mask covers some of it, and at least the share
          ``threshold`` (default 0) of its volume. One predicted lesion may match several true ones,
          and several may match one. (Lesion-wise sensitivity of the MS and BraTS-METS challenges;
          FP and FN of autoPET.)
optimal   One to one, among the pairs with IoU >= ``threshold`` (default 0.5): the matching with the
          most pairs, and among these the one with the largest sum of IoU (Kuhn 1955). Above an IoU
          of 0.5 the matching is unique (Kirillov et al., Panoptic Segmentation, CVPR 2019).
greedy    One to one, among the same pairs: the pair with the largest IoU first (Metrics Reloaded,
          Nature Methods 21, 2024).

All components are matched, but only those of at least ``least_ml`` are counted: a smaller one is
neither found nor missed nor a false alarm, yet it can be the match of a larger one. So two lesions
that agree, one just above the limit and one just below, do not become two errors.

    truth      prediction   sensitivity   precision   f1    false_alarms   misses
    none       none         NaN           NaN         NaN   0              0
    none       m lesions    NaN           0           0     m              0
    n lesions  none         0             NaN         0     0              n

The module reads no files and knows no structure names. Legend: n lesions of the truth, m of the
prediction, in the order of their positions in the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core.errors import GeometryError, UsageError
from ..preprocessing.regions import connected_components
from .overlap import Floats, Ints, foreground_box

Match = Literal["overlap", "optimal", "greedy"]
Connectivity = Literal[26, 18, 6]
ROUNDING = 1e-9  # relative; so that 30 voxels of 0.001 ml are not less than 0.03 ml


@dataclass(frozen=True)
class LesionTable:
    """The lesions of one mask; all arrays have one entry per lesion.

    Args:
        ml: volume; NaN for a 2-D image without a slice thickness.
        covered: share of the lesion's voxels inside the other mask (all its lesions together).
        partner: index of the matched lesion in the other mask; if there are several (match by
            overlap), the one with the most shared voxels; -1 if there is none.
        iou: IoU with the partner; 0 if there is none.
        counted: whether the lesion is large enough to be counted.
        centre_voxel: (., 3) mean voxel index.
    """

    ml: Floats
    covered: Floats
    partner: Ints
    iou: Floats
    counted: NDArray[np.bool_]
    centre_voxel: Floats

    @property
    def matched(self) -> NDArray[np.bool_]:
        """Whether each lesion has a partner."""
        return np.asarray(self.partner >= 0)


@dataclass(frozen=True)
class Lesions:
    """The lesions of both masks and their matches; the module docstring defines a match."""

    truth: LesionTable
    prediction: LesionTable
    match: Match
    threshold: float
    least_ml: float

    @property
    def true_positives(self) -> int:
        """Number of true lesions that were found."""
        return int((self.truth.counted & self.truth.matched).sum())

    @property
    def misses(self) -> int:
        """Number of true lesions that were not found (false negatives)."""
        return int((self.truth.counted & ~self.truth.matched).sum())

    @property
    def false_alarms(self) -> int:
        """Number of predicted lesions without a match (false positives)."""
        return int((self.prediction.counted & ~self.prediction.matched).sum())

    @property
    def false_alarms_ml(self) -> float:
        """Volume of the false alarms in ml; 0 if there are none."""
        return float(self.prediction.ml[self.prediction.counted & ~self.prediction.matched].sum())

    @property
    def misses_ml(self) -> float:
        """Volume of the missed lesions in ml; 0 if there are none."""
        return float(self.truth.ml[self.truth.counted & ~self.truth.matched].sum())

    @property
    def sensitivity(self) -> float:
        """Lesion-wise sensitivity TP / (TP + misses). No lesion in the truth: NaN."""
        return _share(self.true_positives, self.true_positives + self.misses)

    @property
    def precision(self) -> float:
        """Lesion-wise precision, 1 - false alarms / counted predicted lesions. No lesion in the
        prediction: NaN.
        """
        counted = int(self.prediction.counted.sum())
        return _share(counted - self.false_alarms, counted)

    @property
    def f1(self) -> float:
        """Lesion-wise F1, TP / (TP + misses / 2 + false alarms / 2): the recognition quality of
        Kirillov 2019. No lesion in either mask: NaN.
        """
        return _share(
            self.true_positives, self.true_positives + (self.misses + self.false_alarms) / 2
        )

    @property
    def segmentation_quality(self) -> float:
        """Mean IoU of the found lesions with their partners (Kirillov 2019). NaN if none was found
        or the match is not one to one.
        """
        found = self.truth.iou[self.truth.counted & self.truth.matched]
        return float(found.mean()) if len(found) and self.match != "overlap" else float("nan")

    @property
    def panoptic_quality(self) -> float:
        """F1 x segmentation quality (Kirillov 2019); 0 if there are lesions and none was found. NaN
        if there is no lesion in either mask or the match is not one to one.
        """
        return (
            0.0 if self.f1 == 0 and self.match != "overlap" else self.f1 * self.segmentation_quality
        )

    def rows(self) -> list[dict[str, Any]]:
        """One row per lesion, those of the truth first: mask, index, volume in ml, share covered,
        partner (None without one), IoU, whether it is counted, centre.
        """
        return [
            {
                "of": of,
                "lesion": n,
                "volume_ml": float(side.ml[n]),
                "covered": float(side.covered[n]),
                "partner": int(side.partner[n]) if side.matched[n] else None,
                "iou": float(side.iou[n]),
                "counted": bool(side.counted[n]),
                "centre_voxel": tuple(side.centre_voxel[n].tolist()),
            }
            for of, side in (("truth", self.truth), ("prediction", self.prediction))
            for n in range(len(side.ml))
        ]


def lesions(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    spacing_mm: Sequence[float],
    match: Match = "overlap",
    threshold: float | None = None,
    least_ml: float = 0.0,
    connectivity: Connectivity = 26,
) -> Lesions:
    """Find the lesions of both masks and match them. The work depends on the number of voxels, not
    on the number of lesions.

    Args:
        prediction, truth: (I, J, K) or (I, J); non-zero is inside. A 2-D image with two axes has no
            volumes in ml.
        spacing_mm: voxel size along each axis.
        match, threshold: see the module docstring; the threshold None is 0 for "overlap" and 0.5
            for the others.
        least_ml: smaller lesions are matched but not counted.
        connectivity: 26, 18 or 6; in 2-D images 26 and 18 mean 8, and 6 means 4.

    Raises:
        GeometryError: the shapes differ, or the spacing is not one positive number per axis.
        UsageError: an unknown match, a threshold outside 0..1 (for IoU it must be above 0), an
            unknown connectivity, or ``least_ml`` with a 2-D image of two axes.
    """
    threshold = (0.0 if match == "overlap" else 0.5) if threshold is None else threshold
    _check(prediction, truth, spacing_mm, match, threshold, least_ml, connectivity)
    # Components and matches only need the foreground's bounding box.
    box = foreground_box(prediction, truth)
    p, t = (_components(m[box], connectivity) for m in (prediction, truth))
    pairs = _pairs(t, p)
    for_truth, for_prediction = _matched(pairs, match, threshold)
    voxel_ml = float(np.prod(spacing_mm)) / 1000 if len(spacing_mm) == 3 else float("nan")
    corner = np.array([*(s.start or 0 for s in box), 0][:3])  # of the block, in the whole scan
    sides = [
        _side(own, of, for_one, voxel_ml, least_ml, corner)
        for own, of, for_one in ((t, pairs, for_truth), (p, pairs.swapped, for_prediction))
    ]
    return Lesions(sides[0], sides[1], match, threshold, least_ml)


def _check(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    spacing_mm: Sequence[float],
    match: str,
    threshold: float,
    least_ml: float,
    connectivity: int,
) -> None:
    if prediction.shape != truth.shape:
        raise GeometryError(
            f"prediction of shape {prediction.shape} against truth of shape {truth.shape}"
        )
    if (
        prediction.ndim not in (2, 3)
        or len(spacing_mm) != prediction.ndim
        or not all(s > 0 for s in spacing_mm)
    ):
        raise GeometryError(
            "a mask has two or three axes with one positive spacing each, found shape "
            f"{prediction.shape} and spacing {tuple(spacing_mm)}"
        )
    if match not in ("overlap", "optimal", "greedy"):
        raise UsageError(f"match must be overlap, optimal or greedy, found {match!r}")
    if not (0 <= threshold <= 1) or (match != "overlap" and threshold == 0):
        raise UsageError(
            "the threshold must be in 0..1, and above 0 for optimal and greedy; "
            f"found {threshold:g} for {match}"
        )
    if connectivity not in (26, 18, 6):
        raise UsageError(
            "connectivity must be 26, 18 or 6 (in 2-D images 26 and 18 mean 8, and 6 means 4), "
            f"found {connectivity}"
        )
    if least_ml > 0 and prediction.ndim == 2:
        raise UsageError(
            "a 2-D image with two axes has no volumes, so a minimum volume of "
            f"{least_ml:g} ml cannot be applied; give it as (I, J, 1) with three spacings"
        )


# ---- components and their overlaps ----


@dataclass(frozen=True)
class _Components:
    """The components of one mask in its block: labels (I, J, K) from 1, with 0 outside; sizes (n,)
    in voxels; centres (n, 3) as voxel indices of the block.
    """

    labels: NDArray[Any]  # int32
    sizes: Ints
    centres: Floats


@dataclass(frozen=True)
class _Pairs:
    """Every pair of lesions that share a voxel: indices of the own and the other mask's lesion and
    the number of shared voxels, (pairs,) each. ``own_sizes`` and ``other_sizes`` are (n,) and (m,).
    """

    own: Ints
    other: Ints
    shared: Ints
    own_sizes: Ints
    other_sizes: Ints

    @property
    def swapped(self) -> _Pairs:
        """The same pairs with own and other exchanged."""
        return _Pairs(self.other, self.own, self.shared, self.other_sizes, self.own_sizes)

    @property
    def iou(self) -> Floats:
        """(pairs,) IoU of each pair."""
        return self.shared / (self.own_sizes[self.own] + self.other_sizes[self.other] - self.shared)

    @property
    def covered(self) -> Floats:
        """(n,) share of each own lesion that all its pairs cover together."""
        return (
            np.bincount(self.own, weights=self.shared, minlength=len(self.own_sizes))
            / self.own_sizes
        )


def _components(mask: NDArray[Any], connectivity: Connectivity) -> _Components:
    """The connected components of a mask with their sizes and centres."""
    solid = np.ascontiguousarray((mask if mask.ndim == 3 else mask[..., None]) != 0)
    if not solid.any():
        return _Components(np.zeros(solid.shape, np.int32), np.zeros(0, np.int64), np.zeros((0, 3)))
    labels, count = connected_components(solid, connectivity)
    sums = np.zeros((count + 1, 4), np.int64)  # number of voxels, and sums of their i, j and k
    _add_moments(labels, sums)
    return _Components(labels, sums[1:, 0], sums[1:, 1:] / sums[1:, :1])


def _pairs(own: _Components, other: _Components) -> _Pairs:
    """All pairs of components that share voxels, from runs along the rows of both label maps."""
    base = len(other.sizes) + 1
    keys, lengths = _runs(own.labels.reshape(-1), other.labels.reshape(-1), base)
    # A pair can have many runs: add their lengths.
    keys, which = np.unique(keys, return_inverse=True)
    shared = np.bincount(which, weights=lengths, minlength=len(keys)).astype(np.int64)
    return _Pairs(keys // base - 1, keys % base - 1, shared, own.sizes, other.sizes)


@njit(cache=True, nogil=True)
def _add_moments(labels, sums):  # type: ignore[no-untyped-def]
    """Add each component's number of voxels and sums of indices to its row of ``sums``."""
    size_i, size_j, size_k = labels.shape
    for i in range(size_i):
        for j in range(size_j):
            for k in range(size_k):
                n = labels[i, j, k]
                if n:
                    sums[n, 0] += 1
                    sums[n, 1] += i
                    sums[n, 2] += j
                    sums[n, 3] += k


@njit(cache=True, nogil=True)
def _runs(own, other, base):  # type: ignore[no-untyped-def]
    """Runs of consecutive voxels in which the same two lesions overlap: (runs,) the pair as
    own x base + other, and (runs,) the length.
    """
    keys, lengths, count, last = np.empty(1 << 10, np.int64), np.empty(1 << 10, np.int64), 0, -1
    for n in range(len(own)):
        if not own[n] or not other[n]:
            last = -1
            continue
        key = np.int64(own[n]) * base + np.int64(other[n])
        if key == last:
            lengths[count - 1] += 1
            continue
        # A new run; the arrays double when they are full.
        if count == len(keys):
            keys, lengths = (
                np.append(keys, np.empty_like(keys)),
                np.append(lengths, np.empty_like(lengths)),
            )
        keys[count], lengths[count], last = key, 1, key
        count += 1
    return keys[:count], lengths[:count]


def _side(
    own: _Components,
    pairs: _Pairs,
    chosen: NDArray[np.intp],
    voxel_ml: float,
    least_ml: float,
    corner: NDArray[Any],
) -> LesionTable:
    """The table of one mask's lesions. ``chosen`` are the indices of its matches in ``pairs``, at
    most one per lesion; ``corner`` is the block's position in the scan, in voxels.
    """
    partner, iou = np.full(len(own.sizes), -1, np.int64), np.zeros(len(own.sizes))
    partner[pairs.own[chosen]], iou[pairs.own[chosen]] = pairs.other[chosen], pairs.iou[chosen]
    ml = own.sizes * np.float64(voxel_ml)
    counted = ~(ml < least_ml * (1 - ROUNDING))  # an unknown volume (NaN) is counted
    return LesionTable(ml, pairs.covered, partner, iou, counted, own.centres + corner)


# ---- which pairs are matches ----


def _matched(
    pairs: _Pairs, match: Match, threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the pairs that are matches of the own lesions, and of the other mask's lesions; at
    most one per lesion.
    """
    if match == "overlap":
        return _largest_share(pairs, threshold), _largest_share(pairs.swapped, threshold)
    allowed = np.flatnonzero(pairs.iou >= threshold)
    chosen = _greedy(pairs, allowed) if match == "greedy" else _optimal(pairs, allowed)
    return chosen, chosen


def _largest_share(pairs: _Pairs, threshold: float) -> NDArray[np.intp]:
    """For each own lesion whose covered share reaches the threshold, the pair with the most shared
    voxels; the first of equals.
    """
    # Sorted by lesion and then by falling overlap, the first pair of each lesion is its best.
    order = np.lexsort((-pairs.shared, pairs.own))
    _, first = np.unique(pairs.own[order], return_index=True)
    best = order[first]
    return best[pairs.covered[pairs.own[best]] >= threshold]


def _greedy(pairs: _Pairs, allowed: NDArray[np.intp]) -> NDArray[np.intp]:
    """The allowed pairs by falling IoU, each only if neither lesion has a partner yet."""
    taken: tuple[set[int], set[int]] = set(), set()
    chosen = []
    for n in allowed[np.argsort(-pairs.iou[allowed], kind="stable")].tolist():
        t, p = int(pairs.own[n]), int(pairs.other[n])
        if t not in taken[0] and p not in taken[1]:
            taken[0].add(t)
            taken[1].add(p)
            chosen.append(n)
    return np.array(chosen, dtype=np.intp)


def _optimal(pairs: _Pairs, allowed: NDArray[np.intp]) -> NDArray[np.intp]:
    """The optimal assignment among the allowed pairs, solved separately for each group of lesions
    that such pairs connect; nearly all groups are a single pair.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(allowed):
        return allowed
    # Groups are the components of the graph whose nodes are lesions and whose edges are pairs.
    t, p = pairs.own[allowed], pairs.other[allowed] + int(pairs.own.max()) + 1
    size = int(p.max()) + 1
    _, group = connected_components(
        coo_array((np.ones(len(allowed)), (t, p)), shape=(size, size)), directed=False
    )
    order = np.argsort(group[t], kind="stable")
    ends = np.flatnonzero(np.diff(group[t][order], append=-1)) + 1
    groups = np.split(allowed[order], ends[:-1])
    return np.sort(np.concatenate([g if len(g) == 1 else _assigned(pairs, g) for g in groups]))


def _assigned(pairs: _Pairs, group: NDArray[np.intp]) -> NDArray[np.intp]:
    """The assignment of one group with the most pairs, and among these the one with the largest sum
    of IoU. Each pair gets a bonus that no sum of IoU can exceed, so the number of pairs decides.
    """
    from scipy.optimize import linear_sum_assignment

    # A small matrix of the lesions in this group; 0 for pairs that are not allowed.
    (ts, t), (ps, p) = (np.unique(a[group], return_inverse=True) for a in (pairs.own, pairs.other))
    worth, which = np.zeros((len(ts), len(ps))), np.full((len(ts), len(ps)), -1, np.intp)
    worth[t, p], which[t, p] = pairs.iou[group] + len(group), group
    rows, columns = linear_sum_assignment(worth, maximize=True)
    chosen = which[rows, columns]
    return np.asarray(chosen[chosen >= 0])


def _share(above: float, below: float) -> float:
    """The ratio; NaN if the denominator is 0."""
    return above / below if below else float("nan")
