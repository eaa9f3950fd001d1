"""One process meets all damaged files of a format, as a batch does: each is refused or read right,
none leaves a file open, and a sound file is read right afterwards. What a file may cost is tested
in ``test_damaged_files``, where each has a process of its own, whose coverage is not measured.
"""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import psutil
import pytest
from benchmarks.faults.every import FAULTS
from benchmarks.faults.reading import documented, place_of, read_by_delineate, right

FORMS = (
    *("NIfTI", "NIfTI pair", "Analyze 7.5", "MetaImage", "NRRD", "NumPy", "MGH", "HDF5"),
    *("DICOM", "DICOM enhanced", "DICOM segmentation", "DICOM mosaic", "DICOM structure set"),
    *("TIFF", "PNG", "No regular file", "Lists of names", "Outlines", "Results"),
)
# Faults of size, whose cost is that of refusing them, and of codecs that may hold a process.
COSTLY = ("2.1 GB", "500 MB", "nested", "JPEG", "3 MB")


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_goes_on_after_each_damaged_file(tmp_path, form):
    if form == "HDF5" and find_spec("h5py") is None:
        pytest.skip("its package is missing")
    chosen = [
        one for one in FAULTS if one.form == form and not any(word in one.what for word in COSTLY)
    ]
    sound = [one for one in chosen if one.accepted]
    refused, before = 0, None
    for one in (*chosen, *sound[:3]):
        path = place_of(one, tmp_path)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                found = read_by_delineate(path, one.reading)
            except documented():
                assert not one.accepted, one.what
                refused += 1
            else:
                assert one.accepted and right(found, one.reading), one.what
        if before is None:  # what is loaded once may keep files open
            before = psutil.Process().num_fds()
    assert refused and psutil.Process().num_fds() <= before
