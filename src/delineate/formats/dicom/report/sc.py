"""An overview page as a Secondary Capture image (PS3.3 A.8.1), written by highdicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ....core import atomic
from ..derived import by_highdicom, new_series, prove, with_dates_of
from ..source import SourceSeries


def write_sc(
    picture: NDArray[np.uint8],
    series: SourceSeries,
    path: str | Path,
    *,
    algorithm_name: str,
    algorithm_version: str,
    series_description: str = "Overview",
) -> None:
    """Write one page in the study of a series.

    Args:
        picture: (rows, columns, 3) RGB. It must not identify the patient: the object states that
            it does not.
        series: of the study.
        path: of the new file.
        algorithm_name, algorithm_version: of the algorithm whose result it shows.
        series_description: of the new series.

    Raises:
        FormatError: the series lacks attributes that the page must repeat.
        OutputError: the file cannot be written.
    """
    import highdicom as hd
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian

    algorithm = algorithm_name, algorithm_version
    words = "SC", str(picture.shape), *algorithm, series_description
    uid = series.uid_with(*words, picture.tobytes())
    with by_highdicom("secondary capture", series):
        page: Any = hd.sc.SCImage.from_ref_dataset(
            series.headers[0],
            picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            patient_orientation=("L", "P"),
            transfer_syntax_uid=ExplicitVRLittleEndian,
            **new_series(series, "sc", uid, algorithm, series_description),
        )
    # It shows planes of several orientations.
    page.PatientOrientation = None
    page.Laterality = series.headers[0].get("Laterality", "")
    page.BurnedInAnnotation = "NO"
    with_dates_of(series.headers[0], page)
    with atomic.replacing(path) as temporary:
        page.save_as(temporary)
        prove(np.array_equal(pydicom.dcmread(temporary).pixel_array, picture), "pixels", path)
