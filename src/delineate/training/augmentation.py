"""Augmentation: all spatial changes in one resampling pass, then changes of intensity.

``draw`` chooses the spatial changes of a sample (numpy, from the sample's own random stream),
``sample_patch`` reads the patch from the stored case in one pass, ``change_intensity`` does the
rest. Rotation, tilt and elastic displacement are correct in millimetres on anisotropic grids. If
the left-right axis is flipped, the caller swaps the indices of sided structures. The newer options
(``oblique_p``, ``drop_channel_p``) draw no random number if their probability is 0, so that older
plans give the same samples as before.

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

from ..core.plan import Plan
from ..core.store import StoredCase
from ..extend.parts import Augmentation as AugmentationPart
from ..extend.registers import AUGMENTATIONS
from ..preprocessing.warp import warp

ELASTIC_KNOTS = 5  # displacements are drawn on this many points per axis and interpolated
# Side length in voxels of the tiles in which an oblique plane is read from disk. The box around a
# small tile is thin.
TILE = 64


@dataclass(frozen=True)
class Spatial:
    """The spatial changes of a sample: ``matrix`` (3, 3) maps offsets from the centre of the patch
    to offsets in the volume, in voxels; ``elastic`` (3, *knots) displacements in voxels, or None;
    ``flips`` the flipped axes of the patch.
    """

    matrix: NDArray[np.float64]
    elastic: NDArray[np.float32] | None
    flips: tuple[int, ...]

    @property
    def is_plain(self) -> bool:
        """Whether the patch is a box of the volume, up to flips."""
        return self.elastic is None and np.array_equal(self.matrix, np.eye(3))

    @property
    def is_oblique(self) -> bool:
        """Whether the first two axes of the patch leave the I-J plane of the volume."""
        return bool(self.matrix[2, :2].any())


def draw(
    plan: Plan, rng: np.random.Generator, spacing_mm: Sequence[float], shape: Sequence[int]
) -> Spatial:
    """Draw the spatial changes of one sample.

    A 2-D plan with ``oblique_p`` tilts its plane about the I, then the J axis through the centre of
    the patch, each by an angle drawn uniformly from -``oblique_deg`` to ``oblique_deg``; rotation
    and zoom within the plane come first. A volume with one slice is never tilted.

    Args:
        spacing_mm: of the stored volume, along I, J, K.
        shape: of the stored volume.
    """
    aug = plan.augmentation
    spacing = np.array(spacing_mm, dtype=np.float64)
    # The matrix is in millimetres until the end. The order of the draws fixes every sample.
    matrix = np.eye(3)
    if rng.random() < aug.rotation_p:
        limits = np.array(aug.rotation_deg) * ((0, 0, 1) if plan.dims == 2 else (1, 1, 1))
        matrix = _rotation(np.deg2rad(rng.uniform(-limits, limits)))
    if rng.random() < aug.scale_p:
        matrix = matrix @ np.diag(_zoom(plan, rng))
    # The tilt is applied last, so it acts on the rotated and zoomed plane.
    if plan.dims == 2 and aug.oblique_p and shape[2] > 1 and rng.random() < aug.oblique_p:
        matrix = (
            _rotation(np.deg2rad([*rng.uniform(-aug.oblique_deg, aug.oblique_deg, 2), 0.0]))
            @ matrix
        )
    # Displacements in mm, converted to voxels along each axis.
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
    # Uniform in the logarithm: enlarging and shrinking are equally likely.
    zoom = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    return [zoom, zoom, 1.0 if plan.dims == 2 else zoom]


def _rotation(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) rotation about the I, then J, then K axis; angles in radians."""
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
    """The patch around ``centre`` with the changes ``spatial``, read in one pass; zeros and
    background outside the volume.

    Args:
        case: if it is on disk, only the required box is read; for an oblique plane, a small box
            around each of its tiles.
        centre: voxel of the volume that becomes voxel ``patch // 2`` of the patch, before flips.

    Returns:
        (C, *patch) float32 and (*patch) of the label's dtype.
    """
    # Without interpolation a box is enough, and its values are exact.
    if spatial.is_plain:
        return _plain_patch(case, centre, patch, spatial.flips)
    grid = _moved_grid(centre, patch, spatial)
    whole = tuple(slice(0, p) for p in patch)
    # One box around an oblique plane could be the whole volume, so on disk it is read in tiles.
    if isinstance(case.image, np.ndarray) or not spatial.is_oblique or patch[2] > 1:
        image, label = _resampled(case, grid, whole)
    else:
        image, label = _resampled_in_tiles(case, grid, whole)
    return torch.from_numpy(image), torch.from_numpy(label)


def _plain_patch(
    case: StoredCase, centre: Sequence[int], patch: Sequence[int], flips: tuple[int, ...]
) -> tuple[Tensor, Tensor]:
    """The patch as a flipped box of the volume, without interpolation."""
    low = [c - p // 2 for c, p in zip(centre, patch, strict=True)]
    image, label = _box(case, low, [a + p for a, p in zip(low, patch, strict=True)])
    flips = tuple(axis for axis in range(3) if axis in flips)
    values = image * case.steps[:, None, None, None]
    image = np.flip(values, tuple(1 + a for a in flips)).copy()
    return torch.from_numpy(image), torch.from_numpy(np.flip(label, flips).copy())


@dataclass(frozen=True)
class _Grid:
    """The positions that a patch reads: its voxel (a, b, c) is read at ``origin + matrix @ (a, b,
    c)`` of the volume, displaced by ``field``.
    """

    matrix: NDArray[np.float64]
    origin: NDArray[np.float64]
    shape: tuple[int, ...]
    field: NDArray[np.float32] | None


def _moved_grid(centre: Sequence[int], patch: Sequence[int], spatial: Spatial) -> _Grid:
    """The grid of a patch, with the flips as part of its matrix."""
    turn = np.diag([-1.0 if axis in spatial.flips else 1.0 for axis in range(3)])
    # The voxel of the patch that reads ``centre``, after the flips.
    middle = [p - 1 - p // 2 if axis in spatial.flips else p // 2 for axis, p in enumerate(patch)]
    matrix, field = spatial.matrix @ turn, spatial.elastic
    if field is not None:
        field = np.flip(field, tuple(1 + axis for axis in spatial.flips))
    origin = np.array(centre, dtype=np.float64) - matrix @ middle
    return _Grid(matrix, origin, tuple(patch), field)


def _resampled_in_tiles(
    case: StoredCase, grid: _Grid, whole: tuple[slice, ...]
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """``_resampled`` of a plane, tile by tile; the result is the same."""
    rows = [slice(a, min(a + TILE, grid.shape[0])) for a in range(0, grid.shape[0], TILE)]
    columns = [slice(b, min(b + TILE, grid.shape[1])) for b in range(0, grid.shape[1], TILE)]
    tiles = [
        [_resampled(case, grid, (row, column, whole[2])) for column in columns] for row in rows
    ]
    image = np.concatenate([np.concatenate([t[0] for t in row], 2) for row in tiles], 1)
    label = np.concatenate([np.concatenate([t[1] for t in row], 1) for row in tiles], 0)
    return image, label


def _resampled(
    case: StoredCase, grid: _Grid, part: tuple[slice, ...]
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """A part of the grid. A case in memory is used as it is; from disk, the box around the part is
    read.
    """
    image, label, low = case.image, case.label, [0, 0, 0]
    if not isinstance(image, np.ndarray):
        # The corners of the part, in voxels of the volume.
        ends = (
            np.array(list(itertools.product(*((s.start, s.stop - 1) for s in part))))
            @ grid.matrix.T
            + grid.origin
        )
        # A margin of one voxel for rounding, plus the largest displacement.
        reach = 1.0 + (0.0 if grid.field is None else np.abs(grid.field).max(axis=(1, 2, 3)))
        # Clip the box to the volume; it keeps at least one voxel.
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
    # ``warp`` does not accept float16.
    image = image.astype(np.float32) if image.dtype == np.float16 else image
    return warp(
        image, label, case.steps, grid.matrix, grid.origin, grid.shape, grid.field, part, low
    )


def _box(
    case: StoredCase, low: Sequence[int], high: Sequence[int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The box low..high as stored, with zeros outside the volume."""
    # The usual case, a box inside the volume, needs no copy here.
    inside = [(max(0, a), min(n, b)) for a, b, n in zip(low, high, case.shape, strict=True)]
    if all(a == lo and b == hi for (a, b), lo, hi in zip(inside, low, high, strict=True)):
        region = tuple(slice(a, b) for a, b in inside)
        return np.asarray(case.image[(slice(None), *region)]), np.asarray(case.label[region])
    # Copy the part inside the volume into zeros; the box may also lie outside completely.
    size = [b - a for a, b in zip(low, high, strict=True)]
    image = np.zeros((case.image.shape[0], *size), dtype=case.image.dtype)
    label = np.zeros(size, dtype=case.label.dtype)
    if all(b > a for a, b in inside):
        source = tuple(slice(a, b) for a, b in inside)
        target = tuple(slice(a - lo, b - lo) for (a, b), lo in zip(inside, low, strict=True))
        image[(slice(None), *target)] = case.image[(slice(None), *source)]
        label[target] = case.label[source]
    return image, label


def change_intensity(
    image: Tensor, label: Tensor, plan: Plan, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Change a patch, image (C, *patch) normalised float32 and label (*patch), at random: the
    effects of ``INTENSITY`` in their order, missing channels, then the registered changes that the
    plan names.
    """
    # The order of the draws fixes every sample; a new change is added at the end.
    aug = plan.augmentation
    for name in INTENSITY:
        if rng.random() < getattr(aug, f"{name}_p"):
            image, label = AUGMENTATIONS[name].change(image, label, rng, plan)
    if aug.drop_channel_p:
        image = _drop_channels(image, aug.drop_channel_p, rng)
    for name, p in aug.custom.items():
        if rng.random() < p:
            image, label = AUGMENTATIONS[name].change(image, label, rng, plan)
    return image, label


def _drop_channels(x: Tensor, p: float, rng: np.random.Generator) -> Tensor:
    """Set each channel to 0 with probability ``p``; at prediction a missing channel has the same
    value. If all channels were drawn, a random one is kept.

    Modality dropout (Neverova 2016, ModDrop; Havaei 2016, HeMIS): the network learns to segment
    with the channels it has.
    """
    gone = rng.random(len(x)) < p
    if gone.all():
        gone[rng.integers(len(x))] = False
    return x.masked_fill(torch.from_numpy(gone).view(-1, 1, 1, 1), 0.0)


def _gamma(x: Tensor, gamma: float, invert: bool) -> Tensor:
    """x, scaled to 0..1 by its own range, to the power gamma; mean and standard deviation of each
    channel are kept (Isensee 2021). ``invert`` applies gamma to the inverted intensities.
    """
    x = -x if invert else x
    # Range, mean and standard deviation of each channel before the change.
    low, mean, std = (
        x.amin((1, 2, 3), keepdim=True),
        x.mean((1, 2, 3), keepdim=True),
        x.std((1, 2, 3), keepdim=True),
    )
    span = (x.amax((1, 2, 3), keepdim=True) - low).clamp_min(1e-6)
    x = ((x - low) / span).pow(gamma)
    # Back to the mean and standard deviation of before.
    x = (x - x.mean((1, 2, 3), keepdim=True)) / x.std((1, 2, 3), keepdim=True).clamp_min(
        1e-6
    ) * std + mean
    return -x if invert else x


def _low_resolution(x: Tensor, factor: float, dims: int) -> Tensor:
    """x sampled down by ``factor`` (nearest) and back up (linear): a scan of lower resolution."""
    size = tuple(x.shape[1:])
    small = [max(1, round(n * factor)) if n > 1 else 1 for n in size]
    # Slices of a 2-D plan are not resampled across.
    if dims == 2:
        small[2] = size[2]
    coarse = functional.interpolate(x[None], size=tuple(small), mode="nearest")
    return functional.interpolate(coarse, size=size, mode="trilinear", align_corners=False)[0]


def _blur(x: Tensor, sigma: float, dims: int) -> Tensor:
    """x convolved with a Gaussian of ``sigma`` voxels, one axis after the other."""
    reach = max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=torch.float32) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    # All lines along an axis form one batch of a 1-D convolution; edges are repeated.
    for axis in range(1, 1 + (2 if dims == 2 else 3)):
        lines = x.movedim(axis, -1)
        flat = functional.pad(
            lines.reshape(-1, 1, lines.shape[-1]), (reach, reach), mode="replicate"
        )
        x = functional.conv1d(flat, kernel[None, None]).view(lines.shape).movedim(-1, axis)
    return x


# ---- the package's own changes of intensity ----


def _with_low_resolution(
    image: Tensor, label: Tensor, rng: np.random.Generator, plan: Plan
) -> tuple[Tensor, Tensor]:
    factor = rng.uniform(*plan.augmentation.low_resolution)
    return _low_resolution(image, factor, plan.dims), label


def _with_blur(
    image: Tensor, label: Tensor, rng: np.random.Generator, plan: Plan
) -> tuple[Tensor, Tensor]:
    return _blur(image, rng.uniform(*plan.augmentation.blur_voxels), plan.dims), label


def _with_noise(
    image: Tensor, label: Tensor, rng: np.random.Generator, plan: Plan
) -> tuple[Tensor, Tensor]:
    # Noise by torch, with a seed from the stream of the sample.
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    noise = torch.randn(image.shape, generator=generator)
    return image + noise * float(rng.uniform(0, plan.augmentation.noise_std)), label


def _with_brightness(
    image: Tensor, label: Tensor, rng: np.random.Generator, plan: Plan
) -> tuple[Tensor, Tensor]:
    return image + float(rng.normal(0, plan.augmentation.brightness)), label


def _with_contrast(
    image: Tensor, label: Tensor, rng: np.random.Generator, plan: Plan
) -> tuple[Tensor, Tensor]:
    mean = image.mean(dim=(1, 2, 3), keepdim=True)
    return (image - mean) * float(rng.uniform(*plan.augmentation.contrast)) + mean, label


def _with_gamma(
    image: Tensor, label: Tensor, rng: np.random.Generator, plan: Plan
) -> tuple[Tensor, Tensor]:
    gamma = float(np.exp(rng.uniform(*np.log(plan.augmentation.gamma))))
    return _gamma(image, gamma, invert=rng.random() < 0.3), label


# In the order in which they are applied; the plan has the probability of each, such as ``blur_p``.
INTENSITY = ("low_resolution", "blur", "noise", "brightness", "contrast", "gamma")
for _name, _change, _definition in (
    ("low_resolution", _with_low_resolution, "Sampled down and up again."),
    ("blur", _with_blur, "Gaussian blur."),
    ("noise", _with_noise, "Gaussian noise."),
    ("brightness", _with_brightness, "One random number is added."),
    ("contrast", _with_contrast, "Differences to the mean are scaled."),
    ("gamma", _with_gamma, "A power of the scaled intensities (Isensee 2021)."),
):
    AUGMENTATIONS.add(_name, AugmentationPart(_change, _definition))
