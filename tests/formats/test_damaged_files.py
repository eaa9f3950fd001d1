"""Every damaged file of ``benchmarks/faults`` is read with the right voxels or refused in one
sentence, at the cost that is allowed, and the page of the documentation states which.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from benchmarks.faults.every import FAULTS
from benchmarks.faults.fuzz import FORMS as FUZZED
from benchmarks.faults.fuzz import KINDS, Round
from benchmarks.faults.page import PAGE, page

FORMS = sorted({one.form for one in FAULTS})
NEEDS = {"HDF5": "h5py"}
RECORDS = ("Descriptions", "Lists of cases", "Outlines", "Results")


def parameters(forms: list[str]) -> list[Any]:
    """The formats, of which some are skipped where their package is missing."""
    return [
        pytest.param(
            form,
            marks=pytest.mark.skipif(
                form in NEEDS and find_spec(NEEDS[form]) is None, reason="its package is missing"
            ),
        )
        for form in forms
    ]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict[str, Any]]:
    """What reading each file gave; all in one process, because most of the time is its start."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults.reading", tmp_path_factory.mktemp("damaged")],
        capture_output=True,
        text=True,
        timeout=600,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("form", parameters(FORMS))
def test_a_damaged_file_is_read_right_or_refused(outcomes, form):
    found = {what: one for what, one in outcomes.items() if what.startswith(f"{form}: ")}
    wrong = {
        what: (one["verdict"], one["message"])
        for what, one in found.items()
        if one["verdict"] not in ("right", "refused")
    }
    assert len(found) == sum(one.form == form for one in FAULTS) and not wrong
    assert not [what for what, one in found.items() if "\n" in one["message"]]


def mutants(form: str) -> int:
    """Fewer where a mutant costs more: series, media and archives have 16 files."""
    if form in ("DICOM", "DICOMDIR", "DICOM archive"):
        return 30
    return 100 if form.startswith("DICOM") or form in RECORDS else 500


@pytest.mark.parametrize("form", parameters(FUZZED))
def test_mutants_are_read_or_refused_by_a_documented_error(tmp_path, form):
    # Of a format without elements or nodes, bytes are changed.
    assert list(Round(form, mutants(form) // 4, tmp_path, kind="structure").wrong()) == []


@pytest.mark.rounds
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", parameters(FUZZED))
def test_many_mutants_of_every_kind(tmp_path, form, kind):
    assert list(Round(form, 10 * mutants(form), tmp_path, kind=kind).wrong()) == []


def test_the_page_states_every_file():
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m benchmarks.faults.page"
