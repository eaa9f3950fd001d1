"""One phantom patient as scanned, in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ...core.volume import Volume
from . import dicom as phantom_dicom


@dataclass(frozen=True)
class PhantomScan:
    """One phantom patient as scanned.

    Args:
        patient: id.
        image: int16 HU (I, J, K) on a grid with codes "LPS" or close to it (columns to the left,
            rows to the back, slices upwards).
        label: uint8 on the same grid, values of ``LABELS``.
        unusual: how its DICOM series is stored: "", "misleading numbers", "turned", "upside down",
            "half steps", "numbered upwards".
        thickness_mm: the value of SliceThickness; it always differs from the gap.
        seed: of everything that is random when the scan is written.
        clean_hu: the noise-free body, float32 on the same grid, from which other modalities are
            computed.
    """

    patient: str
    image: Volume
    label: Volume
    unusual: str
    thickness_mm: float
    seed: int
    clean_hu: NDArray[np.float32] = field(repr=False)

    @property
    def storage(self) -> phantom_dicom.SeriesStyle:
        """How its DICOM series are stored."""
        return phantom_dicom.SeriesStyle(self.patient, self.unusual, self.thickness_mm, self.seed)
