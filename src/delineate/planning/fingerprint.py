"""The properties of a cohort that planning uses: sizes, spacings, intensities inside the
structures, class frequencies.

``examine`` reads one case. It is importable, so that it can run in a separate process.
``Fingerprint`` holds the results of all cases. Axes are R, A, S.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..cohorts.reading import read_image, read_label
from ..core.labels import IGNORED
from ..core.manifest import Case, Manifest
from ..core.volume import BODY_HU, background_of
from ..preprocessing.shear import orthogonal

Triple = tuple[int, int, int]
SAMPLE = 4000  # intensities kept per case and channel, from voxels inside the labels


@dataclass(frozen=True)
class CaseFingerprint:
    """The properties of one case; axes are R, A, S."""

    shape: Triple
    spacing_mm: tuple[float, float, float]
    body_shape: Triple  # size of the box around the non-zero (in CT: dense) voxels
    zero_share: float  # fraction of voxels in the constant background outside the subject
    looks_like_hu: bool
    modality: str
    inside: tuple[tuple[float, ...], ...]  # intensities inside the labels, per channel
    # Label value -> count; background (0) is counted over the whole scan, ``IGNORED`` voxels apart.
    voxels: dict[int, int]
    moments: tuple[
        tuple[float, float], ...
    ] = ()  # mean and standard deviation over the whole scan, per channel
    extremes: tuple[float, float] | None = None  # of the first channel


@dataclass(frozen=True)
class Fingerprint:
    """The cohort: the cases and the medians and ranges that the rules use."""

    cases: tuple[CaseFingerprint, ...]
    channels: tuple[str, ...]

    def median_spacing(self) -> np.ndarray[Any, Any]:
        """(3,) median over the cases along R, A, S, in mm."""
        return np.median([c.spacing_mm for c in self.cases], axis=0)

    @property
    def is_ct(self) -> bool:
        """Whether all stated modalities are CT; if none is stated, whether all cases look like
        HU.
        """
        known = [c.modality for c in self.cases if c.modality]
        return all(m == "CT" for m in known) if known else all(c.looks_like_hu for c in self.cases)

    @property
    def is_8_bit(self) -> bool:
        """Whether all intensities of the first channel are in 0 to 255."""
        return all(
            c.extremes and 0 <= min(c.extremes) <= max(c.extremes) <= 255 for c in self.cases
        )

    @property
    def zero_share(self) -> float:
        """Median over the cases of the fraction of background voxels."""
        return float(np.median([c.zero_share for c in self.cases]))

    def voxels(self, value: int) -> int:
        """Number of voxels with a label value, summed over all cases."""
        return sum(c.voxels.get(value, 0) for c in self.cases)

    def moments(self, channel: int) -> tuple[float, float]:
        """Mean and standard deviation of a channel over all voxels of all cases."""
        sizes = np.array([float(np.prod(c.shape)) for c in self.cases])
        means, stds = np.array([c.moments[channel] for c in self.cases]).T
        mean = float((sizes * means).sum() / sizes.sum())
        # Pooled variance: within the cases plus between their means.
        return mean, float(np.sqrt((sizes * (stds**2 + (means - mean) ** 2)).sum() / sizes.sum()))

    def to_json(self) -> dict[str, Any]:
        """A summary for the run folder."""
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
    """Read one case with a reference segmentation.

    Raises:
        DelineateError: it cannot be read, or image and label do not have the same grid.
    """
    image = read_image(case, manifest)
    label = orthogonal(read_label(case, manifest, image.grid), labels=True)
    image = orthogonal(image)
    values, rng = image.channels_array, np.random.default_rng(0)
    # Count in memory order: this avoids a copy of a Fortran-ordered array.
    flat = label.array.ravel(order="K") if label.array.flags.forc else label.array.ravel()
    counts = np.bincount(flat)
    # Sample labelled voxels with a fixed seed, the same voxels in every channel.
    inside_labels = (label.array != 0) & (label.array != IGNORED)
    labelled = np.flatnonzero(inside_labels.ravel())
    picked = (
        rng.choice(labelled, min(SAMPLE, len(labelled)), replace=False)
        if len(labelled)
        else labelled
    )
    inside = tuple(tuple(float(v) for v in channel.ravel()[picked]) for channel in values)
    # From here on the array is in the axes R, A, S.
    grid, axes = image.grid.reorient("RAS")
    first = axes.apply(values[0])
    # A scan without unit and modality counts as HU if its range is that of CT.
    unit_hu = image.unit == "HU" or image.meta.get("modality") == "CT"
    hu_like = unit_hu or (
        first.size > 0 and float(first.min()) <= -900 and float(first.max()) > 200
    )
    # The body: dense voxels in CT, else voxels that are not background in at least one channel.
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
        (float(first.min()), float(first.max())) if first.size else None,
    )


def _span(mask: np.ndarray[Any, Any], axis: int) -> int:
    """Extent of the mask along ``axis`` in voxels; slices with at most 1 % of it set are left
    out.
    """
    # The fraction of each slice that is set; single bright voxels do not extend the box.
    hit = np.flatnonzero(
        mask.mean(axis=tuple(a for a in range(3) if a != axis), dtype=np.float32) > 0.01
    )
    return int(hit[-1] - hit[0] + 1) if len(hit) else int(mask.shape[axis])
