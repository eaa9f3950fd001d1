"""A damaged file costs its own series and no other."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import objects
import pytest
from tests.calls import run

from delineate.cohorts.discovery.layouts import discover
from delineate.core.errors import FormatError
from delineate.formats import dicom, files

PLANES = np.arange(240, dtype=np.int16).reshape(8, 6, 5)


def series(folder, uid, **fields):
    """A CT series of eight slices with the UID ``uid``."""
    folder.mkdir(parents=True, exist_ok=True)
    slices = (
        objects.ct(plane, k, SeriesInstanceUID=uid, SeriesNumber=int(uid[-1]), **fields)
        for k, plane in enumerate(PLANES)
    )
    return objects.write(folder, *slices)


def cut(path, nbytes):
    path.write_bytes(path.read_bytes()[:nbytes])


def two_series(tmp_path):
    return series(tmp_path / "in/one", "1.2.1"), series(tmp_path / "in/two", "1.2.2")


@pytest.mark.parametrize("part", [0.5, 0.99])
def test_a_cut_file_costs_its_own_series(tmp_path, part):
    _, (*_, last) = two_series(tmp_path)
    cut(last, int(part * last.stat().st_size))
    sound, damaged = dicom.find_series(tmp_path / "in")
    assert not dicom.problem_of(sound) and damaged.is_damaged
    assert dicom.problem_of(damaged).startswith(
        "of its 8 files, 1 is damaged or truncated (h.dcm: it ends "
    )
    with pytest.raises(FormatError, match=r"1 is damaged or truncated \(h.dcm"):
        files.read(f"{tmp_path / 'in'}#1.2.2")


def test_the_other_series_are_converted_and_the_failure_is_named(tmp_path):
    _, (first, *_) = two_series(tmp_path)
    cut(first, 700)
    code, text = run("convert", tmp_path / "in", tmp_path / "out")
    assert code == 1 and "failed: CT 2 (7 files, 1.2.2): of its 8 files, 1 is damaged" in text
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["1_ct.nii.gz"]


def test_a_single_damaged_series_is_refused(tmp_path):
    first, *_ = series(tmp_path / "in", "1.2.1")
    cut(first, 700)
    code, text = run("convert", tmp_path / "in", tmp_path / "out")
    assert code == 2 and "of its 8 files, 1 is damaged or truncated (a.dcm" in text


def test_a_series_of_damaged_files_alone_is_a_series(tmp_path):
    _, second = two_series(tmp_path)
    for path in second:
        cut(path, 700)
    _, lost = dicom.find_series(tmp_path / "in")
    assert (lost.uid, lost.planes, len(lost.files)) == ("1.2.2", (), 8)
    assert dicom.choose(tmp_path / "in").uid == "1.2.1"


def test_a_file_without_a_readable_uid_is_of_the_series_next_to_it(tmp_path):
    _, second = two_series(tmp_path)
    cut(second[0], 200)
    sound, damaged = dicom.find_series(tmp_path / "in")
    assert not sound.is_damaged and damaged.is_damaged


def test_next_to_several_series_it_is_named_in_a_note(tmp_path):
    first = series(tmp_path / "in", "1.2.1")
    for path in first:
        path.rename(path.with_name(f"1{path.name}"))
    second = series(tmp_path / "in", "1.2.2")
    cut(second[0], 200)
    found, others = dicom.find(tmp_path / "in")
    assert [one.is_damaged for one in found] == [False, False]
    note = "1 is damaged or truncated (a.dcm: it ends within the element at byte 192); its series"
    assert all(note in " ".join(one.notes) for one in found)
    assert others == [(second[0], "damaged: it ends within the element at byte 192")]
    code, text = run("convert", tmp_path / "in", tmp_path / "out")
    assert code == 1 and f"failed: {second[0]}: damaged: it ends within" in text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "1_ct.nii.gz",
        "2_ct.nii.gz",
    ]


@pytest.mark.parametrize("name", ["9.dcm", "IM0009", "1.2.3.9", "nine.IMA"])
@pytest.mark.parametrize("content", [b"", bytes(5000)])
def test_a_blank_file_is_named_and_costs_no_series(tmp_path, name, content):
    series(tmp_path / "in", "1.2.1")
    path = tmp_path / "in" / name
    path.write_bytes(content)
    found, others = dicom.find(tmp_path / "in")
    why = "it is empty or begins with zeros"
    assert others == [(path, f"damaged: {why}")]
    assert found[0].notes == (
        f"1 is damaged or truncated ({name}: {why}); its series is unknown and may be this one",
    )
    code, text = run("convert", tmp_path / "in", tmp_path / "out")
    assert code == 1 and f"failed: {path}: damaged: {why}" in text
    assert (tmp_path / "out/1_ct.nii.gz").exists()
    code, text = run("convert", tmp_path / "in", tmp_path / "one.nii.gz")
    assert code == 0 and f"({name}: {why})" in text
    code, text = run("info", tmp_path / "in")
    assert code == 0 and name in text


def test_other_files_are_no_damage(tmp_path):
    series(tmp_path / "in", "1.2.1")
    for name in ("done", "notes1.txt", ".lock2", "labels_1.nii.gz"):
        (tmp_path / "in" / name).write_bytes(b"")
    assert dicom.find(tmp_path / "in")[1] == []
    # Numbers are names of slices only next to slices.
    (tmp_path / "in/other").mkdir()
    (tmp_path / "in/other/7").write_bytes(b"")
    assert dicom.find(tmp_path / "in")[1] == []
    page = tmp_path / "in/page.dcm"
    page.write_text("<html>404: no such image</html>")
    assert dicom.find(tmp_path / "in")[1] == [(page, "damaged: it is no DICOM file")]
    with pytest.raises(FormatError, match=r"no image that can be read \(damaged: it is empty"):
        (tmp_path / "bad").mkdir()
        (tmp_path / "bad/1.dcm").write_bytes(b"")
        dicom.choose(tmp_path / "bad")


def test_blank_members_of_an_archive_are_named(tmp_path):
    first, *_ = series(tmp_path / "in", "1.2.1")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as packed:
        packed.write(first, "a.dcm")
        packed.writestr("b.dcm", b"")
    found, others = dicom.find(tmp_path / "all.zip")
    assert len(found) == 1 and [path.name for path, _ in others] == ["b.dcm"]


def test_a_cut_packed_file_is_damaged(tmp_path):
    first, *_ = series(tmp_path / "in", "1.2.1")
    first.with_name("a.dcm.gz").write_bytes(gzip.compress(first.read_bytes())[:-30])
    first.unlink()
    with pytest.raises(FormatError, match=r"a.dcm.gz"):
        files.read(tmp_path / "in")


def test_one_volume_is_read_of_the_only_series_that_can_be(tmp_path):
    _, (first, *_) = two_series(tmp_path)
    cut(first, 700)
    code, text = run("convert", tmp_path / "in", tmp_path / "one.nii.gz")
    assert code == 0
    assert "note: series CT 2 (7 files, 1.2.2) is left out: of its 8 files, 1 is damaged" in text


def test_check_names_a_damaged_series_and_keeps_the_others(tmp_path):
    _, (first, *_) = two_series(tmp_path)
    cut(first, 700)
    found = discover(tmp_path / "in", truth=False)
    assert [Path(case.images[0].path).name for case in found.manifest] == ["one"]
    (problem,) = [one for one in found.findings if one.severity == "error"]
    assert "CT 2 (7 files, 1.2.2)" in problem.message and "a.dcm" in problem.message


def test_equal_reasons_are_counted(tmp_path):
    for n in range(1, 4):
        series(tmp_path / f"in/{n}", f"1.2.{n}", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    code, text = run("convert", tmp_path / "in", tmp_path / "out")
    assert code == 2
    assert text.count("localisers (scout views)") == 1
    assert "\n  3 refused: " in text and text.count("\n    CT ") == 3
