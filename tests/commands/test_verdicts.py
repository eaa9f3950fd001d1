"""The verdicts on real trainings: bad in different ways, and good (``benchmarks/verdicts.py``)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
verdicts = pytest.importorskip("verdicts")


@pytest.mark.rounds
@pytest.mark.parametrize("name", verdicts.CASES)
def test_the_verdict_on_a_real_training_is_right(name):
    if not (verdicts.DATA / "hippocampus").is_dir():
        pytest.skip("the real data are not here")
    found = verdicts.run(verdicts.CASES[name])
    assert found["right"], found
