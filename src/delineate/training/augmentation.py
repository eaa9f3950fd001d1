"""Augmentation: one resampling pass for everything spatial, then elementwise changes of intensity.

``draw`` decides what happens to a sample (numpy, from the sample's own random stream),
``sample_patch`` reads it from the stored steps in one pass, ``change_intensity`` does the rest.
Rotation, tilt and elastic displacement are right in millimetres on anisotropic grids. Flipping the
left-right axis swaps the indices of sided structures. A probability of 0 draws no random number
where an option is younger than the plans it must not change (``oblique_p``, ``drop_channel_p``).

Shapes: volume (C, I, J, K) and label (I, J, K); patch image (C, *patch) float32, label (*patch) as
stored.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..core.plan import Augmentation, Plan
from ..core.store import StoredCase
from ..preprocessing.warp import warp

ELASTIC_KNOTS = 5  # displacement is drawn on this many points an axis and interpolated
# voxels along each side of the pieces in which an oblique plane is read: the box around a small
# piece is thin
TILE = 64


@dataclass(frozen=True)
class Spatial:
    """``matrix`` (3, 3) maps offsets from the patch's middle to offsets in the volume, in voxels;
    ``elastic`` (3, *knots) voxels or None.
    """

    matrix: NDArray[np.float64]
    elastic: NDArray[np.float32] | None
    flips: tuple[int, ...]

    @property
    def is_plain(self) -> bool:
        """Whether a mere slice does."""
        return self.elastic is None and np.array_equal(self.matrix, np.eye(3))

    @property
    def is_oblique(self) -> bool:
        """Whether the patch's first two axes leave the plane of the volume's."""
        return bool(self.matrix[2, :2].any())


def draw(
    plan: Plan, rng: np.random.Generator, spacing_mm: Sequence[float], shape: Sequence[int]
) -> Spatial:
    """What happens in space to one sample.

    A 2-D plan with ``oblique_p`` tilts its plane about the I, then the J axis through the patch's
    middle, each by an angle drawn evenly from -``oblique_deg`` to ``oblique_deg``; the plane itself
    is turned and zoomed first. A volume of one slice is never tilted.

    Args:
        spacing_mm: of the stored volume, along I, J, K.
        shape: of the stored volume.
    """
    aug = plan.augmentation
    spacing = np.array(spacing_mm, dtype=np.float64)
    matrix = np.eye(3)
    if rng.random() < aug.rotation_p:
        limits = np.array(aug.rotation_deg) * ((0, 0, 1) if plan.dims == 2 else (1, 1, 1))
        matrix = _rotation(np.deg2rad(rng.uniform(-limits, limits)))
    if rng.random() < aug.scale_p:
        matrix = matrix @ np.diag(_zoom(plan, rng))
    if plan.dims == 2 and aug.oblique_p and shape[2] > 1 and rng.random() < aug.oblique_p:
        matrix = (
            _rotation(np.deg2rad([*rng.uniform(-aug.oblique_deg, aug.oblique_deg, 2), 0.0]))
            @ matrix
        )
    elastic = None
    if rng.random() < aug.elastic_p:
        knots = tuple(1 if p == 1 else ELASTIC_KNOTS for p in plan.patch)
        elastic = (
            rng.normal(0, aug.elastic_mm, (3, *knots)) / spacing[:, None, None, None]
        ).astype(np.float32)
        if plan.dims == 2:
            elastic[2] = 0
    flips = tuple(axis for axis in aug.mirror if rng.random() < 0.5)
    return Spatial(np.diag(1 / spacing) @ matrix @ np.diag(spacing), elastic, flips)


def _zoom(plan: Plan, rng: np.random.Generator) -> list[float]:
    low, high = plan.augmentation.scale
    zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))  # as often smaller as larger
    return [zoom, zoom, 1.0 if plan.dims == 2 else zoom]


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) about the I, then J, then K axis."""
    out = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [n for n in range(3) if n != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        out = turn @ out
    return out


def sample_patch(
    case: StoredCase, centre: Sequence[int], patch: Sequence[int], spatial: Spatial
) -> tuple[Tensor, Tensor]:
    """The patch around ``centre``, moved as ``spatial`` says, in one pass; zeros and background
    outside the volume.

    Args:
        case: of one on disk only the box that is needed is read, of an oblique plane a small box
            around each of its pieces.
        centre: voxel of the volume that becomes voxel ``patch // 2`` of the patch.

    Returns:
        (C, *patch) float32 and (*patch) of the label's dtype.
    """
    if spatial.is_plain:
        low = [c - p // 2 for c, p in zip(centre, patch, strict=True)]
        image, label = _box(case, low, [a + p for a, p in zip(low, patch, strict=True)])
        flips = tuple(axis for axis in range(3) if axis in spatial.flips)
        values = image * case.steps[:, None, None, None]
        return torch.from_numpy(
            np.flip(values, tuple(1 + a for a in flips)).copy()
        ), torch.from_numpy(np.flip(label, flips).copy())
    turn = np.diag([-1.0 if axis in spatial.flips else 1.0 for axis in range(3)])
    middle = [p - 1 - p // 2 if axis in spatial.flips else p // 2 for axis, p in enumerate(patch)]
    matrix, field = spatial.matrix @ turn, spatial.elastic
    if field is not None:
        field = np.flip(field, tuple(1 + axis for axis in spatial.flips))
    origin = np.array(centre, dtype=np.float64) - matrix @ middle
    grid = _Grid(matrix, origin, tuple(patch), field)
    whole = tuple(slice(0, p) for p in patch)
    if isinstance(case.image, np.ndarray) or not spatial.is_oblique or patch[2] > 1:
        image, label = _moved(case, grid, whole)
    else:
        rows = [slice(a, min(a + TILE, patch[0])) for a in range(0, patch[0], TILE)]
        columns = [slice(b, min(b + TILE, patch[1])) for b in range(0, patch[1], TILE)]
        tiles = [
            [_moved(case, grid, (row, column, whole[2])) for column in columns] for row in rows
        ]
        image = np.concatenate([np.concatenate([t[0] for t in row], 2) for row in tiles], 1)
        label = np.concatenate([np.concatenate([t[1] for t in row], 1) for row in tiles], 0)
    return torch.from_numpy(image), torch.from_numpy(label)


@dataclass(frozen=True)
class _Grid:
    """Where a patch reads: voxel (a, b, c) of it at ``origin + matrix @ (a, b, c)`` of the volume,
    displaced by ``field``.
    """

    matrix: NDArray[np.float64]
    origin: NDArray[np.float64]
    shape: tuple[int, ...]
    field: NDArray[np.float32] | None


def _moved(
    case: StoredCase, grid: _Grid, part: tuple[slice, ...]
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """A part of the grid, from memory as it lies there, from a disk by way of the box around it."""
    image, label, low = case.image, case.label, [0, 0, 0]
    if not isinstance(image, np.ndarray):
        ends = (
            np.array(list(itertools.product(*((s.start, s.stop - 1) for s in part))))
            @ grid.matrix.T
            + grid.origin
        )
        # A voxel more than exact numbers would ask for.
        reach = 1.0 + (0.0 if grid.field is None else np.abs(grid.field).max(axis=(1, 2, 3)))
        low = [
            min(max(0, int(v)), n - 1)
            for v, n in zip(np.floor(ends.min(axis=0) - reach), case.shape, strict=True)
        ]
        high = [
            min(max(a + 1, int(v) + 2), n)
            for v, a, n in zip(np.floor(ends.max(axis=0) + reach), low, case.shape, strict=True)
        ]
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        image, label = np.asarray(image[(slice(None), *box)]), np.asarray(label[box])
    image = image.astype(np.float32) if image.dtype == np.float16 else image
    return warp(
        image, label, case.steps, grid.matrix, grid.origin, grid.shape, grid.field, part, low
    )


def _box(
    case: StoredCase, low: Sequence[int], high: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The box low..high as stored, filled with zeros where it leaves the volume."""
    inside = [(max(0, a), min(n, b)) for a, b, n in zip(low, high, case.shape, strict=True)]
    if all(a == lo and b == hi for (a, b), lo, hi in zip(inside, low, high, strict=True)):
        region = tuple(slice(a, b) for a, b in inside)
        return np.asarray(case.image[(slice(None), *region)]), np.asarray(case.label[region])
    size = [b - a for a, b in zip(low, high, strict=True)]
    image = np.zeros((case.image.shape[0], *size), dtype=case.image.dtype)
    label = np.zeros(size, dtype=case.label.dtype)
    if all(b > a for a, b in inside):
        source = tuple(slice(a, b) for a, b in inside)
        target = tuple(slice(a - lo, b - lo) for (a, b), lo in zip(inside, low, strict=True))
        image[(slice(None), *target)] = case.image[(slice(None), *source)]
        label[target] = case.label[source]
    return image, label


def change_intensity(x: Tensor, aug: Augmentation, dims: int, rng: np.random.Generator) -> Tensor:
    """(C, *patch) normalised float32, changed as drawn from ``rng``: low resolution, blur, noise,
    brightness, contrast, gamma, missing channels.
    """
    if rng.random() < aug.low_resolution_p:
        x = _low_resolution(x, rng.uniform(*aug.low_resolution), dims)
    if rng.random() < aug.blur_p:
        x = _blur(x, rng.uniform(*aug.blur_voxels), dims)
    if rng.random() < aug.noise_p:
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        x = x + torch.randn(x.shape, generator=generator) * float(rng.uniform(0, aug.noise_std))
    if rng.random() < aug.brightness_p:
        x = x + float(rng.normal(0, aug.brightness))
    if rng.random() < aug.contrast_p:
        mean = x.mean(dim=(1, 2, 3), keepdim=True)
        x = (x - mean) * float(rng.uniform(*aug.contrast)) + mean
    if rng.random() < aug.gamma_p:
        x = _gamma(x, float(np.exp(rng.uniform(*np.log(aug.gamma)))), invert=rng.random() < 0.3)
    if aug.drop_channel_p:
        x = _drop_channels(x, aug.drop_channel_p, rng)
    return x


def _drop_channels(x: Tensor, p: float, rng: np.random.Generator) -> Tensor:
    """Each channel is 0 with probability ``p``, the value that a missing one gets at prediction;
    were all to go, a random one stays.

    Modality dropout (Neverova 2016, ModDrop; Havaei 2016, HeMIS): the network learns to do with
    what it is given.
    """
    gone = rng.random(len(x)) < p
    if gone.all():
        gone[rng.integers(len(x))] = False
    return x.masked_fill(torch.from_numpy(gone).view(-1, 1, 1, 1), 0.0)


def _gamma(x: Tensor, gamma: float, invert: bool) -> Tensor:
    """x within its own range to the power gamma, mean and deviation kept (Isensee 2021)."""
    x = -x if invert else x
    low, mean, std = (
        x.amin((1, 2, 3), keepdim=True),
        x.mean((1, 2, 3), keepdim=True),
        x.std((1, 2, 3), keepdim=True),
    )
    span = (x.amax((1, 2, 3), keepdim=True) - low).clamp_min(1e-6)
    x = ((x - low) / span).pow(gamma)
    x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True).clamp_min(
        1e-6
    ) * std + mean
    return -x if invert else x


def _low_resolution(x: Tensor, factor: float, dims: int) -> Tensor:
    size = tuple(x.shape[1:])
    small = [max(1, round(n * factor)) if n > 1 else 1 for n in size]
    if dims == 2:
        small[2] = size[2]
    coarse = functional.interpolate(x[None], size=tuple(small), mode="nearest")
    return functional.interpolate(coarse, size=size, mode="trilinear", align_corners=False)[0]


def _blur(x: Tensor, sigma: float, dims: int) -> Tensor:
    reach = max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    for axis in range(1, 1 + (2 if dims == 2 else 3)):
        lines = x.movedim(axis, -1)
        flat = functional.pad(
            lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate"
        )
        x = functional.conv1d(flat, kernel[None, None]).view(lines.shape).movedim(-1, axis)
    return x
