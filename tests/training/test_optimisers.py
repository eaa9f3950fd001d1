"""Each optimiser takes its own step; Muon's is orthogonal where a kernel spans neighbours and
AdamW's elsewhere.
"""

import copy

import pytest
import torch
from tests.plans import small_network
from torch import nn

from delineate.core.plan import Optimiser
from delineate.networks.build import build
from delineate.training import checkpoint
from delineate.training.optimisers import MUON_SHARE, Muon, make_optimiser

PLANS = {
    "adam": Optimiser(kind="adam"),
    "adam_amsgrad": Optimiser(kind="adam", amsgrad=True),
    "adamw": Optimiser(kind="adamw"),
    "adamw_amsgrad": Optimiser(kind="adamw", amsgrad=True),
    "sgd": Optimiser(kind="sgd", momentum=0.9, nesterov=False),
    "sgd_nesterov": Optimiser(kind="sgd", momentum=0.9),
    "sgd_alone": Optimiser(kind="sgd", momentum=0.0),
}


def test_each_optimiser_takes_its_own_step():
    """Three steps from the same weights: no two settings agree, and Adam's weight decay goes
    through the gradient.
    """
    ends = {}
    for name, plan in PLANS.items():
        layer = torch.nn.Linear(3, 2, bias=False)
        torch.nn.init.constant_(layer.weight, 0.5)
        optimiser = make_optimiser(
            layer, plan.model_copy(update={"learning_rate": 0.1, "weight_decay": 0.1})
        )
        for scale in (30.0, 0.1, 0.1):
            optimiser.zero_grad()
            (scale * layer.weight * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
            optimiser.step()
        ends[name] = layer.weight.detach().clone()
    names = list(ends)
    assert [
        (a, b) for i, a in enumerate(names) for b in names[i + 1 :] if torch.equal(ends[a], ends[b])
    ] == []


def test_weight_decay_spares_norms_and_biases():
    module = build(small_network(2, norm="batch"), seed=0)
    decayed, spared = make_optimiser(module, Optimiser(kind="adam", weight_decay=0.1)).param_groups
    assert decayed["weight_decay"] == 0.1 and all(p.ndim > 1 for p in decayed["params"])
    assert spared["weight_decay"] == 0 and all(p.ndim == 1 for p in spared["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(module.parameters()))


def test_muons_decay_is_for_kernels_of_several_voxels():
    """Of a network's own weights: every kernel that spans neighbours shrinks where there is nothing
    to learn, heads, norms and biases stay.
    """
    module = build(small_network(3), seed=0)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimiser = make_optimiser(module, Optimiser(kind="muon", learning_rate=0.1, weight_decay=2.0))
    for p in module.parameters():
        p.grad = torch.zeros_like(p)
    optimiser.step()
    kept = {name for name, p in module.named_parameters() if torch.equal(p, before[name])}
    spanning = {
        name for name, p in module.named_parameters() if p.ndim == 5 and p[0, 0].numel() > 1
    }
    assert kept == set(before) - spanning and any(
        name.startswith("heads") and name.endswith("weight") for name in kept
    )
    for name in spanning:
        torch.testing.assert_close(dict(module.named_parameters())[name], 0.8 * before[name])


def test_a_loaded_optimiser_lies_in_memory_as_its_parameters_do(tmp_path):
    module = build(small_network(2), seed=0)
    optimiser = make_optimiser(module, Optimiser(kind="adam", amsgrad=True))
    module(torch.randn(1, 1, 16, 16))[0].sum().backward()
    optimiser.step()
    state = {"step": 7, "best": None, "counts": [[4, 5], [1, 2], [0, 2]], "losses": [0.5]}
    average = build(small_network(2), seed=1)
    checkpoint.save(tmp_path / "last.safetensors", module, average, optimiser, state)
    fresh = make_optimiser(module, Optimiser(kind="adam", amsgrad=True))
    assert checkpoint.load(tmp_path / "last.safetensors", module, average, fresh) == state
    for parameter, slots in fresh.state.items():
        for key, value in slots.items():
            assert torch.equal(value, optimiser.state[parameter][key])
            assert value.ndim == 0 or value.stride() == parameter.stride()


# ---- Muon ----


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "layer",
    [nn.Conv3d(4, 8, 3), nn.Conv2d(16, 4, 3), nn.ConvTranspose3d(16, 8, 2), nn.Conv3d(1, 32, 3)],
    ids=str,
)
def test_a_kernels_step_has_equal_singular_values(layer, dtype):
    layer = copy.deepcopy(layer).to(
        memory_format=torch.channels_last_3d if layer.weight.ndim == 5 else torch.channels_last
    )
    before = layer.weight.detach().clone()
    optimiser = Muon(layer.parameters(), lr=1.0, weight_decay=0.0, dtype=dtype)
    layer.weight.grad = torch.randn(before.shape, generator=torch.Generator().manual_seed(0))
    layer.bias.grad = torch.ones_like(layer.bias)
    optimiser.step()
    moved = (before - layer.weight.detach()).flatten(1)
    values = torch.linalg.svdvals(moved) / (MUON_SHARE * max(moved.shape) ** 0.5)
    assert values.min() > 0.6 and values.max() < 1.3


def test_a_direction_seldom_taken_moves_as_far_as_a_common_one():
    layer = nn.Conv2d(2, 2, 3, bias=False)
    left, right = torch.linalg.qr(torch.randn(2, 2))[0], torch.linalg.qr(torch.randn(18, 18))[0][:2]
    before = layer.weight.detach().flatten(1).clone()
    layer.weight.grad = (left @ torch.diag(torch.tensor([1.0, 0.05])) @ right).view_as(layer.weight)
    Muon(layer.parameters(), lr=1.0, weight_decay=0.0).step()
    along = torch.diag(left.T @ (before - layer.weight.detach().flatten(1)) @ right.T)
    assert along.min() > 0.5 * along.max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_directions_that_hardly_occur_are_not_blown_up(dtype):
    layer = nn.Conv3d(24, 32, 3, bias=False)
    u, _, v = torch.linalg.svd(
        torch.randn(32, 24 * 27, generator=torch.Generator().manual_seed(0)), full_matrices=False
    )
    layer.weight.grad = (u @ torch.diag(torch.logspace(0, -5, 32)) @ v).view_as(layer.weight)
    before = layer.weight.detach().flatten(1).clone()
    Muon(layer.parameters(), lr=1.0, weight_decay=0.0, dtype=dtype).step()
    values = torch.linalg.svdvals(before - layer.weight.detach().flatten(1)) / (
        MUON_SHARE * (24 * 27) ** 0.5
    )
    assert values.max() < 1.3


def test_everything_else_moves_as_adam_moves_it():
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(5, 2))
    other = copy.deepcopy(module)
    muon = make_optimiser(module, Optimiser(kind="muon", learning_rate=0.01, weight_decay=0.1))
    adamw = make_optimiser(other, Optimiser(kind="adamw", learning_rate=0.01, weight_decay=0.0))
    for step in range(5):
        for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
            mine.grad = torch.randn(mine.shape, generator=torch.Generator().manual_seed(step))
            theirs.grad = mine.grad.clone()
        muon.step()
        adamw.step()
    for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_a_zero_gradient_moves_nothing():
    layer = nn.Conv2d(2, 3, 3)
    before = layer.weight.detach().clone()
    layer.weight.grad, layer.bias.grad = (
        torch.zeros_like(layer.weight),
        torch.zeros_like(layer.bias),
    )
    Muon(layer.parameters(), lr=1.0, weight_decay=0.0).step()
    assert torch.equal(layer.weight.detach(), before)
