"""Where voxels stand: shape and affine, and every change of them that loses nothing.

The affine maps voxel indices (i, j, k) to RAS+ millimetres at voxel centres (the NIfTI convention):
x grows towards the patient's right, y towards the front, z towards the head. Only ``formats`` knows
other conventions (DICOM's LPS). A 2-D image is a grid with k = 1.

An axis code says where an axis points *to*: "RAS" means i runs to the right, j to the front, k
upwards. Nothing here resamples; ``AxisMap`` only transposes and flips arrays (views, no copies).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import GeometryError

# (towards minus, towards plus) of the x, y, z axes in RAS+.
CODES = (
    ("L", "R"),
    ("P", "A"),
    ("I", "S"),
)
# an axis this much coarser than both others is the one along which slices were stacked
COARSER = 1.1
# largest |cosine| between two axes of an unsheared grid; rounding in headers is below
SHEAR_TOLERANCE = 1e-3
# two grids are the same where no corner of one is farther than this from the other's
GRID_TOLERANCE_MM = 0.1
# an axis whose spacing is more than this many times the finest is anisotropic: between such
# slices cubic interpolation rings, and one slice predicts little of the next
ANISOTROPY = 3.0


@dataclass(frozen=True, eq=False)
class Grid:
    """Shape and place of a block of voxels; frozen, valid once constructed.

    Args:
        shape: (I, J, K), each at least 1. An empty grid does not exist.
        affine: (4, 4) float64, voxel index to RAS+ mm at voxel centres; finite and invertible.
        allow_shear: only a reader that knows of a tilted gantry says so; otherwise shear is
            refused.

    Raises:
        GeometryError: the shape or affine is not one of a real grid.
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
        steps = np.linalg.norm(affine[:3, :3], axis=0)
        if (
            steps.min() <= 0
            or abs(np.linalg.det(affine[:3, :3] / np.maximum(steps, 1e-300))) < 1e-4
        ):
            raise GeometryError(
                "the affine cannot be inverted: an axis has no length, or two axes are parallel"
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

    # ---- what it is ----

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j, k in mm."""
        a, b, c = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(a), float(b), float(c)

    @property
    def slice_axis(self) -> int:
        """The axis along which slices are stacked: one at least 10 % coarser than both others, else
        the last (2).
        """
        order = np.argsort(self.spacing_mm)
        return (
            int(order[2]) if self.spacing_mm[order[2]] >= COARSER * self.spacing_mm[order[1]] else 2
        )

    @property
    def shear(self) -> float:
        """Largest |cosine| between two voxel axes; 0 for right angles."""
        unit = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(np.abs(unit.T @ unit - np.eye(3)).max())

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml (the determinant, so also right under shear)."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    @property
    def codes(self) -> str:
        """Nearest anatomical code of each voxel axis, such as "RAS" or "LPS"; always a permutation
        of the three.
        """
        return "".join(CODES[world][sign > 0] for world, sign in self._nearest_axes())

    @property
    def centre_mm(self) -> NDArray[np.float64]:
        """(3,) RAS+ mm of the middle of the block."""
        return self.to_mm((np.array(self.shape) - 1) / 2)

    def to_mm(self, index: Any) -> NDArray[np.float64]:
        """Indices (..., 3), fractional allowed, to RAS+ mm."""
        return np.asarray(np.asarray(index, float) @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, point_mm: Any) -> NDArray[np.float64]:
        """RAS+ mm (..., 3) to fractional indices."""
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
        """Largest distance between the two grids' corresponding corner voxels; infinite where
        shapes differ.
        """
        if self.shape != other.shape:
            return float("inf")
        return float(np.linalg.norm(self.corners_mm() - other.corners_mm(), axis=1).max())

    def matches(self, other: Grid, tolerance_mm: float = GRID_TOLERANCE_MM) -> bool:
        """Whether every voxel of both stands at the same place within ``tolerance_mm``."""
        return self.distance_mm(other) <= tolerance_mm

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Grid)
            and self.shape == other.shape
            and np.array_equal(self.affine, other.affine)
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    # ---- changes that lose nothing ----

    def reorient(self, codes: str) -> tuple[Grid, AxisMap]:
        """The same voxels in the axis order and directions nearest to ``codes``, and the map that
        moves arrays there.

        ``codes`` may also name this grid's own axes, such as "kji", which changes their order and
        no direction.

        Raises:
            GeometryError: ``codes`` is not a permutation of R/L, A/P, S/I or of i, j, k.
        """
        if sorted(codes) == ["i", "j", "k"]:
            return self._mapped(
                AxisMap(
                    ("ijk".index(codes[0]), "ijk".index(codes[1]), "ijk".index(codes[2])),
                    (False, False, False),
                )
            )
        names = ["".join(pair) for pair in CODES]
        wanted = [
            next((w for w, pair in enumerate(names) if code in pair), -1) for code in codes.upper()
        ]
        if sorted(wanted) != [0, 1, 2]:
            raise GeometryError(
                f"an orientation is three letters, one each of R/L, A/P and S/I, found {codes!r}"
            )
        axes = self._nearest_axes()
        order = tuple([world for world, _ in axes].index(w) for w in wanted)
        flips = tuple(
            CODES[w][1] != code if axes[o][1] > 0 else CODES[w][0] != code
            for w, code, o in zip(wanted, codes.upper(), order, strict=True)
        )
        return self._mapped(AxisMap((order[0], order[1], order[2]), (flips[0], flips[1], flips[2])))

    def _mapped(self, mapping: AxisMap) -> tuple[Grid, AxisMap]:
        """The grid of an array that ``mapping`` moved, and ``mapping``."""
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
        """The block from ``start`` up to (without) ``stop``; both may lie outside, which pads."""
        shape = tuple(int(b) - int(a) for a, b in zip(start, stop, strict=True))
        affine = self.affine.copy()
        affine[:3, 3] = self.to_mm(start)
        return Grid((shape[0], shape[1], shape[2]), affine, allow_shear=self.allow_shear)

    def respace(self, spacing_mm: Sequence[float]) -> Grid:
        """A grid over the same extent (outer faces of the voxels) at about ``spacing_mm``.

        The number of voxels is rounded and at least 1; the spacing is then adjusted so that the
        outer faces stay exactly where they were, so nothing shifts by half a voxel.
        """
        old = np.array(self.spacing_mm)
        extent = old * self.shape
        shape = np.maximum(1, np.rint(extent / np.array(spacing_mm, float))).astype(int)
        scale = extent / shape / old
        matrix = np.diag([*scale, 1.0])
        matrix[:3, 3] = (scale - 1) / 2
        return Grid(
            (int(shape[0]), int(shape[1]), int(shape[2])),
            self.affine @ matrix,
            allow_shear=self.allow_shear,
        )

    # ---- as data ----

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
        """For each voxel axis the world axis (0 x, 1 y, 2 z) it runs along most, and the
        direction's sign.

        The assignment that keeps the most of all three cosines, so that no world axis is taken
        twice even at 45 degrees.
        """
        unit = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        orders = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
        best = max(orders, key=lambda order: sum(abs(unit[w, a]) for a, w in enumerate(order)))
        return [(w, float(unit[w, a])) for a, w in enumerate(best)]


@dataclass(frozen=True)
class AxisMap:
    """A transposition and flips of the last three axes of an array; ``inverse()`` undoes it
    exactly.
    """

    order: tuple[int, int, int]  # new axis n is old axis order[n] ...
    flips: tuple[bool, bool, bool]  # ... run backwards where flips[n]

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """A view of ``array`` (..., I, J, K) with its last three axes moved; leading axes stay."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + o for o in self.order))
        return moved[
            (..., *(slice(None, None, -1) if flip else slice(None) for flip in self.flips))
        ]

    def inverse(self) -> AxisMap:
        """The map back."""
        order = [self.order.index(axis) for axis in range(3)]
        flips = [self.flips[o] for o in order]
        return AxisMap((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]))
