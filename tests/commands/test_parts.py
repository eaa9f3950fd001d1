"""Shards and engines of check, evaluate, convert and the preparation of train: what they make
together is what one call makes, byte for byte.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.scans import mask, scan, write_cohort

from delineate.commands.check import check
from delineate.commands.convert import convert
from delineate.commands.evaluate import evaluate
from delineate.commands.options import (
    CheckOptions,
    ConvertOptions,
    EvaluateOptions,
    PredictOptions,
    TrainOptions,
)
from delineate.commands.train.train import train
from delineate.core.errors import FormatError, OutputError, UsageError
from delineate.execution.claims import CLAIM, claimed
from delineate.execution.kept import plain, restored
from delineate.execution.shards import Shard, files_of_shards

SCORING = EvaluateOptions(report=False, workers=1, surface="none")


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    """Five cases with a cohort of truths, predictions of which one is on another grid and one has
    no truth, probabilities of one, and the results of one call.
    """
    folder = tmp_path_factory.mktemp("parts")
    write_cohort(folder / "cohort", 5)
    for n in range(4):
        scan(folder / "out" / f"c{n}.nii.gz", np.roll(mask(n), n % 2, axis=0))
    scan(folder / "out" / "c4.nii.gz", mask(0), np.diag([1.0, 1.0, 1.0, 1]))
    scan(folder / "out" / "alone.nii.gz", mask(0))
    shares = np.full((20, 18, 16, 3), 1 / 3, np.float32)
    scan(folder / "out" / "probabilities" / "c1.nii.gz", shares)
    evaluate(folder / "out", folder / "cohort", folder / "whole", SCORING)
    check(folder / "cohort", folder / "checked", CheckOptions(workers=1))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".delineate.json"
    }


def test_shards_of_an_evaluation_are_joined_to_what_one_call_gives(scored, tmp_path):
    out = tmp_path / "out"
    failed: list[str] = []
    for text in ("2/2", "1/2"):
        part = evaluate(scored / "out", scored / "cohort", out, replace(SCORING, shard=text))
        failed += part.failures
        assert not part.scores.rows and "evaluate without --shard joins" in part.notes[0]
        assert all(Shard.parsed(text).has(name) for name in part.failures)
    assert sorted(failed) == ["alone", "c4"]
    assert {path.name for path in out.iterdir()} == {f"counts.{n}-of-2.jsonl" for n in (1, 2)}
    kept = [json.loads(line)["case"] for n in (1, 2) for line in lines(out, n)]
    assert sorted(kept) == ["c0", "c1", "c2", "c3"]
    # A prediction that has changed since is counted again; a damaged line too.
    changed = scored / "out" / "c0.nii.gz"
    before = changed.stat()
    scan(changed, np.roll(mask(0), 1, axis=1))
    with claimed(out / Shard(1, 2).named(CLAIM)), pytest.raises(OutputError, match="works here"):
        evaluate(scored / "out", scored / "cohort", out, SCORING)
    other = evaluate(scored / "out", scored / "cohort", tmp_path / "other", SCORING)
    joined = evaluate(scored / "out", scored / "cohort", out, SCORING)
    assert joined.scores == other.scores and files(out) == files(tmp_path / "other")
    scan(changed, mask(0))
    assert changed.stat().st_size == before.st_size


def lines(out: Path, number: int) -> list[str]:
    return (out / f"counts.{number}-of-2.jsonl").read_text().splitlines()


def test_kept_counts_are_used_and_stay_exact(scored, tmp_path, monkeypatch):
    out, calls = tmp_path / "out", []
    for text in ("1/3", "2/3", "3/3"):
        evaluate(scored / "out", scored / "cohort", out, replace(SCORING, shard=text))
    from delineate.evaluation import counting

    read = counting.read_masks
    monkeypatch.setattr(
        counting, "read_masks", lambda item, values: calls.append(item.case) or read(item, values)
    )
    evaluate(scored / "out", scored / "cohort", out, SCORING)
    assert calls == ["c4"]  # a failure is tried again, to say what one call says
    assert files(out) == files(scored / "whole")


def test_values_keep_every_bit_and_make_no_other_class():
    value = {(True, 1): (np.arange(6.0).reshape(2, 3).T, np.float32(0.1), float("-inf"), Path("a"))}
    found = restored(json.loads(json.dumps(plain(value))), ())
    array, *rest = found[True, 1]
    assert array.flags.f_contiguous and (array == value[True, 1][0]).all()
    assert rest == list(value[True, 1][1:]) and isinstance(rest[0], np.float32)
    with pytest.raises(LookupError):
        restored({"of": ["Path", {}]}, (Shard,))
    with pytest.raises(TypeError, match="is not kept"):
        plain(object())


def test_shards_of_a_check_are_joined_to_what_one_call_gives(scored, tmp_path):
    out = tmp_path / "out"
    for text in ("1/2", "2/2"):
        part = check(scored / "cohort", out, CheckOptions(workers=1, shard=text))
        assert {c.id for c in part.manifest} == {
            f"c{n}" for n in range(5) if Shard.parsed(text).has(f"c{n}")
        }
        assert all(not f.case or Shard.parsed(text).has(f.case) for f in part.findings)
    assert not (out / "manifest.jsonl").exists()
    assert len(files_of_shards(out, "examinations.jsonl")) == 2
    check(scored / "cohort", out, CheckOptions(workers=1))
    assert files(out) == files(scored / "checked")


@pytest.mark.rounds
def test_shards_prepare_a_training_that_goes_on_without_them(scored, tmp_path):
    asked = TrainOptions(epochs=1, device="cpu")
    for text in ("2/2", "1/2"):
        done = train(scored / "cohort", tmp_path / "m.model", replace(asked, shard=text))
        assert not done.failures and not (tmp_path / "m.model").exists()
    whole = TrainOptions(epochs=1, device="cpu", shard="1/1")
    from delineate.commands.train.planned import settle_plan
    from delineate.commands.train.preparation import prepare_cohort
    from delineate.commands.train.request import request_of
    from delineate.commands.train.run import open_run
    from delineate.commands.train.sides import settle_cohort

    run = open_run(request_of(scored / "cohort", whole), tmp_path / "one.model")
    planned = settle_plan(run, settle_cohort(run)[0])
    prepare_cohort(planned.learning, planned.plan, run.store)
    shared = tmp_path / "m.model.run" / "store"
    assert files(shared) == files(run.store.folder) and files(shared)
    said: list[str] = []
    again = open_run(request_of(scored / "cohort", whole), tmp_path / "m.model", say=said.append)
    assert "continuing the run" in said[0] and settle_cohort(again)[0] is not None
    assert all(again.store.has(case.id) for case in planned.learning)
    with claimed(again.folder / Shard(1, 2).named(CLAIM)):
        with pytest.raises(UsageError, match="is being prepared now"):
            open_run(request_of(scored / "cohort", whole), tmp_path / "m.model")


@pytest.mark.rounds
def test_shards_convert_the_series_of_a_study(real_data, tmp_path):
    study = real_data / "sarcoma/dicom/STS_008"
    convert([study], tmp_path / "whole")
    for text in ("1/2", "2/2"):
        part = convert([study], tmp_path / "out", ConvertOptions(shard=text))
        assert "of 3 outputs" in part.notes[-1]
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_has_no_shards_is_refused(scored, tmp_path):
    one = {"shard": "1/2"}
    truth, predicted = scored / "cohort", scored / "out"
    for call, why in (
        (lambda: evaluate(predicted, truth, None, EvaluateOptions(**one)), "give it with -o"),
        (lambda: check(truth, None, CheckOptions(**one)), "give it"),
        (lambda: check(truth, tmp_path, CheckOptions(fix=tmp_path, **one)), "--fix repairs"),
        (
            lambda: convert([predicted / "c0.nii.gz"], tmp_path / "a.nrrd", ConvertOptions(**one)),
            "one result",
        ),
        (
            lambda: convert(
                [predicted / "c0.nii.gz"], tmp_path / "a.nrrd", ConvertOptions(case_timeout_s=9.0)
            ),
            "one result",
        ),
        (lambda: train(truth, tmp_path / "m", TrainOptions(devices=2, **one)), "--devices"),
        (lambda: train(truth, tmp_path / "m", TrainOptions(overwrite=True, **one)), "--overwrite"),
    ):
        with pytest.raises(UsageError, match=why):
            call()
    for kind in (EvaluateOptions, CheckOptions, ConvertOptions, TrainOptions, PredictOptions):
        with pytest.raises(UsageError, match="--shard is written like"):
            _ = kind(shard="3").work
        with pytest.raises(UsageError, match="--case-timeout must be more than 0 s"):
            _ = kind(case_timeout_s=0.0).work
        with pytest.raises(UsageError, match="--case-memory must be 256 MB or more"):
            _ = kind(case_memory_bytes=1 << 20).work
    assert not list(tmp_path.iterdir())


@pytest.mark.rounds
def test_a_ray_cluster_gives_what_one_call_gives_in_every_command(scored, real_data, tmp_path):
    ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    at = {"engine": "ray", "case_timeout_s": 600.0}
    study = real_data / "sarcoma/dicom/STS_008"
    shutil.copytree(study, tmp_path / "study" / "good")
    try:
        found = evaluate(
            scored / "out", scored / "cohort", tmp_path / "e", replace(SCORING, workers=None, **at)
        )
        assert sorted(found.failures) == ["alone", "c4"]
        assert files(tmp_path / "e") == files(scored / "whole")
        check(scored / "cohort", tmp_path / "c", CheckOptions(**at))
        assert files(tmp_path / "c") == files(scored / "checked")
        convert([study], tmp_path / "whole")
        convert([study], tmp_path / "out", ConvertOptions(**at))
        assert files(tmp_path / "out") == files(tmp_path / "whole")
        asked = TrainOptions(epochs=1, device="cpu", shard="1/1")
        for name, more in (("a", {"shard": "1/2"}), ("a", {"shard": "2/2"}), ("b", at)):
            of = replace(asked, **more)
            if name == "b":
                of = replace(of, shard="1/9")  # all cases of one shard, on the cluster
            train(scored / "cohort", tmp_path / f"{name}.model", of)
        a, b = (files(tmp_path / f"{name}.model.run" / "store") for name in "ab")
        assert a and all(a[name] == content for name, content in b.items())
    finally:
        ray.shutdown()
    with pytest.raises(FormatError):
        convert([scored / "whole"], tmp_path / "none", ConvertOptions(engine="ray"))
