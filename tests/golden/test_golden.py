"""Files that older versions wrote are read, resumed and predicted with as they were.

``schema_N/`` was written by the version named in its ``expected.json`` with the ``make.py`` beside
it; ``@ROOT@`` stands for the folder of the data. Weights of a training that goes on here are
compared with one another only, since processors differ in their last digits.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from pydantic import Field
from safetensors.numpy import load_file
from tests.scans import rename_in_json

from delineate.commands.options import PredictOptions, TrainOptions
from delineate.commands.predict import predict
from delineate.commands.train.train import train
from delineate.core import bundle as bundle_module
from delineate.core import schema
from delineate.core.bundle import Bundle, weights_sha256
from delineate.core.errors import BundleError, InputError, OutputError, PlanError
from delineate.core.inputs import read_json_lines
from delineate.core.manifest import Manifest
from delineate.core.plan import Plan
from delineate.core.store import Store
from delineate.formats import files

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

FIRST = Path(__file__).parent / "schema_1"
EXPECTED = json.loads((FIRST / "expected.json").read_text())


def laid_out(name: str, place: Path) -> Path:
    """The golden run ``name`` with its data in ``place``, as it stood when it was written."""
    shutil.copytree(FIRST / name, place, dirs_exist_ok=True)
    shutil.copytree(FIRST / "cohort", place / "cohort", dirs_exist_ok=True)
    for own in ("split.json", "plan.json"):
        shutil.copy(FIRST / own, place / own)
    rename_in_json(place, "@ROOT@", place)
    return place / "m.model"


def command(place: Path) -> tuple[str, Path, TrainOptions]:
    """The arguments of the training that wrote the run."""
    asked = json.loads((place / "m.model.run" / "request.json").read_text())
    names = [one.name for one in fields(TrainOptions) if one.name in asked]
    options = {name: None if asked[name] == "" else asked[name] for name in names}
    return asked["data"], place / "m.model", TrainOptions(**options)


def test_a_model_keeps_its_id_and_its_masks(tmp_path):
    bundle = Bundle.load(FIRST / "small.model")
    assert bundle.id == EXPECTED["small_id"] == bundle.known_ids[0]
    bundle.save(tmp_path / "again.model")
    assert Bundle.load(tmp_path / "again.model").id == EXPECTED["small_id"]
    scan = FIRST / "cohort/images/c4.nii.gz"
    options = PredictOptions(device="cpu", backend="torch", precision="float32")
    assert not predict(FIRST / "small.model", [scan], tmp_path / "out", options).failures
    found, was = (
        files.read(p).array for p in (tmp_path / "out/c4.nii.gz", FIRST / "c4_small.nii.gz")
    )
    assert (found == was).mean() > 0.999  # the last digits differ between processors


def test_a_finished_run_is_read_and_reported(tmp_path):
    model = laid_out("finished", tmp_path)
    bundle = Bundle.load(model)
    assert bundle.id == EXPECTED["finished_id"]
    assert weights_sha256(bundle.members[0].weights) == EXPECTED["weights_sha256"]
    told: list[str] = []
    done = train(*command(tmp_path), say=told.append)
    assert any("is finished" in text for text in told) and done.scores["cases"] == 1
    from delineate.commands.report import report

    assert report(tmp_path / "m.model.run").is_file()


def test_a_killed_run_goes_on(tmp_path):
    weights = []
    for name in ("one", "two"):
        place = tmp_path / name
        model = laid_out("killed", place)
        assert Bundle.load(model).id == EXPECTED["killed_id"]
        before = read_json_lines(place / "m.model.run/fold_0/log.jsonl")
        told: list[str] = []
        done = train(*command(place), say=told.append)
        after = read_json_lines(place / "m.model.run/fold_0/log.jsonl")
        assert "continuing the run" in told[0] and not done.failures
        assert not (place / "m.model.run/running.json").exists()
        # It was killed after its second epoch had a line in the log and before it had a checkpoint.
        # This version logs parts of an epoch too.
        assert [line["step"] for line in after] == [3, *range(4, 13)] and after[0] == before[0]
        second = np.mean([line["loss"] for line in after[1:4]])
        assert second == pytest.approx(before[1]["loss"], rel=1e-4)
        weights.append(load_file(place / "m.model.run/fold_0/last.safetensors"))
    assert all(np.array_equal(weights[1][name], array) for name, array in weights[0].items())


def test_a_store_is_read():
    store = Store(FIRST / "killed/m.model.run/store")
    for case in ("c0", "c1", "c2", "c3"):
        found = store.open(case)
        assert found.shape == (16, 14, 12) and set(found.points) == {1, 2}
        assert found.values().std() > 0.5


def test_manifests_and_plans_are_migrated(tmp_path):
    manifest = Manifest.load(FIRST / "finished/m.model.run/manifest.jsonl")
    assert len(manifest) == 5 and manifest.cases[0].images[0].channel is None
    head = json.loads(manifest.to_jsonl().splitlines()[0])
    assert head["delineate_manifest"] == schema.SCHEMAS["delineate_manifest"] and head["delineate"]
    assert Manifest.from_jsonl(manifest.to_jsonl()) == manifest
    assert Plan.load(FIRST / "plan.json").labels.names == ["left part", "right part"]


def test_a_field_that_plans_get_later_renames_no_model(tmp_path, monkeypatch):
    """What version 1 suffered from: the id was that of the plan with today's defaults."""

    class Later(Plan):
        patience: int = Field(default=3, ge=1)

    assert json.loads(Later.load(FIRST / "plan.json").to_json())["patience"] == 3
    monkeypatch.setattr(bundle_module, "Plan", Later)
    bundle = Bundle.load(FIRST / "small.model")
    assert isinstance(bundle.plan, Later) and bundle.id == EXPECTED["small_id"]
    bundle.save(tmp_path / "again.model")
    assert Bundle.load(tmp_path / "again.model").id == EXPECTED["small_id"]


def test_a_changed_plan_is_another_model():
    bundle = Bundle.load(FIRST / "small.model")
    other = bundle_module.Bundle(
        bundle.plan.replace(seed=7), bundle.members, plan_text=bundle.plan_text
    )
    assert other.id != bundle.id and json.loads(other.plan_text)["seed"] == 7


def parts_of(model: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(model) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def put_together(path: Path, head: dict) -> Path:
    """The small model under another head, whole in itself."""
    parts = parts_of(FIRST / "small.model") | {"bundle.json": json.dumps(head).encode()}
    path.write_bytes(bundle_module._zip(parts))
    return path


def newer(data: dict, kind: str) -> dict:
    return {**data, kind: schema.SCHEMAS[kind] + 1, "delineate": "9.9"}


def test_newer_files_are_refused_with_their_writer(tmp_path):
    why = r"was written by delineate 9\.9 \(schema \d\); this version reads up to \d"
    lines = Manifest.load(FIRST / "finished/m.model.run/manifest.jsonl").to_jsonl().splitlines()
    head = json.dumps(newer(json.loads(lines[0]), "delineate_manifest"))
    with pytest.raises(InputError, match=why):
        Manifest.from_jsonl("\n".join([head, *lines[1:]]))
    plan = newer(json.loads((FIRST / "plan.json").read_text()), "delineate_plan")
    with pytest.raises(PlanError, match=why):
        Plan.from_json(json.dumps(plan))
    head = newer(json.loads(parts_of(FIRST / "small.model")["bundle.json"]), "delineate_bundle")
    with pytest.raises(BundleError, match=why):
        Bundle.load(put_together(tmp_path / "newer.model", head))
    data = {"delineate_predictions": 9, "delineate": "9.9", "cases": {}}
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predictions.json").write_text(json.dumps(data))
    with pytest.raises(OutputError, match=why):
        predict(FIRST / "small.model", [FIRST / "cohort/images/c4.nii.gz"], tmp_path / "out")


def test_a_bundle_of_parts_is_refused(tmp_path):
    """The id in the head is that of the content."""
    head = json.loads(parts_of(FIRST / "small.model")["bundle.json"]) | {"id": "0123456789abcdef"}
    with pytest.raises(BundleError, match="has the id 0123456789abcdef in its header"):
        Bundle.load(put_together(tmp_path / "mixed.model", head))


def test_every_number_has_its_steps():
    for kind, number in schema.SCHEMAS.items():
        for old in range(1, number + 1):
            assert schema.migrate(kind, {kind: old, "x": 1})["x"] == 1
        assert schema.migrate(kind, {"x": 1})["x"] == 1  # before there were numbers
        for wrong in (0, -1, "2", None, True):
            with pytest.raises(InputError, match="schema"):
                schema.migrate(kind, {kind: wrong})
