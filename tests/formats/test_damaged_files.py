"""Every damaged file of ``benchmarks/faults`` is read with the right voxels or refused in one
sentence, at the cost that is allowed, and the page of the documentation states which.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks.faults.every import FAULTS
from benchmarks.faults.fuzz import FORMS as FUZZED
from benchmarks.faults.fuzz import fuzz
from benchmarks.faults.page import PAGE, page

FORMS = sorted({one.form for one in FAULTS})
NEEDS = {"HDF5": "h5py"}


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_file_is_read_right_or_refused(tmp_path, form):
    if form in NEEDS and importlib.util.find_spec(NEEDS[form]) is None:
        pytest.skip(f"needs {NEEDS[form]}")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults.reading", tmp_path, "--form", form],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    wrong = {
        what: (one["verdict"], one["message"])
        for what, one in found.items()
        if one["verdict"] not in ("right", "refused")
    }
    assert len(found) == sum(one.form == form for one in FAULTS) and not wrong
    assert not [what for what, one in found.items() if "\n" in one["message"]]


FEW, MANY = 30, 500  # mutants of a format


@pytest.mark.parametrize(
    "inputs", [FEW, pytest.param(MANY, marks=pytest.mark.rounds)], ids=["few", "many"]
)
@pytest.mark.parametrize("form", FUZZED)
def test_mutants_are_read_or_refused_by_a_documented_error(tmp_path, form, inputs):
    assert list(fuzz(form, inputs, tmp_path, seed=inputs)) == []


def test_the_page_states_every_file():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m benchmarks.faults.page"
