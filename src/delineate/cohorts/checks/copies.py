"""Find scans that are copies of each other by content: rescaled intensities, crops, resampled,
slightly rotated or mirrored copies, under any name.

``details_of`` keeps the ``MOST_DETAILS`` strongest small details of a scan (extrema of a difference
of Gaussians) with the patch of intensities around each, as in SIFT-Rank signatures of brains
(Chauvin et al., NeuroImage 204, 2020), but with plain normalised patches. ``find_copies`` compares
all scans: the patches of a copy agree, and one rigid transform (with at most one mirrored axis)
moves the places of many of them on top of each other. Scans of different people share few such
details. The module opens no file and knows no patients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...core.volume import Volume, with_finite_voxels

MOST_DETAILS = 64
STEP_MM = 2.0  # details are compared at this spacing
SMALL_MM = 64.0  # a smaller scan is also compared at half of it
SMALLEST = 12  # voxels at that spacing along the shortest axis; smaller scans are not compared
FINE, BROAD = 0.8, 1.4  # Gaussians of the detector, in steps
REACH, REACH_2D = 3, 5  # of a patch on each side, in steps
ALIKE = 0.8  # correlation of two patches of one detail
# The first, quick test: of the strongest details in few dimensions, this many must agree roughly.
STRONGEST, DIMENSIONS, ALIKE_ROUGHLY, FEW = 32, 48, 0.85, 5
PATCHES = 10_000  # that determine the dimensions
ENOUGH = 12  # details in one rigid transform: at least this many make a copy
SAME_PLACE = 1.5  # steps between a detail and the place where the transform puts it
LEAST_POINTS = 5  # that determine a rigid transform
MOST_DEG = 20.0  # a copy is turned by at most this angle
# None, or the axis that is mirrored.
MIRRORS = (None, 0, 1, 2)


@dataclass(frozen=True, eq=False)
class Details:
    """The details of one scan at one spacing, the strongest first.

    Args:
        step: the spacing: in mm, or in pixels if the scan states no spacing.
        flat: whether the scan is a single slice; flat scans are compared with flat scans.
        places: (n, 3) float32, in steps along the axes nearest to R, A, S.
        patches: (n, p, p, p) float32, or (n, p, p, 1); mean 0 and norm 1.
    """

    step: float
    flat: bool
    places: NDArray[np.float32]
    patches: NDArray[np.float32]


@dataclass(frozen=True)
class ScanCopy:
    """Two scans that show the same: their numbers, the details that agree and of how many, the
    angle in degrees between them, and the mirrored axis (0 R, 1 A, 2 S; None if not mirrored).
    """

    first: int
    second: int
    agreeing: int
    of: int
    degrees: float
    mirrored: int | None


# ---- one scan ----


def details_of(volume: Volume) -> tuple[Details, ...]:
    """The details of the first channel of a scan, at one or two spacings; () for a scan that is too
    small or constant.
    """
    turned = volume.reorient("RAS") if volume.meta.get("place_known", True) else volume
    known = turned.meta.get("spacing_known", True)
    spacing = np.array(turned.spacing_mm if known else (1.0, 1.0, 1.0))
    array = with_finite_voxels(turned.channels_array[0])
    sizes = spacing * array.shape
    flat = array.shape[2] == 1
    if flat:
        steps = [STEP_MM / 2]
    else:
        steps = [STEP_MM, *([STEP_MM / 2] if sizes.min() < SMALL_MM else [])]
    found = []
    for step in steps:
        if (sizes[:2] if flat else sizes).min() >= SMALLEST * step:
            found.append(_details(_respaced(array, spacing, step), step, flat))
    return tuple(one for one in found if len(one.places))


def _respaced(
    array: NDArray[np.generic], spacing: NDArray[np.float64], step: float
) -> NDArray[np.float32]:
    """(I, J, K) at ``step``: means of whole voxels, then linear interpolation."""
    from scipy import ndimage

    # Means first: they are quick, and keep interpolation from aliasing.
    factors = np.maximum(1, ((step + 1e-6) / spacing).astype(int))
    factors = np.where(np.array(array.shape) >= factors, factors, 1)
    out = array
    for axis, factor in enumerate(factors):
        if factor > 1:
            whole = out.shape[axis] // factor * factor
            starts = np.arange(0, whole, factor)
            kept = out[tuple(slice(0, whole if a == axis else None) for a in range(3))]
            out = np.add.reduceat(kept, starts, axis=axis, dtype=np.float32) / factor
    scale = np.where(np.array(array.shape) > 1, step / (spacing * factors), 1.0)
    shape = np.maximum(1, np.rint(out.shape / scale)).astype(int)
    return np.asarray(
        ndimage.affine_transform(
            out.astype(np.float32, copy=False),
            scale,
            offset=(scale - 1) / 2,
            output_shape=tuple(shape.tolist()),
            order=1,
            mode="nearest",
        ),
        dtype=np.float32,
    )


def _details(array: NDArray[np.float32], step: float, flat: bool) -> Details:
    from scipy import ndimage

    broad = ndimage.gaussian_filter(array, _in_plane(BROAD, flat))
    strength = np.abs(ndimage.gaussian_filter(array, _in_plane(FINE, flat)) - broad)
    # Extrema whose patch is inside the scan.
    peak = strength == ndimage.maximum_filter(strength, size=(3, 3, 1 if flat else 3))
    peak &= strength > 1e-6 * max(1.0, float(strength.max()))
    reach = REACH_2D if flat else REACH
    inside = np.zeros_like(peak)
    core = slice(reach, -reach)
    inside[core, core, slice(None) if flat else core] = True
    places = np.argwhere(peak & inside)
    order = np.argsort(-strength[tuple(places.T)], kind="stable")[:MOST_DETAILS]
    places = places[order]
    # The patches of what remains without the broad part, mean 0 and norm 1.
    along = np.arange(-reach, reach + 1)
    around = np.stack(np.meshgrid(along, along, [0] if flat else along, indexing="ij"), axis=-1)
    index = places[:, None, None, None] + around
    patches = (array - broad)[tuple(np.moveaxis(index, -1, 0))]
    patches = patches - patches.mean(axis=(1, 2, 3), keepdims=True)
    norms = np.sqrt((patches**2).sum(axis=(1, 2, 3), keepdims=True))
    patches = patches / np.maximum(norms, np.finfo(np.float32).tiny)
    return Details(step, flat, places.astype(np.float32), patches.astype(np.float32))


def _in_plane(sigma: float, flat: bool) -> tuple[float, float, float]:
    return sigma, sigma, 0.0 if flat else sigma


# ---- all scans ----


def find_copies(scans: Sequence[tuple[Details, ...]], same: Sequence[str]) -> list[ScanCopy]:
    """The copies among ``scans``, at most one for two groups of scans that are connected already.

    Args:
        scans: the details of each scan.
        same: the group of each scan (such as its patient); scans of one group are not compared.
    """
    groups = list(same)
    found = []
    for first, second, mirror, a, b in _candidates(scans):
        if groups[first] == groups[second]:
            continue
        copy = _compared(first, second, mirror, a, b)
        if copy is not None:
            found.append(copy)
            # From now on both groups are one.
            old, new = groups[second], groups[first]
            groups = [new if group == old else group for group in groups]
    return found


def _candidates(
    scans: Sequence[tuple[Details, ...]],
) -> Iterator[tuple[int, int, int | None, Details, Details]]:
    """Pairs of scans of which at least ``FEW`` of the strongest details agree roughly, with the
    mirrored axis for which most of them do.
    """
    kinds = sorted({(one.step, one.flat) for scan in scans for one in scan})
    for kind in kinds:
        held = [
            (n, one) for n, scan in enumerate(scans) for one in scan if (one.step, one.flat) == kind
        ]
        basis = _basis([one.patches for _, one in held])
        # (scans, MOST_DETAILS, dimensions); missing details are 0 and agree with none.
        every = np.zeros((len(held), MOST_DETAILS, basis.shape[1]), np.float32)
        for row, (_, one) in zip(every, held, strict=True):
            row[: len(one.patches)] = _projected(one.patches, basis)
        # Each scan with all earlier ones, as it is and mirrored along each axis.
        for later in range(1, len(held)):
            n, scan = held[later]
            earlier = every[:later].reshape(-1, basis.shape[1]).T
            strongest = scan.patches[:STRONGEST]
            rows = np.concatenate([_projected(_mirrored(strongest, m), basis) for m in MIRRORS])
            alike = (rows @ earlier > ALIKE_ROUGHLY).reshape(len(MIRRORS), -1, later, MOST_DETAILS)
            counts = alike.any(axis=3).sum(axis=1)
            for before in np.flatnonzero(counts.max(axis=0) >= FEW):
                m, other = held[before]
                yield m, n, MIRRORS[int(counts[:, before].argmax())], other, scan


def _basis(patches: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(p, ``DIMENSIONS``) principal components of some of the patches."""
    some = np.concatenate([one[:: max(1, len(patches) // 100)] for one in patches])
    flat = some.reshape(len(some), -1)[:PATCHES].astype(np.float64)
    return np.asarray(np.linalg.eigh(flat.T @ flat)[1][:, -DIMENSIONS:], dtype=np.float32)


def _projected(patches: NDArray[np.float32], basis: NDArray[np.float32]) -> NDArray[np.float32]:
    flat = patches.reshape(len(patches), -1) @ basis
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.asarray(flat / np.maximum(norms, np.finfo(np.float32).tiny), dtype=np.float32)


def _mirrored(patches: NDArray[np.float32], axis: int | None) -> NDArray[np.float32]:
    return patches if axis is None else np.flip(patches, axis + 1)


def _compared(
    first: int, second: int, mirror: int | None, a: Details, b: Details
) -> ScanCopy | None:
    """The copy that two scans are, or None."""
    mirrored = _mirrored(a.patches, mirror).reshape(len(a.places), -1)
    alike = mirrored @ b.patches.reshape(len(b.places), -1).T
    nearest = alike.argmax(axis=1)
    agree = np.flatnonzero(alike.max(axis=1) > ALIKE)
    if len(agree) < ENOUGH:
        return None
    signs = np.array([-1.0 if axis == mirror else 1.0 for axis in range(3)])
    count, degrees = _rigid_count(a.places[agree] * signs, b.places[nearest[agree]])
    of = min(len(a.places), len(b.places))
    return ScanCopy(first, second, count, of, degrees, mirror) if count >= ENOUGH else None


def _rigid_count(p: NDArray[np.float64], q: NDArray[np.float32]) -> tuple[int, float]:
    """The largest number of points ``p`` (n, 3) that one rigid transform moves to their partners
    ``q``, and the angle of its rotation in degrees.
    """
    # Distances between points do not change under a rigid transform: each point is tried as a seed
    # with all points at the right distance. No transform can move more points than ``bound``.
    error = np.abs(_between(p) - _between(q))
    bound = (error < 2 * SAME_PLACE).sum(axis=1)
    fits = error < 1.0
    best, angle = 0, 0.0
    for seed in np.argsort(-fits.sum(axis=1), kind="stable"):
        if bound[seed] <= max(best, ENOUGH - 1):
            continue
        chosen = fits[seed]
        for _ in range(3):
            if chosen.sum() < LEAST_POINTS:
                break
            rotation, shift = _rigid(p[chosen], q[chosen])
            chosen = np.linalg.norm(p @ rotation.T + shift - q, axis=1) < SAME_PLACE
        else:
            cosine = np.clip((np.trace(rotation) - 1) / 2, -1, 1)
            degrees = float(np.degrees(np.arccos(cosine)))
            if degrees <= MOST_DEG and chosen.sum() > best:
                best, angle = int(chosen.sum()), degrees
        if best >= 0.9 * len(p):
            break
    return best, angle


def _between(points: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(np.linalg.norm(points[:, None] - points[None], axis=-1))


def _rigid(
    p: NDArray[np.float64], q: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Rotation and shift that move ``p`` closest to ``q`` (Kabsch 1976)."""
    centre_p, centre_q = p.mean(axis=0), q.mean(axis=0)
    u, _, v = np.linalg.svd((p - centre_p).T @ (q - centre_q))
    proper = np.diag([1.0, 1.0, np.sign(np.linalg.det(v.T @ u.T))])
    rotation = v.T @ proper @ u.T
    return rotation, centre_q - rotation @ centre_p
