"""``predict`` with Debian's Orthanc as the archive, by DICOMweb and by DIMSE.

Orthanc 1.10 listens on all interfaces, so it runs in a network namespace of its own, which this
process enters for the tests of this module.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from tests.calls import run
from tests.commands.test_predict_series import model, planted

from delineate.formats.dicom import remote
from delineate.formats.dicom.remote import Access, Address

pytest.importorskip("pynetdicom")
pytest.importorskip("highdicom")
assert model  # a fixture
WEB, PEER, PORT = "dicomweb:http://127.0.0.1:8042/dicom-web", "dimse:ORTHANC@127.0.0.1:4242", 11112
STUDY, SERIES = "1.2.4", "1.2.3"
NEW_NETWORK, SET_FLAGS, UP = 0x40000000, 0x8914, 1  # of Linux
# Sends one object of a call, and ends before that is recorded.
KILLED = """
import os, signal
from delineate import extend
from delineate.cli.command_line import main
from delineate.formats.dicom import remote
from tests.commands.test_predict_series import Threshold

extend.NETWORKS.add("threshold", extend.NetworkKind(Threshold, "Class 1 from 500 on."))
send = remote.send

def once(archive, path):
    send(archive, path)
    os.kill(os.getpid(), signal.SIGKILL)

remote.send = once
main()
"""


@contextmanager
def own_network():
    """This thread, and what it starts, has a network with a loopback interface only."""
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(NEW_NETWORK):
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sh14x", b"lo", UP))
        yield
    finally:
        libc.setns(before, NEW_NETWORK)
        os.close(before)


def program() -> Path:
    """Orthanc, of the system or of packages that were unpacked somewhere."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs root on Linux, for a network namespace")
    stated = os.environ.get("DELINEATE_ORTHANC")
    found = stated or shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin")
    if not found:
        pytest.skip("Orthanc is not installed (or set DELINEATE_ORTHANC to its program)")
    return Path(found)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """The archive, with a CT in it."""
    orthanc, folder = program(), tmp_path_factory.mktemp("orthanc")
    usr = orthanc.resolve().parents[1]
    plugin = usr / "share/orthanc/plugins/libOrthancDicomWeb.so"
    if not plugin.exists():
        pytest.skip(f"orthanc-dicomweb is not installed ({plugin})")
    (folder / "orthanc.json").write_text(
        json.dumps(
            {
                **{"StorageDirectory": str(folder / "db"), "IndexDirectory": str(folder / "db")},
                **{"HttpPort": 8042, "DicomPort": 4242, "DicomAet": "ORTHANC"},
                **{"RemoteAccessAllowed": False, "AuthenticationEnabled": False},
                **{f"DicomAlwaysAllow{what}": True for what in ("Find", "Get", "Move", "Store")},
                "DicomModalities": {"us": ["DELINEATE", "127.0.0.1", PORT]},
                "Plugins": [str(plugin)],
                "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            }
        )
    )
    libraries = (usr / "lib/x86_64-linux-gnu", usr / "lib")
    unpacked = {
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "DCMDICTPATH": ":".join(map(str, usr.glob("share/libdcmtk*/dicom.dic"))),
    }
    planted(folder / "ct")
    with own_network(), (folder / "log").open("wb") as log:
        environment = os.environ | ({} if usr == Path("/usr") else unpacked)
        command = [orthanc, folder / "orthanc.json"]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            archive = connected()
            until_it_answers(process, folder / "log")
            for path in (folder / "ct").iterdir():
                remote.send(archive, path)
            yield folder / "ct"
        finally:
            process.kill()
            process.wait()


def until_it_answers(process, log):
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with socket.socket() as ours:
            if not ours.connect_ex(("127.0.0.1", 8042)):
                return
        time.sleep(0.05)
    pytest.fail(f"Orthanc does not answer: {log.read_text()[-2000:]}")


def connected():
    return remote.connect(Address.of(WEB), Access())


def objects(modality):
    """Series -> instances, of one modality."""
    archive = connected()
    found = (one.uid for one in archive.series(STUDY) if one.modality == modality)
    return {uid: archive.instances(STUDY, uid) for uid in found}


def predict(model, source, out, *words):
    code, text = run("predict", model, source, "-o", out, "--device", "cpu", *words)
    assert code == 0, text
    return json.loads((out / "predictions.json").read_text())["cases"][SERIES]


def segmented(path):
    """Instance that a frame is drawn on -> frame."""
    seg = pydicom.dcmread(path)
    groups = [one.DerivationImageSequence[0] for one in seg.PerFrameFunctionalGroupsSequence]
    names = [one.SourceImageSequence[0].ReferencedSOPInstanceUID for one in groups]
    return dict(zip(names, seg.pixel_array.astype(bool), strict=True))


def test_a_result_sent_by_both_roads_and_twice_is_one_object(model, orthanc, tmp_path):
    """The SEG has the voxels of the planted block, read back from the archive."""
    truth = {
        uid: pydicom.dcmread(path).pixel_array > 0
        for path in orthanc.iterdir()
        for uid in [pydicom.dcmread(path).SOPInstanceUID]
    }
    roads = {
        "web": (f"{WEB}/studies/{STUDY}",),
        "get": (f"{PEER}/{STUDY}/{SERIES}",),
        "move": (f"{PEER}/{STUDY}/{SERIES}", "--receive-port", PORT),
    }
    uids = set()
    for name, (source, *words) in roads.items():
        entry = predict(model, source, tmp_path / name, "--send", *words)
        assert [row["status"] for row in entry["sent"]] == ["stored"]
        uids.add(entry["sent"][0]["sop_instance_uid"])
        ((series, instances),) = objects("SEG").items()
        assert instances == uids and len(uids) == 1
    for address in (f"{WEB}/studies/{STUDY}/series/{series}", f"{PEER}/{STUDY}/{series}"):
        place = Address.of(address)
        folder = tmp_path / f"back_{place.is_dicomweb}"
        remote.fetch(remote.connect(place, Access()), place, folder)
        (path,) = folder.iterdir()
        found = segmented(path)
        assert {uid: mask for uid, mask in truth.items() if mask.any()}.keys() == found.keys()
        assert all(np.array_equal(found[uid], truth[uid]) for uid in found)


@pytest.mark.parametrize(
    "source", [f"{WEB}/studies/{STUDY}/series/{SERIES}", f"{PEER}/{STUDY}/{SERIES}"]
)
def test_a_sender_that_was_killed_goes_on(model, orthanc, tmp_path, source):
    words = ("--dicom-seg", "--rtstruct")
    assert "sent" not in predict(model, source, tmp_path / "out", *words)
    command = ["predict", model, source, "-o", tmp_path / "out", *words, "--send"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", KILLED, *command], env=environment)
    assert done.returncode == -9
    assert "sent" not in (tmp_path / "out" / "predictions.jsonl").read_text()
    entry = predict(model, source, tmp_path / "out", *words, "--send")
    assert [row["status"] for row in entry["sent"]] == ["stored", "stored"]
    for kind, row in zip(("SEG", "RTSTRUCT"), entry["sent"], strict=True):
        assert [row["sop_instance_uid"]] == [uid for one in objects(kind).values() for uid in one]
