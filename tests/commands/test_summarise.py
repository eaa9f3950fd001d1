"""The table and the report of results, also of few, of none, of damaged lines and of failures."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path

import pytest

from delineate.commands.predict.summarise import summarise
from delineate.core.errors import InputError
from delineate.execution.ledger import NAME, Ledger

LABELS = [{"value": 1, "name": "liver"}]


def results(folder: Path, count: int) -> Path:
    """The records of a work list: the last of ``count`` cases is an outlier."""
    folder.mkdir()
    head = {"cases_in": NAME, "labels": LABELS, "model": "m", "cases": {}}
    (folder / "predictions.json").write_text(json.dumps(head))
    with Ledger(folder) as ledger:
        for n in range(count):
            entry = {"volumes_ml": {"liver": 9000.0 if n == count - 1 else 1500.0 + n}}
            about = {"scanner": "A<b>", "age": 40 + n, "sex": "F"}
            made = {"machine": "CPU 1a2b", "seconds": {"total": 3.0 + n % 2}}
            ledger.put(f"c{n}", n, {**entry, "flags": [], "about": about, **made})
        ledger.fail("x", "case x: is empty")
    return folder


def test_results_become_a_table_and_a_report(tmp_path):
    folder, said = results(tmp_path / "out", 30), []
    with (folder / NAME).open("a") as file:
        file.write('{"case": "torn\n')
    done = summarise(folder, tmp_path / "to", said.append)
    assert (done.done, done.failed) == (30, 1) and any("1 damaged line" in one for one in said)
    with (tmp_path / "to" / "summary.csv").open(newline="") as file:
        rows = {row["case"]: row for row in csv.DictReader(file)}
    assert len(rows) == 31 and rows["x"]["error"] == "case x: is empty"
    assert (rows["c3"]["liver ml"], rows["c3"]["age"], rows["c3"]["flags"]) == ("1503.0", "43", "0")
    assert (rows["c3"]["machine"], rows["c3"]["seconds"]) == ("CPU 1a2b", "4.0")
    page = (tmp_path / "to" / "summary.html").read_text()
    assert "c29: liver 9000 ml" in page and "40 to 49" in page and "A&lt;b&gt;" in page
    assert "CPU 1a2b" in page and "3.5 (3 to 4)" in page
    if importlib.util.find_spec("pyarrow"):
        from pyarrow import parquet

        assert parquet.read_table(tmp_path / "to" / "summary.parquet").num_rows == 31
    else:
        assert any("pyarrow is not installed" in one for one in said)


def test_no_results_are_an_empty_table_and_no_records_an_error(tmp_path):
    done = summarise(results(tmp_path / "out", 0))
    assert (done.done, done.failed) == (0, 1)
    with pytest.raises(InputError, match="no records of predictions"):
        summarise(tmp_path)
