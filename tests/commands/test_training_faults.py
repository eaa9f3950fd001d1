"""Every fault of ``benchmarks/faults/training.py`` has the outcome that its page states."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks.faults.training import CASES, FAULTS, judged, tiny_plan
from tests.scans import write_cohort

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "training-faults.md"
QUICK = ("out of memory once", "the disk is full at a checkpoint")


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Path:
    return tiny_plan(write_cohort(tmp_path_factory.mktemp("sound") / "data", CASES))


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(one, marks=[] if one.what.startswith(QUICK) else pytest.mark.rounds)
        for one in FAULTS
    ],
    ids=lambda one: one.what,
)
def test_a_fault_has_its_stated_outcome(tmp_path, plan, fault):
    assert judged(fault, tmp_path, plan) == ""


def test_the_page_states_every_fault():
    text = PAGE.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(FAULTS) >= 20 and rows == [f"| {one.what} | {one.outcome} |" for one in FAULTS]
