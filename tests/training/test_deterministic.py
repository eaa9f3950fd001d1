"""Equal weights on a repeat, for every network family and number of threads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.contracts.test_networks import net
from tests.training import test_loop
from tests.training.test_loop import same

from delineate.commands.options import TrainOptions
from delineate.commands.train.request import request_of
from delineate.core.errors import PlanError, UsageError
from delineate.core.plan import Network, Schedule
from delineate.inference.devices import deterministic
from delineate.training.loop import fit

cases = test_loop.cases  # the fixture

FAMILIES = {
    "unet": net(2, (6, 8), dropout=0.2),
    "denseunet": net(
        2,
        (6, 8, 8, 8),
        kind="denseunet",
        convs=(2, 2),
        growth=4,
        activation="relu",
    ),
    "vnet": net(2, (6, 8), 5, kind="vnet", convs=(1, 2), activation="prelu"),
    "quicknat": net(2, (8, 8), 5, kind="quicknat", squeeze="both", activation="prelu"),
}


SCHEDULE = Schedule(epochs=2, steps_per_epoch=2)


def weights(folder: Path, cases, network: Network, threads: int) -> Path:
    before, own = torch.get_num_threads(), network.model_copy(update={"channels": 1})
    torch.set_num_threads(threads)
    try:
        with deterministic(torch.device("cpu")):
            fit(test_loop.job(folder, cases, network=own, schedule=SCHEDULE))
    finally:
        torch.set_num_threads(before)
    return folder / "last.safetensors"


@pytest.mark.parametrize(
    ("family", "threads"),
    [
        *((family, 1) for family in FAMILIES),
        ("unet", 2),
        *(pytest.param(f, 2, marks=pytest.mark.rounds) for f in FAMILIES if f != "unet"),
    ],
)
def test_a_repeat_gives_equal_weights(tmp_path, cases, family, threads):
    first, second = (
        weights(tmp_path / name, cases, FAMILIES[family], threads) for name in ("a", "b")
    )
    assert same(first, second)


def test_a_budget_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--deterministic needs --epochs"):
        request_of(tmp_path, TrainOptions(budget_s=600, deterministic=True))
    assert request_of(tmp_path, TrainOptions(epochs=3, deterministic=True)).deterministic


def test_an_operation_without_a_deterministic_form_is_named():
    with (
        pytest.raises(PlanError, match=r"--deterministic on this device \(put_"),
        deterministic(torch.device("meta")),
    ):
        raise RuntimeError("put_ does not have a deterministic implementation")
    with pytest.raises(RuntimeError, match="memory"), deterministic(torch.device("meta")):
        raise RuntimeError("out of memory")
    assert not torch.are_deterministic_algorithms_enabled()
