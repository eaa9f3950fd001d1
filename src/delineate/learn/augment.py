"""Augmentation: one resampling pass for everything spatial, then elementwise changes of intensity.

``draw`` decides what happens to a sample (numpy, from the sample's own random stream), ``sample_patch`` reads it from the
stored volume in one pass, ``change_intensity`` does the rest. Rotation, tilt and elastic displacement are right in
millimetres on anisotropic grids. Flipping the left-right axis swaps the indices of sided structures. A probability of 0
draws no random number where an option is younger than the plans it must not change (``oblique_p``, ``drop_channel_p``).

Shapes: volume (C, I, J, K) and label (I, J, K); patch image (C, *patch) float32, label (*patch) int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..core.plan import Augmentation, Plan

ELASTIC_KNOTS = 5  # displacement is drawn on this many points an axis and interpolated
TILE = 64  # voxels along each side of the pieces in which an oblique plane is read: the box around a small piece is thin


@dataclass(frozen=True)
class Spatial:
    """``matrix`` (3, 3) maps offsets from the patch's middle to offsets in the volume, in voxels; ``elastic`` (3, *knots) voxels or None."""

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


def draw(plan: Plan, rng: np.random.Generator, spacing_mm: Sequence[float], shape: Sequence[int]) -> Spatial:
    """What happens in space to one sample.

    A 2-D plan with ``oblique_p`` tilts its plane about the I, then the J axis through the patch's middle, each by an angle drawn evenly
    from -``oblique_deg`` to ``oblique_deg``; the plane itself is turned and zoomed first. A volume of one slice is never tilted.

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
        matrix = _rotation(np.deg2rad([*rng.uniform(-aug.oblique_deg, aug.oblique_deg, 2), 0.0])) @ matrix
    elastic = None
    if rng.random() < aug.elastic_p:
        knots = tuple(1 if p == 1 else ELASTIC_KNOTS for p in plan.patch)
        elastic = (rng.normal(0, aug.elastic_mm, (3, *knots)) / spacing[:, None, None, None]).astype(np.float32)
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


def sample_patch(image: Any, label: Any, centre: Sequence[int], patch: Sequence[int], spatial: Spatial) -> tuple[Tensor, Tensor]:
    """The patch around ``centre``, moved as ``spatial`` says, in one pass; zeros and background outside the volume.

    Args:
        image: (C, I, J, K), sliceable; only the box that is needed is read, of an oblique plane a small box around each of its pieces.
        label: (I, J, K), sliceable.
        centre: voxel of the volume that becomes voxel ``patch // 2`` of the patch.

    Returns:
        (C, *patch) float32 and (*patch) int64.
    """
    if spatial.is_plain:
        low = [c - p // 2 for c, p in zip(centre, patch, strict=True)]
        found = _read(image, label, low, [a + p for a, p in zip(low, patch, strict=True)])
        pair = found[0], found[1].long()
    else:
        pair = _resampled(image, label, centre, patch, spatial)
    if not spatial.flips:
        return pair
    return pair[0].flip([1 + a for a in spatial.flips]), pair[1].flip(list(spatial.flips))


def _resampled(image: Any, label: Any, centre: Sequence[int], patch: Sequence[int], spatial: Spatial) -> tuple[Tensor, Tensor]:
    where = _coordinates(patch, spatial) + torch.tensor(centre, dtype=torch.float32)  # (*patch, 3) voxels of the volume
    if not spatial.is_oblique or patch[2] > 1:
        return _interpolated(image, label, where)
    rows = [[_interpolated(image, label, tile) for tile in torch.split(row, TILE, 1)] for row in torch.split(where, TILE)]
    moved, classes = zip(*[(torch.cat([t[0] for t in row], 2), torch.cat([t[1] for t in row], 1)) for row in rows], strict=True)
    return torch.cat(moved, 1), torch.cat(classes, 0)


def _interpolated(image: Any, label: Any, where: Tensor) -> tuple[Tensor, Tensor]:
    """Image (trilinear) and label (nearest) at the voxel positions ``where`` (a, b, c, 3), from the box around them."""
    flat = where.reshape(-1, 3)
    low = [int(v) for v in flat.min(dim=0).values.floor()]
    high = [int(v) + 2 for v in flat.max(dim=0).values.floor()]
    box_image, box_label = _read(image, label, low, high)
    size = torch.tensor([b - a for a, b in zip(low, high, strict=True)], dtype=torch.float32)
    grid = (where - torch.tensor(low, dtype=torch.float32)) * (2 / (size - 1)) - 1
    grid = grid.flip(-1)[None]  # the sampler counts axes from the last
    moved = functional.grid_sample(box_image[None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    classes = functional.grid_sample(box_label[None, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=True)[0, 0]
    return moved, classes.long()


def _coordinates(patch: Sequence[int], spatial: Spatial) -> Tensor:
    """(*patch, 3) offsets from the centre voxel, in voxels of the volume."""
    axes = [torch.arange(p, dtype=torch.float32) - p // 2 for p in patch]
    matrix = torch.from_numpy(spatial.matrix.astype(np.float32))
    terms = [axis.view([-1 if n == a else 1 for n in range(3)] + [1]) * matrix[:, a] for a, axis in enumerate(axes)]
    offsets = terms[0] + terms[1] + terms[2]
    if spatial.elastic is not None:
        field = functional.interpolate(torch.from_numpy(spatial.elastic)[None], size=tuple(patch), mode="trilinear", align_corners=True)[0]
        offsets = offsets + field.movedim(0, -1)
    return offsets


def _read(image: Any, label: Any, low: Sequence[int], high: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The box low..high of both, as float32 and as stored, filled with zeros where it leaves the volume."""
    shape = label.shape
    inside = [(max(0, a), min(n, b)) for a, b, n in zip(low, high, shape, strict=True)]
    size = [b - a for a, b in zip(low, high, strict=True)]
    out_image = np.zeros((image.shape[0], *size), dtype=np.float32)
    out_label = np.zeros(size, dtype=np.uint8 if label.dtype == np.uint8 else np.int32)
    if all(b > a for a, b in inside):
        source = tuple(slice(a, b) for a, b in inside)
        target = tuple(slice(a - lo, b - lo) for (a, b), lo in zip(inside, low, strict=True))
        out_image[(slice(None), *target)] = image[(slice(None), *source)]
        out_label[target] = label[source]
    return torch.from_numpy(out_image), torch.from_numpy(out_label)


def change_intensity(x: Tensor, aug: Augmentation, dims: int, rng: np.random.Generator) -> Tensor:
    """(C, *patch) normalised float32, changed as drawn from ``rng``: low resolution, blur, noise, brightness, contrast, gamma, missing channels."""
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
    """Each channel is 0 with probability ``p``, the value that a missing one gets at prediction; were all to go, a random one stays.

    Modality dropout (Neverova 2016, ModDrop; Havaei 2016, HeMIS): the network learns to do with what it is given.
    """
    gone = rng.random(len(x)) < p
    if gone.all():
        gone[rng.integers(len(x))] = False
    return x.masked_fill(torch.from_numpy(gone).view(-1, 1, 1, 1), 0.0)


def _gamma(x: Tensor, gamma: float, invert: bool) -> Tensor:
    """x within its own range to the power gamma, mean and deviation kept (Isensee 2021)."""
    x = -x if invert else x
    low, mean, std = x.amin((1, 2, 3), keepdim=True), x.mean((1, 2, 3), keepdim=True), x.std((1, 2, 3), keepdim=True)
    span = (x.amax((1, 2, 3), keepdim=True) - low).clamp_min(1e-6)
    x = ((x - low) / span).pow(gamma)
    x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True).clamp_min(1e-6) * std + mean
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
        flat = functional.pad(lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate")
        x = functional.conv1d(flat, kernel[None, None]).view(lines.shape).movedim(-1, axis)
    return x
