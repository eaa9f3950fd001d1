"""The resident engine: calls of other processes have the results of their own, and refusals."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from delineate.cli import served
from delineate.commands.options import ServeOptions
from delineate.commands.predict.kept import Kept, keeping, loaded, networks
from delineate.commands.serve import Resident, server, status, stop
from delineate.core.errors import OutputError
from delineate.execution import resident

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
GOLDEN = Path(__file__).parents[1] / "golden" / "schema_1"
PROGRAM = [sys.executable, "-m", "delineate"]
# As the program, but the caller ends where it would do the work itself.
CALLER = """
import sys
from delineate.cli import served
from delineate.execution.stopping import leave_at_once
leave_at_once()
code = served.served(sys.argv[1:])
light = not {"numpy", "nibabel", "pydicom", "torch", "openvino", "typer"} & set(sys.modules)
print(served.note, file=sys.stderr)
sys.exit(99 if code is None or not light else code)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Path]:
    """A folder with m.model and its scan, and an engine behind its socket."""
    folder = tmp_path_factory.mktemp("engine")
    shutil.copy(GOLDEN / "finished/m.model", folder / "m.model")
    os.utime(folder / "m.model")
    shutil.copy(GOLDEN / "cohort/images/c0.nii.gz", folder / "c0.nii.gz")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(folder / "runtime"))
        engine = subprocess.Popen([*PROGRAM, "serve", "--local"], stderr=subprocess.PIPE)
        assert engine.stderr is not None and b"resident engine" in engine.stderr.readline()
        yield folder
        assert stop() and engine.wait(timeout=30) == 0
        assert engine.stderr.read().decode() == "ended: stopped\n"
        assert not resident.is_there() and status() is None


def called(folder: Path, *words: str, **more) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", CALLER, *words]
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=60, **more)


def record(folder: Path) -> dict:
    found = json.loads((folder / "predictions.json").read_text())
    for entry in (found, *found["cases"].values()):
        for name in ("peak_memory_mb", "seconds", "delineate_checksum"):
            entry.pop(name, None)
    return found


def test_a_call_has_the_results_streams_and_rights_of_its_own_process(place):
    from typer.testing import CliRunner

    from delineate.cli import app

    words = ["predict", "m.model", "c0.nii.gz", "-o"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        own = CliRunner().invoke(app, [*words, "own"])  # converts the network, which needs torch
    first = called(place, *words, "served", umask=0o077)
    assert first.returncode == own.exit_code == 0
    assert first.stdout.decode() == own.stdout and "left" in own.stdout
    assert first.stderr.decode() == own.stderr.replace("own", "served") + "\n"
    masks = [(place / name / "c0.nii.gz").read_bytes() for name in ("served", "own")]
    assert masks[0] == masks[1]
    assert record(place / "served") == record(place / "own")
    assert (place / "served/c0.nii.gz").stat().st_mode & 0o777 == 0o600
    # Networks and model are kept, and a second call has the same mask.
    second = called(place, *words, "served", "--again", "--keep", "20m")
    assert second.returncode == 0 and (place / "served/c0.nii.gz").read_bytes() == masks[0]
    found = status()
    assert found is not None and found["calls"] == 2 and not found["busy"]
    assert found["ends after"] == "20 min without a call"


def test_errors_end_the_call_with_its_exit_code(place):
    (place / "bad.model").write_text("x")
    for words, code, why in (
        (["predict", "m.model", "absent", "-o", "e"], 2, b"error: absent: does not exist"),
        (["-q", "predict", "bad.model", "c0.nii.gz", "-o", "e"], 3, b"not a delineate model"),
        (["predict", "m.model", "--frob"], 2, b"No such option"),
        # Limits of memory are those of a process, and not for another one.
        (["predict", "m.model", "c0.nii.gz", "-o", "e", "--ram", "8G"], 99, b""),
    ):
        done = called(place, *words)
        assert done.returncode == code and why in done.stderr, (words, done)
    assert not (place / "e").exists()


def test_what_differs_between_the_processes_is_named(place):
    for environment, what in (({"OMP_NUM_THREADS": "3"}, b"OMP_NUM_THREADS"),):
        done = called(
            place, "predict", "m.model", "c0.nii.gz", "-o", "d", env={**os.environ, **environment}
        )
        assert done.returncode == 99 and b"it has not the same " + what in done.stderr
    one = f"{min(os.sched_getaffinity(0))}"
    limited = ["prlimit", "--fsize=1000000000", sys.executable, "-c", CALLER]
    done = subprocess.run(
        [*limited, "predict", "m.model", one, "-o", "d"], cwd=place, capture_output=True
    )
    assert done.returncode == 99 and b"the same limits" in done.stderr


def test_a_call_leaves_nothing_that_holds_its_streams(place):
    voxels = np.random.default_rng(1).integers(0, 90, (128, 128, 160), np.uint8)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), place / "killing.nii")
    words = [sys.executable, "-c", CALLER, "predict", "m.model", "killing.nii", "-o", "held"]
    with subprocess.Popen(words, cwd=place, stderr=subprocess.DEVNULL) as killed:
        while not (place / "held/running.json").exists():
            assert killed.poll() is None
            time.sleep(0.01)
        killed.kill()
    # A scan at which a process died is read by a process that the engine starts. The call is over
    # for whoever reads its errors when its own process is.
    with subprocess.Popen(words, cwd=place, stderr=subprocess.PIPE) as again:
        assert again.wait(timeout=60) == 0
        again.communicate(timeout=5)


# An engine whose call was stopped while it loaded a module ends by itself: not for every run.
@pytest.mark.rounds
@pytest.mark.parametrize("delays_s", [(0.0, 0.1), [n * 0.01 for n in range(40)]])
def test_ctrl_c_ends_the_call_and_not_the_engine(place, delays_s):
    # An engine ends if a call is stopped while it loads a module.
    assert called(place, "predict", "m.model", "c0.nii.gz", "-o", "loaded").returncode == 0
    shutil.rmtree(place / "loaded")
    # Large enough to be at work for seconds.
    voxels = np.random.default_rng(0).integers(0, 90, (128, 128, 160), np.uint8)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), place / "large.nii")
    words = ["predict", "m.model", "large.nii", "-o", "stopped"]
    for number, delay_s in itertools.zip_longest((signal.SIGKILL,), delays_s):
        caller = subprocess.Popen(
            [sys.executable, "-c", CALLER, *words], cwd=place, stderr=subprocess.PIPE
        )
        while not (place / "stopped/running.json").exists():
            assert caller.poll() is None
            time.sleep(0.01)
        time.sleep(delay_s)
        caller.send_signal(number or signal.SIGINT)
        errors = caller.communicate(timeout=30)[1]
        assert caller.returncode == (-number if number else 130), errors
        assert b"Traceback" not in errors
        assert number or b"stopped; finished work is kept" in errors
        while (found := status()) is not None and found["busy"]:
            time.sleep(0.01)
        assert found is not None
        # The call has given back what it held.
        assert not (place / "stopped/running.json").exists()


def test_the_socket_is_private_and_there_is_one_engine(place, tmp_path, monkeypatch):
    assert os.stat(resident.folder()).st_mode & 0o777 == 0o700
    assert os.stat(resident.socket_path()).st_mode & 0o777 == 0o600
    with pytest.raises(OutputError, match="runs here already"):
        Resident(lambda words, name: 0).__enter__()
    # A message of another form, or without descriptors, is not answered.
    for message in (b"\x80\x04K\x01.\n", b'{"do": "predict", "program": {}}\n', b"[" * 99 + b"\n"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(resident.socket_path())
            connection.sendall(message)
            assert connection.recv(99) == b""
    assert status() is not None
    # A folder that others can enter is not used.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "delineate").mkdir(mode=0o755)
    Path(resident.socket_path()).touch()
    assert not resident.is_there()
    with pytest.raises(OutputError, match="nobody else can enter"):
        Resident(lambda words, name: 0).__enter__()
    # The socket of an engine that was killed is replaced; one without calls ends.
    (tmp_path / "delineate").chmod(0o700)
    assert resident.is_there() and resident.connected() is None
    with Resident(lambda words, name: 0, ServeOptions(memory_bytes=1)) as engine:
        engine._make_room()
        engine.serve()  # ends at once, because its memory is above the limit
    said: list[str] = []
    server.serve(ServeOptions(idle_s=0.01), run=lambda words, name: 0, say=said.append)
    assert said[-1].startswith("ended: 0 s") and not resident.is_there()


def test_models_are_kept_while_their_file_is_unchanged(tmp_path, monkeypatch):
    model = tmp_path / "m.model"
    shutil.copy(GOLDEN / "finished/m.model", model)
    kept = Kept()
    with keeping(kept):
        assert loaded(model) is not loaded(model)  # it may change within a tick of the clock
        monkeypatch.setattr("delineate.commands.predict.kept.SETTLED_S", 0.0)
        first = loaded(model)
        assert loaded(model) is first
        other = tmp_path / "other"
        shutil.copy(model, other)
        os.replace(other, model)
        assert loaded(model) is not first
        assert kept.names() == [str(model)]
        while kept.drop_one():
            pass
        assert not kept.names()
    assert loaded(model) is not loaded(model)


def test_modules_of_torch_are_kept_on_any_device_with_room(tmp_path):
    import torch

    from delineate.commands.options import PredictOptions
    from delineate.commands.predict import predict
    from delineate.inference.engine import Engine

    kept = Kept()
    words = (GOLDEN / "finished/m.model", [GOLDEN / "cohort/images/c0.nii.gz"])
    options = PredictOptions(backend="torch")
    with keeping(kept):
        predict(*words, tmp_path / "first", options)
        (engine,) = kept.engines.values()
        assert isinstance(engine.members[0][0], torch.nn.Module)
        predict(*words, tmp_path / "second", options)
        assert list(kept.engines.values()) == [engine]
        masks = [(tmp_path / name / "c0.nii.gz").read_bytes() for name in ("first", "second")]
        assert masks[0] == masks[1]
        # Another device stands for two GPUs, of which one is full.
        others = [
            Engine(engine.plan, (), torch.device("meta", index), torch.float32) for index in (0, 1)
        ]
        for other in others:
            assert networks(str(other.device), lambda other=other: other) is other
        kept.leave_room(lambda device: ((9, 49)[device.index], 80))
    assert list(kept.engines.values()) == [engine, others[1]]


def test_only_calls_of_predict_are_for_the_engine():
    for words, suitable in (
        (["predict", "m", "s", "-o", "o"], True),
        (["--log", "predict", "-q", "predict", "m"], True),
        (["--log", "predict", "train"], False),
        (["train", "predict"], False),
        (["predict", "m", "/dev/fd/3"], False),
        (["predict", "m", "s", "--engine", "ray"], False),
        ([], False),
    ):
        assert served._is_suitable(words) == suitable, words


@pytest.mark.rounds
def test_an_engine_that_dies_costs_nothing_but_time(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    model = shutil.copy(GOLDEN / "finished/m.model", tmp_path)
    voxels = np.random.default_rng(0).integers(0, 90, (128, 128, 160), np.uint8)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "large.nii")
    command = [*PROGRAM, "predict", model, tmp_path / "large.nii", "-o", tmp_path / "out"]
    call = subprocess.Popen([*command, "--keep", "1m"], stderr=subprocess.PIPE)
    while not (tmp_path / "out/running.json").exists():
        assert call.poll() is None
        time.sleep(0.01)
    found = status()
    assert found is not None and found["busy"]
    os.kill(found["process"], signal.SIGKILL)
    errors = call.communicate(timeout=120)[1]
    assert call.returncode == 0 and b"which goes on without it" in errors
    assert status() is None and record(tmp_path / "out")["cases"]["large"]["mask"]
