"""DICOMDIR is compared with the files, and all files are read."""

import numpy as np
import objects
from pydicom.fileset import FileSet

from delineate.formats import dicom, files

PLANES = np.arange(240, dtype=np.int16).reshape(8, 6, 5)


def medium(tmp_path):
    """A medium with two series of eight slices; the files by series in the order of its slices."""
    made = FileSet()
    for uid in ("1.2.1", "1.2.2"):
        for k, plane in enumerate(PLANES):
            fields = {"StudyDate": "20260101", "StudyTime": "120000", "StudyID": "1"}
            numbers = {"SeriesInstanceUID": uid, "SeriesNumber": 1, "InstanceNumber": k + 1}
            fields["PatientName"] = "P"
            made.add(objects.ct(plane, k, **fields, **numbers))
    made.write(tmp_path / "cd")
    series = {one.uid: one for one in dicom.find_series(tmp_path / "cd")}
    return [
        [plane.path for plane in sorted(series[uid].planes, key=lambda one: one.position[2])]
        for uid in ("1.2.1", "1.2.2")
    ]


def test_the_index_stands_for_its_folder(tmp_path):
    medium(tmp_path)
    found = dicom.find(tmp_path / "cd/DICOMDIR")
    assert found == dicom.find(tmp_path / "cd")
    assert [(path.name, kind) for path, kind in found[1]] == [("DICOMDIR", "DICOMDIR")]
    assert [len(one.files) for one in found[0]] == [8, 8]


def test_missing_files_are_named_and_others_are_read(tmp_path):
    first, second = medium(tmp_path)
    for path in (first[0], *second):
        path.unlink()
    # A file that the index does not name is read too.
    objects.write(tmp_path / "cd/more", objects.ct(PLANES[0], 0, SeriesInstanceUID="1.2.1"))
    (one,), others = dicom.find(tmp_path / "cd")
    assert len(one.files) == 8
    note = f"DICOMDIR names files of this series that are missing: {first[0].name}"
    assert note in one.notes
    assert sorted(path for path, kind in others if kind.startswith("named by")) == sorted(second)
    assert np.array_equal(files.read(tmp_path / "cd").array.T, PLANES)


def test_a_damaged_index_costs_nothing(tmp_path):
    medium(tmp_path)
    index = tmp_path / "cd/DICOMDIR"
    index.write_bytes(index.read_bytes()[:-300])
    assert [len(one.files) for one in dicom.find_series(tmp_path / "cd")] == [8, 8]
