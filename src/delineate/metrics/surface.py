"""Distances between the surfaces of two masks, from one extraction of each surface and one pair of
nearest-neighbour queries.

Implementations differ in what the surface is made of, in how two directions become one figure, and
in what an empty mask means, and by more than models do: on one pair of masks three of them gave an
HD95 of 24, 136 and 227. So each choice has a name here, and the default a reason.

elements    "surfels": pieces of the surface between voxels, each as heavy as its area (Nikolov
            2021; marching cubes, Lorensen 1987). The default: what they say does not change with
            the grid's spacing and direction. "voxels": voxels of the mask with a face neighbour
            outside it, each as heavy as any other; beyond the array is outside (MONAI, medpy).
            "inner_voxels": the same, but where the scan ends is no surface: a liver that it cuts
            off has none there (CHAOS).
percentile  "directed": the larger of the two directions' percentiles. The default: a small
            structure's misses are not drowned by the other's length. "pooled": the percentile of
            both directions' distances together.
mean        "pooled": over all elements of both surfaces (Heimann 2009); the default. "directed":
            the mean of both directions' means.

    truth      prediction   distances   surface_dice
    empty      empty        NaN         NaN
    one of both empty       infinite    0

A flat image, (I, J) or (I, J, 1), has contours: pixels with an edge neighbour outside, or pieces of
line with their length. Distances are in mm between centres of voxels, or between the corners at
which the pieces of surface sit. Legend: n elements of the prediction, m of the truth.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..core.errors import GeometryError
from ..core.scores import judged
from .overlap import foreground_box, whole_numbers

Elements = Literal["surfels", "voxels", "inner_voxels"]
How = Literal["directed", "pooled"]
Floats = NDArray[np.float64]
Corner = tuple[int, int, int]
ROUNDING_MM = 1e-6  # nine times 1.3 less eight times 1.3 is not above 1.3


@dataclass(frozen=True)
class Distances:
    """From every element of one surface to the nearest of the other, rising, with the elements'
    weights (mm2, mm, or 1).

    Where one mask is empty, the other's distances are infinite; where both are, there are none.
    """

    to_truth: Floats  # (n,) mm
    to_prediction: Floats  # (m,) mm
    prediction_weights: Floats  # (n,)
    truth_weights: Floats  # (m,)
    elements: Elements

    @property
    def directions(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        return (self.to_truth, self.prediction_weights), (self.to_prediction, self.truth_weights)

    @property
    def is_empty(self) -> tuple[bool, bool]:
        """Whether the prediction and the truth have no surface."""
        return not len(self.to_truth), not len(self.to_prediction)


def distances(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    spacing_mm: Sequence[float],
    elements: Elements = "surfels",
) -> Distances:
    """Distances both ways between the surfaces of two masks.

    Args:
        prediction, truth: (I, J, K) or (I, J); anything but zero is inside.
        spacing_mm: of each axis.

    Raises:
        GeometryError: shapes differ, or the spacing is not one positive number an axis.
    """
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
    masks, spacing = _in_memory_order(
        [m[..., None] if m.ndim == 2 else m for m in (prediction, truth)], [*spacing_mm, 1.0][:3]
    )
    flat, box = masks[0].shape[2] == 1, _wider(foreground_box(*masks), masks[0].shape)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(_surface, mask[box], spacing, elements, flat) for mask in masks]
        (p, p_weights), (t, t_weights) = (one.result() for one in found)
    to_truth, to_prediction = _nearest(p, t), _nearest(t, p)
    a, b = np.argsort(to_truth, kind="stable"), np.argsort(to_prediction, kind="stable")
    return Distances(to_truth[a], to_prediction[b], p_weights[a], t_weights[b], elements)


def _in_memory_order(
    arrays: Sequence[NDArray[Any]], spacing: Sequence[float]
) -> tuple[list[NDArray[Any]], Floats]:
    """Both with their axes turned round where the first lies fastest in memory, as in files; no
    distance changes.
    """
    turned = arrays[0].shape[2] > 1 and abs(arrays[0].strides[0]) < abs(arrays[0].strides[2])
    step = -1 if turned else 1
    return [a.T if turned else a for a in arrays], np.array(spacing, dtype=np.float64)[::step]


def _wider(box: Sequence[slice], shape: Sequence[int]) -> tuple[slice, ...]:
    """The box with a voxel more on each side that is not the end of the scan."""
    return tuple(
        slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(box, shape, strict=True)
    )


def _nearest(points: Floats, others: Floats) -> Floats:
    """(n,) distance of each of ``points`` to the nearest of ``others``; infinite where there are
    none.
    """
    from scipy.spatial import cKDTree

    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    # Compact nodes make far points ten times slower (measured)
    tree = cKDTree(others, 32, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(points, workers=-1)[0], dtype=np.float64)


# ---- the measures, each of Distances ----


def hausdorff(d: Distances, percentile: float = 100.0, how: How = "directed") -> float:
    """Hausdorff distance in mm, or a percentile of the distances instead of the largest
    (Huttenlocher 1993).

    Of edge voxels a percentile is interpolated linearly; of pieces of surface it is the first
    distance at which their areas reach that share.
    """
    if all(d.is_empty):
        return float("nan")
    if any(d.is_empty):
        return float("inf")
    if how == "pooled":
        both = np.concatenate([d.to_truth, d.to_prediction])
        order = np.argsort(both, kind="stable")
        return _percentile(
            both[order],
            np.concatenate([d.prediction_weights, d.truth_weights])[order],
            percentile,
            d.elements,
        )
    return max(
        _percentile(values, weights, percentile, d.elements) for values, weights in d.directions
    )


def hd95(d: Distances, how: How = "directed") -> float:
    """95th percentile of the Hausdorff distance in mm."""
    return hausdorff(d, 95.0, how)


def assd(d: Distances, how: How = "pooled") -> float:
    """Average symmetric surface distance in mm (Heimann 2009)."""
    if any(d.is_empty):
        return float("nan") if all(d.is_empty) else float("inf")
    sums = [(float(values @ weights), float(weights.sum())) for values, weights in d.directions]
    if how == "directed":
        return float(np.mean([total / weight for total, weight in sums]))
    return sum(total for total, _ in sums) / sum(weight for _, weight in sums)


def surface_dice(d: Distances, tolerance_mm: float) -> float:
    """Normalised surface distance, or surface Dice: the share of both surfaces within
    ``tolerance_mm`` of the other (Nikolov 2021).
    """
    if any(d.is_empty):
        return float("nan") if all(d.is_empty) else 0.0
    within = sum(
        float(weights[values <= tolerance_mm + ROUNDING_MM].sum())
        for values, weights in d.directions
    )
    return within / sum(float(weights.sum()) for _, weights in d.directions)


@dataclass(frozen=True)
class SurfaceSettings:
    """What of the above is measured; see the head of this file."""

    elements: Elements = "surfels"
    how: How = "directed"
    tolerance_mm: float = 2.0

    def measures(self) -> dict[str, tuple[str, str, Callable[[Distances], float]]]:
        """Name -> (unit, definition, function). What departs from the default is in the name, so
        that figures of two definitions never meet.
        """
        of = "" if self.elements == "surfels" else f"_of_{self.elements}"
        how = "" if self.how == "directed" else "_pooled"
        pieces = {
            "surfels": "pieces of surface, weighted by area",
            "voxels": "edge voxels",
            "inner_voxels": "edge voxels, the scan's ends left out",
        }[self.elements]
        sides = (
            "the larger of both directions"
            if self.how == "directed"
            else "both directions together"
        )
        tolerance = f"{self.tolerance_mm:g}"
        return {
            f"hausdorff{of}_mm": ("mm", f"Hausdorff distance in mm between {pieces}.", hausdorff),
            f"hd95{how}{of}_mm": (
                "mm",
                f"95th percentile of the distances in mm between {pieces}, {sides}.",
                partial(hd95, how=self.how),
            ),
            f"assd{of}_mm": (
                "mm",
                f"Average symmetric surface distance in mm over the {pieces} of both surfaces "
                "(Heimann 2009).",
                assd,
            ),
            f"surface_dice_{tolerance}mm{of}": (
                "",
                f"Share of both surfaces ({pieces}) within {tolerance} mm of the other (Nikolov "
                "2021).",
                partial(surface_dice, tolerance_mm=self.tolerance_mm),
            ),
        }


for _elements, _how in itertools.product(get_args(Elements), get_args(How)):
    judged(SurfaceSettings(_elements, _how).measures())


def measure(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    values: Sequence[int],
    spacing_mm: Sequence[float],
    choices: SurfaceSettings,
) -> dict[str, Floats]:
    """Every measure of every structure: name -> (L,), in the order of ``values``.

    Args:
        prediction, truth: (I, J, K) label values, any real dtype; whole numbers 0..65535.
        spacing_mm: of each axis.

    Raises:
        LabelError: a value is not a whole number, or lies outside 0..65535.
    """
    wanted = choices.measures()
    prediction, truth = whole_numbers(prediction, "prediction"), whole_numbers(truth, "truth")
    out = {name: np.full(len(values), np.nan) for name in wanted}
    (prediction, truth), along = _in_memory_order([prediction, truth], spacing_mm)
    spacing = along.tolist()
    flat, whole = truth.shape[2] == 1, _wider(foreground_box(prediction, truth), truth.shape)
    maps = [
        np.ascontiguousarray(m[whole], dtype=np.uint8 if m.dtype.itemsize == 1 else np.uint16)
        for m in (prediction, truth)
    ]
    for n, (value, box) in enumerate(zip(values, _boxes(maps, values), strict=True)):
        p, t = (m[_wider(box, m.shape)] == value for m in maps)
        found = (
            distances(p[..., 0], t[..., 0], spacing[:2], choices.elements)
            if flat
            else distances(p, t, spacing, choices.elements)
        )
        for name, (_, _, function) in wanted.items():
            out[name][n] = function(found)
    return out


def _boxes(maps: Sequence[NDArray[Any]], values: Sequence[int]) -> list[tuple[slice, slice, slice]]:
    """The box of each value in all maps, found in one pass over each; an empty one where it is
    nowhere.
    """
    place = np.full(1 << 16, -1, np.int32)
    place[list(values)] = np.arange(len(values))
    ends = np.tile(np.array([[1 << 30, 1 << 30, 1 << 30, 0, 0, 0]]), (len(values), 1))
    for one in maps:
        _widen(one, place, ends)
    return [
        (slice(min(a, d), d), slice(min(b, e), e), slice(min(c, f), f))
        for a, b, c, d, e, f in ends.tolist()
    ]


@njit(cache=True, nogil=True)
def _widen(labels, place, ends):  # type: ignore[no-untyped-def]
    size_i, size_j, size_k = labels.shape
    for i in range(size_i):
        for j in range(size_j):
            for k in range(size_k):
                n = place[labels[i, j, k]]
                if n >= 0:
                    ends[n, 0], ends[n, 1], ends[n, 2] = (
                        min(ends[n, 0], i),
                        min(ends[n, 1], j),
                        min(ends[n, 2], k),
                    )
                    ends[n, 3], ends[n, 4], ends[n, 5] = (
                        max(ends[n, 3], i + 1),
                        max(ends[n, 4], j + 1),
                        max(ends[n, 5], k + 1),
                    )


def _percentile(values: Floats, weights: Floats, percentile: float, elements: Elements) -> float:
    """Of rising ``values``."""
    if elements != "surfels":
        return float(np.percentile(values, percentile))
    share = np.cumsum(weights) / weights.sum()
    return float(values[min(int(np.searchsorted(share, percentile / 100)), len(values) - 1)])


# ---- the surface of one mask ----


def _surface(
    mask: NDArray[Any], spacing: Floats, elements: Elements, flat: bool
) -> tuple[Floats, Floats]:
    """(n, 3) places in mm and (n,) weights of a mask's elements; the places of two masks of one
    shape go together.
    """
    inside = np.full(
        [n + 2 * (axis < 2 or not flat) for axis, n in enumerate(mask.shape)],
        elements == "inner_voxels",
        np.uint8,
    )
    inside[1:-1, 1:-1, slice(None) if flat else slice(1, -1)] = mask != 0
    if elements != "surfels":
        places = _edge_voxels(inside, flat)
        return places * spacing, np.ones(len(places))
    places, codes = _corners(inside, flat)
    table = _lengths(spacing) if flat else _areas(spacing)
    weights = table[codes]
    return places * spacing, weights


@njit(nogil=True)
def _room(found, codes, count, more):  # type: ignore[no-untyped-def]
    """Both lists with room for ``more`` elements after ``count``; what they hold stays."""
    if count + more <= len(codes):
        return found, codes
    wider, longer = (
        np.empty((2 * len(codes) + more, 3), np.int32),
        np.empty(2 * len(codes) + more, np.uint8),
    )
    wider[:count], longer[:count] = found[:count], codes[:count]
    return wider, longer


@njit(cache=True, nogil=True)
def _edge_voxels(inside, flat):  # type: ignore[no-untyped-def]
    """(n, 3) voxels of a mask, padded by one but along the last axis of a flat one, that have a
    face neighbour outside it.
    """
    size_i, size_j, size_k = inside.shape
    found, codes, edge, count = (
        np.empty((1 << 14, 3), np.int32),
        np.empty(1 << 14, np.uint8),
        np.empty(size_k, np.uint8),
        0,
    )
    for i in range(1, size_i - 1):
        for j in range(1, size_j - 1):
            row = inside[i, j]
            for k in range(size_k):
                edge[k] = row[k] & ~(
                    inside[i - 1, j, k]
                    & inside[i + 1, j, k]
                    & inside[i, j - 1, k]
                    & inside[i, j + 1, k]
                )
            if not flat:
                for k in range(1, size_k - 1):
                    edge[k] |= row[k] & ~(row[k - 1] & row[k + 1])
            found, codes = _room(found, codes, count, size_k)
            for k in range(size_k):
                if edge[k]:
                    found[count, 0], found[count, 1], found[count, 2] = i, j, k
                    count += 1
    return found[:count]


@njit(cache=True, nogil=True)
def _corners(inside, flat):  # type: ignore[no-untyped-def]
    """(n, 3) corners of voxels where inside and outside meet, and (n,) which of the eight (four)
    voxels there are inside: bit 4 i + 2 j + k.
    """
    size_i, size_j, size_k = inside.shape
    deep = 1 if flat else size_k - 1
    full = 0b01010101 if flat else 0b11111111
    found, codes, count = np.empty((1 << 14, 3), np.int32), np.empty(1 << 14, np.uint8), 0
    # The four voxels at one k, the eight at two.
    column, code = (
        np.empty(size_k, np.uint8),
        np.empty(size_k, np.uint8),
    )
    for i in range(size_i - 1):
        for j in range(size_j - 1):
            for k in range(size_k):
                column[k] = (
                    inside[i, j, k]
                    | inside[i, j + 1, k] << 2
                    | inside[i + 1, j, k] << 4
                    | inside[i + 1, j + 1, k] << 6
                )
            for k in range(deep):
                code[k] = column[k] if flat else column[k] | column[k + 1] << 1
            found, codes = _room(found, codes, count, deep)
            for k in range(deep):
                if code[k] != 0 and code[k] != full:
                    found[count, 0], found[count, 1], found[count, 2] = i, j, k
                    codes[count] = code[k]
                    count += 1
    return found[:count], codes[:count]


# ---- how large the surface is where eight voxels meet ----

# Its corners in the order of a code's bits.
CUBE: tuple[Corner, ...] = tuple((i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1))


def _areas(spacing: Floats) -> Floats:
    """(256,) mm2 of surface around the corner of eight voxels, by code."""
    out = np.zeros(256)
    for code, triangles in enumerate(_triangles()):
        for a, b, c in triangles:
            out[code] += 0.5 * float(np.linalg.norm(np.cross((b - a) * spacing, (c - a) * spacing)))
    return out


def _lengths(spacing: Floats) -> Floats:
    """(256,) mm of contour around the corner of four pixels; only codes without odd bits occur."""
    i, j = spacing[:2] / 2
    single, out = float(np.hypot(i, j)), np.zeros(256)
    for code in range(256):
        inside = [corner for bit, corner in enumerate(CUBE) if code >> bit & 1 and corner[2] == 0]
        if len(inside) in (1, 3):
            out[code] = single
        elif len(inside) == 2:
            (a, b, _), (c, d, _) = inside
            out[code] = 2 * single if a != c and b != d else (2 * j if a == c else 2 * i)
    return out


@lru_cache(maxsize=1)
def _triangles() -> tuple[tuple[tuple[Floats, Floats, Floats], ...], ...]:
    """Marching cubes' triangles of every code, corners in voxels (Lorensen 1987), derived instead
    of listed.

    Of inside and outside, what has fewer corners hangs together only along the cube's edges; each
    piece is bounded by one loop through the middles of the edges that it cuts. Where a loop is not
    plane, it is filled with the triangles of the largest area, which is what the usual table does.
    """
    return tuple(
        tuple(
            itertools.chain.from_iterable(
                _filled(_loop(piece))
                for piece in _pieces(
                    {c for bit, c in enumerate(CUBE) if _minority(code) >> bit & 1}
                )
            )
        )
        for code in range(256)
    )


def _minority(code: int) -> int:
    return code if code.bit_count() <= 4 else 255 - code


def _neighbours(corner: Corner) -> list[Corner]:
    return [
        (corner[0] ^ 1, *corner[1:]),
        (corner[0], corner[1] ^ 1, corner[2]),
        (*corner[:2], corner[2] ^ 1),
    ]


def _pieces(corners: set[Corner]) -> list[set[Corner]]:
    """Corners of a cube, in pieces that hang together along its edges."""
    left, pieces = set(corners), []
    while left:
        piece, waiting = set(), [min(left)]
        while waiting:
            corner = waiting.pop()
            if corner in left:
                left.remove(corner)
                piece.add(corner)
                waiting += _neighbours(corner)
        pieces.append(piece)
    return pieces


def _loop(piece: set[Corner]) -> list[Floats]:
    """The middles of the edges that a piece cuts, in the order in which a path over the cube's
    faces visits them.
    """
    middles = [
        (np.array(c) + other) / 2
        for c in sorted(piece)
        for other in _neighbours(c)
        if other not in piece
    ]
    path, rest = [middles[0]], middles[1:]
    while rest:
        here = path[-1]
        at = next(n for n, other in enumerate(rest) if _share_a_face(here, other))
        path.append(rest.pop(at))
    return path


def _share_a_face(a: Floats, b: Floats) -> bool:
    return bool(((a == b) & (a != 0.5)).any())


def _filled(loop: list[Floats]) -> list[tuple[Floats, Floats, Floats]]:
    """The triangulation of largest area."""

    def area(triangles: list[tuple[Floats, Floats, Floats]]) -> float:
        return sum(float(np.linalg.norm(np.cross(b - a, c - a))) for a, b, c in triangles)

    if len(loop) < 3:
        return []
    ways = (
        [*_filled(loop[: k + 1]), (loop[0], loop[k], loop[-1]), *_filled(loop[k:])]
        for k in range(1, len(loop) - 1)
    )
    return max(ways, key=area)
