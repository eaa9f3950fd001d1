"""Work lists: what is segmented, kept, done again and refused, line by line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.commands.test_predict import model
from tests.scans import scan

from delineate.commands.options import PredictOptions
from delineate.commands.predict import ListReport, predict
from delineate.commands.predict.journal import NAME
from delineate.commands.status import status
from delineate.core.errors import InputError, OutputError, UsageError
from delineate.execution.ledger import Ledger

OPTIONS = PredictOptions(device="cpu")


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    """Three scans, one of them cut off, a model, and a list with three lines that are wrong."""
    folder = tmp_path_factory.mktemp("lists")
    for seed, name in enumerate("abc"):
        scan(folder / "scans" / f"{name}.nii.gz", seed=seed)
    damaged = folder / "scans" / "c.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:400])
    model(folder / "m.model", ("MR",))
    lines = [{"id": name, "image": f"scans/{name}.nii.gz", "age": 40} for name in "abca"]
    text = "".join(json.dumps(line) + "\n" for line in (*lines, {"id": "d/e", "image": "x"}))
    (folder / "list.jsonl").write_text(text + '{"id": "f", "id": "g"}\n')
    return folder


def done(folder: Path, out: Path, given="list.jsonl", **options) -> tuple[int, int, int]:
    found = predict(folder / "m.model", [folder / given], out, replace(OPTIONS, **options))
    assert isinstance(found, ListReport)
    return found.done, found.kept, found.failed


def test_a_list_gives_what_its_scans_give_and_is_resumed(archive, tmp_path):
    out = tmp_path / "out"
    predict(archive / "m.model", [archive / "scans" / "a.nii.gz"], tmp_path / "one", OPTIONS)
    assert done(archive, out) == (2, 0, 4)
    assert (out / "a.nii.gz").read_bytes() == (tmp_path / "one" / "a.nii.gz").read_bytes()
    failed = Ledger(out).failures()
    assert list(failed) == [*(f"list.jsonl line {n}" for n in (4, 5, 6)), "c"]
    assert "is in the list already" in failed["list.jsonl line 4"]
    assert "stands twice" in failed["list.jsonl line 6"] and "'d/e'" in failed["list.jsonl line 5"]
    line = Ledger(out).line("a")
    assert line is not None and line["entry"]["about"] == {"age": 40}
    # Kept; a result that is missing and a scan that was changed are done again.
    assert done(archive, out) == (0, 2, 4)
    (out / "b.nii.gz").unlink()
    assert done(archive, out) == (1, 1, 4)
    assert len((out / NAME).read_text().splitlines()) == 6
    found = status(out)
    assert (found.done, len(found.failed), found.left) == (2, 4, 0)
    # A scan that changed is done again; a result that was edited is not replaced.
    scan(out / "b.nii.gz", seed=5)
    (archive / "scans" / "a.nii.gz").touch()
    assert done(archive, out) == (1, 0, 5)
    assert "not as delineate wrote it" in Ledger(out).failures()["b"]
    with pytest.raises(OutputError, match="record of a work list"):
        predict(archive / "m.model", [archive / "scans"], out, OPTIONS)
    with pytest.raises(OutputError, match="no record of a work list"):
        done(archive, tmp_path / "one")


def test_shards_of_a_list_share_it_and_a_whole_call_gathers(archive, tmp_path):
    out = tmp_path / "out"
    parts = [done(archive, out, shard=f"{n}/2") for n in (1, 2)]
    assert [sum(numbers) for numbers in zip(*parts, strict=True)] == [2, 0, 4]
    assert done(archive, out) == (0, 2, 4)
    assert sorted(p.name for p in out.iterdir()) == [
        "a.nii.gz",
        "b.nii.gz",
        "predictions.json",
        NAME,
    ]


def test_damaged_parquet_is_one_sentence(archive, tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (archive / "t.parquet").write_bytes(b"PAR1" * 20)
    with pytest.raises(InputError, match="is damaged or not Parquet"):
        done(archive, tmp_path / "out", "t.parquet")


def test_patterns_and_tables_are_lists(archive, tmp_path):
    found = predict(archive / "m.model", [f"{archive}/scans/[ab]*.gz"], tmp_path / "p", OPTIONS)
    assert isinstance(found, ListReport) and (found.done, found.failed) == (2, 0)
    with pytest.raises(InputError, match="no file has a name"):
        predict(archive / "m.model", [f"{archive}/none/*.gz"], tmp_path / "p", OPTIONS)
    (archive / "t.csv").write_text("id,MR,sex\nb,scans/b.nii.gz,F\nx,a\n")
    assert done(archive, tmp_path / "t", "t.csv") == (1, 0, 1)
    # Empty lines are no cases, and a list without any is no success.
    (archive / "t.csv").write_text("id,MR\r\n\r\nb,scans/b.nii.gz\r\n\r\nx,none")
    assert done(archive, tmp_path / "v", "t.csv") == (1, 0, 1)
    assert status(tmp_path / "v").left == 0
    # A field with a line break is two lines that are wrong, and no case.
    (archive / "t.csv").write_text('id,MR\n"b",scans/b.nii.gz\n"x\ny",scans/a.nii.gz\n')
    assert done(archive, tmp_path / "x", "t.csv") == (1, 0, 2)
    with pytest.raises(UsageError, match="can only be read"):
        done(archive, "https://h/out", "t.csv")  # type: ignore[arg-type]
    (archive / "none.jsonl").write_text("\n \n")
    with pytest.raises(InputError, match="lists no scan"):
        done(archive, tmp_path / "w", "none.jsonl")
    with pytest.raises(UsageError, match="exclude other inputs"):
        predict(archive / "m.model", [archive / "t.csv", archive / "scans"], tmp_path / "u")
    with pytest.raises(UsageError, match="--only is not for work lists"):
        done(archive, tmp_path / "u", "t.csv", only="val")
