"""Volume: an array on a grid, with its unit and its source.

The axis order is (I, J, K) or, for several channels, (C, I, J, K); a 2-D image has K = 1. This
module knows no files.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from .errors import GeometryError
from .grid import Grid

BODY_HU = -400.0  # CT threshold: the body is denser, lung and air are less dense
OUTSIDE_FIELD_HU = -1024.0  # what stands outside the field of view of a CT
# Hounsfield units, activity, standardised uptake by body weight, arbitrary units, label values.
UNITS = ("HU", "Bq/ml", "SUV", "a.u.", "label")
# What values are converted to while they are read: nothing, or SUV by body weight (PET).
ReadAs = Literal["", "suv"]


@dataclass(frozen=True, eq=False, repr=False)
class Volume:
    """Voxel values on a grid; frozen. The array is not copied, so the caller must not change it.

    Args:
        array: (I, J, K) or (C, I, J, K), any real dtype; its last three axes have the shape of the
            grid.
        grid: the position of the voxels.
        unit: "HU", "Bq/ml", "SUV", "a.u." or "label".
        source: the file or folder that it was read from, "" if it was computed.
        meta: other information from the reader (``modality``, ``patient``, ``channels``,
            ``series``, ``spacing_known`` ...); plain data. ``padding``: the lowest and
            highest value of voxels outside the field of view.

    Raises:
        GeometryError: the shapes of array and grid differ; the unit is unknown; or the array is not
            real.
    """

    array: NDArray[Any]
    grid: Grid
    unit: str = "a.u."
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4) or tuple(self.array.shape[-3:]) != self.grid.shape:
            raise GeometryError(
                f"array of shape {self.array.shape} does not fit a grid of shape {self.grid.shape}",
                path=self.source or None,
            )
        if self.unit not in UNITS:
            raise GeometryError(
                f"unit {self.unit!r} is not one of {', '.join(UNITS)}", path=self.source or None
            )
        if self.array.dtype.kind not in "biuf":
            raise GeometryError(
                f"voxels must be real numbers, found dtype {self.array.dtype}",
                path=self.source or None,
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array, (I, J, K) or (C, I, J, K)."""
        return tuple(self.array.shape)

    @property
    def affine(self) -> NDArray[np.float64]:
        """(4, 4): voxel index to RAS+ mm at voxel centres."""
        return self.grid.affine

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along I, J and K."""
        return self.grid.spacing_mm

    def numpy(self) -> NDArray[Any]:
        """The array itself, without a copy."""
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The array for NumPy, so that ``np.asarray(volume)`` gives its voxels."""
        if copy is False and dtype is not None and np.dtype(dtype) != self.array.dtype:
            raise ValueError(f"{self.array.dtype} cannot become {dtype} without a copy")
        return np.array(self.array, dtype=dtype, copy=None if copy is None else copy)

    def __repr__(self) -> str:
        where = f", {self.source}" if self.source else ""
        spacing = "x".join(f"{s:.3g}" for s in self.spacing_mm)
        shape = "x".join(map(str, self.shape))
        kind = f"{self.array.dtype} {self.unit}, {spacing} mm, {self.grid.codes}"
        return f"{type(self).__name__}({shape} {kind}{where})"

    @property
    def channels(self) -> int:
        """Number of channels; 1 for an array without a channel axis."""
        return 1 if self.array.ndim == 3 else int(self.array.shape[0])

    @property
    def channels_array(self) -> NDArray[Any]:
        """The array with its channel axis, (C, I, J, K); a view."""
        return self.array if self.array.ndim == 4 else self.array[None]

    def reorient(self, codes: str) -> Self:
        """The same voxels with axes nearest to ``codes`` (a view)."""
        grid, axes = self.grid.reorient(codes)
        return replace(self, array=axes.apply(self.array), grid=grid)

    def on_grid(self, grid: Grid) -> Self | None:
        """The same voxels on ``grid``, without resampling: its axes may run in another order or
        direction, and it may be larger; voxels that are added are 0. A picture that differs in its
        spacing alone gets that of ``grid``, if one of them states none.

        Returns:
            None if voxel centres do not coincide within ``Grid.tolerance_mm``, if a voxel other
            than 0 is outside ``grid``, or if the position of this volume is not known. Two grids of
            one shape that are shifted by whole voxels are a fault in a header, not a part: None.
        """
        if grid.matches(self.grid):
            return replace(self, grid=grid)
        if not self.meta.get("place_known", True):
            states_none = set(grid.spacing_mm) == {1.0} or not self.meta.get("spacing_known", True)
            scaled = self.grid.affine * [*np.divide(grid.spacing_mm, self.spacing_mm), 1.0]
            is_same = states_none and grid.matches(replace(self.grid, affine=scaled))
            return replace(self, grid=grid) if is_same else None
        turned, axes = self.grid.reorient(grid.codes)
        start = np.rint(grid.to_index(turned.to_mm((0, 0, 0)))).astype(int)
        stop = start + turned.shape
        shifted = turned.shape == grid.shape and start.any()
        if shifted or not grid.crop(start.tolist(), stop.tolist()).matches(turned):
            return None
        array = axes.apply(self.array)
        # The part of the array that is inside the grid, and its place there.
        inside = tuple(
            slice(max(0, -a), n - max(0, b - size))
            for a, b, n, size in zip(start, stop, turned.shape, grid.shape, strict=True)
        )
        target = tuple(
            slice(max(0, a), min(b, size))
            for a, b, size in zip(start, stop, grid.shape, strict=True)
        )
        if any(s.stop <= s.start for s in inside):
            return None if array.any() else self._empty_on(grid)
        out = self._empty_on(grid)
        out.array[..., target[0], target[1], target[2]] = array[
            ..., inside[0], inside[1], inside[2]
        ]
        return out if np.count_nonzero(out.array) == np.count_nonzero(array) else None

    def _empty_on(self, grid: Grid) -> Self:
        array = np.zeros((*self.array.shape[:-3], *grid.shape), self.array.dtype)
        return replace(self, array=array, grid=grid)

    def with_array(self, array: NDArray[Any], unit: str | None = None) -> Self:
        """Other values on the same grid."""
        return replace(self, array=array, unit=self.unit if unit is None else unit)

    def with_unit(self, unit: str) -> Self:
        """The same values with another unit."""
        return replace(self, unit=unit)


def stack_channels(volumes: list[Volume], names: list[str]) -> Volume:
    """One volume of all channels, (C, I, J, K); all must be on the grid of the first within 0.1 mm.

    Raises:
        GeometryError: no volume, or one on another grid (the distance in mm is stated).
    """
    if not volumes:
        raise GeometryError("no channels to stack")
    first = volumes[0]
    for name, volume in zip(names, volumes, strict=True):
        if not volume.grid.matches(first.grid):
            distance = volume.grid.distance_mm(first.grid)
            found = (
                f"shape {volume.grid.shape} against {first.grid.shape}"
                if np.isinf(distance)
                else f"{distance:.2f} mm away"
            )
            raise GeometryError(
                f"channel {name} is not on the grid of channel {names[0]}: {found}",
                path=volume.source,
            )
    if len(volumes) == 1:
        return first
    array = np.concatenate([v.channels_array for v in volumes])
    return Volume(array, first.grid, first.unit, first.source, first.meta)


def background_of(channel: NDArray[Any]) -> float:
    """The value that all eight corners of (I, J, K) share, or 0 if they differ.

    Skull-stripped and masked scans are constant outside; after a normalisation by other software
    this constant is rarely 0.
    """
    corners = channel[_ends(channel)]
    first = float(corners.flat[0])
    return first if np.isfinite(first) and bool((corners == first).all()) else 0.0


def padding_of(channel: NDArray[Any]) -> float:
    """The value for voxels around (I, J, K) finite values: that of all corners, else the lowest."""
    corners = channel[_ends(channel)]
    same = bool((corners == corners.flat[0]).all())
    return float(corners.flat[0]) if same else float(channel.min())


def _ends(channel: NDArray[Any]) -> tuple[slice, slice, slice]:
    """The first and the last index of each axis: a view of (2, 2, 2) or less."""
    i, j, k = (slice(None, None, max(1, n - 1)) for n in channel.shape)
    return i, j, k


def with_finite_voxels(channel: NDArray[Any]) -> NDArray[Any]:
    """(I, J, K) with NaN and infinite voxels as background, which is one rule for checks, training
    and prediction: the value that all finite corners share, else the lowest finite value; 0 if no
    voxel is finite. Programs write NaN outside a mask or the field of view.

    Returns:
        The array itself if all voxels are finite.
    """
    if channel.dtype.kind != "f" or not channel.size:
        return channel
    # NaN and infinity propagate to the minimum or maximum.
    if np.isfinite(channel.min()) and np.isfinite(channel.max()):
        return channel
    fine = np.isfinite(channel)
    if not fine.any():
        return np.zeros_like(channel)
    ends = _ends(channel)
    corners = channel[ends][fine[ends]]
    shared = corners.size and bool((corners == corners[0]).all())
    return np.where(fine, channel, corners[0] if shared else channel[fine].min())


def without_padding(volume: Volume) -> Volume:
    """The volume with the modality's background in voxels that are padding by
    ``meta["padding"]``: air in CT, else 0. A scan without padding is returned as it is.
    """
    if not (ends := volume.meta.get("padding")):
        return volume
    low, high = ends
    padded = (volume.array >= low) & (volume.array <= high)
    meta = {key: value for key, value in volume.meta.items() if key != "padding"}
    if not padded.any():
        return replace(volume, meta=meta)
    background, dtype = 0.0, volume.array.dtype
    if volume.unit == "HU":
        background, dtype = OUTSIDE_FIELD_HU, np.promote_types(dtype, np.int16)  # air is negative
    array = np.where(padded, np.array(background, dtype), volume.array)
    return replace(volume, array=array, meta=meta)
