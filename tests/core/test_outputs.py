"""Files that a command reads are known by place and by inode; what may hang a reader is never
opened.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from delineate.core import atomic
from delineate.core.errors import InputError, OutputError
from delineate.core.inputs import refuse_special, special_kind
from delineate.core.outputs import Originals


@pytest.fixture
def scan(tmp_path) -> Path:
    (tmp_path / "scans").mkdir()
    path = tmp_path / "scans" / "a.nii.gz"
    path.write_bytes(b"voxels")
    return path


def ways_to(path: Path, elsewhere: Path) -> dict[str, Path]:
    """The same file under other names."""
    elsewhere.mkdir()
    (elsewhere / "soft").symlink_to(path)
    os.link(path, elsewhere / "hard")
    (elsewhere / "folder").symlink_to(path.parent)
    return {
        "itself": path,
        "soft link": elsewhere / "soft",
        "hard link": elsewhere / "hard",
        "by its folder's link": elsewhere / "folder" / path.name,
        "round about": path.parent / ".." / path.parent.name / path.name,
        "relative": Path(os.path.relpath(path)),
    }


def test_an_original_is_refused_under_each_of_its_names(scan, tmp_path):
    for what, way in ways_to(scan, tmp_path / "ways").items():
        for known in (scan, scan.parent):  # a file, or the folder of a series
            with pytest.raises(OutputError, match="is read by this command"):
                Originals([known]).refuse([tmp_path / "new.nii.gz", way])
        assert scan.read_bytes() == b"voxels", what


def test_what_is_no_original_is_allowed(scan, tmp_path):
    other = tmp_path / "scans" / "b.nii.gz"
    other.write_bytes(b"mine")
    Originals([scan, tmp_path / "gone.nii.gz"]).refuse(
        [other, tmp_path / "new.nii.gz", tmp_path / "gone.nii.gz", scan.parent]
    )
    # A folder of slices holds other files too.
    Originals([scan.parent], lambda path, folder: path.suffix == ".dcm").refuse([other])


def test_no_file_is_put_over_an_original_while_it_is_kept(scan, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(scan)
    with Originals([scan]).kept():
        for target in (scan, link):
            with pytest.raises(OutputError, match="is read by this command"):
                atomic.write_bytes(target, b"mask")
        atomic.write_bytes(tmp_path / "mask", b"mask")
    assert scan.read_bytes() == b"voxels" and link.is_symlink()
    atomic.write_bytes(scan, b"mask")  # the command is over
    assert scan.read_bytes() == b"mask" and {p.name for p in scan.parent.iterdir()} == {"a.nii.gz"}


def test_a_folder_that_holds_an_original_is_not_removed(scan, tmp_path):
    for known in (scan, scan.parent):
        with pytest.raises(OutputError, match=r"a\.nii\.gz|scans"):
            Originals([known]).refuse_removing(tmp_path)
    Originals([scan]).refuse_removing(tmp_path / "elsewhere")


def test_special_files_are_told_and_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("x")
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(tmp_path)  # the name of a socket is short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        for name, kind in (("pipe", "a named pipe"), ("zero", "a device"), ("socket", "a socket")):
            assert special_kind(tmp_path / name) == kind
            with pytest.raises(InputError, match=f"is {kind}; only regular files are opened"):
                refuse_special(tmp_path / name)
    for name in ("file", "dangling", "nowhere", ""):
        assert special_kind(tmp_path / name) == ""
        refuse_special(tmp_path / name)
