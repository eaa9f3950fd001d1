"""Things under the name of a scan that are no regular files."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from .made import add


def _socket(path: Path) -> None:
    # A name of a socket has at most 108 characters, so it is bound from its folder.
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(before)


def _loop(path: Path) -> None:
    path.symlink_to(path.name)


def _closed(path: Path) -> None:
    path.mkdir()
    (path / "words.txt").write_text("no scan")


for _name in ("a.nii.gz", "a.mha", "a.nrrd", "a.png", "a.dcm", "a.npy"):
    add("No regular file", f"a named pipe called {_name}", _name, os.mkfifo)
add("No regular file", "a socket", "a.nii.gz", _socket)
add("No regular file", "a link to a device", "a.nii.gz", lambda path: path.symlink_to("/dev/zero"))
add("No regular file", "a link to nothing", "a.nii.gz", lambda path: path.symlink_to("none"))
add("No regular file", "a link to itself", "a.nii.gz", _loop)
add("No regular file", "an empty folder", "a.nii.gz", lambda path: path.mkdir())
add("No regular file", "a folder with a text", "a.nii.gz", _closed)
add("No regular file", "a text", "a.nii.gz", b"hello world\n" * 50)
add(
    "No regular file",
    "a page of the web",
    "a.nii.gz",
    b"<!DOCTYPE html><html><body>404</body></html>",
)
add(
    "No regular file",
    "a pointer of git-lfs",
    "a.nii.gz",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
)
add("No regular file", "zeros", "a.nii.gz", bytes(5000))
