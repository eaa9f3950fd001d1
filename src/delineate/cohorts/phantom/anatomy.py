"""One synthetic abdomen, sampled on any grid: HU and labels of liver, kidneys and spleen among
structures that look similar.

Anatomy is defined in *reference millimetres*: x to the patient's right, y to the front, z to the
head (RAS+). The origin is in the middle of the abdominal cavity at the height of the kidneys. Each
patient stretches, rotates and bends that space. A body is painted from back to front
(fat, muscle, bone, lungs, bowel, vessels, organs). Each structure is an approximate signed distance
in mm, negative inside, so that its edge can be blurred and its label cut at zero. Intensities are
Hounsfield units. This module knows no file, and of the acquisition only the grid.

Shapes: fields are float32 (I, J, K) or a box of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.grid import Grid
from ...core.labels import Label, LabelSet
from .shapes import (
    Field,
    Point,
    Shape,
    both,
    coordinates,
    ellipsoid,
    ellipsoid_distance,
    in_front,
    local,
    rotation,
    rounded_box,
    smooth_max,
    smooth_min,
    tube,
    waves,
)

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = 1, 2, 3, 4
LABELS = LabelSet(
    (
        Label(LIVER, "liver", (213, 94, 0)),
        Label(RIGHT_KIDNEY, "right kidney", (86, 180, 233), side="right"),
        Label(LEFT_KIDNEY, "left kidney", (0, 158, 115), side="left"),
        Label(SPLEEN, "spleen", (204, 121, 167)),
    )
)

CAVITY_MM = (122.0, 80.0)  # half width and half depth of the reference cavity
AIR, LUNG, FAT, MUSCLE, WATER = -1000.0, -840.0, -98.0, 56.0, 8.0


@dataclass(frozen=True)
class Phase:
    """Mean HU of the enhanced tissues at one time after the injection of contrast agent."""

    liver: float
    spleen: float
    cortex: float
    medulla: float
    pelvis: float
    aorta: float
    vein: float


# "weak": little agent. Scans without any agent are not made: learning them needs many patients.
PHASES = {
    "portal": Phase(112, 122, 185, 165, 60, 150, 155),
    "arterial": Phase(74, 118, 195, 105, 15, 290, 95),
    "late": Phase(96, 98, 150, 150, 330, 115, 118),
    "weak": Phase(74, 70, 96, 88, 60, 74, 72),
}
PHASE_ODDS = (0.5, 0.2, 0.2, 0.1)


class Patient:
    """The parameters of one patient: all properties of the body that do not depend on the scan.

    Args:
        rng: drawn from in a fixed order; the same generator state gives the same patient.
    """

    def __init__(self, rng: np.random.Generator):
        self.fat_mm = float(rng.uniform(7, 26))  # under the skin, at the flank
        self.stretch = np.array(
            [rng.uniform(0.88, 1.10), rng.uniform(0.88, 1.14), rng.uniform(0.86, 1.08)]
        )
        self.tilt_deg = rng.normal(0, (1.5, 2.0, 3.0)).clip(-6, 6)  # about x, y, z
        self.offset_mm = rng.uniform((-16, -14, -6), (16, 14, 6))  # of the body in the scanner
        self.phase = PHASES[str(rng.choice(list(PHASES), p=PHASE_ODDS))]
        # 12 % of the livers are fatty; 35 % of the spleens are nearly as bright as the liver.
        self.liver_hu = self.phase.liver + rng.normal(0, 7) - 25 * (rng.random() < 0.12)
        self.spleen_hu = (
            self.liver_hu + rng.normal(0, 4)
            if rng.random() < 0.35
            else self.phase.spleen + rng.normal(0, 6)
        )
        self.seed = int(rng.integers(2**31))

    @property
    def half_width_mm(self) -> float:
        """Distance from the midline to the skin at the flank."""
        return float(CAVITY_MM[0] * self.stretch[0] + self.fat_mm + 11)

    @property
    def half_depth_mm(self) -> float:
        """Distance from the middle of the cavity to the skin at the back or front."""
        return float(CAVITY_MM[1] * self.stretch[1] + 0.65 * self.fat_mm + 11)


def scene(patient: Patient, grid: Grid) -> tuple[Field, NDArray[np.uint8]]:
    """Sample the patient on ``grid`` without noise.

    Args:
        patient: the body.
        grid: in the scanner's RAS+ mm, with the origin in the middle of the gantry at the height of
            the kidneys.

    Returns:
        HU float32 (I, J, K) and label values uint8 (I, J, K).
    """
    canvas = Canvas(patient, grid)
    rng = np.random.default_rng(patient.seed)
    # The order matters twice: later structures cover earlier ones, and all share one random stream.
    _body(canvas, patient)
    _skeleton(canvas, rng)
    _chest(canvas, rng)
    _bowel(canvas, rng, patient)
    _vessels(canvas, patient, rng)
    _spleen(canvas, patient, rng)
    _liver(canvas, patient, rng)
    for side in (1, -1):
        _kidney(canvas, patient, side, rng)
    return canvas.hu, canvas.label


# ---- the canvas ----


class Canvas:
    """HU and labels under construction on a grid, with the reference coordinates of every voxel."""

    def __init__(self, patient: Patient, grid: Grid):
        self.shape = grid.shape
        self.spacing_mm = np.array(grid.spacing_mm)
        # Width over which an edge is blurred.
        self.edge_mm = float(0.5 * (self.spacing_mm[:2].mean() + 2.0))
        rng = np.random.default_rng([patient.seed, 1])
        # Scanner coordinates to body coordinates: rotate and shift, then bend by smooth random
        # fields.
        turn = rotation(*patient.tilt_deg)
        scanner = coordinates(grid)
        body = np.tensordot(
            turn.T.astype(np.float32),
            scanner - patient.offset_mm.astype(np.float32)[:, None, None, None],
            axes=1,
        )
        for axis, (long_mm, short_mm) in enumerate(((7.0, 1.3), (6.0, 1.3), (6.0, 1.0))):
            body[axis] += waves(grid, rng, 5, (140, 320), long_mm) + waves(
                grid, rng, 6, (35, 80), short_mm
            )
        # Divide by the stretch to get reference millimetres.
        self.x, self.y, self.z = (body[a] / np.float32(patient.stretch[a]) for a in range(3))
        # The table belongs to the scanner: it is neither rotated nor bent.
        self.table_y = scanner[1] - float(patient.offset_mm[1]), scanner[0]
        self.texture = waves(grid, rng, 6, (15, 45), 1.0)
        self._grid, self._turn, self._patient = grid, turn, patient
        # Voxels per reference mm, for the boxes around structures.
        self._steps = np.abs(np.linalg.inv(grid.affine[:3, :3]) @ turn @ np.diag(patient.stretch))
        self.hu: Field = np.full(grid.shape, AIR, np.float32)
        self.label: NDArray[np.uint8] = np.zeros(grid.shape, np.uint8)

    def paint(
        self,
        shape: Shape,
        hu: float | Field,
        label: int = 0,
        *,
        centre: Point | None = None,
        reach_mm: float | Point = 0,
        texture_hu: float = 0,
        only: int | None = None,
    ) -> None:
        """Blend ``hu`` over everything inside ``shape`` and give those voxels ``label``.

        Args:
            shape: signed distance in reference mm.
            hu: one value, or a field.
            label: value inside; 0 removes earlier labels.
            centre, reach_mm: centre and half sides of a box that contains the whole shape; nothing
                is computed outside.
            texture_hu: amplitude of a fine variation.
            only: paint only inside voxels of this label, and keep their label.
        """
        box = self._box(centre, reach_mm) if centre is not None else (slice(None),) * 3
        x, y, z = self.x[box], self.y[box], self.z[box]
        if x.size == 0:
            return
        distance = shape(x, y, z)
        # Partial volume: the fraction of a voxel that is inside falls linearly across the edge.
        cover = np.clip(0.5 - distance / self.edge_mm, 0, 1)
        value = hu + texture_hu * self.texture[box] if texture_hu else hu
        if only is None:
            self.label[box][distance < 0] = label
        else:
            cover = cover * (self.label[box] == only)
        self.hu[box] += cover * (value - self.hu[box])

    def _box(self, centre: Point, reach_mm: float | Point) -> tuple[slice, slice, slice]:
        """Compute the index ranges of a box given in reference mm."""
        middle = self._grid.to_index(
            self._turn @ (np.asarray(centre) * self._patient.stretch) + self._patient.offset_mm
        )
        # The bend moves a point by less than 18 mm, so the box grows by this much.
        reach = (
            self._steps @ np.broadcast_to(np.asarray(reach_mm, float), 3) + 18.0 / self.spacing_mm
        )
        low = np.clip(np.floor(middle - reach), 0, self.shape).astype(int)
        high = np.clip(np.ceil(middle + reach) + 1, 0, self.shape).astype(int)
        return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


# ---- the body, from back to front ----


def _body(canvas: Canvas, patient: Patient) -> None:
    """Paint table, skin, fat, muscle and the fat of the cavity."""
    # The table is a curved plate: a foam core within a thin shell.
    below, across = canvas.table_y
    top = -patient.half_depth_mm - 9 + across**2 * 0.0006
    canvas.paint(lambda x, y, z: np.abs(below - top + 14) - 13, -860.0)
    canvas.paint(lambda x, y, z: np.abs(np.abs(below - top + 14) - 12) - 1.6, 20.0)
    # Skin, subcutaneous fat and the muscular wall, from the outside in.
    half_x, half_y = (
        patient.half_width_mm / float(patient.stretch[0]),
        patient.half_depth_mm / float(patient.stretch[1]),
    )
    canvas.paint(lambda x, y, z: rounded_box(x, y, half_x, half_y, 0.3), 20.0)
    canvas.paint(
        lambda x, y, z: rounded_box(x, y, half_x - 2.5, half_y - 2.5, 0.3), FAT, texture_hu=6
    )
    canvas.paint(
        lambda x, y, z: rounded_box(x, y, CAVITY_MM[0] + 10, CAVITY_MM[1] + 8), MUSCLE, texture_hu=9
    )
    # A thin layer of fat between the muscle layers, then the cavity and its muscles at the back.
    canvas.paint(lambda x, y, z: np.abs(cavity(x, y, z) - 5) - 0.7, FAT / 3)
    canvas.paint(cavity, FAT, texture_hu=10)
    for side in (1, -1):
        canvas.paint(ellipsoid((side * 30, -78, 0), (27, 17, 1e4)), MUSCLE, texture_hu=14)
        canvas.paint(partial(_psoas, side=side), MUSCLE + 4, texture_hu=6)


def _psoas(x: Field, y: Field, z: Field, side: int) -> Field:
    """Distance to the psoas, which grows downwards from the first lumbar vertebra."""
    size = np.clip((38 - z) / 90, 0.05, 1.2)
    return np.asarray(np.hypot((x - side * (27 + 9 * size)) / 0.9, (y + 46) / 1.2) - 17 * size)


def _skeleton(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint vertebrae with discs, canal and processes, and the ribs in the wall."""
    start, height = float(rng.uniform(0, 34)), float(rng.uniform(33, 37))
    cancellous = float(rng.uniform(130, 230))

    def level(z: Field) -> Field:
        # Distance in z from the middle of the nearest vertebra.
        return np.asarray(np.abs(np.mod(z + start, height) - height / 2))

    def column(x: Field, y: Field) -> Field:
        return ellipsoid_distance((x, y + 52, 0 * x), (24, 18, 1))

    # Discs first as a continuous column; cortical bone and cancellous bone interrupt it.
    box: dict[str, Any] = {"centre": (0, -70, 0), "reach_mm": (44, 44, 400)}
    canvas.paint(lambda x, y, z: column(x, y), 85.0, **box)
    canvas.paint(lambda x, y, z: np.maximum(column(x, y), level(z) - height * 0.38), 430.0, **box)
    canvas.paint(
        lambda x, y, z: np.maximum(column(x, y) + 3.0, level(z) - height * 0.38 + 2),
        cancellous,
        texture_hu=25,
        **box,
    )
    # Vertebral arch, spinous process, transverse processes, and the canal through them.
    arch = ellipsoid((0, -79, 0), (19, 13, 1e4))
    canvas.paint(lambda x, y, z: np.maximum(arch(x, y, z), level(z) - height * 0.30), 330.0, **box)
    canvas.paint(
        lambda x, y, z: np.maximum(
            np.abs(x) - 3.2, np.maximum(np.abs(y + 94) - 14, level(z) - height * 0.25)
        ),
        300.0,
        **box,
    )
    canvas.paint(
        lambda x, y, z: np.maximum(
            np.abs(y + 74) - 3, np.maximum(np.abs(x) - 40, level(z) - height * 0.12)
        ),
        300.0,
        **box,
    )
    canvas.paint(ellipsoid((0, -76, 0), (9.5, 8, 1e4)), 30.0, **box)
    # Ribs are oblique stripes in the wall.
    pitch, shift = float(rng.uniform(24, 29)), float(rng.uniform(0, 25))

    def rib(x: Field, y: Field, z: Field) -> Field:
        angle = np.arctan2(np.abs(x), -y) / np.float32(np.pi)  # 0 at the back, 1 in front
        across = np.abs(np.mod(z + 95 * angle + shift, pitch) - pitch / 2) - 6.5
        # They exist above a line that rises to the front, and not in the front fifth of the wall.
        extent = np.maximum((70 * angle - 18 - z) * 0.5, (angle - 0.8) * 300)
        return np.asarray(
            np.maximum(np.maximum(np.abs(cavity(x, y, z) - 5) - 4.5, across * 0.8), extent)
        )

    canvas.paint(rib, 360.0)


def cavity(x: Field, y: Field, z: Field) -> Field:
    """Distance to the inside of the abdominal wall; the same at every height."""
    return rounded_box(x, y, *CAVITY_MM)


def diaphragm(x: Field, y: Field, z: Field) -> Field:
    """Height in mm of the two domes at a point; the right dome is higher."""
    right = 114 - 62 * (((x - 52) / 92) ** 2 + ((y - 12) / 88) ** 2)
    left = 103 - 62 * (((x + 54) / 84) ** 2 + ((y - 8) / 86) ** 2)
    return np.asarray(-smooth_min(-right, -left, 14.0))


def _chest(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint the lungs with their vessels above the diaphragm, and the heart between them."""

    def below(x: Field, y: Field, z: Field) -> Field:
        return (diaphragm(x, y, z) - z) * np.float32(0.7)

    canvas.paint(
        lambda x, y, z: np.maximum(
            np.maximum(below(x, y, z), cavity(x, y, z) + 1), 20 - np.hypot(x, (y + 48) * 0.9)
        ),
        LUNG,
        texture_hu=30,
    )
    for _ in range(18):
        x0, y0 = rng.uniform(-95, 95), rng.uniform(-60, 60)
        vessel = tube(
            x0,
            y0,
            float(rng.uniform(1.4, 3.2)),
            4,
            float(rng.uniform(0, 6)),
            lean=(-x0 / 260, -y0 / 300),
        )
        canvas.paint(
            both(vessel, lambda x, y, z: np.maximum(below(x, y, z), cavity(x, y, z)) + 4),
            -60.0,
            centre=(x0 * 0.6, y0 * 0.7, 110),
            reach_mm=(42, 42, 75),
        )
    # The heart with a rim of fat.
    heart = ellipsoid((-18, 26, 138), (58, 44, 40))
    canvas.paint(lambda x, y, z: np.maximum(heart(x, y, z), below(x, y, z) + 1), FAT)
    canvas.paint(
        lambda x, y, z: np.maximum(heart(x, y, z) + 5, below(x, y, z) + 2), 95.0, texture_hu=8
    )


def _bowel(canvas: Canvas, rng: np.random.Generator, patient: Patient) -> None:
    """Paint stomach, colon, small bowel and pancreas: several of them as bright as an organ, some
    with air.
    """
    oral = float(rng.choice([15.0, 40.0, 110.0, 240.0], p=[0.4, 0.25, 0.2, 0.15]))  # HU of drink
    bright = max(patient.liver_hu, patient.spleen_hu)
    # Small bowel: loops of random place, size and direction, many of them as bright as an organ.
    for _ in range(36):
        centre = rng.uniform((-82, -12, -115), (82, 60, 24))
        radii = rng.uniform((12, 11, 11), (34, 17, 17))
        wall = float(rng.choice([55.0, bright * 0.8, bright]))
        filling = float(rng.choice([WATER, oral, 60.0, bright, FAT / 2]))
        _loop(
            canvas,
            centre,
            radii,
            rotation(*rng.uniform(-90, 90, 3)),
            wall,
            filling,
            air=rng.random() < 0.3,
        )
    _colon(canvas, rng)
    # Stomach.
    centre = np.array([-50, 24, 62]) + rng.normal(0, (5, 4, 5))
    _loop(
        canvas,
        centre,
        rng.uniform((34, 30, 38), (48, 42, 52)),
        rotation(0, 25, -25),
        bright * 0.75,
        oral,
        air=True,
    )
    # Pancreas, then the duodenum.
    canvas.paint(
        ellipsoid((-22, 6, 22), (52, 11, 12), rotation(0, 18, 8)),
        bright * 0.85,
        centre=(-22, 6, 22),
        reach_mm=54,
        texture_hu=14,
    )
    _loop(canvas, (34, 2, 0), (13, 13, 34), np.eye(3), 60.0, oral, air=False)


def _colon(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint ascending and descending colon: wall, content, and air in front."""
    for x0, y0, top in ((92.0, 6.0, -34.0), (-98.0, -14.0, 22.0)):
        gut = tube(
            x0 + float(rng.normal(0, 4)),
            y0 + float(rng.normal(0, 6)),
            float(rng.uniform(17, 22)),
            5,
            float(rng.uniform(0, 6)),
            bulge=0.12,
        )

        def short(x: Field, y: Field, z: Field, wall: Shape = gut, top: float = top) -> Field:
            return smooth_max(np.maximum(wall(x, y, z), cavity(x, y, z) + 2), z - top, 14.0)

        box: dict[str, Any] = {"centre": (x0, y0, top - 100), "reach_mm": (42, 42, 115)}
        canvas.paint(short, 60.0, **box)
        canvas.paint(
            both(short, short, 3), float(rng.choice([-120.0, 25.0, 70.0])), texture_hu=60, **box
        )
        canvas.paint(both(short, partial(in_front, level=y0 + 2), 4), -900.0, **box)


def _loop(
    canvas: Canvas,
    centre: Point,
    radii: Point,
    turn: NDArray[Any],
    wall: float,
    filling: float,
    air: bool,
) -> None:
    """Paint one closed segment of bowel; air rises to the front, as the patient lies on the
    back.
    """
    outer = ellipsoid(centre, radii, turn)
    ball: dict[str, Any] = {"centre": centre, "reach_mm": float(max(radii))}
    canvas.paint(outer, wall, **ball)
    canvas.paint(lambda x, y, z: outer(x, y, z) + 3.0, filling, texture_hu=4, **ball)
    if air:
        level = float(centre[1] + 0.25 * min(radii))
        canvas.paint(lambda x, y, z: np.maximum(outer(x, y, z) + 3.0, level - y), -940.0, **ball)


def _vessels(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint the aorta left of the midline, the inferior vena cava right of it, and veins of
    kidneys, gut and liver.
    """
    aorta, vein = (
        patient.phase.aorta + float(rng.normal(0, 10)),
        patient.phase.vein + float(rng.normal(0, 8)),
    )
    canvas.paint(
        tube(-9, -24, float(rng.uniform(8.5, 11.5)), 2, float(rng.uniform(0, 6))),
        aorta,
        centre=(-9, -24, 0),
        reach_mm=(15, 15, 400),
    )
    canvas.paint(
        tube(20, -22, float(rng.uniform(9, 13)), 2, float(rng.uniform(0, 6)), bulge=0.08),
        vein,
        centre=(20, -22, 0),
        reach_mm=(18, 18, 400),
    )
    # Renal veins, mesenteric vein and portal vein.
    for side in (1, -1):
        canvas.paint(
            ellipsoid((side * 26, -28, 2), (26, 4, 4.5)),
            vein,
            centre=(side * 26, -28, 2),
            reach_mm=27,
        )
    canvas.paint(ellipsoid((-4, 0, -20), (6, 6, 55)), vein, centre=(-4, 0, -20), reach_mm=56)
    canvas.paint(
        ellipsoid((8, -4, 38), (6.5, 7, 26), rotation(0, 45, 0)),
        vein,
        centre=(8, -4, 38),
        reach_mm=27,
    )


def _spleen(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint the spleen, a crescent under the left ribs: an ellipsoid within the wall, less the bed
    of the stomach.
    """
    grow = float(rng.uniform(0.78, 1.22))
    centre = np.array([-90, -26, 47]) + rng.normal(0, (3, 7, 8))
    turn = rotation(float(rng.normal(18, 8)), 0, float(rng.normal(0, 8)))
    outer = ellipsoid(centre, (44 * grow, 52 * grow, 47 * grow), turn)
    bed = ellipsoid(centre + np.array([46 - 7 * grow, 24, -2]), (41, 43, 78))

    # Inside the wall and below the diaphragm, minus the bed.
    def spleen(x: Field, y: Field, z: Field) -> Field:
        inside = smooth_max(
            np.maximum(cavity(x, y, z) + 3.5, (z - diaphragm(x, y, z)) * 0.7 + 4),
            outer(x, y, z),
            6.0,
        )
        return smooth_max(inside, -bed(x, y, z), 7.0)

    canvas.paint(
        spleen,
        patient.spleen_hu,
        SPLEEN,
        centre=centre,
        reach_mm=56 * grow,
        texture_hu=4 + 14 * (patient.phase.aorta > 220),
    )


def _liver(canvas: Canvas, patient: Patient, rng: np.random.Generator) -> None:
    """Paint the liver: a wedge that fills the right half below the dome and tapers across the
    midline; with vessels, lesions and gallbladder.
    """
    tip, left = float(rng.uniform(-60, -18)), float(rng.uniform(46, 92))
    right_lobe = ellipsoid((70, float(rng.normal(0, 4)), 38), (float(rng.uniform(58, 68)), 82, 88))
    left_lobe = ellipsoid(
        (38 - left / 2, 44, float(rng.uniform(56, 70))),
        (28 + left * 0.6, 31, float(rng.uniform(28, 40))),
        rotation(0, -12, 8),
    )

    def liver(x: Field, y: Field, z: Field) -> Field:
        d = smooth_min(right_lobe(x, y, z), left_lobe(x, y, z), 16.0)
        # The lower surface descends to the right.
        d = smooth_max(d, (tip + 58 - 0.62 * x - z) * 0.8, 14.0)
        d = smooth_max(d, 30 - np.hypot(x - 4, y + 38), 8.0)  # clear of spine and great vessels
        return np.asarray(
            np.maximum(d, np.maximum(cavity(x, y, z) + 3, (z - diaphragm(x, y, z)) * 0.7 + 4))
        )

    box: dict[str, Any] = {"centre": (28, 0, 40), "reach_mm": (108, 86, 88)}
    # A layer of fat separates the liver from its neighbours.
    canvas.paint(lambda x, y, z: liver(x, y, z) - 2.5, FAT * 0.8, **box)
    canvas.paint(liver, patient.liver_hu, LIVER, texture_hu=4, **box)
    # Veins run from the centre to all parts; they are part of the organ.
    vein = patient.liver_hu + 0.55 * (patient.phase.vein - patient.liver_hu) + 8
    for _ in range(7):
        start, end = (
            np.array([24, -8, 55.0]) + rng.normal(0, 8, 3),
            rng.uniform((30, -50, 0), (108, 50, 95)),
        )
        middle, axis = (start + end) / 2, end - start
        length = float(np.linalg.norm(axis))
        canvas.paint(
            ellipsoid(middle, (4.2, 4.2, length / 2), _towards(axis)),
            vein,
            centre=middle,
            reach_mm=length / 2,
            only=LIVER,
        )
    # Lesions are labelled as liver.
    for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.5, 0.25, 0.15, 0.1]))):
        centre, radius = rng.uniform((40, -50, 5), (105, 40, 80)), float(rng.uniform(6, 17))
        canvas.paint(
            ellipsoid(centre, (radius, radius, radius * 0.9)),
            float(rng.choice([12.0, patient.liver_hu - 38])),
            centre=centre,
            reach_mm=radius,
            only=LIVER,
        )
    # The gallbladder below the liver.
    centre = np.array([44, 40, tip + 42]) + rng.normal(0, 4, 3)
    canvas.paint(
        ellipsoid(centre, (13, 14, 25), rotation(-30, 0, 0)), WATER + 4, centre=centre, reach_mm=26
    )


def _towards(axis: NDArray[Any]) -> NDArray[np.float64]:
    """Make a rotation (3, 3) whose third column is the direction of ``axis``."""
    w = axis / np.linalg.norm(axis)
    u = np.cross(w, (0.3, 0.9, 0.1))
    u /= np.linalg.norm(u)
    return np.stack([u, np.cross(w, u), w], axis=1)


def _kidney(canvas: Canvas, patient: Patient, side: int, rng: np.random.Generator) -> None:
    """Paint a kidney next to the spine (``side`` 1 right, -1 left; the right one is lower): cortex,
    pyramids, sinus and pelvis.
    """
    phase, grow = patient.phase, float(rng.uniform(0.86, 1.14))
    centre = np.array([side * 59, -40, -10 if side > 0 else 6]) + rng.normal(0, (3, 3, 6))
    radii = np.array([27, 23, 50]) * grow * rng.uniform(0.93, 1.07, 3)
    turn = rotation(
        float(rng.normal(8, 4)), -side * float(rng.normal(13, 4)), side * float(rng.normal(28, 7))
    )
    ball: dict[str, Any] = {"centre": centre, "reach_mm": float(radii.max()) + 8}
    cortex = phase.cortex + float(rng.normal(0, 0.05 * phase.cortex))
    folds = float(rng.uniform(0, 6))

    # An ellipsoid less a smaller one at the hilum.
    def bean(x: Field, y: Field, z: Field) -> Field:
        u, v, w = local(x, y, z, centre, turn)
        hilum = ellipsoid_distance((u + side * 25 * grow, v, w), (16 * grow, 9, 17 * grow))
        return smooth_max(ellipsoid_distance((u, v, w), radii), -hilum, 6.0)

    def pyramids(x: Field, y: Field, z: Field) -> Field:
        u, v, w = local(x, y, z, centre, turn)
        between = 2.6 * np.cos(w / 5.5 + folds) * np.cos(2 * np.arctan2(v, u) + folds)
        return np.asarray(bean(x, y, z) + 7.5 + between)

    def pelvis(x: Field, y: Field, z: Field) -> Field:
        u, v, w = local(x, y, z, centre, turn)
        return ellipsoid_distance((u + side * 7, v, w), (9 * grow, 6, 19 * grow))

    # Perirenal fat first, then from the outside in.
    wrap = float(rng.uniform(1, 7))
    canvas.paint(lambda x, y, z: bean(x, y, z) - wrap, FAT, **ball)
    value = RIGHT_KIDNEY if side > 0 else LEFT_KIDNEY
    canvas.paint(bean, cortex, value, **ball)
    canvas.paint(pyramids, cortex + (phase.medulla - phase.cortex), **ball, only=value)
    canvas.paint(pelvis, phase.pelvis, **ball, only=value)
    # Some have a cyst. It lies within the capsule, so it is labelled as kidney.
    if rng.random() < 0.2:
        at = centre + turn @ (radii * (0.6 * side, 0.2, float(rng.uniform(-0.5, 0.5))))
        canvas.paint(ellipsoid(at, (9, 9, 9)), WATER, centre=at, reach_mm=9, only=value)
