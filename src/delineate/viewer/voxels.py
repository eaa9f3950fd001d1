"""Voxels as the page loads them: NIfTI bytes, packed, in dtypes that the graphics device knows, and
no more of them than it can hold.

Whatever is made coarser keeps its outer faces, and its masks are resampled with it. It knows no
server and no page.
"""

from __future__ import annotations

import struct
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip, isal_zlib
from numpy.typing import NDArray

from ..core.grid import Grid
from ..core.volume import Volume
from ..formats import nifti
from .scenes import Scene

MOST_VOXELS = 100_000_000  # a device keeps several copies of 4 bytes each
SCALE_AT = 112  # byte of a NIfTI-1 header where slope and intercept stand


def packed(volume: Volume, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """The bytes of a .nii.gz of ``volume``, whose voxels mean ``slope`` * voxel + ``intercept``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        nifti.write(volume, path)
        data = path.read_bytes()
    if (slope, intercept) == (1.0, 0.0):
        return data
    raw = bytearray(isal_zlib.decompress(data, wbits=31))
    struct.pack_into("<ff", raw, SCALE_AT, slope, intercept)
    return bytes(igzip.compress(bytes(raw), 1))


def channel(image: Volume, number: int) -> Volume:
    """One channel (I, J, K) in a dtype that the page's device knows: uint8, int16, uint16 or
    float32; what is not finite is the lowest value.
    """
    array = image.channels_array[number]
    if array.dtype.kind == "b":
        array = array.astype(np.uint8)
    if array.dtype.kind in "iu" and array.dtype not in (np.uint8, np.int16, np.uint16):
        array = array.astype(
            next((d for d in (np.uint8, np.int16, np.uint16) if _holds(d, array)), np.float32)
        )
    if array.dtype.kind == "f":
        array = array.astype(np.float32, copy=False)
        finite = np.isfinite(array)
        if not finite.all():
            array = np.where(finite, array, array[finite].min() if finite.any() else 0).astype(
                np.float32
            )
    return image.with_array(array)


def coarser(scene: Scene, most_voxels: int) -> Scene:
    """The scene with at most ``most_voxels``: its finest axes are made coarser first, up to one
    spacing for all; itself where it is small enough.
    """
    grid = _coarser_grid(scene.image.grid, most_voxels)
    if grid == scene.image.grid:
        return scene
    from ..preprocessing.resample import resample_image, resample_labels

    arrays = [
        resample_image(a, grid.shape, ("linear", "linear", "linear")).numpy()
        for a in scene.image.channels_array
    ]
    if scene.image.array.dtype.kind in "iu":
        arrays = [np.rint(a).astype(scene.image.array.dtype) for a in arrays]
    image = replace(
        scene.image, array=np.stack(arrays) if scene.image.array.ndim == 4 else arrays[0], grid=grid
    )
    masks = [
        replace(
            m,
            volume=replace(m.volume, array=resample_labels(m.volume.array, grid.shape), grid=grid),
        )
        for m in scene.masks
    ]
    return replace(scene, image=image, masks=tuple(masks))


def cropped(scene: Scene, margin_mm: float) -> Scene:
    """The scene around what its masks hold, ``margin_mm`` wider on every side; itself where they
    hold nothing.
    """
    grid = scene.image.grid
    held = np.zeros(grid.shape, bool)
    for mask in scene.masks:
        held |= mask.volume.array != 0
    if not held.any():
        return scene
    start, stop = [], []
    for axis, (length, spacing_mm) in enumerate(zip(grid.shape, grid.spacing_mm, strict=True)):
        inside = np.flatnonzero(held.any(axis=tuple(a for a in range(3) if a != axis)))
        wider = int(np.ceil(margin_mm / spacing_mm))
        start.append(max(0, int(inside[0]) - wider))
        stop.append(min(length, int(inside[-1]) + 1 + wider))
    part = grid.crop(start, stop)
    i, j, k = (slice(a, b) for a, b in zip(start, stop, strict=True))
    image = replace(scene.image, array=scene.image.array[..., i, j, k], grid=part)
    masks = [
        replace(m, volume=replace(m.volume, array=m.volume.array[i, j, k], grid=part))
        for m in scene.masks
    ]
    return replace(scene, image=image, masks=tuple(masks))


def stepped(volume: Volume) -> tuple[Volume, float, float]:
    """``volume`` in steps of int16 where it is float32, with their slope and intercept; other
    dtypes stay.
    """
    array = volume.array
    if array.dtype.kind != "f":
        return volume, 1.0, 0.0
    low, high = float(array.min()), float(array.max())
    slope = (high - low) / 65534 or 1.0
    intercept = low + 32767 * slope
    steps = np.rint((array.astype(np.float64) - intercept) / slope)
    return volume.with_array(np.clip(steps, -32767, 32767).astype(np.int16)), slope, intercept


def _coarser_grid(grid: Grid, most_voxels: int) -> Grid:
    at_least_mm, out = min(grid.spacing_mm), grid
    while np.prod(out.shape, dtype=np.int64) > most_voxels:
        at_least_mm *= 1.05
        out = grid.respace(
            [
                s if n == 1 else max(s, at_least_mm)
                for n, s in zip(grid.shape, grid.spacing_mm, strict=True)
            ]
        )
    return out


def _holds(dtype: Any, array: NDArray[Any]) -> bool:
    limits = np.iinfo(dtype)
    return bool(limits.min <= array.min() and array.max() <= limits.max)
