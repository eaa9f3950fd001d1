"""Grid: shape and affine of a voxel array, and all changes of them that need no resampling.

The affine maps voxel indices (i, j, k) to RAS+ millimetres at voxel centres (the NIfTI convention):
x increases towards the patient's right, y towards the front, z towards the head. Only ``formats``
knows other conventions (DICOM's LPS). A 2-D image is a grid with k = 1.

An axis code says where an axis points *to*: "RAS" means that i runs to the right, j to the front
and k upwards. Nothing here resamples; ``AxisMap`` only transposes and flips arrays (views, no
copies).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import GeometryError

# (negative direction, positive direction) of the x, y, z axes in RAS+.
CODES = (
    ("L", "R"),
    ("P", "A"),
    ("I", "S"),
)
# The slice axis is coarser than both others by at least this factor.
COARSER = 1.1
# Largest |cosine| between two axes of an unsheared grid; rounding errors in headers are smaller.
SHEAR_TOLERANCE = 1e-3
ROUNDING_VOXELS = 1e-6  # of indices that a product of affines computes
# Distance of voxels and of the first voxel from the origin in mm: from electron microscopy to far
# more than a body. A damaged header has any number.
LEAST_SPACING_MM, MOST_SPACING_MM, MOST_DISTANCE_MM = 1e-7, 1e5, 1e8
# Two grids are the same if none of their corresponding corners are farther apart than this, or than
# half a voxel of a microscope.
GRID_TOLERANCE_MM = 0.1
# An axis is anisotropic if its spacing is more than this many times the finest. Across such slices
# cubic interpolation rings, and one slice predicts little of the next.
ANISOTROPY = 3.0


def rounded_mm(spacing: float) -> float:
    """A spacing with four decimals, or five digits if it is that of a microscope.

    >>> rounded_mm(0.70312), rounded_mm(0.000325123)
    (0.7031, 0.00032512)
    """
    return round(spacing, max(4, 4 - math.floor(math.log10(spacing))) if spacing < 0.01 else 4)


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape and position of a block of voxels; frozen, valid once constructed.

    Args:
        shape: (I, J, K), each at least 1; there is no empty grid.
        affine: (4, 4) float64, voxel index to RAS+ mm at voxel centres; finite and invertible.
        allow_shear: accept axes that are not at right angles. Only readers of files set it (a
            tilted gantry, the affine of a registration); otherwise shear is refused.

    Raises:
        GeometryError: the shape or the affine is not valid.

    >>> grid = Grid.from_spacing((4, 3, 2), (1.0, 2.0, 5.0))
    >>> grid.spacing_mm, grid.codes, round(grid.voxel_ml, 3), grid.slice_axis, grid.shear
    ((1.0, 2.0, 5.0), 'RAS', 0.01, 2, 0.0)
    >>> grid.to_mm((1, 2, 1)), grid.to_index((1, 4, 5)), grid.centre_mm
    (array([1., 4., 5.]), array([1., 2., 1.]), array([1.5, 2. , 2.5]))
    >>> grid.corners_mm().shape
    (8, 3)
    >>> grid.crop((1, 0, 0), (4, 3, 2)).shape, grid.respace((2, 2, 5)).shape
    ((3, 3, 2), (2, 3, 2))
    >>> turned, axes = grid.reorient("LPS")
    >>> turned.codes, axes.flips
    ('LPS', (True, True, False))
    >>> grid.distance_mm(turned) > 1, grid.matches(Grid.from_json(grid.to_json()))
    (True, True)
    >>> tilted = np.array([[1.0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
    >>> sheared = Grid((4, 4, 3), tilted, allow_shear=True)
    >>> sheared.is_sheared, sheared.orthogonal().shape, sheared.orthogonal().spacing_mm
    (True, (4, 10, 3), (1.0, 1.0, 5.0))
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]
    allow_shear: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(
                f"a grid has three axes of at least one voxel, found shape {self.shape}"
            )
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4):
            raise GeometryError(f"an affine is 4x4, found shape {affine.shape}")
        if not np.isfinite(affine).all():
            raise GeometryError("the affine has values that are not finite (NaN or infinite)")
        if not np.allclose(affine[3], (0, 0, 0, 1)):
            raise GeometryError(f"the last row of an affine is 0 0 0 1, found {affine[3].tolist()}")
        # The determinant of the unit axes is 0 if two are parallel, whatever the spacing.
        steps = np.linalg.norm(affine[:3, :3], axis=0)
        if (
            steps.min() <= 0
            or abs(np.linalg.det(affine[:3, :3] / np.maximum(steps, 1e-300))) < 1e-4
        ):
            raise GeometryError(
                "the affine cannot be inverted: an axis has no length, or two axes are parallel"
            )
        if (
            steps.min() < LEAST_SPACING_MM
            or steps.max() > MOST_SPACING_MM
            or np.abs(affine[:3, 3]).max() > MOST_DISTANCE_MM
        ):
            raise GeometryError(
                f"voxels of {' x '.join(f'{n:g}' for n in steps)} mm at "
                f"{', '.join(f'{n:g}' for n in affine[:3, 3])} mm; allowed: {LEAST_SPACING_MM:g} "
                f"to {MOST_SPACING_MM:g} mm, at most {MOST_DISTANCE_MM:g} mm from the origin"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)
        if not self.allow_shear and self.shear > SHEAR_TOLERANCE:
            raise GeometryError(
                f"the axes are not at right angles (largest cosine {self.shear:.4f}); sheared "
                "grids are refused"
            )

    @classmethod
    def from_spacing(cls, shape: Sequence[int], spacing_mm: Sequence[float]) -> Grid:
        """A grid with axes along R, A, S and its first voxel at the origin."""
        return cls((shape[0], shape[1], shape[2]), np.diag([*map(float, spacing_mm), 1.0]))

    # ---- properties and coordinates ----

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j, k in mm."""
        a, b, c = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(a), float(b), float(c)

    @property
    def slice_axis(self) -> int:
        """The axis along which slices are stacked: one that is at least 10 % coarser than both
        others, else the last (2).
        """
        # Axes from the finest to the coarsest.
        order = np.argsort(self.spacing_mm)
        return (
            int(order[2]) if self.spacing_mm[order[2]] >= COARSER * self.spacing_mm[order[1]] else 2
        )

    @property
    def shear(self) -> float:
        """Largest |cosine| between two voxel axes; 0 if all are at right angles."""
        unit = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(np.abs(unit.T @ unit - np.eye(3)).max())

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are not at right angles; rounding in headers does not count."""
        return self.shear > SHEAR_TOLERANCE

    @property
    def shear_deg(self) -> float:
        """Largest angle in degrees by which two voxel axes differ from a right angle.

        >>> round(Grid((4, 4, 4), np.eye(4)).shear_deg, 3)
        0.0
        """
        return float(np.degrees(np.arcsin(min(1.0, self.shear))))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml (by the determinant, so also correct under shear)."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def codes(self) -> str:
        """Nearest anatomical code of each voxel axis, such as "RAS" or "LPS"; always a permutation
        of the three directions.
        """
        return "".join(CODES[world][sign > 0] for world, sign in self._nearest_axes())

    @property
    def centre_mm(self) -> NDArray[np.float64]:
        """(3,) RAS+ mm of the centre of the block."""
        return self.to_mm((np.array(self.shape) - 1) / 2)

    def to_mm(self, index: Any) -> NDArray[np.float64]:
        """RAS+ mm (..., 3) of voxel indices (..., 3), which may be fractional."""
        return np.asarray(np.asarray(index, float) @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, point_mm: Any) -> NDArray[np.float64]:
        """Fractional voxel indices (..., 3) of points (..., 3) in RAS+ mm."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(np.asarray(point_mm, float) @ inverse[:3, :3].T + inverse[:3, 3])

    def corners_mm(self) -> NDArray[np.float64]:
        """(8, 3) RAS+ mm of the corner voxels' centres."""
        ends = (
            np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(3, 8).T
        )
        return self.to_mm(ends)

    # ---- comparison ----

    def distance_mm(self, other: Grid) -> float:
        """Largest distance between corresponding corner voxels of the two grids; infinite if the
        shapes differ.
        """
        if self.shape != other.shape:
            return float("inf")
        return float(np.linalg.norm(self.corners_mm() - other.corners_mm(), axis=1).max())

    @property
    def tolerance_mm(self) -> float:
        """Corresponding voxels of the same grid are not farther apart.

        >>> grid = Grid.from_spacing((4, 3, 2), (0.1, 0.1, 1.0))
        >>> grid.tolerance_mm
        0.05
        """
        return min(GRID_TOLERANCE_MM, min(self.spacing_mm) / 2)

    def matches(self, other: Grid, tolerance_mm: float | None = None) -> bool:
        """Whether corresponding voxels of both grids are within a tolerance, by default the grid's
        own.
        """
        allowed = self.tolerance_mm if tolerance_mm is None else tolerance_mm
        return self.distance_mm(other) <= allowed

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and self.shape == other.shape
            and np.array_equal(self.affine, other.affine)
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    # ---- changes without resampling ----

    def reorient(self, codes: str) -> tuple[Grid, AxisMap]:
        """The same voxels with axis order and directions nearest to ``codes``, and the map that
        moves arrays to them.

        ``codes`` may also name this grid's own axes, such as "kji". This changes their order, but
        no direction.

        Raises:
            GeometryError: ``codes`` is not a permutation of R/L, A/P, S/I or of i, j, k.
        """
        # The grid's own axes: only their order changes.
        if sorted(codes) == ["i", "j", "k"]:
            return self._mapped(
                AxisMap(
                    ("ijk".index(codes[0]), "ijk".index(codes[1]), "ijk".index(codes[2])),
                    (False, False, False),
                )
            )
        # Anatomical codes: the world axis (0 x, 1 y, 2 z) of each letter, -1 if unknown.
        names = ["".join(pair) for pair in CODES]
        targets = [
            next((w for w, pair in enumerate(names) if code in pair), -1) for code in codes.upper()
        ]
        if sorted(targets) != [0, 1, 2]:
            raise GeometryError(
                f"an orientation is three letters, one each of R/L, A/P and S/I, found {codes!r}"
            )
        # Which old axis becomes each new one, and whether it is reversed.
        axes = self._nearest_axes()
        order = tuple([world for world, _ in axes].index(w) for w in targets)
        flips = tuple(
            CODES[w][1] != code if axes[o][1] > 0 else CODES[w][0] != code
            for w, code, o in zip(targets, codes.upper(), order, strict=True)
        )
        return self._mapped(AxisMap((order[0], order[1], order[2]), (flips[0], flips[1], flips[2])))

    def _mapped(self, mapping: AxisMap) -> tuple[Grid, AxisMap]:
        """The grid of an array that ``mapping`` has moved, and ``mapping``."""
        # New voxel index to old voxel index, as an affine.
        matrix = np.zeros((4, 4))
        matrix[3, 3] = 1
        for new, (old, flip) in enumerate(zip(mapping.order, mapping.flips, strict=True)):
            matrix[old, new] = -1 if flip else 1
            matrix[old, 3] = self.shape[old] - 1 if flip else 0
        a, b, c = mapping.order
        return Grid(
            (self.shape[a], self.shape[b], self.shape[c]),
            self.affine @ matrix,
            allow_shear=self.allow_shear,
        ), mapping

    def crop(self, start: Sequence[int], stop: Sequence[int]) -> Grid:
        """The block from ``start`` up to (excluding) ``stop``; bounds outside the grid pad."""
        shape = tuple(int(b) - int(a) for a, b in zip(start, stop, strict=True))
        affine = self.affine.copy()
        affine[:3, 3] = self.to_mm(start)
        return Grid((shape[0], shape[1], shape[2]), affine, allow_shear=self.allow_shear)

    def respace(self, spacing_mm: Sequence[float]) -> Grid:
        """A grid over the same extent (to the outer faces of the voxels) at about ``spacing_mm``.

        The number of voxels is rounded and is at least 1. The spacing is then adjusted so that the
        outer faces keep their exact position; nothing shifts by half a voxel.
        """
        # Round the number of voxels, then derive the spacing from it.
        old = np.array(self.spacing_mm)
        extent = old * self.shape
        shape = np.maximum(1, np.rint(extent / np.array(spacing_mm, float))).astype(int)
        scale = extent / shape / old
        # Scale about the outer face, not about the centre of the first voxel.
        matrix = np.diag([*scale, 1.0])
        matrix[:3, 3] = (scale - 1) / 2
        return Grid(
            (int(shape[0]), int(shape[1]), int(shape[2])),
            self.affine @ matrix,
            allow_shear=self.allow_shear,
        )

    def orthogonal(self) -> Grid:
        """The grid at right angles on which a sheared scan is resampled; itself if the axes are at
        right angles.

        Its slices (across ``slice_axis``) are in the planes of this grid's slices, so resampling
        only moves voxels within their slice. It has the same spacing in the slices and the distance
        of the planes across them, the same volume of a voxel, and it contains the whole grid.
        """
        if not self.is_sheared:
            return self
        # Gram-Schmidt, the slice axis last: the first two axes span the planes of the slices.
        order = [axis for axis in range(3) if axis != self.slice_axis] + [self.slice_axis]
        directions, steps = np.linalg.qr(self.affine[:3, order])
        affine = self.affine.copy()
        affine[:3, order] = directions * np.diag(steps)
        flat = Grid(self.shape, affine)
        # The outer faces of this grid, as a box of whole voxels.
        faces = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in self.shape])).reshape(3, 8).T
        inside = flat.to_index(self.to_mm(faces)) + 0.5
        start = np.floor(inside.min(axis=0) + ROUNDING_VOXELS).astype(int)
        stop = np.ceil(inside.max(axis=0) - ROUNDING_VOXELS).astype(int)
        return flat.crop(start.tolist(), stop.tolist())

    # ---- JSON ----

    def to_json(self) -> dict[str, Any]:
        """Plain data that ``from_json`` turns into an equal grid."""
        return {
            "shape": list(self.shape),
            "affine": self.affine.tolist(),
            "allow_shear": self.allow_shear,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Grid:
        """The inverse of ``to_json``."""
        i, j, k = data["shape"]
        return cls(
            (i, j, k), np.array(data["affine"]), allow_shear=bool(data.get("allow_shear", False))
        )

    def _nearest_axes(self) -> list[tuple[int, float]]:
        """For each voxel axis, the nearest world axis (0 x, 1 y, 2 z) and the sign of the
        direction.

        The assignment with the largest sum of the three |cosines| is used, so that no world axis is
        assigned twice, even at 45 degrees.
        """
        # (world axis, voxel axis) cosines; all six assignments are compared.
        unit = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        orders = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        best = max(orders, key=lambda order: sum(abs(unit[w, a]) for a, w in enumerate(order)))
        return [(w, float(unit[w, a])) for a, w in enumerate(best)]


@dataclass(frozen=True)
class AxisMap:
    """A transposition and flips of the last three axes of an array; ``inverse()`` undoes it
    exactly.
    """

    order: tuple[int, int, int]  # new axis n is old axis order[n]
    flips: tuple[bool, bool, bool]  # new axis n runs backwards if flips[n]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of ``array`` (..., I, J, K) with its last three axes moved; leading axes stay."""
        # Transpose first: ``flips`` are in the order of the new axes.
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + o for o in self.order))
        return moved[
            (..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))
        ]

    def inverse(self) -> AxisMap:
        """The inverse map."""
        # The inverse permutation, with each flip at the axis that it comes from.
        order = [self.order.index(axis) for axis in range(3)]
        flips = [self.flips[o] for o in order]
        return AxisMap((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]))
