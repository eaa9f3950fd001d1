"""The notebooks of the tutorials run, each of their faults is real, and the pages state their
figures.

A cell with a fault ends in an assertion. With the correction in the place of the fault, the
assertion must fail: else the cell would show nothing.
"""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[1] / "docs"
NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))

_spec = importlib.util.spec_from_file_location("notebooks", DOCS / "notebooks.py")
assert _spec is not None and _spec.loader is not None
notebooks = importlib.util.module_from_spec(_spec)
sys.modules["notebooks"] = notebooks
_spec.loader.exec_module(notebooks)


def fails_when_corrected(cell: Any, variables: dict[str, Any]) -> None:
    if cell.has_fault:
        with pytest.raises(AssertionError):
            notebooks.execute(notebooks.corrected(cell.text), dict(variables))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_each_fault_is_real(path):
    cells = notebooks.run(path, before=fails_when_corrected)
    assert sum(cell.has_fault for cell in cells) >= 4
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    figures_are_those_of_the_notebook(page, cells)


def figures_are_those_of_the_notebook(page: str, cells: list[Any]) -> None:
    """The table of faults on the page has a row for each fault, in the order of the notebook; its
    bold figures are printed by the cell of the fault, or by the one after it.
    """
    faults = [number for number, cell in enumerate(cells) if cell.has_fault]
    headings = [re.findall(r"^## (.*)$", cells[n - 1].text, re.MULTILINE)[0] for n in faults]
    rows = fault_rows(page)
    assert [heading for heading, _ in rows] == headings
    for number, (heading, text) in zip(faults, rows, strict=True):
        printed = cells[number].output + cells[number + 1].output
        figures = re.findall(r"\*\*(.+?)\*\*", text)
        assert figures, heading
        for figure in figures:
            assert figure in printed, f"{heading}: {figure} is not in\n{printed}"


def fault_rows(page: str) -> list[tuple[str, str]]:
    """(first cell, second cell) of each row of the table of faults, the last table of a page."""
    table = re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE)[-1].splitlines()[2:]
    return [(row.split(" | ")[0].removeprefix("| "), row.split(" | ")[1]) for row in table]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None, "clear the outputs"
    assert content["metadata"].keys() <= {"kernelspec", "language_info"}


def test_the_site_shows_the_outputs_of_a_notebook(tmp_path):
    path = tmp_path / "small.ipynb"
    figure = "from matplotlib import pyplot as plt\nplt.figure(figsize=(1, 1))"
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": ["# Title\n", "\n", "## Part"]},
        {"cell_type": "code", "metadata": {}, "source": ["x = 2\n", "print(x)\n", "x + 1"]},
        {"cell_type": "code", "metadata": {}, "source": [figure]},
    ]
    path.write_text(json.dumps({"cells": cells}))
    run = notebooks.run(path)
    shown = notebooks.markdown(run)
    assert shown.startswith("### Part") and '```text title="output"\n2\n3\n```' in shown
    written = json.loads(notebooks.executed(path, run))
    assert written["cells"][1]["outputs"][0]["text"] == ["2\n", "3\n"]
    assert run[2].png.startswith(b"\x89PNG") and "](data:image/png;base64,iVBOR" in shown
    assert written["cells"][2]["outputs"][0]["data"]["image/png"].startswith("iVBOR")


def test_a_fault_without_a_correction_is_refused():
    with pytest.raises(ValueError, match="found 0 faults"):
        notebooks.corrected("x = 1  # fault\nassert x == 1\n")
