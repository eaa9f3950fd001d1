"""Figures for Prometheus: their text, the page, and what it never says."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from tests.calls import run

from delineate.commands.status import publish
from delineate.core.errors import DelineateError, UsageError
from delineate.execution.metrics import Gauge, page


def results(folder: Path) -> Path:
    folder.mkdir()
    record = '{"cases": {"Doe1": {}, "Doe2": {"error": "Doe2 is empty"}}, "writing": ["Doe3"]}'
    (folder / "predictions.json").write_text(record)
    return folder


def test_a_file_has_the_figures_and_no_names(tmp_path):
    folder, file = results(tmp_path / "out"), tmp_path / "d.prom"
    for _ in range(2):
        assert run("status", folder, "--metrics", file)[0] == 0
    text = file.read_text()
    assert 'delineate_predict_cases{state="done"} 1\n' in text
    assert 'delineate_predict_cases{state="failed"} 1\n' in text
    assert 'delineate_predict_cases{state="left"} 1\n' in text
    assert "# TYPE delineate_predict_working_calls gauge\n" in text
    # What is not known has no line.
    assert "per_hour" not in text and "Doe" not in text
    file.write_text("mine")
    code, printed = run("status", folder, "--metrics", file)
    assert code == 2 and "d.prom" in printed and file.read_text() == "mine"
    before = (folder / "predictions.json").read_bytes()
    assert run("status", folder, "--metrics", folder / "predictions.json")[0] == 2
    assert (folder / "predictions.json").read_bytes() == before


def test_a_page_has_the_figures_of_now():
    counts = iter([3.0, DelineateError("the records of Doe are damaged")])

    def count():
        one = next(counts)
        if isinstance(one, Exception):
            raise one
        return [Gauge("work_cases", "Cases.", {"": one})]

    with page(0, count) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        with urllib.request.urlopen(f"{address}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert answer.read().endswith(b"\nwork_cases 3\n")
        with urllib.request.urlopen(f"{address}/metrics") as answer:  # not counted again so soon
            assert answer.read().endswith(b"\nwork_cases 3\n")
        server.RequestHandlerClass.counted._until = 0.0
        for path, code in (("/metrics", 503), ("/", 404), ("/../etc/passwd", 404)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(address + path)
            assert caught.value.code == code and b"Doe" not in caught.value.read()
        with pytest.raises(UsageError, match="cannot be used"):
            page(server.server_port, count)
        server.shutdown()


def test_a_folder_without_records_has_no_page(tmp_path):
    with pytest.raises(DelineateError, match="no records of predictions"):
        publish(tmp_path, "0")
