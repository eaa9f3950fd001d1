from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tests.plans import small_network, small_plan
from torch import nn

from delineate.core.store import Store, StoredCase
from delineate.networks.build import build
from delineate.training.norm_statistics import SAMPLES, STREAM, calibrate
from delineate.training.patches import draw_batch

CPU = torch.device("cpu")


@pytest.fixture
def case(tmp_path: Path) -> StoredCase:
    label = np.zeros((24, 20, 6), np.uint8)
    label[4:12, 5:15, 1:4] = 1
    Store(tmp_path).add(
        "c",
        (5 + label * 2.0 + np.random.default_rng(0).normal(0, 0.3, label.shape))[None],
        label,
        3,
        (16, 16, 1),
    )
    return Store(tmp_path).open("c").loaded()


def test_the_statistics_are_those_of_training_batches_without_dropout(case: StoredCase) -> None:
    plan = small_plan(2, network=small_network(2, norm="batch", dropout=0.5), batch=8)
    module = build(plan.network, 0).eval()
    calibrate(module, plan, [case], seed=4, step=7, device=CPU)
    first = next(m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    convolution = next(m for m in module.modules() if isinstance(m, nn.Conv2d))
    seen = [
        convolution(draw_batch(plan, [case], 4 + STREAM, 7 + n)[0]) for n in range(SAMPLES // 8)
    ]
    mean = torch.stack([x.mean((0, 2, 3)) for x in seen]).mean(0)
    var = torch.stack([x.var((0, 2, 3)) for x in seen]).mean(0)
    assert torch.allclose(first.running_mean, mean, rtol=0.02, atol=0.02) and torch.allclose(
        first.running_var, var, rtol=0.05
    )
    assert first.momentum == 0.1 and not any(m.training for m in module.modules())
    again = build(plan.network, 0).eval()
    calibrate(again, plan, [case], seed=4, step=7, device=CPU)
    assert all(
        torch.equal(a, b)
        for a, b in zip(module.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_nothing_is_drawn_without_batch_norm(case: StoredCase) -> None:
    plan = small_plan(2)
    module = build(plan.network, 0).eval()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    calibrate(module, plan, [], seed=0, step=0, device=CPU)  # no case to draw from: it would fail
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())
