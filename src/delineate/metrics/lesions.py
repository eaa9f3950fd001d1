"""Lesion by lesion: which of the truth's lesions were found, and which of the prediction's are
none.

A lesion is a connected component: voxels that hang together over faces, edges or corners (26, the
default), over faces and edges (18), or over faces alone (6); in a flat image 8 or 4.
Implementations differ most in what a match is, so each has a
name here:

overlap   The default: a lesion matches if the other mask covers some of it, and at least
          ``threshold`` (0 by default) of its volume. One prediction may so find several lesions,
          and several may find one. (Lesion-wise sensitivity of the MS and BraTS-METS challenges; FP
          and FN of autoPET.)
optimal   One to one, among pairs with IoU >= ``threshold`` (0.5 by default): as many pairs as can
          be, and of those ways the one with the largest sum of IoU (Kuhn 1955). Above 0.5 there is
          only one way (Kirillov et al., Panoptic Segmentation, CVPR 2019).
greedy    One to one, among the same pairs: the pair with the largest IoU first (Metrics Reloaded,
          Nature Methods 21, 2024).

All components are matched, and those of ``least_ml`` or more are counted: a smaller one is neither
found nor missed nor a false alarm, but what matches it is matched. So the limit cannot turn two
shapes that agree, one a little above it and one a little below, into two errors.

    truth      prediction   sensitivity   precision   f1    false_alarms   misses
    none       none         NaN           NaN         NaN   0              0
    none       m lesions    NaN           0           0     m              0
    n lesions  none         0             NaN         0     0              n

It knows no file and no name of a structure. Legend: n lesions of the truth, m of the prediction, in
the order in which they lie in the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core.errors import GeometryError, UsageError
from .overlap import Floats, Ints, foreground_box

Match = Literal["overlap", "optimal", "greedy"]
Connectivity = Literal[26, 18, 6]
SMALL_VOXELS = 1 << 15
ROUNDING = 1e-9  # 30 voxels of 0.001 ml are not less than 0.03 ml


@dataclass(frozen=True)
class LesionTable:
    """The lesions of one mask; all arrays have one entry for each.

    Args:
        ml: volume; NaN where the image is flat and has no thickness.
        covered: the share of its voxels that the other mask covers, by whichever lesions.
        partner: index of the other mask's lesion that it is matched with, of several (by overlap)
            the one that shares most; -1 where there is none.
        iou: IoU with its partner; 0 where it has none.
        counted: whether it is large enough to be counted.
        centre_voxel: (., 3) mean index of its voxels.
    """

    ml: Floats
    covered: Floats
    partner: Ints
    iou: Floats
    counted: NDArray[np.bool_]
    centre_voxel: Floats

    @property
    def matched(self) -> NDArray[np.bool_]:
        return np.asarray(self.partner >= 0)


@dataclass(frozen=True)
class Lesions:
    """What was found lesion by lesion; see the head of this file for how they are matched."""

    truth: LesionTable
    prediction: LesionTable
    match: Match
    threshold: float
    least_ml: float

    @property
    def true_positives(self) -> int:
        """Lesions of the truth that were found."""
        return int((self.truth.counted & self.truth.matched).sum())

    @property
    def misses(self) -> int:
        """Lesions of the truth that were not found (false negatives)."""
        return int((self.truth.counted & ~self.truth.matched).sum())

    @property
    def false_alarms(self) -> int:
        """Lesions of the prediction that match none (false positives)."""
        return int((self.prediction.counted & ~self.prediction.matched).sum())

    @property
    def false_alarms_ml(self) -> float:
        """Their volume; 0 where there are none."""
        return float(self.prediction.ml[self.prediction.counted & ~self.prediction.matched].sum())

    @property
    def misses_ml(self) -> float:
        """Volume of the lesions that were not found; 0 where there are none."""
        return float(self.truth.ml[self.truth.counted & ~self.truth.matched].sum())

    @property
    def sensitivity(self) -> float:
        """Found lesions of the truth's: TP / (TP + misses). No lesion in the truth: NaN."""
        return _share(self.true_positives, self.true_positives + self.misses)

    @property
    def precision(self) -> float:
        """The prediction's lesions that match one of its own: 1 - false alarms / all that are
        counted. None in the prediction: NaN.
        """
        counted = int(self.prediction.counted.sum())
        return _share(counted - self.false_alarms, counted)

    @property
    def f1(self) -> float:
        """TP / (TP + misses / 2 + false alarms / 2): recognition quality (Kirillov 2019). No lesion
        in either: NaN.
        """
        return _share(
            self.true_positives, self.true_positives + (self.misses + self.false_alarms) / 2
        )

    @property
    def segmentation_quality(self) -> float:
        """Mean IoU of the found lesions with their partners (Kirillov 2019). None found, or not
        matched one to one: NaN.
        """
        found = self.truth.iou[self.truth.counted & self.truth.matched]
        return float(found.mean()) if len(found) and self.match != "overlap" else float("nan")

    @property
    def panoptic_quality(self) -> float:
        """F1 x segmentation quality; 0 where lesions are there and none is found. No lesion in
        either, or not matched one to one: NaN.
        """
        return (
            0.0 if self.f1 == 0 and self.match != "overlap" else self.f1 * self.segmentation_quality
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row a lesion, the truth's first: of which mask, volume in ml, share covered, partner
        (None without), IoU, whether counted, centre.
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
    """Find the lesions of both masks and match them; the work does not grow with their number
    beyond their own voxels.

    Args:
        prediction, truth: (I, J, K) or (I, J); anything but zero is inside. A flat image with two
            axes has no volumes in ml.
        spacing_mm: of each axis.
        match, threshold: see the head of this file; None is 0 for "overlap" and 0.5 for the others.
        least_ml: smaller lesions are matched and not counted.
        connectivity: 26, 18 or 6; in flat images 26 and 18 are 8, and 6 is 4.

    Raises:
        GeometryError: shapes differ, or the spacing is not one positive number an axis.
        UsageError: an unknown way to match, a threshold outside 0..1 (above 0 for IoU), an unknown
            connectivity, or a volume asked of a flat image.
    """
    threshold = (0.0 if match == "overlap" else 0.5) if threshold is None else threshold
    _check(prediction, truth, spacing_mm, match, threshold, least_ml, connectivity)
    box = foreground_box(prediction, truth)
    p, t = (_components(m[box], connectivity) for m in (prediction, truth))
    pairs = _pairs(t, p)
    for_truth, for_prediction = _matched(pairs, match, threshold)
    voxel_ml = float(np.prod(spacing_mm)) / 1000 if len(spacing_mm) == 3 else float("nan")
    corner = np.array([*(s.start or 0 for s in box), 0][:3])
    sides = [
        _side(own, of, for_one, voxel_ml, least_ml, corner)
        for own, of, for_one in ((t, pairs, for_truth), (p, pairs.turned, for_prediction))
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
            "a mask has two or three axes with a positive spacing each, found shape "
            f"{prediction.shape} and spacing {tuple(spacing_mm)}"
        )
    if match not in ("overlap", "optimal", "greedy"):
        raise UsageError(f"lesions match by overlap, optimal or greedy, found {match!r}")
    if not (0 <= threshold <= 1) or (match != "overlap" and threshold == 0):
        raise UsageError(
            f"a threshold lies in 0..1, and above 0 for IoU; found {threshold:g} for {match}"
        )
    if connectivity not in (26, 18, 6):
        raise UsageError(
            "connectivity is 26, 18 or 6 (in flat images 26 and 18 are 8, and 6 is 4), found "
            f"{connectivity}"
        )
    if least_ml > 0 and prediction.ndim == 2:
        raise UsageError(
            f"a flat image with two axes has no volumes, so none of at least {least_ml:g} ml; "
            "give it as (I, J, 1) with three spacings"
        )


# ---- components and what they share ----


@dataclass(frozen=True)
class _Components:
    """Of one mask's block: labels (I, J, K) from 1, 0 is outside; voxels of each (n,); centres in
    voxels of the block (n, 3).
    """

    labels: NDArray[Any]  # uint32
    sizes: Ints
    centres: Floats


@dataclass(frozen=True)
class _Pairs:
    """Every pair of lesions that share a voxel; all arrays (pairs,). ``covered`` is the share of
    ``own`` that all its pairs hold together.
    """

    own: Ints
    other: Ints
    shared: Ints
    own_sizes: Ints
    other_sizes: Ints

    @property
    def turned(self) -> _Pairs:
        """As the other mask sees them."""
        return _Pairs(self.other, self.own, self.shared, self.other_sizes, self.own_sizes)

    @property
    def iou(self) -> Floats:
        return self.shared / (self.own_sizes[self.own] + self.other_sizes[self.other] - self.shared)

    @property
    def covered(self) -> Floats:
        """(n,) of each of the own lesions."""
        return (
            np.bincount(self.own, weights=self.shared, minlength=len(self.own_sizes))
            / self.own_sizes
        )


def _components(mask: NDArray[Any], connectivity: Connectivity) -> _Components:
    import cc3d

    solid = np.ascontiguousarray((mask if mask.ndim == 3 else mask[..., None]) != 0)
    if not solid.any():
        return _Components(
            np.zeros(solid.shape, np.uint32), np.zeros(0, np.int64), np.zeros((0, 3))
        )
    # Where it makes room for too few labels and fails; a border gives it enough.
    small = solid.size < SMALL_VOXELS
    labels, count = cc3d.connected_components(
        np.pad(solid, 1) if small else solid,
        connectivity=connectivity,
        return_N=True,
        out_dtype=np.uint32,
    )
    labels = np.ascontiguousarray(labels[1:-1, 1:-1, 1:-1]) if small else labels
    sums = np.zeros((count + 1, 4), np.int64)  # voxels, and their indices along each axis added up
    _add_up(labels, sums)
    return _Components(labels, sums[1:, 0], sums[1:, 1:] / sums[1:, :1])


def _pairs(own: _Components, other: _Components) -> _Pairs:
    base = len(other.sizes) + 1
    keys, lengths = _runs(own.labels.reshape(-1), other.labels.reshape(-1), base)
    keys, which = np.unique(keys, return_inverse=True)
    shared = np.bincount(which, weights=lengths, minlength=len(keys)).astype(np.int64)
    return _Pairs(keys // base - 1, keys % base - 1, shared, own.sizes, other.sizes)


@njit(cache=True, nogil=True)
def _add_up(labels, sums):  # type: ignore[no-untyped-def]
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
    """(runs,) which two lesions, as own x base + other, share a run of voxels one after the other,
    and how long it is.
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
    """One mask's lesions; ``chosen`` are the pairs that are its matches, at most one a lesion."""
    partner, iou = np.full(len(own.sizes), -1, np.int64), np.zeros(len(own.sizes))
    partner[pairs.own[chosen]], iou[pairs.own[chosen]] = pairs.other[chosen], pairs.iou[chosen]
    ml = own.sizes * np.float64(voxel_ml)
    counted = ~(ml < least_ml * (1 - ROUNDING))  # NaN is counted
    return LesionTable(ml, pairs.covered, partner, iou, counted, own.centres + corner)


# ---- which pairs are matches ----


def _matched(
    pairs: _Pairs, match: Match, threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The pairs that are matches of the own lesions, and of the other's; at most one for each
    lesion.
    """
    if match == "overlap":
        return _largest_share(pairs, threshold), _largest_share(pairs.turned, threshold)
    good = np.flatnonzero(pairs.iou >= threshold)
    chosen = _greedy(pairs, good) if match == "greedy" else _optimal(pairs, good)
    return chosen, chosen


def _largest_share(pairs: _Pairs, threshold: float) -> NDArray[np.intp]:
    """For each own lesion that is covered enough, the pair in which it shares most voxels; the
    first of equals.
    """
    order = np.lexsort((-pairs.shared, pairs.own))
    _, first = np.unique(pairs.own[order], return_index=True)
    best = order[first]
    return best[pairs.covered[pairs.own[best]] >= threshold]


def _greedy(pairs: _Pairs, good: NDArray[np.intp]) -> NDArray[np.intp]:
    taken: tuple[set[int], set[int]] = set(), set()
    chosen = []
    for n in good[np.argsort(-pairs.iou[good], kind="stable")].tolist():
        t, p = int(pairs.own[n]), int(pairs.other[n])
        if t not in taken[0] and p not in taken[1]:
            taken[0].add(t)
            taken[1].add(p)
            chosen.append(n)
    return np.array(chosen, dtype=np.intp)


def _optimal(pairs: _Pairs, good: NDArray[np.intp]) -> NDArray[np.intp]:
    """Solved for each group of lesions that hang together through such pairs; nearly all groups are
    a single pair.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(good):
        return good
    t, p = pairs.own[good], pairs.other[good] + int(pairs.own.max()) + 1
    size = int(p.max()) + 1
    _, group = connected_components(
        coo_array((np.ones(len(good)), (t, p)), shape=(size, size)), directed=False
    )
    order = np.argsort(group[t], kind="stable")
    ends = np.flatnonzero(np.diff(group[t][order], append=-1)) + 1
    groups = np.split(good[order], ends[:-1])
    return np.sort(np.concatenate([g if len(g) == 1 else _assigned(pairs, g) for g in groups]))


def _assigned(pairs: _Pairs, group: NDArray[np.intp]) -> NDArray[np.intp]:
    """As many pairs as can be, and of those ways the one with the largest sum of IoU: a pair is
    worth more than all IoU together.
    """
    from scipy.optimize import linear_sum_assignment

    (ts, t), (ps, p) = (np.unique(a[group], return_inverse=True) for a in (pairs.own, pairs.other))
    worth, which = np.zeros((len(ts), len(ps))), np.full((len(ts), len(ps)), -1, np.intp)
    worth[t, p], which[t, p] = pairs.iou[group] + len(group), group
    rows, columns = linear_sum_assignment(worth, maximize=True)
    chosen = which[rows, columns]
    return np.asarray(chosen[chosen >= 0])


def _share(above: float, below: float) -> float:
    return above / below if below else float("nan")
