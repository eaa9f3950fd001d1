"""Debian's Orthanc with DICOMweb for tests: a real archive, in a network of its own.

Orthanc 1.10 listens on all addresses, so it gets a network namespace, which only this machine
reaches. DELINEATE_ORTHANC names the folder in which the packages ``orthanc``, ``orthanc-dicomweb``
and ``dcmtk`` are unpacked, if they are not installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

START_S = 30.0


@dataclass(frozen=True)
class Archive:
    """A running archive: its address and ports, and the address of the test as it sees it."""

    host: str
    caller: str
    http_port: int = 8042
    dicom_port: int = 4242

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.http_port}"

    @property
    def dicomweb(self) -> str:
        return f"{self.url}/dicom-web"

    def ask(self, path: str, body: bytes | None = None) -> object:
        """The answer of Orthanc's own interface; with a body, a POST."""
        with urllib.request.urlopen(self.url + path, body) as answer:
            return json.load(answer)

    def store(self, path: Path) -> str:
        """Store a DICOM file: "Success", or "AlreadyStored"."""
        return self.ask("/instances", path.read_bytes())["Status"]  # type: ignore[index]


@contextlib.contextmanager
def running(folder: Path, **settings: object) -> Iterator[Archive]:
    """An empty archive that keeps its files in ``folder``; skips the test where none can run."""
    root = Path(os.environ.get("DELINEATE_ORTHANC", "/"))
    program = root / "usr/sbin/Orthanc"
    plugin = root / "usr/share/orthanc/plugins/libOrthancDicomWeb.so"
    if not (program.is_file() and plugin.is_file()):
        pytest.skip(f"no archive: {program} or {plugin} is missing (set DELINEATE_ORTHANC)")
    with _network() as archive:
        configuration = {
            "StorageDirectory": str(folder),
            "IndexDirectory": str(folder),
            "HttpPort": archive.http_port,
            "DicomPort": archive.dicom_port,
            "RemoteAccessAllowed": True,
            "AuthenticationEnabled": False,
            "Plugins": [str(plugin)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            **settings,
        }
        folder.mkdir(parents=True)
        (folder / "orthanc.json").write_text(json.dumps(configuration))
        line = ["ip", "netns", "exec", _name(), program, folder / "orthanc.json"]
        with (
            (folder / "orthanc.log").open("wb") as log,
            subprocess.Popen(line, env=_environment(root), stdout=log, stderr=log) as process,
        ):
            try:
                _wait(archive, process, folder / "orthanc.log")
                yield archive
            finally:
                process.terminate()


def _environment(root: Path) -> dict[str, str]:
    """Where the libraries and the dictionary of unpacked packages are."""
    if root == Path("/"):
        return dict(os.environ)
    libraries = ":".join(map(str, sorted(root.glob("usr/lib/*-linux-gnu"))))
    dictionary = next(root.glob("usr/share/libdcmtk*/dicom.dic"), "")
    return {**os.environ, "LD_LIBRARY_PATH": libraries, "DCMDICTPATH": str(dictionary)}


def _wait(archive: Archive, process: subprocess.Popen, log: Path) -> None:
    """Return when the archive answers."""
    end = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            archive.ask("/system")
            return
        time.sleep(0.1)
    pytest.fail(f"Orthanc did not start: {log.read_text()[-2000:]}")


def _name() -> str:
    return f"delineate{os.getpid()}"


@contextlib.contextmanager
def _network() -> Iterator[Archive]:
    """A network namespace with one cable to this one; its addresses are of the block for tests of
    devices (RFC 2544).
    """
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("no archive: a network of its own needs root and the program ip")
    name, (high, low) = _name(), divmod(os.getpid() % 2**14, 64)
    caller, host = (f"198.18.{high}.{4 * low + n}" for n in (1, 2))
    here, there = f"v{os.getpid()}", f"w{os.getpid()}"
    within = ("netns", "exec", name, "ip")
    if _ip("netns", "add", name).returncode:
        pytest.skip("no archive: this machine allows no network namespace")
    try:
        for words in (
            ("link", "add", here, "type", "veth", "peer", "name", there, "netns", name),
            ("address", "add", f"{caller}/30", "dev", here),
            ("link", "set", here, "up"),
            (*within, "address", "add", f"{host}/30", "dev", there),
            (*within, "link", "set", there, "up"),
            (*within, "link", "set", "lo", "up"),
        ):
            done = _ip(*words)
            assert done.returncode == 0, done.stderr
        yield Archive(host, caller)
    finally:
        _ip("netns", "delete", name)


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True)
