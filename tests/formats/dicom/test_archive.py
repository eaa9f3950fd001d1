"""Archives: members are read in place, and hostile archives are refused in one sentence."""

import bz2
import gzip
import lzma
import os
import struct
import tarfile
import zipfile

import numpy as np
import objects
import pytest
from tests.calls import run

from delineate.cohorts.discovery.layouts import discover
from delineate.core.errors import FormatError
from delineate.core.labels import LabelSet
from delineate.formats import apart, archive, dicom, files
from delineate.formats.dicom.seg.write import seg_source

ARRAY = np.arange(240, dtype=np.int16).reshape(8, 6, 5)
KINDS = ("zip", "tar", "tar.gz", "tgz")


def slices(folder):
    """Eight slices a.dcm ... h.dcm of one CT."""
    fields = {"FrameOfReferenceUID": "1.2.9", "SliceThickness": 2.5}
    return objects.write(folder, *(objects.ct(one, k, **fields) for k, one in enumerate(ARRAY)))


def packed(paths, target, prefix="ct/"):
    """The files as an archive of the kind that the ending of ``target`` names."""
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
            for path in paths:
                out.write(path, prefix + path.name)
    else:
        with tarfile.open(target, "w:" if target.suffix == ".tar" else "w:gz") as out:
            for path in paths:
                out.add(path, prefix + path.name)
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_a_series_in_an_archive_equals_the_folder(tmp_path, kind):
    paths = slices(tmp_path / "in")
    target = packed(paths, tmp_path / f"scans.{kind}")
    volume = files.read(target)
    assert np.array_equal(volume.array, files.read(tmp_path / "in").array)
    assert files.read_grid(target) == volume.grid and volume.source == str(target)
    assert files.detect(target) == files.ARCHIVE and files.is_folder(target)
    assert files.describe(target)["series"][0]["files"] == 8
    assert files.files_of(files._source(target, None)) == [target]
    (series,) = dicom.find_series(target)
    assert series.files[0] == target / "ct/a.dcm"
    assert sorted(os.listdir(tmp_path)) == ["in", target.name]


def test_archives_in_a_folder_are_read_with_its_files(tmp_path):
    paths = slices(tmp_path / "in")
    packed(paths[:3], tmp_path / "a.zip")
    packed(paths[3:6], tmp_path / "b.tar.gz")
    for path in paths[:6]:
        path.unlink()
    assert np.array_equal(files.read(tmp_path).array.T, ARRAY)


def test_names_that_lead_out_of_the_archive_only_name(tmp_path):
    paths = slices(tmp_path / "in")
    target = tmp_path / "scans.tar"
    names = ["/etc/a", "../../b", "c\\d", "./e", "e", "C:/f", "..", "g/"]
    with tarfile.open(target, "w") as out:
        for name, path in zip(names, paths, strict=True):
            info = tarfile.TarInfo(name)
            info.size = path.stat().st_size
            out.addfile(info, path.open("rb"))
    found = [str(path.relative_to(target)) for path in archive.members(target)]
    assert found == ["etc/a", "b", "c/d", "e", "e (2)", "C:/f", "member", "g"]
    assert np.array_equal(files.read(target).array, files.read(tmp_path / "in").array)


def test_a_packed_file_is_read_as_the_plain_one(tmp_path):
    paths = slices(tmp_path)
    expected = files.read(tmp_path).array
    for path in paths:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert np.array_equal(files.read(tmp_path).array, expected)


def test_a_packed_file_of_another_kind_is_named(tmp_path):
    paths = slices(tmp_path / "ct")
    more = paths[-1].with_name("more.tar.bz2")
    more.write_bytes(bz2.compress(paths[-1].read_bytes()))
    paths[-1].unlink()
    (tmp_path / "code.tar.xz").write_bytes(lzma.compress(b"no scan"))
    why = "a file packed by bzip2, which is not opened; unpack it"
    assert dicom.find(tmp_path)[1] == [(more, why)]
    assert f"{more} is left out: {why}" in files.read(tmp_path).meta["notes"]
    with pytest.raises(FormatError, match="bzip2"):
        dicom.choose(more)


def test_links_are_not_followed_and_archives_inside_are_named(tmp_path):
    paths = slices(tmp_path / "in")
    inner = packed(paths, tmp_path / "inner.zip")
    link = tarfile.TarInfo("ct/link.dcm")
    link.type, link.linkname = tarfile.SYMTYPE, str(paths[0])
    target = tmp_path / "scans.tar"
    with tarfile.open(target, "w") as out:
        for path in (*paths, inner):
            out.add(path, path.name)
        out.addfile(link)
    series, others = dicom.find(target)
    assert len(series[0].files) == 8
    assert others == [(target / "inner.zip", "an archive inside an archive, which is not opened")]
    # It may hold more slices.
    assert "inner.zip is left out" in files.read(target).meta["notes"][-1]
    linked = tmp_path / "scans.zip"
    entry = zipfile.ZipInfo("link.dcm")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(linked, "w") as out:
        out.writestr(entry, str(paths[0]))
        out.write(paths[1], "b.dcm")
    assert archive.members(linked) == [linked / "b.dcm"]


def refusal(path):
    with pytest.raises(FormatError) as found:
        files.read(path)
    assert str(found.value).startswith(str(path))
    return found.value.message


def test_an_archive_without_dicom_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("nothing")
    assert refusal(packed([tmp_path / "a.txt"], tmp_path / "a.zip")) == (
        "an archive without DICOM files; unpack it first"
    )


def test_a_zip_of_arrays_is_no_archive_of_dicom(tmp_path):
    np.savez(tmp_path / "a.npz", ARRAY)
    assert files.detect(tmp_path / "a.npz") == "NumPy archive"


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    target = tmp_path / "bomb.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a.dcm", bytes(1 << 20))
    # The list of members states 3 GiB; nothing of it is unpacked.
    data = bytearray(target.read_bytes())
    at = data.rfind(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 3 << 30)
    target.write_bytes(data)
    assert refusal(target) == (
        "the archive of 0.00114 MB unpacks to 3 GiB or more; above 0.5 GiB, 500 times its size is "
        "the limit"
    )


@pytest.fixture
def here(monkeypatch):
    """Archives are read in this process, where limits can be changed, not in the child."""
    monkeypatch.setattr(apart, "is_child", lambda: True)


def test_a_packed_tar_is_unpacked_up_to_the_ratio(tmp_path, monkeypatch, here):
    monkeypatch.setattr(archive, "ANY_RATIO_BYTES", 1 << 20)
    paths = slices(tmp_path / "in")
    (tmp_path / "zeros").write_bytes(bytes(1 << 24))
    target = packed([*paths, tmp_path / "zeros"], tmp_path / "bomb.tar.gz")
    assert "500 times its size is the limit" in refusal(target)


def test_too_many_members_are_refused_by_their_number(tmp_path, monkeypatch, here):
    paths = slices(tmp_path / "in")
    million = tmp_path / "million.zip"
    data = bytearray(packed(paths, million).read_bytes())
    at = data.rfind(b"PK\x05\x06")
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 10**6, 10**6, 0, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, at, 1)
    million.write_bytes(bytes(data[:at]) + record + locator + bytes(data[at:]))
    assert refusal(million) == (
        "the archive has 1,000,000 members or more; at most 200,000 are read"
    )
    monkeypatch.setattr(archive, "MOST_MEMBERS", 7)
    assert refusal(packed(paths, tmp_path / "a.tar")) == (
        "the archive has 8 members or more; at most 7 are read"
    )


def test_an_encrypted_zip_is_refused(tmp_path):
    target = packed(slices(tmp_path / "in"), tmp_path / "a.zip")
    data = bytearray(target.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1
    target.write_bytes(data)
    assert refusal(target) == (
        "the archive is encrypted (1 of 8 members); unpack it with its password first"
    )


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("part", [0.3, 0.5])
def test_a_truncated_archive_is_refused(tmp_path, kind, part):
    target = packed(slices(tmp_path / "in"), tmp_path / f"a.{kind}")
    data = target.read_bytes()
    target.write_bytes(data[: int(part * len(data))])
    assert "truncated" in refusal(target)


def test_a_tar_that_was_cut_between_two_members_is_refused(tmp_path):
    target = packed(slices(tmp_path / "in"), tmp_path / "a.tar")
    with tarfile.open(target) as held:
        last = max(one.offset for one in held)
    target.write_bytes(target.read_bytes()[:last])
    assert refusal(target) == (
        f"the archive is damaged or truncated (no header and no end at byte {last})"
    )


def test_a_header_of_a_tar_is_not_read_whole(tmp_path):
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.XHDTYPE, 5 << 30
    (tmp_path / "a.tar").write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(FormatError, match="a header of more than 1 MB"):
        archive.members(tmp_path / "a.tar")


def test_commands_read_an_archive_as_a_folder(tmp_path):
    target = packed(slices(tmp_path / "in"), tmp_path / "scans.zip")
    assert run("convert", target, tmp_path / "out")[0] == 0
    assert run("convert", tmp_path / "in", tmp_path / "folder")[0] == 0
    (one,) = (tmp_path / "out").iterdir()
    expected = files.read(tmp_path / "folder" / one.name)
    assert np.array_equal(files.read(one).array, expected.array)
    code, text = run("info", target)
    assert code == 0 and "format: DICOM" in text and "files: 8" in text
    found = discover(target)
    assert [(case.id, case.patient) for case in found.manifest] == [("scans", "P1")]


def test_a_segmentation_refers_to_slices_in_an_archive(tmp_path):
    pytest.importorskip("highdicom")
    target = packed(slices(tmp_path / "in"), tmp_path / "scans.zip")
    (series,) = dicom.find_series(target)
    names = {"algorithm_name": "a", "algorithm_version": "1"}
    source = seg_source(series.files, LabelSet.from_names({1: "liver"}), **names)
    assert len(source.headers) == 8
