"""Structures that overlap: one sigmoid each, from the loss to nested masks on the scan's grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.plans import small_network, small_plan

from delineate.core.errors import LabelError
from delineate.core.grid import Grid
from delineate.core.labels import Label, LabelSet, default_colour
from delineate.core.plan import Augmentation, Loss, Optimiser, Plan, Schedule, Structure
from delineate.core.store import Store, StoredCase
from delineate.core.volume import Volume
from delineate.inference.engine import Engine
from delineate.inference.predictor import predict
from delineate.networks.build import build, load_weights
from delineate.training import losses, overlapping, postprocessing
from delineate.training import validation as scoring
from delineate.training.loop import TrainingJob, fit
from delineate.training.patches import draw_batch

ZERO = dict.fromkeys(Loss.TERMS, 0.0)
LOSSES = {
    **{name: Loss(**(ZERO | {name: 1.0})) for name in Loss.OF_OVERLAPS},
    "weighted": Loss(**(ZERO | {"binary_cross_entropy": 1.0}), class_weights=(1.0, 2.0, 3.0)),
    "by sample": Loss(**(ZERO | {"dice": 1.0}), batch_dice=False, squared=True),
    "plan": Loss(cross_entropy=0, binary_cross_entropy=1),
}
NAMES = {1: "whole", 2: "core", 3: "spot"}


def nested(**changes) -> Plan:
    """A small plan of three nested structures."""
    labels = LabelSet.from_names(NAMES, overlapping=True)
    base = {
        "structures": tuple(Structure(**d) for d in labels.to_json()),
        "network": small_network(classes=3, overlapping=True),
        "loss": LOSSES["plan"],
        "output": "structures",
    }
    return small_plan(names=NAMES, **(base | changes))


def scene(seed=0):
    """Logits, codes, and where they are ignored (code 8)."""
    draws = torch.Generator().manual_seed(seed)
    x = torch.randn((2, 3, 4, 5, 3), generator=draws, dtype=torch.float64)
    codes = torch.randint(0, 8, (2, 4, 5, 3), generator=draws)
    return x, codes, torch.rand(codes.shape, generator=draws) < 0.3


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_is_that_of_each_structure_as_a_task_of_its_own(name):
    """A structure with logit z is a task of two classes with the logits 0 and z."""
    x, codes, _ = scene()
    loss = LOSSES[name]
    found = overlapping.combined(x, codes, loss)
    if name == "generalised_dice":
        return  # weighs the structures against each other
    alone = []
    for n in range(3):
        two = torch.stack([torch.zeros_like(x[:, n]), x[:, n]], 1)
        plain = loss.model_copy(update={"class_weights": ()})
        weight = loss.class_weights[n] if loss.class_weights else 1.0
        alone.append(weight * losses.combined(two, codes >> n & 1, plain))
    assert torch.allclose(found, sum(alone) / 3, atol=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences_and_0_where_ignored(name):
    x, codes, away = scene()
    loss = LOSSES[name].model_copy(update={"ignore": True})
    codes = codes.masked_fill(away, 8)
    x.requires_grad_()
    cost = overlapping.combined(x, codes, loss)
    cost.backward()
    there = away[:, None].expand_as(x)
    assert not x.grad[there].any() and x.grad[~there].any()
    with torch.no_grad():
        other = torch.where(there, 9 * torch.randn_like(x), x)
        assert torch.allclose(overlapping.combined(other, codes, loss), cost, atol=1e-12)
    small = x[:1, :, :2, :2].detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: overlapping.combined(z, codes[:1, :2, :2], loss), (small,), atol=1e-6
    )


def test_terms_that_compare_classes_are_refused():
    x, codes, _ = scene()
    for loss in (
        Loss(),
        Loss(cross_entropy=0, focal=1),
        LOSSES["plan"].model_copy(update={"boundary": 1.0}),
    ):
        with pytest.raises(ValueError, match="overlap cannot have the loss terms"):
            overlapping.combined(x, codes, loss)


def test_counts_are_those_of_each_mask():
    x, codes, away = scene()
    found = overlapping.counts(codes.masked_fill(away, 8), x > 0, ignore=True)
    for n in range(3):
        true, mask = (codes >> n & 1 > 0) & ~away, (x[:, n] > 0) & ~away
        assert found[:, n + 1].tolist() == [int(m.sum()) for m in (true, mask, true & mask)]
    assert not found[:, 0].any()


# ---- label sets ----


def test_a_set_of_structures_that_overlap():
    labels = LabelSet.from_names({5: "left a", 2: "right a", 9: "b"}, overlapping=True)
    assert labels.values == [5, 2, 9] and labels.codes == 8 and labels.dtype == np.uint8
    codes = np.arange(8)
    assert labels.inside(codes, labels.named("right a")).tolist() == [False, False, True, True] * 2
    # Bits 0 and 1 change places.
    assert labels.swap_codes().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert labels.painted(codes).tolist() == [0, 5, 2, 2, 9, 9, 9, 9]
    again = LabelSet.from_json(labels.to_json(), overlapping=True)
    assert again == labels and LabelSet.from_json(labels.to_json()) != labels
    with pytest.raises(LabelError, match="at most 15"):
        LabelSet.from_names({n: str(n) for n in range(1, 17)}, overlapping=True)


def test_a_plan_states_its_output():
    plan = nested()
    assert Plan.from_json(plan.to_json()) == plan and plan.codes == 8 and plan.labels.overlapping
    with pytest.raises(ValueError, match="have one label map"):
        small_plan(output="structures")
    with pytest.raises(ValueError, match="at most 15"):
        many = {n: f"s{n}" for n in range(1, 17)}
        small_plan(names=many, network=small_network(classes=16, overlapping=True))


def test_sides_are_exchanged_in_codes():
    label = np.zeros((16, 16, 16), np.uint8)
    label[:5], label[5:9], label[9:] = 1, 3, 8  # left alone, both, ignored
    case = StoredCase("a", np.zeros((1, 16, 16, 16), np.float32), label, {})
    names = {1: "left a", 2: "right a", 3: "b"}
    labels = LabelSet.from_names(names, overlapping=True)
    plan = nested(
        structures=tuple(Structure(**d) for d in labels.to_json()),
        loss=LOSSES["plan"].model_copy(update={"ignore": True}),
        augmentation=Augmentation.none().model_copy(update={"mirror": (0,)}),
    )
    seen = {
        tuple(one[:, 0, 0].tolist())
        for step in range(8)
        for one in draw_batch(plan, [case], 0, step)[1]
    }
    assert seen == {(1,) * 5 + (3,) * 4 + (8,) * 7, (8,) * 7 + (3,) * 4 + (2,) * 5}


# ---- training ----


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A network trained for a few seconds on three nested balls that the image shows."""
    folder = tmp_path_factory.mktemp("nested")
    store, cases = Store(folder / "store"), []
    for n in range(3):
        rng = np.random.default_rng(n)
        where = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij")) - 10 - n
        radius = np.sqrt((where**2).sum(0))
        code = (radius < 8) + 2 * (radius < 6.5) + 4 * (radius < 5)
        image = np.log2(code + 1) + rng.normal(0, 0.1, code.shape)
        store.add(f"c{n}", image[None], code.astype(np.uint8), 8, (16, 16, 16), seed=n)
        cases.append(store.open(f"c{n}").loaded())
    plan = nested(
        schedule=Schedule(epochs=1, steps_per_epoch=50, ema=0.8),
        optimiser=Optimiser(learning_rate=1e-2),
        augmentation=Augmentation.none(),
        network=small_network(classes=3, overlapping=True, deep_supervision=False),
    )
    job = TrainingJob(plan, cases[:2], cases[2:], Path(folder), torch.device("cpu"), 0)
    module = build(plan.network, seed=0)
    load_weights(module, fit(job), strict=True)
    return plan, module.eval(), cases


def test_a_short_training_finds_nested_structures(trained):
    plan, module, cases = trained
    found = scoring.evaluate(plan, module, cases[2:], torch.device("cpu"))
    assert set(found["val_dice"]) == set(NAMES.values())
    assert min(found["val_dice"].values()) > 0.5 and np.isfinite(found["val_loss"])
    engine = Engine(plan, ((module, 1.0),), torch.device("cpu"), torch.float32)
    assert set(postprocessing.choose(engine, cases, 60)) <= set(NAMES.values())
    image = cases[2].values()[0]
    scan = Volume(image, Grid.from_spacing(image.shape, (1, 1, 1)))
    mask = predict(scan, engine)
    assert mask.structures.overlapping
    whole, core, spot = (mask.structures.inside(mask.labels.array, b) for b in mask.structures)
    assert whole.sum() > core.sum() > spot.sum() > 20
    assert (core & whole).sum() > 0.9 * core.sum()
    assert mask.volumes_ml["core"] == pytest.approx(core.sum() / 1000)
    # The same network whose output is one label map: the last structure wins.
    parts = {1: (1, 2, 3), 2: (2, 3), 3: (3,)}
    regions = LabelSet(
        tuple(Label(v, n, default_colour(v), parts=parts[v]) for v, n in NAMES.items()), True
    )
    assert regions.can_be_painted
    flat = plan.replace(
        output="label map", structures=tuple(Structure(**d) for d in regions.to_json())
    )
    painted = predict(scan, Engine(flat, engine.members, engine.device, torch.float32))
    expected = np.select([spot, core, whole], [3, 2, 1])
    assert np.array_equal(painted.labels.array, expected)
    assert painted.volumes_ml["whole"] == pytest.approx((expected > 0).sum() / 1000)
