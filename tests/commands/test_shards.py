"""Shards of one batch: together they do what one call does, next to each other in one folder."""

from __future__ import annotations

import importlib.util
import json
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tests.commands.test_predict import model
from tests.scans import scan

from delineate.commands.options import PredictOptions
from delineate.commands.predict import predict, results
from delineate.commands.predict.elsewhere import SegmentCase
from delineate.commands.predict.journal import NAME, Journal
from delineate.commands.predict.outlook import outlook
from delineate.commands.predict.predict import gather
from delineate.commands.status import status
from delineate.core import atomic
from delineate.core.bundle import Bundle
from delineate.core.errors import InputError, OutputError, UsageError
from delineate.core.inputs import CHECKSUM
from delineate.execution.claims import CLAIM, claimed
from delineate.execution.local import look_ahead
from delineate.execution.metrics import text_of
from delineate.execution.shards import Shard
from delineate.inference import predictor

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

OPTIONS = PredictOptions(device="cpu", backend="torch", samples=2)
CASES = tuple("abcdef")
# What differs from call to call.
MEASURED = ("seconds", "peak_memory_mb", CHECKSUM)


@pytest.fixture(scope="module")
def batch(tmp_path_factory) -> Path:
    """Six scans, one of them cut off, a model with dropout, and the results of one call."""
    folder = tmp_path_factory.mktemp("shards")
    for seed, name in enumerate(CASES):
        scan(folder / "scans" / f"{name}.nii.gz", seed=seed)
    damaged = folder / "scans" / "f.nii.gz"
    damaged.write_bytes(damaged.read_bytes()[:400])
    model(folder / "m.model", ("MR",), drop_channel_p=0, dropout=0.1)
    predict(folder / "m.model", [folder / "scans"], folder / "whole", OPTIONS)
    return folder


def shard(folder: Path, text: str, out: Path, **options) -> list[str]:
    """The cases that a shard finishes."""
    asked = replace(OPTIONS, shard=text, **options)
    done = predict(folder / "m.model", [folder / "scans"], out, asked)
    return [outcome.name for outcome in done.written]


def record(out: Path) -> str:
    """``predictions.json`` without what is measured."""

    def unmeasured(found):
        if not isinstance(found, dict):
            return found
        return {k: unmeasured(v) for k, v in found.items() if k not in MEASURED}

    return json.dumps(unmeasured(json.loads((out / "predictions.json").read_text())))


def files(out: Path) -> dict[str, bytes]:
    names = sorted(p.name for p in out.iterdir() if not p.name.startswith("predictions."))
    return {name: (out / name).read_bytes() for name in names}


def test_shards_give_what_one_call_gives(batch, tmp_path):
    out = tmp_path / "out"
    done = {text: shard(batch, text, out) for text in ("2/3", "3/3", "1/3")}
    assert sorted(name for names in done.values() for name in names) == list(CASES[:-1])
    for text, names in done.items():
        assert names == [name for name in CASES[:-1] if Shard.parsed(text).has(name)]
    assert files(out) == files(batch / "whole") and "uncertainty.csv" in files(out)
    assert record(out) == record(batch / "whole") and '"error"' in record(out)


def test_a_shard_does_again_only_what_is_missing_and_a_whole_call_gathers(batch, tmp_path):
    out = tmp_path / "out"
    texts = ("1/2", "2/2")
    mine = {text: shard(batch, text, out) for text in texts}
    lost = mine["2/2"][0]
    (out / f"{lost}.nii.gz").unlink()
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}
    # Another number of shards knows the results of all others.
    for text in ("1/3", "2/3", "3/3"):
        shard(batch, text, out)
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    assert files(out) == files(batch / "whole")
    assert len(list(out.glob("predictions.*-of-*.jsonl"))) > 1
    said: list[str] = []
    predict(batch / "m.model", [batch / "scans"], out, OPTIONS, say=said.append)
    assert any("5 of 6 scans have their results" in text for text in said)
    assert not list(out.glob("*-of-*")) and record(out) == record(batch / "whole")
    lines = [json.loads(line)["case"] for line in (out / NAME).read_text().splitlines()]
    assert sorted(lines) == list(CASES)  # the failure has a line too
    assert set(Journal(out, "", OPTIONS).entries) == set(CASES[:-1])


def test_who_works_where(batch, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    left = out / ".0123abcd.tmp.x.nii.gz"  # of a shard that is alive, or was killed
    left.write_bytes(b"")
    with claimed(out / Shard(1, 2).named(CLAIM)):
        for text in (None, "1/2"):
            with pytest.raises(OutputError, match="works here"):
                predict(batch / "m.model", [batch / "scans"], out, replace(OPTIONS, shard=text))
        assert shard(batch, "2/2", out) and left.exists()
    with claimed(out / CLAIM), pytest.raises(OutputError, match=r"works here now \(running\.json"):
        shard(batch, "1/2", out)
    assert shard(batch, "1/2", out) and not left.exists()


def test_the_status_follows_the_shards(batch, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no records of predictions"):
        status(out)
    mine = [name for name in CASES if Shard(1, 2).has(name)]
    shard(batch, "1/2", out)
    found = status(out)
    lost = {"f"} & set(mine)
    assert (found.done, set(found.failed), found.left) == (len(set(mine) - lost), lost, 0)
    assert found.seconds_left is None and not found.working
    # Another call has begun: one case is done, the others are to be.
    record = json.loads((out / "predictions.json").read_text())
    record["writing"] = sorted({*CASES} - {*mine})
    del record[CHECKSUM]
    (out / "predictions.json").write_text(json.dumps(record))
    with claimed(out / Shard(2, 2).named(CLAIM)):
        found = status(out)
    assert found.left == len(record["writing"]) and list(found.working) == ["running.2-of-2.json"]
    assert found.per_hour and found.seconds_left == 3600 * found.left / found.per_hour
    assert f"{found.left} left" in found.sentences()[0]
    shard(batch, "2/2", out)
    found = status(out)
    assert (found.done, list(found.failed), found.left) == (5, ["f"], 0)
    # Each worker measured for how long its networks waited.
    assert found.utilisation is not None and sum(vars(found.utilisation).values()) > 0.999
    assert all(0 <= share < 1 for share in vars(found.utilisation).values())
    assert any("computed for" in sentence for sentence in found.sentences())
    assert 'time_share{state="computing"}' in text_of(found.gauges())
    seconds = [one["seconds"] for one in Journal(out, "", OPTIONS).entries.values()]
    assert all({"waited_for_scan", "waited_for_results"} <= one.keys() for one in seconds)


def test_an_empty_shard_is_no_error_and_others_are_refused(batch, tmp_path):
    empty = next(n for n in range(1, 100) if not any(map(Shard(n, 99).has, CASES)))
    assert shard(batch, f"{empty}/99", tmp_path / "out") == []
    for text in ("0/3", "4/3", "3", "1/2/3", "-1/3", "", "a/b"):
        with pytest.raises(UsageError, match="--shard is written like 3/100"):
            shard(batch, text, tmp_path / "out")
    with pytest.raises(UsageError, match="every shard would fetch"):
        predict(
            batch / "m.model",
            ["dicomweb:http://x/studies/1"],
            tmp_path,
            replace(OPTIONS, shard="1/2"),
        )


def test_a_dry_run_shows_the_shard(batch, tmp_path):
    asked = replace(OPTIONS, shard="1/2")
    found = outlook(batch / "m.model", [batch / "scans"], tmp_path / "out", asked)
    assert {c.id for c in found.cases} | set(found.failures) == {
        name for name in CASES if Shard(1, 2).has(name)
    }


@pytest.mark.rounds
def test_a_ray_cluster_gives_what_one_call_gives(batch, tmp_path):
    ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    out = tmp_path / "out"
    asked = replace(OPTIONS, engine="ray", case_timeout_s=600.0)
    arguments = (batch / "m.model", [batch / "scans"], out, asked)
    try:
        done = predict(*arguments)
        assert [o.name for o in done.failures] == ["f"]
        assert files(out) == files(batch / "whole") and record(out) == record(batch / "whole")
        said: list[str] = []
        predict(*arguments, say=said.append)
        assert any("5 of 6 scans have their results" in text for text in said)
        # Workers that read, segment and write.
        done = predict(*arguments[:2], tmp_path / "staged", replace(asked, spool_bytes=10**9))
        assert [o.name for o in done.failures] == ["f"]
        staged = tmp_path / "staged"
        assert files(staged) == files(batch / "whole") and record(staged) == record(batch / "whole")
    finally:
        ray.shutdown()


def test_a_worker_reads_the_next_scan_while_its_networks_run(batch, tmp_path, monkeypatch):
    bundle = Bundle.load(batch / "m.model")
    cases = gather([batch / "scans"], bundle).manifest
    read, segment, began = results.read_image, predictor.segment, []
    both = threading.Event()

    def reading(case, manifest):
        began.append(case.id)
        if len(began) == 2:
            both.set()
        return read(case, manifest)

    def segmenting(*given, **how):
        assert both.wait(20)  # the first network runs until the second scan is being read
        return segment(*given, **how)

    monkeypatch.setattr(results, "read_image", reading)
    monkeypatch.setattr(predictor, "segment", segmenting)
    function = SegmentCase(bundle, "", replace(cases, cases=()), tmp_path, OPTIONS)
    a, b, f = (next(case for case in cases if case.id == name) for name in "abf")
    look_ahead(function, a, [b])
    done = [function(a)]
    look_ahead(function, b, [f])
    done.append(function(b))
    with pytest.raises(InputError, match="truncated"):  # at its turn
        function(f)
    assert began == ["a", "b", "f"]
    kept = files(batch / "whole")
    assert all(kept[name] == (tmp_path / name).read_bytes() for one in done for name in one.files)


@pytest.mark.rounds
def test_limits_of_a_case_change_no_result_and_end_one_that_exceeds_them(batch, tmp_path):
    limits = {"case_timeout_s": 600.0, "case_memory_bytes": 16 << 30}
    out, short = tmp_path / "out", tmp_path / "short"
    done = predict(batch / "m.model", [batch / "scans"], out, replace(OPTIONS, **limits))
    assert [o.name for o in done.failures] == ["f"]
    assert files(out) == files(batch / "whole") and record(out) == record(batch / "whole")
    # What a worker that was ended left is removed, also next to other shards.
    number = next(n for n in (1, 2) if Shard(n, 2).has("a"))
    left, of_another = (short / f".01234567.tmp.{name}.nii.gz" for name in "ab")
    with claimed(atomic.make_folder(short) / Shard(3 - number, 2).named(CLAIM)):
        for one in (left, of_another):
            one.touch()
        asked = replace(OPTIONS, shard=f"{number}/2", case_timeout_s=0.01)
        done = predict(batch / "m.model", [batch / "scans" / "a.nii.gz"], short, asked)
    why = "case a: took longer than 0.01 s (given up after 3 tries)"
    assert [str(o.error) for o in done.failures] == [why] and done.failures[0].exitcode is None
    assert list(Journal(short, "", asked).failures.values()) == [why]
    assert not left.exists() and of_another.exists() and not list(short.glob("a*"))


def test_an_engine_is_refused_before_any_work(batch, tmp_path):
    for wrong, why in (
        ({"engine": "slurm"}, "--engine must be local"),
        ({"case_timeout_s": 0.0}, "--case-timeout must be more than 0 s"),
        ({"case_memory_bytes": 1}, "--case-memory must be 256 MB or more"),
        ({"spool_bytes": 10**9}, "--spool is for --engine ray"),
    ):
        model = batch / "m.model" if "spool_bytes" in wrong else "missing.model"
        with pytest.raises(UsageError, match=why):
            predict(model, [batch / "scans"], tmp_path / "out", replace(OPTIONS, **wrong))
    if importlib.util.find_spec("ray") is None:
        with pytest.raises(UsageError, match=r"delineate-imaging\[cluster\]"):
            predict("missing.model", [batch], tmp_path / "out", replace(OPTIONS, engine="ray"))
