"""Topologies in models: rebuilt bit for bit, without torch, and nothing else is built."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.plans import small_plan

from delineate.core.bundle import Bundle, Member
from delineate.core.errors import BundleError
from delineate.core.grid import Grid
from delineate.core.volume import Volume
from delineate.formats import files
from delineate.inference import openvino as compiled
from delineate.inference import topology
from delineate.inference.devices import Cpu
from delineate.inference.engine import Engine, with_topology
from delineate.inference.predictor import predict
from delineate.networks.build import build, weights_of

pytestmark = pytest.mark.skipif(not compiled.available(), reason="needs OpenVINO")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Bundle:
    weights = weights_of(build(small_plan().network, seed=1))
    bundle = with_topology(Bundle(small_plan(), (Member("fold_0", weights),)))
    path = tmp_path_factory.mktemp("topology") / "m.model"
    bundle.save(path)
    return Bundle.load(path)


def scan() -> Volume:
    values = np.random.default_rng(0).normal(0, 1, (20, 18, 19)).astype(np.float32)
    return Volume(values, Grid.from_spacing(values.shape, (1.0, 1.2, 0.9)), "a.u.")


def test_a_model_with_its_topology_gives_the_masks_of_the_converted_network(model):
    plain = replace(model, members=(replace(model.members[0], graph=""),))
    assert model.members[0].graph and model.id != plain.id
    made = [Engine.from_bundle(one, Cpu()) for one in (model, plain)]
    assert all(isinstance(one.members[0][0], compiled.Graph) for one in made)
    x = np.random.default_rng(1).normal(size=(2, 1, *model.plan.patch)).astype(np.float32)
    first, second = (one.members[0][0](x) for one in made)
    assert isinstance(first, np.ndarray) and np.array_equal(first, second)
    a, b = (predict(scan(), one).labels.array for one in made)
    assert np.array_equal(a, b) and len(np.unique(a)) > 1
    # torch's own arithmetic on the same graph gives the same labels.
    as_tensors = Engine.from_bundle(model, torch.device("cpu"), torch.float32)
    tensors = torch.from_numpy(x)
    assert torch.is_tensor(as_tensors.members[0][0](tensors))


def test_weights_are_not_stored_twice(model):
    text = model.members[0].graph
    names = [e[1] for e in json.loads(text)["operations"] if e[0] == "weight"]
    large = {n for n, w in model.members[0].weights.items() if w.ndim > 1}
    assert large <= set(names) and len(text) < 20_000


def test_a_network_is_traced_once(model, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("traced again")

    monkeypatch.setattr(compiled, "converted", refuse)
    assert with_topology(model).members[0].graph == model.members[0].graph


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"Convolution"', '"ReadValue"'),
        lambda text: text.replace('"opset1"', '"../opset1"'),
        lambda text: text.replace('"topology": 1', '"topology": 2'),
        lambda text: text.replace('["weight", "', '["weight", "/etc/'),
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
    ],
)
def test_a_forged_topology_is_refused(model, change):
    forged = change(model.members[0].graph)
    assert forged != model.members[0].graph
    with pytest.raises(topology.TopologyError):
        topology.rebuilt(forged, model.members[0].weights, (1, 1, *model.plan.patch))


def test_a_topology_of_another_model_is_detected(model, tmp_path):
    member = replace(model.members[0], graph=model.members[0].graph + " ")
    other = replace(model, members=(member,))
    assert other.id != model.id
    path = tmp_path / "m.model"
    model.save(path)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(b'"Convolution"', b'"Convolutiom"'))
    with pytest.raises(BundleError, match="changed or damaged"):
        Bundle.load(path)


WITHOUT = """
import sys
from importlib.machinery import PathFinder
class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name.partition(".")[0] != "torch":
            return super().find_spec(name, path, target)
if sys.argv[4] == "hidden":
    sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from delineate.commands.predict.predict import predict
from delineate.commands.options import PredictOptions
from delineate.core import machine
from delineate.reporting.prediction_table import table
is_program = sys.argv[4] == "installed"
if is_program:
    machine.become_program()
done = predict(sys.argv[1], [sys.argv[2]], sys.argv[3], PredictOptions())
assert not done.failures, done.failures
assert table({one.name: one.value for one in done.written})
# What takes longer to import than this scan to segment.
assert not {"nibabel", "pydicom", "rich", "scipy.ndimage", "scipy.stats"} & set(sys.modules)
assert "torch" not in sys.modules
# OpenVINO is imported without its converters, which can be imported all the same.
assert ("openvino.tools.ovc" in sys.modules) is not is_program
assert not any("_Hiding" in str(finder) for finder in sys.meta_path)
from openvino.tools.ovc import convert_model
"""


@pytest.mark.parametrize("torch_is", ["hidden", "installed"])
def test_a_copied_model_predicts_without_torch(model, tmp_path, torch_is):
    """No graph is kept for the copy: it is compiled from the topology."""
    copied, image = tmp_path / "copied.model", tmp_path / "scan.nii.gz"
    model.save(copied)
    files.write(scan(), image)
    given = [str(p) for p in (copied, image, tmp_path / "out", torch_is)]
    subprocess.run([sys.executable, "-c", WITHOUT, *given], check=True)
    (mask,) = (tmp_path / "out").rglob("*.nii.gz")
    expected = predict(files.read(image), Engine.from_bundle(model, Cpu())).labels.array
    assert np.array_equal(files.read(mask).array, expected)
