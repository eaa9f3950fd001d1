"""Shapes for phantoms: signed distances in mm, smooth random fields, and the coordinates at which
they are evaluated.

A shape is a function of three coordinate arrays. It returns the approximate distance to its
surface, negative inside. This module knows neither bodies nor intensities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.grid import Grid

Field = NDArray[Any]  # float32 (I, J, K), or a box of it
Point = Sequence[float] | NDArray[Any]  # three numbers
Shape = Callable[[Field, Field, Field], Field]  # x, y, z -> signed distance in mm


def waves(
    grid: Grid,
    rng: np.random.Generator,
    count: int,
    wavelength_mm: tuple[float, float],
    amplitude: float,
) -> Field:
    """Make a smooth random field on ``grid`` as a sum of ``count`` plane waves; about 95 % of it
    lies within +-``amplitude``.

    Each wave is the real part of a product of three 1-D factors, so a field costs one
    multiplication per voxel and wave.
    """
    out = np.zeros(grid.shape, np.float32)
    origin = np.array(grid.shape) / 2
    for _ in range(count):
        direction = rng.normal(size=3)
        # Wave vector in radians per voxel, of random direction and wavelength.
        k = (
            2
            * np.pi
            / rng.uniform(*wavelength_mm)
            * direction
            / np.linalg.norm(direction)
            * np.array(grid.spacing_mm)
        )
        phase = rng.uniform(0, 2 * np.pi)
        i, j, m = (
            np.exp(1j * k[a] * (np.arange(grid.shape[a]) - origin[a])).astype(np.complex64)
            for a in range(3)
        )
        # The real part of (i j) m, without a complex volume in memory.
        plane = (np.exp(1j * phase).astype(np.complex64) * i)[:, None] * j
        out += plane.real[:, :, None] * m.real - plane.imag[:, :, None] * m.imag
    # The standard deviation of the sum is sqrt(count / 2), so this makes it half the amplitude.
    return np.asarray(out * np.float32(amplitude / np.sqrt(2 * count)))


def ellipsoid(centre: Point, radii: Point, turn: NDArray[Any] | None = None) -> Shape:
    """Shape of an ellipsoid; the distance is nearly exact close to the surface (r (r - 1) /
    |gradient|).
    """
    turned = np.eye(3) if turn is None else turn

    def distance(x: Field, y: Field, z: Field) -> Field:
        return ellipsoid_distance(local(x, y, z, centre, turned), radii)

    return distance


def ellipsoid_distance(p: Sequence[Field], radii: Point) -> Field:
    """Distance to an ellipsoid at the origin, from coordinates along its axes."""
    # Relative radius times the distance to 1, divided by its gradient: a first-order distance.
    scaled = [q / np.float32(r) for q, r in zip(p, radii, strict=True)]
    length = np.sqrt(sum(s * s for s in scaled))
    gradient = np.sqrt(sum((s / np.float32(r)) ** 2 for s, r in zip(scaled, radii, strict=True)))
    return np.asarray(length * (length - 1) / np.maximum(gradient, 1e-4))


def tube(
    x0: float,
    y0: float,
    radius_mm: float,
    sway_mm: float,
    phase: float,
    bulge: float = 0.0,
    lean: tuple[float, float] = (0, 0),
) -> Shape:
    """Shape of an upright, winding tube.

    Args:
        x0, y0: centre at z = 0.
        radius_mm: mean radius.
        sway_mm, phase: amplitude and phase of the windings.
        bulge: fraction by which the radius changes (haustra).
        lean: slope of the axis, in mm per mm of z.
    """

    def distance(x: Field, y: Field, z: Field) -> Field:
        # The axis sways in x and y with different wavelengths; the radius pulsates along z.
        cx = x0 + lean[0] * z + sway_mm * np.sin(z / 34 + phase)
        cy = y0 + lean[1] * z + sway_mm * np.cos(z / 41 + 2 * phase)
        radius = radius_mm * (1 + bulge * np.sin(z / 5.5 + phase))
        return np.asarray(np.hypot(x - cx, y - cy) - radius)

    return distance


def rounded_box(x: Field, y: Field, half_x: float, half_y: float, square: float = 0.45) -> Field:
    """Distance to a cross-section between an ellipse (``square`` 0) and a superellipse of power 4
    (1). Repeated square roots are cheap to compute.
    """
    a, b = (x / half_x) ** 2, (y / half_y) ** 2
    ellipse = np.sqrt(a + b)
    r = (1 - square) * ellipse + square * np.sqrt(np.sqrt(a * a + b * b))
    # The gradient of the ellipse converts the relative radius to mm.
    slope = np.sqrt(a / half_x**2 + b / half_y**2) / np.maximum(ellipse, 1e-3)
    return np.asarray((r - 1) / np.maximum(slope, 1e-3))


def smooth_min(a: Field, b: Field, width_mm: float) -> Field:
    """Union of two shapes with a fillet."""
    # h blends from b (0) to a (1) within the width; the last term rounds the corner.
    h = np.clip(0.5 + 0.5 * (b - a) / width_mm, 0, 1)
    return np.asarray(b + (a - b) * h - width_mm * h * (1 - h))


def smooth_max(a: Field, b: Field, width_mm: float) -> Field:
    """Intersection of two shapes with rounded edges."""
    return np.asarray(-smooth_min(-a, -b, width_mm))


def both(a: Shape, b: Shape, shrink_mm: float = 0) -> Shape:
    """Intersection of two shapes, less a rim of ``shrink_mm``."""
    return lambda x, y, z: np.maximum(a(x, y, z), b(x, y, z)) + shrink_mm


def in_front(x: Field, y: Field, z: Field, level: float) -> Field:
    """Half space in front of ``level``, where air gathers."""
    return level - y


def coordinates(grid: Grid) -> Field:
    """Compute the RAS+ position in mm of every voxel: (3, I, J, K) float32."""
    # A sum of three 1-D products: there is no matrix product per voxel.
    i, j, k = (np.arange(n, dtype=np.float32) for n in grid.shape)
    a = grid.affine.astype(np.float32)
    return np.stack(
        [
            (a[r, 0] * i)[:, None, None] + (a[r, 1] * j)[:, None] + a[r, 2] * k + a[r, 3]
            for r in range(3)
        ]
    )


def rotation(about_x: float, about_y: float, about_z: float) -> NDArray[np.float64]:
    """Rotation matrix (3, 3) from angles in degrees, applied about x, then y, then z."""
    x, y, z = np.deg2rad([about_x, about_y, about_z])
    rx = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    ry = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    rz = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return np.asarray(rz @ ry @ rx)


def local(x: Field, y: Field, z: Field, centre: Point, turn: NDArray[Any]) -> list[Field]:
    """Coordinates relative to ``centre`` along the columns of ``turn``."""
    r = turn.T.astype(np.float32)
    dx, dy, dz = x - np.float32(centre[0]), y - np.float32(centre[1]), z - np.float32(centre[2])
    return [r[a, 0] * dx + r[a, 1] * dy + r[a, 2] * dz for a in range(3)]
