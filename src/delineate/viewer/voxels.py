"""Voxels for the page: compressed NIfTI bytes in dtypes that a graphics device supports, with no
more voxels than it can hold.

Resampling to a coarser grid keeps the outer faces of the volume; masks are resampled to the same
grid. The module knows no server and no page.
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
from ..preprocessing.shear import orthogonal
from .scenes import Scene

MOST_VOXELS = 100_000_000  # a graphics device keeps several copies of 4 bytes per voxel
SCALE_AT = 112  # byte offset of slope and intercept in a NIfTI-1 header


def packed(volume: Volume, slope: float = 1.0, intercept: float = 0.0) -> bytes:
    """``volume`` as the bytes of a .nii.gz; its values are ``slope`` * voxel + ``intercept``."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        nifti.write(volume, path)
        data = path.read_bytes()
    if (slope, intercept) == (1.0, 0.0):
        return data
    # Write slope and intercept into the header, then compress again.
    raw = bytearray(isal_zlib.decompress(data, wbits=31))
    struct.pack_into("<ff", raw, SCALE_AT, slope, intercept)
    return bytes(igzip.compress(bytes(raw), 1))


def channel(image: Volume, number: int) -> Volume:
    """One channel (I, J, K) in a dtype that the page supports: uint8, int16, uint16 or float32.

    Values that are not finite become the lowest finite value, or 0 if there is none.
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


def straightened(scene: Scene) -> Scene:
    """The scene on the orthogonal grid of a sheared image, because the page shows axes at right
    angles; itself if the image is not sheared.
    """
    image = orthogonal(scene.image)
    if image is scene.image:
        return scene
    masks = [replace(m, volume=orthogonal(m.volume, labels=True)) for m in scene.masks]
    return replace(scene, image=image, masks=tuple(masks))


def coarser(scene: Scene, most_voxels: int) -> Scene:
    """The scene on a grid of at most ``most_voxels``, itself if it is small enough.

    The axes with the finest spacing are made coarser first.
    """
    grid = _coarser_grid(scene.image.grid, most_voxels)
    if grid == scene.image.grid:
        return scene
    from ..preprocessing.resample import resample_image, resample_labels

    arrays = [
        resample_image(a, grid.shape, ("linear", "linear", "linear"), kind="numpy")
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
            volume=replace(
                m.volume, array=resample_labels(m.volume.array, grid.shape, "numpy"), grid=grid
            ),
        )
        for m in scene.masks
    ]
    return replace(scene, image=image, masks=tuple(masks))


def cropped(scene: Scene, margin_mm: float) -> Scene:
    """The scene cropped to its masks, with ``margin_mm`` on every side; itself if all are empty."""
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
    """A float32 volume as int16 steps, with their slope and intercept; other dtypes stay.

    Raw values -32767..32767 cover the range of the volume.
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
    """The grid with its finest axes respaced, in steps of 5 %, until it is small enough."""
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
    """Whether the integer ``dtype`` can hold all values of ``array``."""
    limits = np.iinfo(dtype)
    return bool(limits.min <= array.min() and array.max() <= limits.max)
