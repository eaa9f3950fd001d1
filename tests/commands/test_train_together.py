"""A training in several processes: what is refused, who starts them, and who gives orders."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from tests.scans import write_cohort

from delineate.commands.options import PlanOptions, TrainOptions
from delineate.commands.plan import plan as make_plan
from delineate.commands.train import together
from delineate.core.bundle import Bundle
from delineate.core.errors import LostRankError, StoreError, UsageError

VARIABLES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "cluster.md"
TWO = TrainOptions(device="cpu", devices=2)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in (*VARIABLES, "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"devices": 0}, "--devices must be at least 1, found 0"),
        ({"nodes": -1}, "--nodes must be at least 1, found -1"),
        ({"device": "cuda:1"}, "cuda:1 is one device"),
        ({"nodes": 2}, "not set here: NODE_RANK, MASTER_ADDR, MASTER_PORT"),
    ],
)
def test_numbers_that_are_not_possible_are_refused(changes, words):
    with pytest.raises(UsageError, match=words):
        together.refuse_unfit(replace(TWO, **changes))


def test_processes_are_started_once(monkeypatch):
    together.refuse_unfit(TWO)
    assert not together.started_outside(TWO)
    # A batch job of one task starts its own.
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert not together.started_outside(TWO)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert together.started_outside(TWO)


def test_other_numbers_than_those_of_torchrun_are_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "7")
    monkeypatch.setenv("WORLD_SIZE", "2")
    together.refuse_unfit(TWO)
    assert together.started_outside(TWO)
    with pytest.raises(UsageError, match="torchrun has started 2 processes"):
        together.refuse_unfit(TrainOptions(device="cpu"))


def tiny_cohort(folder: Path, name: str = "SCANS") -> None:
    """A cohort, and ``plan.json`` of 16 steps."""
    cohort = write_cohort(folder / name, 4)
    made = make_plan(cohort, options=PlanOptions(device="cpu", epochs=4))
    network = made.network.model_dump() | {"widths": (8,) * len(made.network.widths)}
    schedule = made.schedule.model_dump() | {"epochs": 4, "steps_per_epoch": 4}
    (folder / "plan.json").write_text(
        made.replace(network=network, schedule=schedule, batch=2).to_json()
    )


@pytest.mark.rounds
@pytest.mark.parametrize("started_by", ["torchrun", "itself"])
def test_a_rank_that_is_killed_costs_the_steps_since_the_checkpoint(tmp_path, started_by):
    """Rank 1 is killed once; all start again, though with --overwrite, and the weights are those of
    a training without a kill.
    """
    tiny_cohort(tmp_path, "cohort")
    words = ["--plan", "plan.json", "--epochs", "4", "--device", "cpu", "--devices", "2"]
    run = ["-m", "delineate", "train", "cohort", "--overwrite", *words]
    starting = [sys.executable, *run]
    if started_by == "torchrun":
        torchrun = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", "1"]
        starting = [sys.executable, *torchrun, "--standalone", *run]
    whole = subprocess.run([*starting, "-o", "a.model"], cwd=tmp_path, capture_output=True)
    # So short a training ends with 3, which torchrun counts as a failure, and ends with 1.
    assert whole.returncode == (1 if started_by == "torchrun" else 3), whole.stderr.decode()
    with open(tmp_path / "said.txt", "w") as said:
        killed = subprocess.Popen([*starting, "-o", "b.model"], cwd=tmp_path, stderr=said)
        checkpoint = tmp_path / "b.model.run/fold_0/last.safetensors"
        while not checkpoint.exists():
            assert killed.poll() is None, (tmp_path / "said.txt").read_text()
            time.sleep(0.05)
        last_rank(psutil.Process(killed.pid)).kill()
        assert killed.wait(300) == whole.returncode, (tmp_path / "said.txt").read_text()
    assert "continues from its checkpoint" in (tmp_path / "said.txt").read_text()
    one, other = (
        Bundle.load(tmp_path / name).members[0].weights for name in ("a.model", "b.model")
    )
    assert all(np.allclose(one[key], other[key], rtol=1e-5, atol=1e-6) for key in one)
    logs = [(tmp_path / f"{name}.model.run/fold_0/log.jsonl").read_text() for name in "ab"]
    steps = [[json.loads(line)["step"] for line in log.splitlines()] for log in logs]
    assert steps[0] == steps[1] and steps[0][-1] == 16


@pytest.mark.rounds
def test_ray_train_starts_the_ranks_and_starts_them_again(tmp_path):
    """The script of the how-to page; a rank is killed, and the model is the same."""
    pytest.importorskip("pyarrow", reason="Ray Train needs pyarrow")
    pytest.importorskip("ray", reason="ray is not installed")
    script = re.search(r'```python title="ray_train.py"\n(.*?)```', PAGE.read_text(), re.DOTALL)
    assert script is not None
    text = script[1].replace("32, True", "2, False")
    given = '{"plan": "plan.json", "epochs": 4, "device": "cpu", "deterministic": True}'
    text = text.replace('{"budget_s": 8 * 3600}', given)
    tiny_cohort(tmp_path)
    ids = []
    for is_killed in (False, True):
        name = f"killed_{is_killed}.model"
        (tmp_path / "ray_train.py").write_text(text.replace("organs.model", name))
        with open(tmp_path / "said.txt", "w") as said:
            process = subprocess.Popen(
                [sys.executable, "ray_train.py"], cwd=tmp_path, stderr=said, stdout=said
            )
            while is_killed and not (tmp_path / f"{name}.run/fold_0/last.safetensors").exists():
                assert process.poll() is None, (tmp_path / "said.txt").read_text()[-3000:]
                time.sleep(0.05)
            if is_killed:
                below = psutil.Process(process.pid).children(recursive=True)
                next(p for p in below if "ray::RayTrainWorker" in p.cmdline()).kill()
            assert process.wait(300) == 0, (tmp_path / "said.txt").read_text()[-3000:]
        said_text = (tmp_path / "said.txt").read_text()
        assert ("continues from its checkpoint" in said_text) == is_killed
        ids.append(Bundle.load(tmp_path / name).id)
    assert ids[0] == ids[1]


def last_rank(parent: psutil.Process) -> psutil.Process:
    """The process of rank 1, which was started last."""
    below = [one for one in parent.children() if "resource_tracker" not in " ".join(one.cmdline())]
    return max(below, key=lambda one: one.create_time())


class Orders:
    """Ranks that record the orders of the first one, or give those recorded."""

    size = 3

    def __init__(self, orders: list[Any]):
        self.orders = orders

    def order(self, what: Any) -> Any:
        if what is None and self.orders:
            return self.orders.pop(0)
        self.orders.append(what)
        return what


def test_the_leader_dismisses_those_who_wait():
    order: Any = SimpleNamespace(plan=SimpleNamespace(batch=2))
    for error, dismissed in ((None, True), (StoreError("is damaged"), True), (OSError(), False)):
        said: list[str] = []
        ranks = Orders([])
        leader = together.Leader(ranks, 1)

        def fit(error: Exception | None = error) -> dict[str, Any]:
            if error is not None:
                raise error
            return {}

        with suppress(StoreError, OSError):
            leader.fit(order, fit, said.append)
        assert ranks.orders.pop() is order and "1 are idle" in said[0]
        leader.dismiss()
        assert ranks.orders == [None] * dismissed


def test_a_follower_continues_after_an_error_of_all_and_ends_with_a_lost_rank():
    joined = []

    def join(order: Any) -> None:
        joined.append(order)
        if order == "damaged":
            raise StoreError("is damaged", case="c1")
        if order == "lost":
            raise LostRankError("lost")

    together.follow(Orders(["damaged", "again", None]), join)
    assert joined == ["damaged", "again"]
    with pytest.raises(LostRankError):
        together.follow(Orders(["lost", None]), join)
