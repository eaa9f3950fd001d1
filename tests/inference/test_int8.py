"""8-bit integers: bounds that lose least, the layers that are rounded, and networks compiled to
real integers that say nearly the same.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.contracts.test_networks import NETWORKS, each_network, example, needs_openvino
from tests.inference.test_engine import bundle_of_views
from tests.plans import small_network, small_plan
from typer.testing import CliRunner

import delineate as dl
from delineate.cli import app
from delineate.commands.options import PredictOptions, QuantiseOptions
from delineate.commands.predict import predict
from delineate.commands.quantise import quantise
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import InputError, UsageError
from delineate.core.grid import Grid
from delineate.core.volume import Volume
from delineate.formats import files
from delineate.inference import int8
from delineate.inference import openvino as compiled
from delineate.inference.engine import Engine, fast_dtype, precision_of
from delineate.interop.nnunet import read_bundle
from delineate.networks.build import build, filled, weights_of

CPU = torch.device("cpu")
WIDE = {"widths": (16, 24, 32), "classes": 3}


def scan(seed: int = 0, size: int = 24) -> Volume:
    array = np.random.default_rng(seed).normal(size=(size, size + 4, size - 4)).astype(np.float32)
    return Volume(array, Grid.from_spacing(array.shape, (1.0, 1.0, 1.0)))


@pytest.fixture
def wide(tmp_path):
    """A model with layers that can be rounded, and a folder of five scans."""
    plan = small_plan(3, network=small_network(3, **WIDE))
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0)), 0),), {"note": "x"}).save(
        tmp_path / "m.model"
    )
    (tmp_path / "scans").mkdir()
    for n in range(5):
        files.write(scan(n), tmp_path / "scans" / f"s{n}.nii.gz")
    return tmp_path


# ---- rounding ----


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 2.0), (-0.1, 5.0), (-3.0, 1.0), (0.5, 2.0), (-2.0, -1.0), (0.0, 0.0)]
)
def test_nothing_stays_nothing(low, high):
    scale, zero = int8._steps(low, high)
    x = torch.tensor([0.0, low, high])
    found = torch.fake_quantize_per_tensor_affine(x, scale, zero, 0, int8.STEPS)
    # The bounds move by up to half a step, so that 0 is one.
    assert found[0] == 0 and (found - x).abs().max() <= scale


def test_bounds_lose_least():
    values = np.random.default_rng(0).exponential(size=1_000_000).astype(np.float32)
    low, high = int8._best(np.append(values, np.float32(40)))
    # One value of a million is cut off, the others are told apart.
    assert low == 0 and 8 < high < 20

    def error(top: float) -> float:
        scale, _ = int8._steps(0, top)
        return float(np.square(np.clip(np.rint(values / scale), 0, 255) * scale - values).mean())

    assert error(float(high)) < 0.5 * error(40)


def test_heads_the_image_and_thin_layers_stay():
    module = build(small_network(3, **WIDE), 0)
    assert set(int8.candidates(module)) == {
        name for name, part in module.named_modules() if isinstance(part, torch.nn.Conv3d)
    } - {"encoder.0.0.0", "heads.0", "heads.1"}
    thin = int8.candidates(build(small_network(3), 0))  # 8, 16 and 16 wide
    assert set(thin) == {
        "encoder.1.1.0",
        "encoder.2.0.0",
        "encoder.2.1.0",
        "decoder.1.0.0",
        "decoder.1.1.0",
        "decoder.0.0.0",
    }


def test_what_is_watched_and_what_is_not():
    module = build(small_network(2, **WIDE), 0).eval()
    with int8.RangeObserver(module) as watch, torch.inference_mode():
        assert watch.bounds() == {}
        module(torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    found = watch.bounds()
    assert set(found) == set(int8.candidates(module)) and all(
        pair.shape == (2,) and pair[0] <= 0 < pair[1] for pair in found.values()
    )
    module(torch.full((1, 1, 16, 16), 1e6))  # no longer listened to
    assert all(np.array_equal(watch.bounds()[name], pair) for name, pair in found.items())
    with int8.RangeObserver(module) as single, torch.inference_mode():
        module(torch.randn(1, 1, 4, 4))  # one pixel at the coarsest stage
    assert set(found) - set(single.bounds()) == {
        name for name in found if name.startswith("encoder.2.") and not name.endswith("0.0")
    }


def test_bounds_of_a_layer_that_is_not_there():
    module = build(small_network(3, **WIDE), 0)
    with pytest.raises(ValueError, match=r"heads\.0"):
        int8.rounded(module, {"heads.0": np.zeros(2, np.float32)})


# ---- compiled ----


def integers(graph: compiled.Graph) -> int:
    """How many convolutions the processor computes in integers."""
    kinds = [op.get_rt_info() for op in graph._compiled.get_runtime_model().get_ordered_ops()]
    return sum(
        k["layerType"].astype(str) == "Convolution"
        and k["runtimePrecision"].astype(str) in ("u8", "i8")
        for k in kinds
    )


@needs_openvino
@each_network
def test_every_network_becomes_integers(name, monkeypatch):
    """As torch computes with rounded floats, and nearly as without rounding; weights alone and
    inputs alone could not hide from either.
    """
    monkeypatch.setattr(int8, "FEW_INPUTS", 4)
    monkeypatch.setattr(int8, "FEW_OUTPUTS", 4)
    given = NETWORKS[name]
    weights, x = weights_of(build(given, seed=0)), example(given, batch=1)
    plain = filled(given, weights)
    with int8.RangeObserver(plain) as watch, torch.inference_mode():
        expected = plain(x)
    bounds = watch.bounds()
    assert len(bounds) > 3
    with torch.inference_mode():
        rounded = int8.rounded(filled(given, weights), bounds)(x)
    for dtype in dict.fromkeys((torch.float32, fast_dtype(CPU))):
        graph = compiled.compiled(
            lambda: int8.rounded(filled(given, weights), bounds), tuple(x.shape[1:]), dtype
        )
        assert graph is not None and integers(graph) == len(bounds)
        found = graph(x)
        to_rounded, to_plain = (
            (found - other).square().mean().sqrt() / expected.std() for other in (rounded, expected)
        )
        # A hundred layers add up; a maximum that moves, moves what is unpooled.
        many = 3 if given.kind in ("denseunet", "quicknat") else 1
        assert to_rounded < 0.1 * many and 0 < to_plain < 0.15 * many


@needs_openvino
def test_the_engine_needs_bounds_and_openvino(monkeypatch):
    plan = small_plan(3, network=small_network(3, **WIDE))
    weights = weights_of(build(plan.network, 0))
    bare = Bundle(plan, (Member("fold_0", weights),))
    with pytest.raises(UsageError, match="quantise"):
        Engine.from_bundle(bare, CPU, torch.int8)
    bounds = {name: np.array([-1, 4], np.float32) for name in int8.candidates(build(plan.network))}
    ready = Bundle(plan, (Member("fold_0", weights, bounds=bounds),))
    engine = Engine.from_bundle(ready, CPU, torch.int8)
    assert engine.dtype == fast_dtype(CPU)
    ((graph, _),) = engine.members
    assert isinstance(graph, compiled.Graph) and integers(graph) == len(bounds)
    ((plain, _),) = Engine.from_bundle(ready, CPU, torch.float32).members
    # Bounds say nothing unless asked for.
    assert isinstance(plain, compiled.Graph) and integers(plain) == 0
    with pytest.raises(UsageError, match="torch has no fast INT8"):
        Engine.from_bundle(ready, CPU, torch.int8, backend="torch")
    monkeypatch.setattr(compiled, "available", lambda: False)
    with pytest.raises(UsageError, match="the package openvino"):
        Engine.from_bundle(ready, CPU, torch.int8)


def test_bounds_are_kept_in_the_model(tmp_path):
    plan = small_plan(3, network=small_network(3, **WIDE))
    weights = weights_of(build(plan.network, 0))
    bounds = {"encoder.1.0.0": np.array([-1, 4], np.float32)}
    bare, ready = (
        Bundle(plan, (Member("fold_0", weights, 0, bounds=found),)) for found in ({}, bounds)
    )
    assert bare.id != ready.id
    for number, bundle in enumerate((bare, ready)):
        bundle.save(tmp_path / f"{number}.model")
        again = Bundle.load(tmp_path / f"{number}.model")
        assert (
            again.id == bundle.id
            and again.members[0].bounds.keys() == bundle.members[0].bounds.keys()
        )
    assert np.array_equal(again.members[0].bounds["encoder.1.0.0"], bounds["encoder.1.0.0"])


# ---- the step ----


@needs_openvino
def test_a_model_is_made_ready_and_says_what_it_costs(wide):
    old = Bundle.load(wide / "m.model")
    found = CliRunner().invoke(
        app,
        [
            "quantise",
            str(wide / "m.model"),
            str(wide / "scans"),
            "-o",
            str(wide / "new.model"),
            "--cases",
            "2",
        ],
    )
    assert found.exit_code == 0, found.output
    assert "times as fast" in found.output and "not used for calibration" in found.output
    new = Bundle.load(wide / "new.model")
    assert new.plan == old.plan and new.id != old.id and new.card["note"] == "x"
    assert all(
        np.array_equal(new.members[0].weights[k], v) for k, v in old.members[0].weights.items()
    )
    cost = new.card["int8"]
    assert cost["layers"] == len(new.members[0].bounds) > 5 and (
        cost["bounds_of"],
        cost["measured_on"],
        cost["measured_on_others"],
    ) == (2, 3, True)
    assert (
        cost["dice"] == {}
        and len(cost["seconds"]) == 2
        and set(cost["agreement"]) == set(new.labels.names)
    )
    # A random network wavers; nothing rounded would agree wholly.
    assert all(0.8 < value < 1 for value in cost["agreement"].values())

    plain = dl.load(wide / "m.model").predict(scan(7)).labels.array
    # Nothing changes for who does not ask.
    assert np.array_equal(dl.load(wide / "new.model").predict(scan(7)).labels.array, plain)
    rounded = dl.load(wide / "new.model", precision="int8").predict(scan(7)).labels.array
    assert 0.8 < (rounded == plain).mean() < 1
    assert len(list((wide / "new.model.graphs").glob("*-int8-*.graph"))) == 1

    words = [
        "predict",
        str(wide / "new.model"),
        str(wide / "scans" / "s0.nii.gz"),
        "-o",
        str(wide / "out"),
        "--precision",
        "int8",
    ]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert json.loads((wide / "out" / "predictions.json").read_text())["precision"] == "int8"
    with pytest.raises(UsageError, match="delineate quantise"):
        predict(wide / "m.model", [wide / "scans"], wide / "no", PredictOptions(precision="int8"))
    with pytest.raises(UsageError, match="auto, float, float32, int8"):
        dl.load(wide / "new.model", precision="int4")
    with pytest.raises(UsageError, match=r"found str; delineate\.load"):
        dl.Model(str(wide / "new.model"))


@needs_openvino
def test_a_model_that_was_measured_uses_integers_where_they_are_fast(wide, monkeypatch):
    monkeypatch.setattr(int8, "adds_in_32_bits", lambda: True)
    found = Bundle.load(wide / "m.model")
    plan = found.plan.replace(inference=found.plan.inference.model_dump() | {"int8": True})
    (member,) = found.members
    module = filled(plan.network, member.weights)
    with int8.RangeObserver(module) as observer, torch.inference_mode():
        module(torch.from_numpy(scan().array)[None, None, :16, :16, :16])
    measured = Bundle(plan, (replace(member, bounds=observer.bounds()),), {})
    assert precision_of(measured, CPU) == "int8"
    # Nothing else uses integers unasked: other floats, torch, a model without bounds.
    assert precision_of(measured, CPU, "float") == "float"
    assert precision_of(measured, CPU, backend="torch") == "float"
    assert precision_of(Bundle(plan, (member,)), CPU) == "float"
    measured.save(wide / "measured.model")
    masks = []
    for precision, expected in (("auto", "int8"), ("int8", "int8"), ("float", "float")):
        out = wide / precision
        options = PredictOptions(precision=precision)
        predict(wide / "measured.model", [wide / "scans" / "s0.nii.gz"], out, options)
        record = json.loads((out / "predictions.json").read_text())
        assert record["precision"] == expected
        masks.append(np.asarray(files.read(out / "s0.nii.gz")))
    assert np.array_equal(masks[0], masks[1]) and not np.array_equal(masks[0], masks[2])
    monkeypatch.setattr(int8, "adds_in_32_bits", lambda: False)
    assert precision_of(measured, CPU) == "float"


@needs_openvino
def test_few_scans_serve_for_both_and_truth_is_scored(wide):
    (wide / "truth").mkdir()
    for n in range(5):
        source = dl.load(wide / "m.model").predict(scan(n))
        source.save(wide / "truth" / f"s{n}.nii.gz")
    done = quantise(
        wide / "m.model",
        [wide / "scans"],
        wide / "new.model",
        QuantiseOptions(truth=wide / "truth", cases=4),
    )
    assert not done.cost["measured_on_others"] and done.cost["measured_on"] == 5
    for plain, rounded in done.cost["dice"].values():
        assert plain > 0.99 > rounded > 0.8  # the truth is the plain model's own
    with pytest.raises(UsageError, match="at least 1"):
        quantise(wide / "m.model", [wide / "scans"], wide / "other.model", QuantiseOptions(cases=0))
    assert not (wide / "other.model").exists()


@needs_openvino
def test_a_scan_that_cannot_be_read_and_truth_of_others_do_not_cost_the_model(wide):
    (wide / "scans" / "s9.nii.gz").write_bytes(b"no scan")
    truth = Volume(np.ones((24, 28, 20), np.uint8), scan().grid, "label")
    files.write(truth, wide / "truth" / "other.nii.gz")
    before = (wide / "m.model").read_bytes()
    found = CliRunner().invoke(
        app,
        [
            "quantise",
            str(wide / "m.model"),
            str(wide / "scans"),
            "-o",
            str(wide / "new.model"),
            "--cases",
            "2",
            "--truth",
            str(wide / "truth"),
        ],
    )
    assert found.exit_code == 1 and "s9" in found.output and "Traceback" not in found.output
    assert "truth" in found.output
    assert (wide / "m.model").read_bytes() == before
    new = Bundle.load(wide / "new.model")
    cost = new.card["int8"]  # the others are done
    assert cost["bounds_of"] + cost["measured_on"] == 5
    assert cost["dice"] == {} and new.members[0].bounds
    with pytest.raises(InputError, match=r"none of \d scans could be read"):
        quantise(wide / "m.model", [wide / "scans" / "s9.nii.gz"], wide / "no.model")
    with pytest.raises(InputError, match="does not exist"):
        quantise(
            wide / "m.model",
            [wide / "scans"],
            wide / "no.model",
            QuantiseOptions(truth=wide / "nowhere"),
        )
    assert not (wide / "no.model").exists()


@needs_openvino
def test_thin_networks_are_refused(tmp_path):
    plan = small_plan(3, network=small_network(3, widths=(4, 6, 8)))
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0)), 0),)).save(
        tmp_path / "m.model"
    )
    files.write(scan(), tmp_path / "s.nii.gz")
    with pytest.raises(UsageError, match="INT8 would not make it faster"):
        quantise(tmp_path / "m.model", [tmp_path / "s.nii.gz"], tmp_path / "new.model")
    assert not (tmp_path / "new.model").exists()


@needs_openvino
@pytest.mark.rounds
def test_every_member_of_views_and_of_a_cascade_gets_bounds(tmp_path, monkeypatch):
    monkeypatch.setattr(int8, "FEW_INPUTS", 4)
    monkeypatch.setattr(int8, "FEW_OUTPUTS", 4)
    first = small_plan(3, spacing_mm=(2.0, 2.0, 2.0), network=small_network(3, **WIDE))
    cascade = small_plan(
        3, network=small_network(3, channels=3, **WIDE), cascade=True, low_resolution=first
    )
    members = [
        Member(f"f{n}", weights_of(build(plan.network, n)), n, first_stage=plan is first)
        for n, plan in itertools.chain(enumerate((first, first)), enumerate((cascade, cascade), 2))
    ]
    for name, bundle in (
        ("views", bundle_of_views()),
        ("cascade", Bundle(cascade, tuple(members))),
    ):
        bundle.save(tmp_path / f"{name}.model")
        for n in range(2):
            files.write(scan(n), tmp_path / name / f"s{n}.nii.gz")
        done = quantise(
            tmp_path / f"{name}.model",
            [tmp_path / name],
            tmp_path / f"{name}8.model",
            QuantiseOptions(cases=1),
        )
        again = Bundle.load(tmp_path / f"{name}8.model")
        assert [m.name for m in again.members] == [m.name for m in bundle.members] and all(
            m.bounds for m in again.members
        )
        # Each its own.
        assert len({tuple(np.concatenate(list(m.bounds.values()))) for m in again.members}) == len(
            again.members
        )
        assert done.cost["measured_on"] == 1 and min(done.cost["agreement"].values()) > 0.5


@needs_openvino
def test_a_real_trained_network_loses_nothing_to_speak_of(real_data, tmp_path):
    """nnU-Net's fold on real scans that it never saw: masks agree, and are as close to the
    truth.
    """
    bundle = read_bundle(
        real_data / "nnunet_hippocampus" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    )
    plain = bundle.plan.replace(inference={**bundle.plan.inference.model_dump(), "mirror": ()})
    Bundle(plain, bundle.members).save(tmp_path / "m.model")
    names = sorted(
        p.name for p in (real_data / "nnunet_hippocampus" / "predictions_plain").glob("*.nii.gz")
    )[:4]
    scans = [real_data / "hippocampus" / "imagesTr" / name for name in names]
    done = quantise(
        tmp_path / "m.model",
        scans,
        tmp_path / "new.model",
        QuantiseOptions(truth=real_data / "hippocampus" / "labelsTr", cases=2),
    )
    assert done.cost["measured_on"] == 2 and min(done.cost["agreement"].values()) > 0.98
    for before, after in done.cost["dice"].values():
        assert before > 0.8 and abs(after - before) < 0.01
