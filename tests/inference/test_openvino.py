"""Compiled networks: kept beside the model, made anew where what is kept is damaged, and torch
where there is nothing to compile with.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.contracts.test_networks import net
from tests.plans import small_network, small_plan

from delineate.core.bundle import Bundle, Member
from delineate.core.errors import UsageError
from delineate.core.grid import Grid
from delineate.core.volume import Volume
from delineate.inference import graph_cache
from delineate.inference import openvino as compiled
from delineate.inference.engine import Engine, keep_graphs, with_topology
from delineate.inference.predictor import DropoutSamples, predict
from delineate.networks.build import build, filled, weights_of
from delineate.preprocessing import arrays

pytestmark = pytest.mark.skipif(
    not compiled.available(), reason="OpenVINO is not installed, or not made for this processor"
)
CPU = torch.device("cpu")


def model(seed: int = 0, dims: int = 3, **changes: object) -> Bundle:
    plan = small_plan(dims, **changes)
    return Bundle(plan, (Member("fold_0", weights_of(build(plan.network, seed))),))


def engine(bundle: Bundle, folder: Path | None = None, **how: object) -> Engine:
    return Engine.from_bundle(bundle, CPU, torch.float32, graphs=folder, **how)


def ways(one: Engine) -> list[type]:
    return [type(network) for network, _ in one.members]


def scan() -> Volume:
    rng = np.random.default_rng(0)
    return Volume(
        rng.normal(size=(24, 30, 19)).astype(np.float32),
        Grid.from_spacing((24, 30, 19), (1.0, 1.0, 1.0)),
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_both_backends_say_the_same(dims):
    bundle = model(dims=dims)
    quick, plain = engine(bundle), engine(bundle, backend="torch")
    assert ways(quick) == [compiled.Graph] and compiled.Graph not in ways(plain)
    a, b = (predict(scan(), one).labels.array for one in (quick, plain))
    assert (a == b).mean() > 0.999 and len(np.unique(a)) > 1


# Share of voxels in which masks of both backends agree; classes with equal scores may differ.
AGREE = 0.999


@pytest.mark.parametrize(
    "network",
    [
        net(2, (6, 8, 8, 8), kind="denseunet", convs=(2, 2), growth=4, activation="relu"),
        net(2, (6, 8), 5, kind="vnet", convs=(1, 2), activation="prelu"),
        net(2, (8, 8), 5, kind="quicknat", squeeze="both", activation="prelu"),
    ],
    ids=lambda network: network.kind,
)
def test_both_backends_agree_for_each_family(network):
    bundle = model(dims=2, network=network.model_copy(update={"channels": 1}))
    a, b = (
        predict(scan(), one).labels.array
        for one in (engine(bundle, backend="openvino"), engine(bundle, backend="torch"))
    )
    assert (a == b).mean() > AGREE and len(np.unique(a)) > 1
    stored = with_topology(bundle)
    assert stored.members[0].graph
    quick = engine(stored, backend="openvino")
    assert np.array_equal(predict(scan(), quick).labels.array, a)


def test_a_graph_is_kept_and_not_built_again(tmp_path, monkeypatch):
    bundle, folder = model(), tmp_path / "m.model.graphs"
    first = predict(scan(), engine(bundle, folder)).labels.array
    (file,) = folder.iterdir()
    assert file.name.startswith(f"{bundle.id}-fold_0-") and file.suffix == ".graph"
    monkeypatch.setattr(compiled, "_converted", lambda *_: pytest.fail("converted again"))
    again = engine(bundle, folder)
    assert np.array_equal(predict(scan(), again).labels.array, first)
    before = file.read_bytes()
    monkeypatch.undo()
    for damaged in (before[:-7], before[:40] + bytes([before[40] ^ 1]) + before[41:], b""):
        file.write_bytes(damaged)
        assert np.array_equal(predict(scan(), engine(bundle, folder)).labels.array, first)
        assert graph_cache.read(file) is not None


def test_a_large_window_has_all_cores_and_small_ones_run_in_parallel():
    for threads in (1, 2, 4):
        assert compiled.streams(512 * 512, threads) == 1
    assert [compiled.streams(n, 16) for n in (40 * 56 * 40, 512 * 512, 128**3)] == [16, 4, 1]


def test_kept_graphs_are_those_of_a_new_process(tmp_path, monkeypatch):
    """Whatever number of threads a training used."""
    bundle, threads = model(), torch.get_num_threads()
    monkeypatch.setattr(arrays, "threads_of_new_process", lambda: threads)
    other = 1 if threads > 1 else 2  # more threads than cores are not used
    torch.set_num_threads(other)
    try:
        keep_graphs(bundle, tmp_path)
        assert torch.get_num_threads() == other
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(compiled, "_converted", lambda *_: pytest.fail("converted again"))
    assert ways(Engine.from_bundle(bundle, CPU, graphs=tmp_path)) == [compiled.Graph]
    # Nothing is kept where predictions do not use OpenVINO.
    monkeypatch.setattr(compiled, "available", lambda: False)
    keep_graphs(bundle, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_graph_of_another_user_is_not_loaded(tmp_path, monkeypatch):
    bundle, folder = model(), tmp_path / "m.model.graphs"
    engine(bundle, folder)
    (file,) = folder.iterdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "other"))
    assert graph_cache.read(file) is None
    real, loaded = compiled.Graph, []
    monkeypatch.setattr(compiled, "Graph", lambda *of: loaded.append(1) or real(*of))
    monkeypatch.setattr("openvino.Core.import_model", lambda *_: pytest.fail("it was loaded"))
    engine(bundle, folder)
    assert loaded and graph_cache.read(file) is not None
    key = tmp_path / "other/delineate/graph.key"
    assert key.stat().st_mode & 0o777 == 0o600
    # A graph under the name of another one, and a key that others can read, count for nothing.
    renamed = file.with_name(file.name.replace("fold_0", "fold_1"))
    file.rename(renamed)
    assert graph_cache.read(renamed) is None
    renamed.rename(file)
    assert graph_cache.read(file) is not None
    key.chmod(0o644)
    assert graph_cache.read(file) is None


def test_a_graph_that_others_can_change_is_copied_before_it_is_verified(tmp_path):
    engine(model(), tmp_path)
    (file,) = tmp_path.iterdir()
    file.chmod(0o644)
    assert isinstance(graph_cache.read(file).obj, mmap.mmap)
    file.chmod(0o664)
    assert isinstance(graph_cache.read(file).obj, bytearray)
    assert ways(engine(model(), tmp_path)) == [compiled.Graph]


def test_graphs_of_another_model_of_the_name_are_gone(tmp_path):
    engine(model(0), tmp_path)
    engine(model(1), tmp_path)
    assert [p.name.split("-")[0] for p in tmp_path.iterdir()] == [model(1).id]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_done_without(tmp_path):
    tmp_path.chmod(0o500)
    assert ways(engine(model(), tmp_path / "graphs")) == [compiled.Graph]


def test_a_file_in_the_folder_s_place_is_done_without(tmp_path):
    (tmp_path / "graphs").write_text("not a folder")
    assert ways(engine(model(), tmp_path / "graphs")) == [compiled.Graph]
    assert (tmp_path / "graphs").read_text() == "not a folder"


def test_an_unknown_layer_means_torch(monkeypatch):
    monkeypatch.setattr(compiled, "_converted", lambda *_: None)
    assert compiled.Graph not in ways(engine(model()))
    with pytest.raises(UsageError, match="does not support a layer"):
        engine(model(), backend="openvino")
    monkeypatch.setattr(compiled, "available", lambda: False)
    assert compiled.Graph not in ways(engine(model()))
    with pytest.raises(UsageError, match="the package openvino"):
        engine(model(), backend="openvino")


def test_a_layer_that_cannot_be_converted_is_told_as_none():
    class Odd(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svd(x)[0]

    assert compiled.compiled(Odd, (1, 8, 8), torch.float32) is None


def test_samples_are_drawn_in_modules_and_the_answer_stays():
    bundle = model(network=small_network(3, dropout=0.4))
    one = engine(bundle)
    plain, sampled = predict(scan(), one), predict(scan(), one, samples=DropoutSamples(2))
    assert np.array_equal(plain.labels.array, sampled.labels.array)
    assert not np.array_equal(sampled.samples[0], sampled.samples[1])
    assert ways(one) == [compiled.Graph] and compiled.Graph not in ways(one.uncompiled())


def test_filled_networks_need_every_weight():
    bundle = model()
    weights = dict(bundle.members[0].weights)
    x = torch.randn(1, 1, 16, 16, 16)
    drawn = build(bundle.plan.network, 0).eval()
    with torch.inference_mode():
        assert torch.equal(filled(bundle.plan.network, weights)(x), drawn(x))
    weights.pop(next(iter(weights)))
    with pytest.raises(Exception, match="do not fit"):
        filled(bundle.plan.network, weights)


@pytest.mark.skipif(sys.platform != "linux", reason="the stack of signals is read as Linux has it")
def test_signals_can_be_handled_after_graphs_have_ended():
    """OpenVINO replaces the stack of signal handlers; a freed one would end this process."""

    class Stack(ctypes.Structure):
        _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    def graph() -> object:
        return compiled.compiled(lambda: torch.nn.Conv2d(1, 1, 3), (1, 8, 8), torch.float32)

    first, second = graph(), graph()
    del first
    del second
    gc.collect()
    now = Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now)) == 0
    ranges = [
        line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines()
    ]
    mapped = [(int(start, 16), int(end, 16)) for start, end in ranges]
    assert now.flags & 2 or any(start <= now.start < end for start, end in mapped)


def test_openvino_reports_its_use_to_nobody():
    """Its reporter also starts a copy of the process in a thread, which may hang."""
    from openvino.tools import ovc

    assert sys.modules["openvino_telemetry"] is None
    assert type(ovc.telemetry).__module__ == "openvino.tools.ovc.telemetry_stub"
