"""A training in several processes: what is refused, who starts them, and who gives orders."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from delineate.commands.options import TrainOptions
from delineate.commands.train import together
from delineate.core.errors import LostRankError, StoreError, UsageError

VARIABLES = ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
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
