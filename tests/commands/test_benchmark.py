"""The quick measurements: every one gives figures, on a machine as small as a test's."""

from __future__ import annotations

import json

import pytest

from delineate.commands import benchmark
from delineate.commands.options import BenchmarkOptions


def test_every_measurement_gives_figures(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "RUNS", 1)
    monkeypatch.setattr(benchmark, "SHAPE", (32, 32, 20))
    monkeypatch.setattr(benchmark, "WINDOW", (16, 16, 16))
    monkeypatch.setattr(
        benchmark, "_ct", lambda: benchmark.np.zeros((32, 32, 20), benchmark.np.int16)
    )
    monkeypatch.setattr(benchmark, "measure_step", lambda net, patch, batch, device: 0.25)
    told: list[tuple[str, float, float, str]] = []
    rows = benchmark.benchmark(
        tmp_path / "figures.json",
        BenchmarkOptions(device="cpu"),
        progress=lambda *a: told.append(a),
    )
    assert [row.what.split()[0] for row in rows] == [
        "3-D",
        "training",
        "CT",
        "scores",
        "a",
        "writing",
        "reading",
    ]
    assert all(row.seconds > 0 for row in rows) and told[-1] == ("benchmark", 6, 6, "done")
    kept = json.loads((tmp_path / "figures.json").read_text())
    assert kept["machine"]["cores"] >= 1 and len(kept["rows"]) == 7
    for row, said in zip(rows, kept["rows"], strict=True):
        assert (row.ratio is None) == (row.other == "")
        assert (
            row.ratio is None
            or row.ratio == pytest.approx(row.other_s / row.seconds) == said["ratio"]
        )
