"""No command writes over what it reads, whatever the name under which it finds it: refused before
any work, and nothing is lost.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.calls import run
from tests.plans import small_plan
from tests.scans import mask, scan, write_cohort
from typer.main import get_command

from delineate.cli import command_line as cli
from delineate.core.bundle import Bundle, Member
from delineate.networks.build import build, weights_of

# How an output may be an original: as a file of its own folder, a soft or a hard link, or through a
# link to the folder.
WAYS = ("same", "soft", "hard", "folder")


def hashes(*folders: Path) -> dict[str, str]:
    return {
        str(p): hashlib.sha256(p.read_bytes()).hexdigest()
        for f in folders
        for p in sorted(f.rglob("*"))
        if p.is_file()
    }


def under(original: Path, name: str, way: str, place: Path) -> Path:
    """A path called ``name`` that is ``original``, reached by ``way``."""
    if way == "same":
        return (
            original.parent / name
            if original.name == name
            else original.rename(original.parent / name)
        )
    place.mkdir(parents=True, exist_ok=True)
    if way == "folder":
        original = original if original.name == name else original.rename(original.parent / name)
        (place / "link").symlink_to(original.parent)
        return place / "link" / name
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (os.link if way == "hard" else os.symlink)(original, place / name)
    return place / name


@pytest.fixture
def world(made_once, tmp_path) -> Path:
    """A cohort, masks, a model, an evaluation and DICOM-free slices, all small."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Path:
    tmp_path = tmp_path_factory.mktemp("world")
    write_cohort(tmp_path / "cohort", 3)
    (tmp_path / "cohort" / "labels.csv").write_text("value,name\n1,left part\n2,right part\n")
    for n in range(2):
        scan(tmp_path / "masks" / f"c{n}.nii.gz", mask(n))
    (tmp_path / "names.json").write_text(json.dumps({"1": "left part", "2": "right part"}))
    plan = small_plan()
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0))),)).save(tmp_path / "m.model")
    (tmp_path / "plan.json").write_text(plan.to_json())
    for name in ("a", "b"):
        rows = [
            {"case": f"c{n}", "label": "x", "metric": "dice", "value": 0.5 + n / 10, "unit": ""}
            for n in range(4)
        ]
        (tmp_path / name).mkdir()
        labels = [{"value": 1, "name": "x", "colour": [1, 2, 3], "code": "", "side": None}]
        data = {
            "summary": [],
            "labels": labels,
            "cases": [{"case": f"c{n}", "truth": ""} for n in range(4)],
            "rows": rows,
            "pooled": {},
            "means": {},
        }
        (tmp_path / name / "scores.json").write_text(json.dumps(data))
    (tmp_path / "results").mkdir()
    done = {"labels": [{"name": "x"}], "cases": {"c0": {"volumes_ml": {"x": 1.5}}}}
    (tmp_path / "results" / "predictions.json").write_text(json.dumps(done))
    (tmp_path / "slices").mkdir()
    for k in range(3):
        Image.fromarray(np.full((8, 9), 40 * k, np.uint8)).save(
            tmp_path / "slices" / f"slice_{k:04d}.png"
        )
    return tmp_path


Command = Callable[[Path, Path], list[str | Path]]
# Command -> the original (a path in ``world``), what the output is called, and the words from
# ``world`` and the output's path.
COMMANDS: dict[str, tuple[str, str, Command]] = {
    "predict": (
        "cohort/images/c0.nii.gz",
        "c0.nii.gz",
        lambda w, out: ["predict", w / "m.model", w / "cohort/images", "-o", out.parent],
    ),
    "predict, one file": (
        "cohort/images/c0.nii.gz",
        "c0.nii.gz",
        lambda w, out: ["predict", w / "m.model", w / "cohort/images/c0.nii.gz", "-o", out.parent],
    ),
    "predict, onto the truth": (
        "cohort/labels/c0.nii.gz",
        "c0.nii.gz",
        lambda w, out: ["predict", w / "m.model", w / "cohort", "-o", out.parent],
    ),
    "predict, onto the model": (
        "m.model",
        "c0.nii.gz",
        lambda w, out: ["predict", _one(w, "m.model", out), w / "cohort/images", "-o", out.parent],
    ),
    "convert": (
        "masks/c0.nii.gz",
        "c0.nii.gz",
        lambda w, out: ["convert", w / "masks/c0.nii.gz", out, "--orientation", "LPS"],
    ),
    "convert, in parts": (
        "masks/c0.nii.gz",
        "c0_00.nii.gz",
        lambda w, out: [
            "convert",
            _one(w, "masks/c0.nii.gz", out),
            out.parent / "c0.nii.gz",
            "--split-slices",
            "8",
        ],
    ),
    "convert, merged": (
        "masks/c0.nii.gz",
        "c0.nii.gz",
        lambda w, out: ["convert", w / "masks/c0.nii.gz", w / "masks/c1.nii.gz", out, "--merge"],
    ),
    "convert, slices": (
        "slices/slice_0001.png",
        "slice_0001.png",
        lambda w, out: [
            "convert",
            w / "slices",
            out.parent,
            "--spacing",
            "1,1,2",
            "--orientation",
            "RAS",
        ],
    ),
    "evaluate": (
        "names.json",
        "scores.json",
        lambda w, out: [
            "evaluate",
            w / "masks",
            w / "cohort/labels",
            "-o",
            out.parent,
            "--labels",
            _one(w, "names.json", out),
        ],
    ),
    "check": (
        "names.json",
        "findings.json",
        lambda w, out: [
            "check",
            w / "cohort",
            "-o",
            out.parent,
            "--labels",
            _one(w, "names.json", out),
        ],
    ),
    "check --draft": (
        "cohort/labels.csv",
        "labels.csv",
        lambda w, out: ["check", w / "cohort", "--draft", out],
    ),
    "plan": (
        "cohort/images/c1.nii.gz",
        "c1.nii.gz",
        lambda w, out: ["plan", w / "cohort", "-o", out],
    ),
    "train": (
        "cohort/labels/c1.nii.gz",
        "c1.nii.gz",
        lambda w, out: ["train", w / "cohort", "-o", out, "--epochs", "1", "--overwrite"],
    ),
    "train, onto its plan": (
        "plan.json",
        "plan.json",
        lambda w, out: ["train", w / "cohort", "-o", out, "--plan", w / "plan.json", "--overwrite"],
    ),
    "quantise": (
        "m.model",
        "m.model",
        lambda w, out: ["quantise", w / "m.model", w / "cohort/images", "-o", out],
    ),
    "import": (
        "a/scores.json",
        "scores.json",
        lambda w, out: ["import", "nnunet", w / "a", "-o", out],
    ),
    "report": ("a/scores.json", "scores.json", lambda w, out: ["report", w / "a", "-o", out]),
    "compare": (
        "a/scores.json",
        "compare.json",
        lambda w, out: ["compare", _one(w, "a/scores.json", out), w / "b", "-o", out.parent],
    ),
}


# Commands that write only new folders, which ``test_a_folder_of_originals`` covers.
FOLDERS = {"export-slices", "merge-slices"}
# Commands with a test of their own.
OWN = {"summarise"}
# Commands that read no file of the user, that write nothing, and that delete prepared cases only.
WITHOUT = {
    *("demo", "phantom", "benchmark", "download", "info", "view", "recipes", "runs", "clean"),
    *("status", "serve"),
}


def _one(world: Path, original: str, out: Path) -> Path:
    """The original where it is, which is the output's path once the way to it renamed the file."""
    return world / original if (world / original).exists() else out.resolve()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("command", COMMANDS)
def test_an_original_is_never_written_over(world, command, way):
    original, name, words = COMMANDS[command]
    out = under(world / original, name, way, world / "elsewhere")
    given = words(world, out)
    before = hashes(world)
    code, printed = run(*given)
    assert code == 2 and name in printed and "Traceback" not in printed, printed
    assert hashes(world) == before  # nothing changed, nothing new


def test_a_summary_replaces_its_own_files_alone(world):
    results = world / "results"
    for _ in range(2):
        assert run("summarise", results)[0] == 0
    (world / "hard").mkdir()
    os.link(results / "predictions.json", world / "hard" / "summary.csv")
    (world / "foreign").mkdir()
    (world / "foreign" / "summary.csv").write_text("mine")
    before = hashes(world)
    for place, more in (("hard", ()), ("hard", ("--overwrite",)), ("foreign", ())):
        code, printed = run("summarise", results, "-o", world / place, *more)
        assert code == 2 and "summary.csv" in printed and hashes(world) == before
    assert run("summarise", results, "-o", world / "foreign", "--overwrite")[0] == 0


def test_mended_copies_never_take_an_originals_place(world):
    for way in ("soft", "hard"):
        under(world / "cohort/images/c2.nii.gz", "images/c2.nii.gz", way, world / way)
        before = hashes(world)
        code, printed = run("check", world / "cohort", "-o", world / "c", "--fix", world / way)
        assert code == 2 and "c2.nii.gz" in printed and hashes(world) == before
    before = hashes(world)
    for place in (world / "cohort", world, world / "cohort/images"):
        code, printed = run("check", world / "cohort", "-o", world / "c", "--fix", place)
        assert code == 2 and "this one contains originals" in printed and hashes(world) == before


def test_a_training_never_removes_its_data(world):
    (world / "x.model.run").mkdir()
    (world / "cohort").rename(world / "x.model.run" / "data")
    before = hashes(world)
    for data in (world / "x.model.run/data", world / "x.model.run"):
        code, printed = run(
            "train",
            data,
            "-o",
            world / "x.model",
            "--epochs",
            "1",
            "--overwrite",
        )
        assert code == 2 and "x.model.run" in printed and hashes(world) == before


def test_a_header_keeps_its_voxels(world):
    """A detached header's data file is read too: another header of that name would put its own
    there.
    """
    sitk = pytest.importorskip("SimpleITK")
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    sitk.WriteImage(sitk.GetImageFromArray(array), str(world / "v.nhdr"))
    data = next(p for p in world.iterdir() if p.name.startswith("v.raw"))
    text = (world / "v.nhdr").read_text().replace(data.name, "v.raw")
    if data.name != "v.raw":
        pytest.skip("this ITK packs detached NRRD data")
    (world / "v.nhdr").write_text(text)
    before = hashes(world)
    code, printed = run("convert", world / "v.nhdr", world / "v.mhd", "--orientation", "RPI")
    assert code == 2 and "v.raw" in printed and hashes(world) == before


def test_ordinary_use_is_not_refused(world):
    """The same command again, results below the scans, a result that is replaced by a newer one."""
    for _ in range(2):
        for words in (
            [
                "predict",
                world / "m.model",
                world / "cohort/images",
                "-o",
                world / "cohort/images/out",
            ],
            [
                "predict",
                world / "m.model",
                world / "cohort/images/c0.nii.gz",
                "-o",
                world / "single",
            ],
            ["convert", world / "masks/c0.nii.gz", world / "turned.nii.gz", "--orientation", "LPS"],
            [
                "evaluate",
                world / "masks",
                world / "cohort/labels",
                "-o",
                world / "masks",
                "--labels",
                world / "names.json",
                "--no-report",  # that of the command "report" takes its place
            ],
            ["check", world / "cohort", "-o", world / "checked"],
            ["plan", world / "cohort", "-o", world / "cohort/plan.json", "--budget", "1m"],
            ["report", world / "masks"],
        ):
            code, printed = run(*words)
            assert code == 0, printed


def test_predict_writes_over_its_own_results_alone(world):
    """A folder of masks that somebody drew is no folder of results, though the scan given is
    another file.
    """
    before = hashes(world / "cohort")
    code, printed = run(
        "predict",
        world / "m.model",
        world / "cohort/images/c0.nii.gz",
        "-o",
        world / "cohort/labels",
    )
    assert code == 2 and "labels/c0.nii.gz" in printed and hashes(world / "cohort") == before
    (world / "notes").mkdir()
    (world / "notes" / "predictions.json").write_text('{"mine": 1}')
    code, printed = run(
        "predict",
        world / "m.model",
        world / "cohort/images/c0.nii.gz",
        "-o",
        world / "notes",
    )
    assert (
        code == 2
        and "not a record of predictions" in printed
        and (world / "notes" / "predictions.json").read_text() == '{"mine": 1}'
    )


def test_every_command_is_tested_here():
    """A command that is added must be in one of the lists."""
    registered = set(get_command(cli.app).commands)
    tested = {name.partition(",")[0].partition(" ")[0] for name in COMMANDS}
    assert registered == tested | FOLDERS | OWN | WITHOUT
    assert not WITHOUT & (tested | FOLDERS | OWN)


@pytest.mark.parametrize("place", ["", "cohort", "cohort/images", "masks", "slices", "exported"])
def test_a_folder_of_originals(world, place):
    """Commands whose output is a folder, into one that holds inputs or lies above them: whatever
    they answer, no input is changed or gone.
    """
    run("export-slices", world / "cohort", "-o", world / "exported")
    out, data = world / place, world / "cohort"
    model = world / "m.model"
    before = hashes(world)
    for words in (
        ["predict", model, data, "-o", out],
        ["evaluate", world / "masks", data / "labels", "-o", out, "--no-report"],
        ["compare", world / "a", world / "b", "-o", out],
        ["check", data, "-o", out],
        ["check", data, "-o", world / "new", "--fix", out],
        ["export-slices", data, "-o", out],
        ["export-slices", data, "-o", out, "--overwrite"],
        ["merge-slices", world / "exported", "-o", out],
        ["convert", world / "slices", out, "--spacing", "1,1,2"],
    ):
        code, printed = run(*words)
        after = hashes(world)
        # The command's own results of the export may be made again.
        kept = {name: value for name, value in before.items() if "exported" not in name}
        assert kept.items() <= after.items(), (words, code, printed)
        assert "Traceback" not in printed


# Command -> what its output is called, and the words from ``world`` and the output's path.
FOREIGN: dict[str, tuple[str, Command]] = {
    # A short budget gives a small network, whose step is measured in little time.
    "plan": ("plan.json", lambda w, out: ["plan", w / "cohort", "-o", out, "--budget", "1m"]),
    "report": ("page.html", lambda w, out: ["report", w / "a", "-o", out]),
    "benchmark": ("figures.json", lambda w, out: ["benchmark", "-o", out]),
    "import": ("x.model", lambda w, out: ["import", "nnunet", w / "a", "-o", out]),
    "quantise": (
        "x.model",
        lambda w, out: ["quantise", w / "m.model", w / "cohort/images", "-o", out],
    ),
    "train": ("x.model", lambda w, out: ["train", w / "cohort", "-o", out, "--epochs", "1"]),
    "convert": ("x.nii", lambda w, out: ["convert", w / "masks/c0.nii.gz", out]),
    "convert, merged": (
        "x.nii",
        lambda w, out: ["convert", "--merge", w / "masks/c0.nii.gz", out],
    ),
    "check --draft": ("x.yaml", lambda w, out: ["check", w / "cohort", "--draft", out]),
    "export-slices": (
        "slices.json",
        lambda w, out: ["export-slices", w / "cohort", "-o", out.parent],
    ),
    "predict": (
        "c0.nii.gz",
        lambda w, out: ["predict", w / "m.model", w / "cohort/images", "-o", out.parent],
    ),
    "predict, its record": (
        "predictions.json",
        lambda w, out: ["predict", w / "m.model", w / "cohort/images", "-o", out.parent],
    ),
    "predict, its table": (
        "uncertainty.csv",
        lambda w, out: ["predict", w / "m.model", w / "cohort/images", "-o", out.parent],
    ),
    **{
        f"evaluate, {name}": (
            name,
            lambda w, out: [
                "evaluate",
                w / "masks",
                w / "cohort/labels",
                "-o",
                next(p for p in out.parents if p.name == "out"),
                "--pictures",
            ],
        )
        for name in (
            "scores.csv",
            "scores.json",
            "slices.csv",
            "report.html",
            "pictures/c0.png",
            "montages/worst.png",
        )
    },
    **{
        f"check, {name}": (name, lambda w, out: ["check", w / "cohort", "-o", out.parent])
        for name in ("findings.json", "manifest.jsonl", "split.json")
    },
    **{
        f"check --fix, {name}": (
            name,
            lambda w, out: [
                "check",
                w / "cohort",
                "-o",
                w / "new",
                "--fix",
                next(p for p in out.parents if p.name == "out"),
            ],
        )
        for name in ("changes.json", "manifest.jsonl", "images/c0.nii.gz")
    },
    **{
        f"compare, {name}": (
            name,
            lambda w, out: ["compare", w / "a", w / "b", "-o", out.parent],
        )
        for name in ("compare.csv", "compare.json", "boxplot.png", "differences.svg")
    },
}


@pytest.mark.parametrize(
    ("command", "way"),
    [
        *((command, "file") for command in FOREIGN),
        *(
            (command, way)
            for command in ("plan", "quantise", "check, split.json", "compare, compare.csv")
            for way in ("soft", "hard", "pipe")
        ),
    ],
)
def test_a_file_of_another_program_is_kept(world, command, way):
    """Whatever it holds, the word "delineate" too."""
    name, words = FOREIGN[command]
    out, theirs = world / "out" / name, world / "theirs"
    out.parent.mkdir(parents=True)
    theirs.write_text("what somebody wrote after delineate\n" * 40)
    if way == "file":
        theirs.rename(out)
    elif way == "pipe":
        os.mkfifo(out)
    else:
        (os.link if way == "hard" else os.symlink)(theirs, out)
    before, mode = hashes(world), out.lstat().st_mode
    code, printed = run(*words(world, out))
    assert code in (2, 3) and str(out.parent) in printed and "Traceback" not in printed, printed
    assert "--overwrite" in printed
    assert before.items() <= hashes(world).items() and out.lstat().st_mode == mode
    assert not (world / "new").exists()


AGAIN = (
    "plan",
    "report",
    "check --draft",
    "check, manifest.jsonl",
    "check --fix, manifest.jsonl",
    "evaluate, scores.csv",
    "compare, compare.csv",
)


@pytest.mark.parametrize("command", AGAIN)
def test_an_edited_result_is_replaced_only_by_overwrite(world, command):
    name, words = FOREIGN[command]
    out = world / "out" / name
    out.parent.mkdir(parents=True)
    given = words(world, out)
    if command.startswith("evaluate"):  # most of its time is that of its report and pictures
        given = [*(word for word in given if word != "--pictures"), "--no-report"]
    for _ in range(2):  # the second time over its own result
        assert run(*given)[0] == 0
    made = out.read_bytes()
    out.write_bytes(made + b" ")
    before = hashes(world)
    code, printed = run(*given)
    assert code == 2 and name in printed and "--overwrite" in printed
    assert hashes(world) == before
    assert run(*given, "--overwrite")[0] == 0 and out.read_bytes() != made + b" "
    # A damaged record is named.
    record = out.parent / ".delineate.json"
    record.write_text(record.read_text().replace(":", ";"))
    code, printed = run(*given)
    assert code == 2 and record.name in printed
    assert run(*given, "--overwrite")[0] == 0 and run(*given)[0] == 0


def test_a_demo_uses_no_split_of_others(tmp_path):
    (tmp_path / "split.json").write_text('{"mine": 1}')
    code, printed = run("demo", "-o", tmp_path)
    assert code == 2 and "split.json: is not the split of a demo" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["split.json"]
