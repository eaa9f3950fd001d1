"""What planning needs to know of a cohort: sizes, spacings, intensities inside the structures,
class frequencies.

One case is read by ``examine`` (importable, so that it can run in a process of its own);
``Fingerprint`` holds them all. Axes are R, A, S.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cohorts.reading import read_image, read_label
from ..core.manifest import Case, Manifest
from ..core.volume import BODY_HU, background_of

Triple = tuple[int, int, int]
SAMPLE = 4000  # intensities kept inside the labels of a case and channel


@dataclass(frozen=True)
class CaseFingerprint:
    """What planning needs of one case; axes are R, A, S."""

    shape: Triple
    spacing_mm: tuple[float, float, float]
    body_shape: Triple  # of the box of non-zero (or, in CT, dense) voxels
    zero_share: float  # share of voxels that are background, constant outside the subject
    looks_like_hu: bool
    modality: str
    inside: tuple[tuple[float, ...], ...]  # intensities inside the labels, a channel each
    voxels: dict[int, int]  # label value -> count, background (0) over the whole scan
    moments: tuple[
        tuple[float, float], ...
    ] = ()  # mean and standard deviation over the whole scan, a channel each


@dataclass(frozen=True)
class Fingerprint:
    """The cohort: medians and ranges that the rules read."""

    cases: tuple[CaseFingerprint, ...]
    channels: tuple[str, ...]

    def median_spacing(self) -> np.ndarray[Any, Any]:
        return np.median([c.spacing_mm for c in self.cases], axis=0)

    @property
    def is_ct(self) -> bool:
        known = [c.modality for c in self.cases if c.modality]
        return all(m == "CT" for m in known) if known else all(c.looks_like_hu for c in self.cases)

    @property
    def zero_share(self) -> float:
        return float(np.median([c.zero_share for c in self.cases]))

    def voxels(self, value: int) -> int:
        """How many voxels of a label value all cases hold together."""
        return sum(c.voxels.get(value, 0) for c in self.cases)

    def moments(self, channel: int) -> tuple[float, float]:
        """Mean and standard deviation of a channel over all voxels of all cases."""
        sizes = np.array([float(np.prod(c.shape)) for c in self.cases])
        means, stds = np.array([c.moments[channel] for c in self.cases]).T
        mean = float((sizes * means).sum() / sizes.sum())
        return mean, float(np.sqrt((sizes * (stds**2 + (means - mean) ** 2)).sum() / sizes.sum()))

    def to_json(self) -> dict[str, Any]:
        """A summary for the run's folder."""
        shapes, spacings = (
            np.array([c.shape for c in self.cases]),
            np.array([c.spacing_mm for c in self.cases]),
        )
        return {
            "cases": len(self.cases),
            "channels": list(self.channels),
            "is_ct": self.is_ct,
            "zero_share": round(self.zero_share, 3),
            "shape": {
                "min": shapes.min(0).tolist(),
                "median": np.median(shapes, 0).tolist(),
                "max": shapes.max(0).tolist(),
            },
            "spacing_mm": {
                "min": spacings.min(0).tolist(),
                "median": np.median(spacings, 0).tolist(),
                "max": spacings.max(0).tolist(),
            },
        }


def examine(case: Case, manifest: Manifest) -> CaseFingerprint:
    """Read one case with truth.

    Raises:
        DelineateError: it cannot be read, or image and truth do not fit.
    """
    image = read_image(case, manifest)
    label = read_label(case, manifest, image.grid)
    values, rng = image.channels_array, np.random.default_rng(0)
    flat = label.array.ravel(order="K") if label.array.flags.forc else label.array.ravel()
    counts = np.bincount(flat)
    where = np.flatnonzero(label.array.ravel())
    picked = rng.choice(where, min(SAMPLE, len(where)), replace=False) if len(where) else where
    inside = tuple(tuple(float(v) for v in channel.ravel()[picked]) for channel in values)
    grid, axes = image.grid.reorient("RAS")
    first = axes.apply(values[0])
    unit_hu = image.unit == "HU" or image.meta.get("modality") == "CT"
    hu_like = unit_hu or (
        first.size > 0 and float(first.min()) <= -900 and float(first.max()) > 200
    )
    outside = [channel == background_of(channel) for channel in axes.apply(values)]
    body = first > BODY_HU if hu_like else ~np.all(outside, axis=0)
    box = tuple(_span(body, axis) for axis in range(3))
    return CaseFingerprint(
        grid.shape,
        grid.spacing_mm,
        (box[0], box[1], box[2]),
        float(outside[0].mean()),
        hu_like,
        str(image.meta.get("modality") or manifest.modality),
        inside,
        {int(v): int(n) for v, n in enumerate(counts) if n},
        tuple(
            (float(channel.mean(dtype=np.float64)), float(channel.std(dtype=np.float64)))
            for channel in values
        ),
    )


def _span(mask: np.ndarray[Any, Any], axis: int) -> int:
    hit = np.flatnonzero(
        mask.mean(axis=tuple(a for a in range(3) if a != axis), dtype=np.float32) > 0.01
    )
    return int(hit[-1] - hit[0] + 1) if len(hit) else int(mask.shape[axis])
