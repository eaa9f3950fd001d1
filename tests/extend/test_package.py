"""A package of somebody else adds one part of every kind by entry points: it is found, trains,
saves and loads; without it the model is refused in one sentence.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tests.plans import small_network, small_plan

from delineate.core.bundle import Bundle
from delineate.core.plan import Augmentation, Channel, Loss, Optimiser

ROOT = Path(__file__).parents[2]


class Bench(NamedTuple):
    """A folder to work in, and the folder in which the example package is installed."""

    folder: Path
    site: Path

    def run(self, *words: object, installed: bool = True) -> subprocess.CompletedProcess[str]:
        paths = [str(ROOT / "src"), *([str(self.site)] if installed else [])]
        return subprocess.run(
            [sys.executable, "-m", "delineate.cli", *map(str, words)],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def done(self, *words: object) -> str:
        result = self.run(*words)
        # So few steps make no model that is of use, which is code 3.
        allowed = (0, 3) if words[0] == "train" else (0,)
        assert result.returncode in allowed, result.stdout + result.stderr
        return result.stdout


def write_raw(path: Path, array: np.ndarray) -> None:
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = -10, 20, 5
    facts = {"shape": array.shape, "affine": affine.tolist(), "dtype": str(array.dtype)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"RAW " + json.dumps(facts).encode() + b"\n" + array.tobytes())


def write_cohort(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(6):
        truth = np.zeros((24, 20, 12), np.uint8)
        truth[6 : 14 + n % 3, 5:14, 3:9] = 1
        image = (100 * truth + rng.normal(0, 10, truth.shape)).astype(np.float32)
        write_raw(folder / f"ward{n % 2}" / f"P{n}-scan.raw", image)
        write_raw(folder / f"ward{n % 2}" / f"P{n}-outline.raw", truth)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The example package installed by pip, and a model trained with all its parts."""
    folder, site = (tmp_path_factory.mktemp(name) for name in ("bench", "site"))
    package = folder / "package"
    shutil.copytree(ROOT / "tests" / "extend" / "package", package)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(site), str(package)], check=True)
    made = Bench(folder, site)
    write_cohort(folder / "cohort")
    plan = small_plan(
        2,
        {1: "liver"},
        channels=(Channel(name="image"),),
        network=small_network(2, classes=2, kind="two-layers"),
        loss=Loss(custom={"total-variation": 0.1}),
        augmentation=Augmentation(custom={"offset": 0.5}),
        optimiser=Optimiser(kind="rprop"),
    )
    (folder / "plan.json").write_text(plan.to_json())
    made.done("train", "cohort", "-o", "m.model", "--plan", "plan.json", "--listener", "text-file")
    return made


def test_layout_format_and_listener_do_their_part(bench):
    run = bench.folder / "m.model.run"
    manifest = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    assert manifest[0]["layout"] == "example-wards"
    assert sorted(line["id"] for line in manifest[1:])[:2] == ["ward0-P0", "ward0-P2"]
    *lines, last = (run / "fold_0" / "losses.txt").read_text().splitlines()
    log = [json.loads(line) for line in (run / "fold_0" / "log.jsonl").read_text().splitlines()]
    assert [json.loads(line)["loss"] for line in lines] == [line["loss"] for line in log]
    assert last == "closed"


def test_the_model_names_its_parts_and_carries_no_code(bench):
    bundle = Bundle.load(bench.folder / "m.model")
    parts = {(part["kind"], part["name"]): part for part in bundle.card["parts"]}
    assert set(parts) == {
        ("network", "two-layers"),
        ("optimiser", "rprop"),
        ("loss term", "total-variation"),
        ("augmentation", "offset"),
    }
    made = parts["network", "two-layers"]
    assert (made["package"], made["version"]) == ("delineate-example", "1.2")
    assert made["module"] == "delineate_example.learning" and len(made["source_sha256"]) == 64
    assert b"TwoLayers" not in (bench.folder / "m.model").read_bytes()


def test_it_predicts_and_is_scored_with_format_and_metric(bench):
    scan = bench.folder / "cohort" / "ward1" / "P1-scan.raw"
    bench.done("predict", "m.model", scan, "-o", "out", "--format", "raw")
    mask = bench.folder / "out" / "P1-scan.raw"
    assert mask.read_bytes().startswith(b"RAW {")
    truth = bench.folder / "cohort" / "ward1" / "P1-outline.raw"
    words = ("evaluate", mask, truth, "--also", "volume_ratio", "--surface", "none", "--no-report")
    bench.done(*words, "-o", "scores")
    rows = (bench.folder / "scores" / "scores.csv").read_text()
    assert "volume_ratio" in rows
    assert "spacing mm: 2.0, 2.0, 3.0" in bench.done("info", scan)


def test_names_of_the_package_are_recognised(bench):
    code = (
        "import delineate.extend; from delineate.core.terms import channel_of, structure_of; "
        "print(channel_of('Hirnserie_dunkel'), structure_of('Vesica'))"
    )
    for site, said in ((str(bench.site), "FLAIR urinary bladder"), ("", "hirnseriedunkel vesica")):
        paths = os.pathsep.join([str(ROOT / "src"), site])
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, env=os.environ | {"PYTHONPATH": paths}, capture_output=True)
        assert done.stdout.decode().strip() == said


def test_without_the_package_the_model_is_refused_in_one_sentence(bench):
    done = bench.run("predict", "m.model", "cohort", "-o", "other", installed=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "network two-layers is not installed" in done.stderr
    assert "delineate-example 1.2" in done.stderr
    # What needs no network still works.
    assert bench.run("info", "m.model", installed=False).returncode == 0


def test_the_recipe_and_an_unknown_part_are_found_by_name(bench):
    assert "example-recipe" in bench.done("recipes")
    done = bench.run("train", "cohort", "-o", "n.model", "--network", "two-layer", "--epochs", 1)
    assert done.returncode == 2 and "did you mean two-layers?" in done.stderr


def test_other_code_under_the_same_name_is_reported(bench):
    source = bench.site / "delineate_example" / "learning.py"
    text = source.read_text()
    source.write_text(text + "\n# changed\n")
    scan = bench.folder / "cohort" / "ward1" / "P1-scan.raw"
    try:
        done = bench.run("predict", "m.model", scan, "-o", "again")
    finally:
        source.write_text(text)
    assert done.returncode == 0
    assert "was made with delineate-example 1.2" in done.stderr and "is different" in done.stderr


def test_a_broken_package_does_not_stop_others(bench):
    source = bench.site / "delineate_example" / "data.py"
    text = source.read_text()
    source.write_text("import not_there\n")
    try:
        done = bench.run(
            "check", ROOT / "tests" / "golden" / "schema_1" / "cohort", "-o", "checked"
        )
    finally:
        source.write_text(text)
    assert done.returncode == 0, done.stderr
    assert "package delineate-example cannot be loaded" in done.stderr
