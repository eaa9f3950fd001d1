"""Candidate U-Nets for a cohort, from large to small: number of channels, patch, batch, strides and
kernels.

Shapes and spacings are those of the median preprocessed case, axes (I, J, K); a 2-D network slices
K. Depth, strides and kernels follow nnU-Net (Isensee 2021). Which candidate a machine can train is
decided in ``capacity``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..core.errors import PlanError
from ..core.plan import Network
from .capacity import Machine, NetworkChoice, Triple

FEW_CLASSES = 8  # up to this many classes, as few as 8 feature maps can separate them


def candidates(
    shape: Sequence[int],
    spacing: Sequence[float],
    dims: int,
    channels: int,
    classes: int,
    machine: Machine,
    *,
    light: bool,
) -> list[NetworkChoice]:
    """Networks with patch and batch, from large to small, without duplicates.

    Args:
        shape: median preprocessed case in voxels.
        spacing: in mm.
        dims: 2 or 3.
        channels: input channels.
        classes: including background.
        light: one convolution instead of two at full resolution and at each level of the decoder,
            where convolutions take half of the time.

    Raises:
        PlanError: no axis is long enough to be pooled even once.
    """
    choices: list[NetworkChoice] = []
    for width, voxels, batch_size in _ladder(dims, machine, classes):
        patch, strides, kernels = topology(shape, spacing, voxels, dims)
        network = _unet(dims, channels, classes, width, strides, kernels, light)
        # Several patch sizes can hold the whole of a small case and are then equal.
        if (network, patch, batch_size) not in choices:
            choices.append((network, patch, batch_size))
    return choices


def _ladder(dims: int, machine: Machine, classes: int) -> Sequence[tuple[int, int, int]]:
    """(base channels, patch voxels, batch), from large to small.

    With AMX, AVX512-BF16 or a GPU, fewer than 16 feature maps are no faster than 16 (measured), so
    there the patch shrinks. Without them the time is proportional to the number of channels and a
    larger patch is worth more: 8 base channels come before a smaller patch. Few feature maps cannot
    separate many classes, so with many classes the channels are kept: for 29 brain classes in 6
    minutes the Dice was 0.29 with 8 channels and a patch of 48³, 0.70 with 16, 0.73 with 24 and
    40³, 0.82 with 24 and 32³.
    """
    gpu, narrow, many = bool(machine.gpu_bytes), not machine.matrix_units, classes > FEW_CLASSES
    large: tuple[tuple[int, int, int], ...]
    small: tuple[tuple[int, int, int], ...]
    if dims == 2:
        large = ((32, 512**2, 24), (32, 512**2, 12)) if gpu else ((32, 384**2, 12),)
        small = (
            ((12, 256**2, 6), (8, 256**2, 6), (8, 192**2, 6))
            if narrow
            else ((16, 192**2, 6), (16, 160**2, 6), (16, 128**2, 4))
        )
        return (*large, (32, 320**2, 8), (24, 256**2, 8), (16, 256**2, 6), *small)
    # 3-D: the largest patches are for a GPU.
    large = ((32, 128**3, 2), (32, 112**3, 2), (32, 96**3, 2)) if gpu else ((32, 96**3, 2),)
    small = ((16, 64**3, 2), (16, 56**3, 2), (16, 48**3, 2), (16, 40**3, 2), (16, 32**3, 2))
    if many:
        return (
            *large,
            *((32, edge**3, 2) for edge in (80, 64, 56, 48, 40, 32)),
            (24, 32**3, 2),
            (16, 32**3, 2),
        )
    if narrow:
        small = (
            (16, 64**3, 2),
            (12, 64**3, 2),
            (8, 64**3, 2),
            (8, 56**3, 2),
            (8, 48**3, 2),
            (8, 40**3, 2),
        )
    return (*large, (32, 80**3, 2), (32, 64**3, 2), (24, 64**3, 2), (24, 56**3, 2), *small)


def topology(
    shape: Sequence[int], spacing: Sequence[float], voxels: int, dims: int
) -> tuple[Triple, tuple[Triple, ...], tuple[Triple, ...]]:
    """Patch, strides and kernels for a median shape and a patch of about ``voxels``.

    If the patch must be smaller than the median case, it has the same proportions; it exceeds the
    case only as far as divisibility requires. An axis is pooled while at least 8 voxels of it
    remain and it is not much coarser than the finest axis (Isensee 2021); a coarse axis has kernel
    1 until then.

    Raises:
        PlanError: no axis is long enough to be pooled even once.
    """
    axes = [0, 1] if dims == 2 else [0, 1, 2]
    size = _patch_size(axes, shape, spacing, voxels)
    strides, kernels = _stages(axes, size, spacing, most=5 if dims == 3 else 6)
    if not strides:
        raise PlanError(
            f"cases of {tuple(shape)} voxels are too small for a U-Net: an axis must have at least "
            "8 voxels"
        )
    # A patch must be divisible by the product of the strides along each axis.
    divisor = np.prod(np.array(strides), axis=0)
    patch = [1, 1, 1]
    for a in axes:
        # Round up an axis that the patch covers completely, so that it stays complete; round the
        # others to the nearest divisible size.
        whole = size[a] >= shape[a]
        steps = np.ceil(size[a] / divisor[a]) if whole else np.rint(size[a] / divisor[a])
        patch[a] = max(1, int(steps)) * int(divisor[a])
    return _triple(patch), strides, kernels


def _patch_size(
    axes: Sequence[int], shape: Sequence[int], spacing: Sequence[float], voxels: int
) -> dict[int, float]:
    """Axis -> size of a patch of about ``voxels``: the median shape, with the longest axis (in mm)
    shrunk repeatedly.
    """
    size = {a: float(shape[a]) for a in axes}
    shortest = max(1e-6, min(float(shape[a] * spacing[a]) for a in axes))

    def length(a: int) -> float:
        # Axes of 16 voxels or fewer do not shrink.
        return size[a] * spacing[a] / shortest if size[a] > 16 else 0.0

    while np.prod([size[a] for a in axes]) > voxels * 1.1:
        size[max(axes, key=length)] *= 0.97
    return size


def _stages(
    axes: Sequence[int], size: Mapping[int, float], spacing: Sequence[float], most: int
) -> tuple[tuple[Triple, ...], tuple[Triple, ...]]:
    """Strides into each later stage (at most ``most``), and the kernels of every stage."""
    left, step = dict(size), {a: float(spacing[a]) for a in axes}
    strides: list[Triple] = []
    kernels: list[Triple] = []
    while len(strides) < most:
        # A coarse axis is neither pooled nor convolved until the others are as coarse.
        poolable = [a for a in axes if left[a] >= 8]
        finest = min((step[a] for a in poolable), default=0.0)
        pooled = [a for a in poolable if step[a] < 2 * finest]
        near = [a for a in axes if step[a] < 2 * min(step.values())]
        kernels.append(_triple(3 if a in near else 1 for a in range(3)))
        if not pooled:
            break
        strides.append(_triple(2 if a in pooled else 1 for a in range(3)))
        # The next stage has half the voxels at twice the spacing.
        for a in pooled:
            left[a], step[a] = left[a] / 2, step[a] * 2
    else:
        # The last stage, after the maximum number of strides.
        kernels.append(_triple(3 if a in axes else 1 for a in range(3)))
    return tuple(strides), tuple(kernels[: len(strides) + 1])


def _triple(values: Any) -> Triple:
    a, b, c = values
    return int(a), int(b), int(c)


def as_kind(unet: Network, kind: str) -> Network:
    """A network of another kind with the stages and channels of a U-Net, without deep supervision;
    the U-Net itself if that is the kind.
    """
    if kind == unet.kind:
        return unet
    return Network.model_validate(unet.model_dump() | {"kind": kind, "deep_supervision": False})


def _unet(
    dims: int,
    channels: int,
    classes: int,
    width: int,
    strides: tuple[Triple, ...],
    kernels: tuple[Triple, ...],
    light: bool,
) -> Network:
    """A U-Net with ``width`` base channels, doubled at every stage up to a limit."""
    cap = 512 if dims == 2 else 320
    widths = tuple(min(width * 2**n, cap) for n in range(len(strides) + 1))
    return Network(
        dims=2 if dims == 2 else 3,
        channels=channels,
        classes=classes,
        widths=widths,
        strides=strides,
        kernels=kernels,
        convs=(1, *(2 for _ in strides)) if light else 2,
        decoder_convs=1 if light else None,
    )
