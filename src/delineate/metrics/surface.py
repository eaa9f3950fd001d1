"""Distances between the surfaces of two masks: each surface is extracted once, and one pair of
nearest-neighbour queries gives all measures.

Implementations differ in the elements of a surface, in how the two directions are combined, and in
the value for an empty mask, and these differences can exceed those between models: on one pair of
masks three packages gave an HD95 of 24, 136 and 227. So each choice has a name here, and each
default a reason.

elements    "surfels": surface elements between voxels, weighted by area (Nikolov 2021; marching
            cubes, Lorensen 1987). The default, because results do not depend on the spacing and
            orientation of the grid. "voxels": boundary voxels, which are in the mask and have a
            face neighbour outside it, all with the same weight; everything beyond the array is
            outside (MONAI, medpy). "inner_voxels": the same, but the edge of the scan is not a
            surface: a liver that is cut off there has no surface at the cut (CHAOS).
percentile  "directed": the larger of the percentiles of the two directions. The default, because
            errors at a small surface are not hidden by the many elements of a larger one.
            "pooled": the percentile of the distances of both directions together.
mean        "pooled": over all elements of both surfaces (Heimann 2009); the default. "directed":
            the mean of the means of the two directions.

    truth      prediction   distances   surface_dice
    empty      empty        NaN         NaN
    one of the two empty    infinite    0

A 2-D image, (I, J) or (I, J, 1), has contours: pixels with an edge neighbour outside, or line
elements weighted by length. Distances are in mm, between voxel centres or, for surfels, between the
voxel corners at which the surfels are located. Legend: n elements of the prediction, m of the
truth.
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
ROUNDING_MM = 1e-6  # so that 9 x 1.3 - 8 x 1.3 is not above 1.3


@dataclass(frozen=True)
class Distances:
    """Distances from every element of each surface to the nearest element of the other, in rising
    order, with the weights of the elements (areas in mm2, lengths in mm, or 1).

    If one mask is empty, the distances of the other are infinite; if both are, there are none.
    """

    to_truth: Floats  # (n,) mm
    to_prediction: Floats  # (m,) mm
    prediction_weights: Floats  # (n,)
    truth_weights: Floats  # (m,)
    elements: Elements

    @property
    def directions(self) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """(distances, weights) from the prediction to the truth, and from the truth to the
        prediction.
        """
        return (self.to_truth, self.prediction_weights), (self.to_prediction, self.truth_weights)

    @property
    def is_empty(self) -> tuple[bool, bool]:
        """Whether the prediction has no surface, and whether the truth has none."""
        return not len(self.to_truth), not len(self.to_prediction)


def distances(
    prediction: NDArray[Any],
    truth: NDArray[Any],
    spacing_mm: Sequence[float],
    elements: Elements = "surfels",
) -> Distances:
    """Distances in both directions between the surfaces of two masks.

    Args:
        prediction, truth: (I, J, K) or (I, J); non-zero is inside.
        spacing_mm: voxel size along each axis.
        elements: see the module docstring.

    Raises:
        GeometryError: the shapes differ, or the spacing is not one positive number per axis.
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
            "a mask has two or three axes with one positive spacing each, found shape "
            f"{prediction.shape} and spacing {tuple(spacing_mm)}"
        )
    masks, spacing = _in_memory_order(
        [m[..., None] if m.ndim == 2 else m for m in (prediction, truth)], [*spacing_mm, 1.0][:3]
    )
    # Extract both surfaces in parallel, cropped to one box so that positions have one origin.
    flat, box = masks[0].shape[2] == 1, _padded(foreground_box(*masks), masks[0].shape)
    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(_surface, mask[box], spacing, elements, flat) for mask in masks]
        (p, p_weights), (t, t_weights) = (one.result() for one in found)
    to_truth, to_prediction = _nearest(p, t), _nearest(t, p)
    # Percentiles need rising distances; the weights follow their elements.
    a, b = np.argsort(to_truth, kind="stable"), np.argsort(to_prediction, kind="stable")
    return Distances(to_truth[a], to_prediction[b], p_weights[a], t_weights[b], elements)


def _in_memory_order(
    arrays: Sequence[NDArray[Any]], spacing: Sequence[float]
) -> tuple[list[NDArray[Any]], Floats]:
    """The arrays and the spacing with their axes reversed if the first axis is the fastest in
    memory, as in NIfTI files. Distances do not change.
    """
    turned = arrays[0].shape[2] > 1 and abs(arrays[0].strides[0]) < abs(arrays[0].strides[2])
    step = -1 if turned else 1
    return [a.T if turned else a for a in arrays], np.array(spacing, dtype=np.float64)[::step]


def _padded(box: Sequence[slice], shape: Sequence[int]) -> tuple[slice, ...]:
    """The box with one more voxel on each side, clipped at the edge of the scan."""
    return tuple(
        slice(max(0, s.start - 1), min(n, s.stop + 1)) for s, n in zip(box, shape, strict=True)
    )


def _nearest(points: Floats, others: Floats) -> Floats:
    """(n,) distance in mm of each of ``points`` to the nearest of ``others``; infinite if there are
    no others.
    """
    from scipy.spatial import cKDTree

    if not len(points) or not len(others):
        return np.full(len(points), np.inf)
    # With compact nodes, queries of distant points are ten times slower (measured).
    tree = cKDTree(others, 32, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(points, workers=-1)[0], dtype=np.float64)


# ---- the measures, each computed from Distances ----


def hausdorff(d: Distances, percentile: float = 100.0, how: How = "directed") -> float:
    """Hausdorff distance in mm, or a percentile of the distances instead of the maximum
    (Huttenlocher 1993). Both masks empty: NaN; one empty: infinite.

    For boundary voxels a percentile is interpolated linearly; for surfels it is the first distance
    at which the cumulative area reaches that share of the total area.
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
    """95th percentile of the Hausdorff distance (HD95) in mm. Both masks empty: NaN; one empty:
    infinite.
    """
    return hausdorff(d, 95.0, how)


def assd(d: Distances, how: How = "pooled") -> float:
    """Average symmetric surface distance (ASSD) in mm (Heimann 2009). Both masks empty: NaN; one
    empty: infinite.
    """
    if any(d.is_empty):
        return float("nan") if all(d.is_empty) else float("inf")
    sums = [(float(values @ weights), float(weights.sum())) for values, weights in d.directions]
    if how == "directed":
        return float(np.mean([total / weight for total, weight in sums]))
    return sum(total for total, _ in sums) / sum(weight for _, weight in sums)


def surface_dice(d: Distances, tolerance_mm: float) -> float:
    """Surface Dice, also called normalised surface distance (NSD): the share of both surfaces
    within ``tolerance_mm`` of the other surface (Nikolov 2021). Both masks empty: NaN; one empty:
    0.
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
    """Which definitions are measured; see the module docstring.

    Args:
        elements: "surfels", "voxels" or "inner_voxels".
        how: how HD95 combines the two directions, "directed" or "pooled".
        tolerance_mm: of the surface Dice.
    """

    elements: Elements = "surfels"
    how: How = "directed"
    tolerance_mm: float = 2.0

    def measures(self) -> dict[str, tuple[str, str, Callable[[Distances], float]]]:
        """Name -> (unit, definition, function). A choice other than the default is part of the
        name, so that values of two definitions are never mixed.
        """
        of = "" if self.elements == "surfels" else f"_of_{self.elements}"
        how = "" if self.how == "directed" else "_pooled"
        surface_elements = {
            "surfels": "surface elements (surfels), weighted by area",
            "voxels": "boundary voxels",
            "inner_voxels": "boundary voxels, without a surface at the edge of the scan",
        }[self.elements]
        combined = (
            "the larger of the two directed percentiles"
            if self.how == "directed"
            else "over the distances of both directions together"
        )
        tolerance = f"{self.tolerance_mm:g}"
        return {
            f"hausdorff{of}_mm": (
                "mm",
                "Hausdorff distance in mm, the largest distance from either surface to the other; "
                f"between {surface_elements}.",
                hausdorff,
            ),
            f"hd95{how}{of}_mm": (
                "mm",
                f"95th percentile of the Hausdorff distance (HD95) in mm, {combined}; "
                f"between {surface_elements}.",
                partial(hd95, how=self.how),
            ),
            f"assd{of}_mm": (
                "mm",
                "Average symmetric surface distance (ASSD) in mm, the mean over the elements of "
                f"both surfaces (Heimann 2009); between {surface_elements}.",
                assd,
            ),
            f"surface_dice_{tolerance}mm{of}": (
                "",
                "Surface Dice (normalised surface distance, NSD): share of both surfaces within "
                f"{tolerance} mm of the other (Nikolov 2021); {surface_elements}.",
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
    """Every chosen measure of every structure: name -> (L,), in the order of ``values``.

    Args:
        prediction, truth: (I, J, K) label values, any real dtype; whole numbers 0..65535.
        values: the structures' label values.
        spacing_mm: voxel size along each axis.
        choices: which definitions are measured.

    Raises:
        LabelError: a value is not a whole number or is outside 0..65535.
    """
    measures = choices.measures()
    prediction, truth = whole_numbers(prediction, "prediction"), whole_numbers(truth, "truth")
    out = {name: np.full(len(values), np.nan) for name in measures}
    (prediction, truth), ordered_spacing = _in_memory_order([prediction, truth], spacing_mm)
    spacing = ordered_spacing.tolist()
    # Two steps of cropping: to the foreground of all structures, then to each structure.
    flat, whole = truth.shape[2] == 1, _padded(foreground_box(prediction, truth), truth.shape)
    maps = [
        np.ascontiguousarray(m[whole], dtype=np.uint8 if m.dtype.itemsize == 1 else np.uint16)
        for m in (prediction, truth)
    ]
    for n, (value, box) in enumerate(zip(values, _boxes(maps, values), strict=True)):
        p, t = (m[_padded(box, m.shape)] == value for m in maps)
        found = (
            distances(p[..., 0], t[..., 0], spacing[:2], choices.elements)
            if flat
            else distances(p, t, spacing, choices.elements)
        )
        for name, (_, _, function) in measures.items():
            out[name][n] = function(found)
    return out


def _boxes(maps: Sequence[NDArray[Any]], values: Sequence[int]) -> list[tuple[slice, slice, slice]]:
    """The bounding box of each value over all maps, found in one pass over each map; an empty box
    for a value that does not occur.
    """
    place = np.full(1 << 16, -1, np.int32)
    place[list(values)] = np.arange(len(values))
    ends = np.tile(np.array([[1 << 30, 1 << 30, 1 << 30, 0, 0, 0]]), (len(values), 1))
    for labels in maps:
        _extend_boxes(labels, place, ends)
    return [
        (slice(min(a, d), d), slice(min(b, e), e), slice(min(c, f), f))
        for a, b, c, d, e, f in ends.tolist()
    ]


@njit(cache=True, nogil=True)
def _extend_boxes(labels, place, ends):  # type: ignore[no-untyped-def]
    """Extend the boxes in ``ends`` (L, 6), three starts and three stops each, by the voxels of
    ``labels``; ``place`` maps a label value to its row, or to -1.
    """
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
    """The percentile of distances in rising order; see ``hausdorff``."""
    if elements != "surfels":
        return float(np.percentile(values, percentile))
    share = np.cumsum(weights) / weights.sum()
    return float(values[min(int(np.searchsorted(share, percentile / 100)), len(values) - 1)])


# ---- the surface of one mask ----


def _surface(
    mask: NDArray[Any], spacing: Floats, elements: Elements, flat: bool
) -> tuple[Floats, Floats]:
    """(n, 3) positions in mm and (n,) weights of the surface elements of a mask. The positions of
    two masks of the same shape have the same origin.
    """
    # The value of the rim decides whether the edge of the scan is a surface: an empty rim makes it
    # one, a filled rim does not. A 2-D image has no rim along K.
    inside = np.full(
        [n + 2 * (axis < 2 or not flat) for axis, n in enumerate(mask.shape)],
        elements == "inner_voxels",
        np.uint8,
    )
    inside[1:-1, 1:-1, slice(None) if flat else slice(1, -1)] = mask != 0
    if elements != "surfels":
        positions = _boundary_voxels(inside, flat)
        return positions * spacing, np.ones(len(positions))
    positions, codes = _corners(inside, flat)
    table = _lengths(spacing) if flat else _areas(spacing)
    weights = table[codes]
    return positions * spacing, weights


@njit(nogil=True)
def _with_capacity(found, codes, count, more):  # type: ignore[no-untyped-def]
    """Both arrays with space for ``more`` elements after the first ``count``, which are kept."""
    if count + more <= len(codes):
        return found, codes
    wider, longer = (
        np.empty((2 * len(codes) + more, 3), np.int32),
        np.empty(2 * len(codes) + more, np.uint8),
    )
    wider[:count], longer[:count] = found[:count], codes[:count]
    return wider, longer


@njit(cache=True, nogil=True)
def _boundary_voxels(inside, flat):  # type: ignore[no-untyped-def]
    """(n, 3) indices of the voxels of a mask that have a face neighbour outside it. The mask has a
    rim of one voxel, in 2-D not along the last axis.
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
            # Neighbours along i and j, then along k.
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
            found, codes = _with_capacity(found, codes, count, size_k)
            for k in range(size_k):
                if edge[k]:
                    found[count, 0], found[count, 1], found[count, 2] = i, j, k
                    count += 1
    return found[:count]


@njit(cache=True, nogil=True)
def _corners(inside, flat):  # type: ignore[no-untyped-def]
    """(n, 3) indices of the voxel corners where inside and outside meet, and (n,) codes. A code
    has one bit, 4 i + 2 j + k, for each of the eight voxels (four pixels) at the corner: set if
    the voxel is inside.
    """
    size_i, size_j, size_k = inside.shape
    depth = 1 if flat else size_k - 1
    full = 0b01010101 if flat else 0b11111111
    found, codes, count = np.empty((1 << 14, 3), np.int32), np.empty(1 << 14, np.uint8), 0
    # Bits of the four voxels at one k, and of the eight voxels at k and k + 1.
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
            for k in range(depth):
                code[k] = column[k] if flat else column[k] | column[k + 1] << 1
            found, codes = _with_capacity(found, codes, count, depth)
            for k in range(depth):
                if code[k] != 0 and code[k] != full:
                    found[count, 0], found[count, 1], found[count, 2] = i, j, k
                    codes[count] = code[k]
                    count += 1
    return found[:count], codes[:count]


# ---- the area of the surface at a corner where eight voxels meet ----

# The eight voxels, corners of a cube, in the order of a code's bits.
CUBE: tuple[Corner, ...] = tuple((i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1))


def _areas(spacing: Floats) -> Floats:
    """(256,) area in mm2 of the surface at a corner of eight voxels, by code."""
    out = np.zeros(256)
    for code, triangles in enumerate(_triangles()):
        for a, b, c in triangles:
            out[code] += 0.5 * float(np.linalg.norm(np.cross((b - a) * spacing, (c - a) * spacing)))
    return out


def _lengths(spacing: Floats) -> Floats:
    """(256,) length in mm of the contour at a corner of four pixels, by code; only codes without
    odd bits occur.
    """
    i, j = spacing[:2] / 2
    single, out = float(np.hypot(i, j)), np.zeros(256)
    for code in range(256):
        inside = [corner for bit, corner in enumerate(CUBE) if code >> bit & 1 and corner[2] == 0]
        if len(inside) in (1, 3):
            out[code] = single
        # Two pixels: on a diagonal two corners are cut off, side by side the contour is straight.
        elif len(inside) == 2:
            (a, b, _), (c, d, _) = inside
            out[code] = 2 * single if a != c and b != d else (2 * j if a == c else 2 * i)
    return out


@lru_cache(maxsize=1)
def _triangles() -> tuple[tuple[tuple[Floats, Floats, Floats], ...], ...]:
    """The marching-cubes triangles of every code, vertices in voxels (Lorensen 1987), derived
    instead of tabulated.

    The corners of the minority (inside or outside) are connected only along the cube's edges. Each
    connected component is bounded by one loop through the midpoints of the edges that it cuts. A
    loop that is not planar gets the triangulation with the largest area, as in the usual table.
    """
    return tuple(
        tuple(
            itertools.chain.from_iterable(
                _triangulated(_loop(component))
                for component in _components(
                    {c for bit, c in enumerate(CUBE) if _minority(code) >> bit & 1}
                )
            )
        )
        for code in range(256)
    )


def _minority(code: int) -> int:
    """The code of the minority: with more than four corners inside, that of the corners outside."""
    return code if code.bit_count() <= 4 else 255 - code


def _neighbours(corner: Corner) -> list[Corner]:
    """The three corners that share an edge of the cube with this one."""
    return [
        (corner[0] ^ 1, *corner[1:]),
        (corner[0], corner[1] ^ 1, corner[2]),
        (*corner[:2], corner[2] ^ 1),
    ]


def _components(corners: set[Corner]) -> list[set[Corner]]:
    """The components of a set of corners, connected along the edges of the cube."""
    left, components = set(corners), []
    while left:
        component, waiting = set(), [min(left)]
        while waiting:
            corner = waiting.pop()
            if corner in left:
                left.remove(corner)
                component.add(corner)
                waiting += _neighbours(corner)
        components.append(component)
    return components


def _loop(component: set[Corner]) -> list[Floats]:
    """The midpoints of the edges that a component cuts, in the order in which a path over the
    cube's faces visits them.
    """
    middles = [
        (np.array(c) + other) / 2
        for c in sorted(component)
        for other in _neighbours(c)
        if other not in component
    ]
    path, rest = [middles[0]], middles[1:]
    while rest:
        here = path[-1]
        at = next(n for n, other in enumerate(rest) if _share_a_face(here, other))
        path.append(rest.pop(at))
    return path


def _share_a_face(a: Floats, b: Floats) -> bool:
    """Whether the midpoints of two edges lie on a common face of the cube."""
    return bool(((a == b) & (a != 0.5)).any())


def _triangulated(loop: list[Floats]) -> list[tuple[Floats, Floats, Floats]]:
    """The triangulation of a loop with the largest area, found by recursion over all of them."""

    def area(triangles: list[tuple[Floats, Floats, Floats]]) -> float:
        return sum(float(np.linalg.norm(np.cross(b - a, c - a))) for a, b, c in triangles)

    if len(loop) < 3:
        return []
    # The edge from first to last belongs to one triangle; its third vertex splits the loop in two.
    ways = (
        [*_triangulated(loop[: k + 1]), (loop[0], loop[k], loop[-1]), *_triangulated(loop[k:])]
        for k in range(1, len(loop) - 1)
    )
    return max(ways, key=area)
