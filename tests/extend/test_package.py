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
from tests.conftest import GOLDEN
from tests.plans import small_network, small_plan

from delineate.core.bundle import Bundle
from delineate.core.plan import Augmentation, Channel, Loss, Optimiser

ROOT = Path(__file__).parents[2]


# Runs commands, given as JSON, in one process, because most of the time is the import of torch.
DRIVER = """
import json, sys
from tests.calls import call

ended = [call(*command) for command in json.loads(sys.argv[1])]
print(json.dumps([[one.returncode, one.stdout, one.stderr] for one in ended]))
"""


class Result(NamedTuple):
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


class Bench(NamedTuple):
    """A folder to work in, and the folder in which the example package is installed."""

    folder: Path
    site: Path

    def run(self, *commands: str, installed: bool = True) -> list[Result]:
        """The results of commands that one process runs."""
        paths = [str(ROOT / "src"), str(ROOT), *([str(self.site)] if installed else [])]
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, json.dumps([line.split() for line in commands])],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return [Result(*one) for one in json.loads(done.stdout.splitlines()[-1])]


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


COMMANDS = {
    "train": "train cohort -o m.model --plan plan.json --listener text-file",
    "predict": "predict m.model cohort/ward1/P1-scan.raw -o out --format raw",
    "evaluate": "evaluate out/P1-scan.raw cohort/ward1/P1-outline.raw -o scores "
    "--also volume_ratio --surface none --no-report",
    "info": "info cohort/ward1/P1-scan.raw",
    "recipes": "recipes",
    "unknown part": "train cohort -o n.model --network two-layer --epochs 1",
}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The example package installed by pip, and a plan with all its parts."""
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
    return made


@pytest.fixture(scope="module")
def results(bench: Bench) -> dict[str, Result]:
    """What the commands print; the model of so few steps is of no use, which is code 3."""
    found = dict(zip(COMMANDS, bench.run(*COMMANDS.values()), strict=True))
    assert [one.code for one in found.values()] == [3, 0, 0, 0, 0, 2], found
    return found


def test_layout_format_and_listener_do_their_part(bench, results):
    run = bench.folder / "m.model.run"
    manifest = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    assert manifest[0]["layout"] == "example-wards"
    assert sorted(line["id"] for line in manifest[1:])[:2] == ["ward0-P0", "ward0-P2"]
    *lines, last = (run / "fold_0" / "losses.txt").read_text().splitlines()
    log = [json.loads(line) for line in (run / "fold_0" / "log.jsonl").read_text().splitlines()]
    assert [json.loads(line)["loss"] for line in lines] == [line["loss"] for line in log]
    assert last == "closed"


def test_the_model_names_its_parts_and_carries_no_code(bench, results):
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


def test_it_predicts_and_is_scored_with_format_and_metric(bench, results):
    assert (bench.folder / "out" / "P1-scan.raw").read_bytes().startswith(b"RAW {")
    assert "volume_ratio" in (bench.folder / "scores" / "scores.csv").read_text()
    assert "spacing mm: 2.0, 2.0, 3.0" in results["info"].out


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


def test_without_the_package_the_model_is_refused_in_one_sentence(bench, results):
    commands = ("predict m.model cohort -o other", "info m.model")
    refused, told = bench.run(*commands, installed=False)
    assert refused.code == 2 and "network two-layers is not installed" in refused.err
    assert "delineate-example 1.2" in refused.err
    assert told.code == 0  # what needs no network still works


def test_the_recipe_and_an_unknown_part_are_found_by_name(results):
    assert "example-recipe" in results["recipes"].out
    assert "did you mean two-layers?" in results["unknown part"].err


def test_other_code_under_the_same_name_is_reported(bench, results):
    source = bench.site / "delineate_example" / "learning.py"
    text = source.read_text()
    source.write_text(text + "\n# changed\n")
    try:
        [done] = bench.run("predict m.model cohort/ward1/P1-scan.raw -o again")
    finally:
        source.write_text(text)
    assert done.code == 0
    assert "was made with delineate-example 1.2" in done.err and "is different" in done.err


def test_a_broken_package_does_not_stop_others(bench):
    source = bench.site / "delineate_example" / "data.py"
    text = source.read_text()
    source.write_text("import not_there\n")
    try:
        [done] = bench.run(f"check {GOLDEN / 'cohort'} -o checked")
    finally:
        source.write_text(text)
    assert done.code == 0, done.err
    assert "package delineate-example cannot be loaded" in done.err
