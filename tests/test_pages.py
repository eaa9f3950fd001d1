"""The code of the tutorials and the how-to pages runs.

Each page runs in a folder of its own, from top to bottom, with copies of

    SCANS/         six phantom patients: scans and masks as NIfTI
    CT/            one phantom patient's CT series in DICOM
    scan.nii.gz    one scan, and mask.nii.gz, its mask
    liver.model    a model trained on SCANS, and liver.model.run, its run

Blocks marked ``python`` share their variables. Blocks marked ``sh`` run line by line: a command of
delineate in this process, anything else in bash. A block with a title, such as
``yaml title="mine.yaml"``, is written to that file. Other blocks are not run. To be quick,
trainings get a plan of two steps instead of their time, phantoms are small, and two folds replace
five.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from benchmarks.faults import small
from typer.testing import CliRunner

from delineate.cli import app
from delineate.cohorts.phantom.cohort import make_cohort
from delineate.core.bundle import Bundle, Member
from delineate.core.labels import LabelSet
from delineate.core.plan import Augmentation, Channel, Normalisation, Schedule
from delineate.formats import files
from delineate.networks.build import build, weights_of

from .cohorts import tutorial_trees
from .plans import small_network, small_plan

ROOT = Path(__file__).parents[1]
PAGES = [
    path
    for part in ("tutorials", "how-to")
    for path in sorted((ROOT / "docs" / part).glob("*.md"))
    # Pages that register parts run in a process of their own: tests/extend.
    if not path.name.startswith("extend-")
    and re.search(r"^```(python|sh)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
]
SIZE = (32, 10)  # matrix and slices of the phantoms
ORGANS = {1: "liver", 2: "right kidney", 3: "left kidney", 4: "spleen"}
# Several trainings or predictions each; what they use has quicker tests of its own. The pages of
# the tutorials' folders are like first-model, which is quick: check, train, predict and evaluate.
LONG = (
    *("manage-runs", "cluster", "folds-and-ensembles", "fine-tune", "slices"),
    *(
        "from-liver-ct-2d",
        "from-liver-ct-3d",
        "from-liver-mr",
        "from-brain-mr",
        "from-brain-tumours",
    ),
)
# Some of the files that a page promises.
RESULTS = {
    "first-model": (
        "liver.nii.gz",
        "scores/scores.csv",
        "out/phantom_001.seg.dcm",
        "organs.model.run/report.html",
    ),
    "python": ("mask.nii.gz", "planes.png"),
    "clinic": ("out/CT.seg.dcm", "CT.nii.gz"),
    "cluster": ("fold_1.model", "organs.model"),
    "from-nnunet": ("out/hippocampus.nii.gz",),
    "report": ("look.html", "scores/report.html"),
    "from-slicer": ("out/phantom_001.seg.nrrd", "seg/CT.seg.dcm"),
}
# Installs, servers and downloads.
NOT_RUN = ("pip ", "make ", "delineate view", "delineate download", "delineate demo")


def tiny_plan(names: dict[int, str] = ORGANS, channels: tuple[str, ...] = ("CT",)) -> str:
    return small_plan(
        names=names,
        channels=tuple(
            Channel(name=name, normalise=Normalisation(kind="standard")) for name in channels
        ),
        network=small_network(classes=len(names) + 1, channels=len(channels)),
        spacing_mm=(12.0, 12.0, 12.0),
        schedule=Schedule(epochs=1, steps_per_epoch=2),
        augmentation=Augmentation(mirror=()),
    ).to_json()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    make_cohort(folder / "SCANS", patients=6, seed=1, form="nifti", size=SIZE)
    make_cohort(folder / "dicom", patients=1, seed=1, size=SIZE)
    (folder / "dicom" / "phantom_001" / "DICOM_anon").rename(folder / "CT")
    (folder / "tiny.json").write_text(tiny_plan())
    scan = files.read(folder / "CT")
    files.write(scan, folder / "scan.nii.gz")
    with small.empty_figures():
        command(folder, "delineate train SCANS -o liver.model --budget 1h")
    command(folder, "delineate predict liver.model CT -o out")
    (folder / "out" / "CT.nii.gz").rename(folder / "mask.nii.gz")
    shutil.rmtree(folder / "out")
    return folder


def command(folder: Path, line: str) -> None:
    """Run one line of a shell block in the folder."""
    words = shlex.split(line, comments=True)
    if not words or line.startswith(NOT_RUN):
        return
    if words[0] == "sbatch":
        for job in ("0", "1"):
            script = (folder / words[1]).read_text(encoding="utf-8").replace("$K", job)
            command(folder, re.findall(r"^delineate .*$", script, flags=re.MULTILINE)[0])
    elif words[0] != "delineate":
        run = subprocess.run(["bash", "-ec", line], cwd=folder, capture_output=True, text=True)
        assert run.returncode == 0, f"{line}\n{run.stdout}\n{run.stderr}"
    elif words[1] == "phantom":
        form = words[words.index("--format") + 1] if "--format" in words else "dicom"
        organs = words[words.index("--organs") + 1].split(",") if "--organs" in words else ()
        make_cohort(folder / words[2], patients=6, seed=1, form=form, organs=organs, size=SIZE)
    elif words[1] == "plan":
        shutil.copyfile(folder / "tiny.json", folder / words[words.index("-o") + 1])
    else:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            done = CliRunner().invoke(app, shortened(words[1:]))
        # What so short a training learns is not usable, and exit code 3 reports it.
        allowed = (0, 3) if words[1] == "train" else (0,)
        assert done.exit_code in allowed, f"{line}\n{done.output[-2000:]}\n{done.exception}"


def shortened(words: list[str]) -> list[str]:
    """The arguments of a command; a training gets a tiny plan instead of its time or its recipe,
    and two folds instead of more.
    """
    if words[0] != "train":
        return words
    kept = list(words)
    if "--folds" in kept:
        kept[kept.index("--folds") + 1] = "2"
    for option in ("--budget", "--epochs", "--plan", "--recipe"):
        if option in kept:
            at = kept.index(option)
            del kept[at : at + 2]
    return [*kept, "--plan", "tiny.json"]


def bids_tree(folder: Path, cases: list[tuple[Path, Path]]) -> None:
    """Two sessions of one subject and one of another without sessions' folders, and a model."""
    plan = small_plan(
        names={1: "hippocampus", 2: "amygdala"},
        channels=(Channel(name="T1w", normalise=Normalisation(kind="standard")),),
        spacing_mm=(12.0, 12.0, 12.0),
    )
    weights = weights_of(build(plan.network, 0))
    Bundle(plan, (Member("fold_0", weights),)).save(folder / "brain.model")
    names = (
        "sub-01/ses-1/anat/sub-01_ses-1",
        "sub-01/ses-2/anat/sub-01_ses-2",
        "sub-02/anat/sub-02",
    )
    for name, (scan, mask) in zip(names, cases, strict=False):
        truth = folder / "bids" / "derivatives" / "manual" / f"{name}_desc-manual_dseg.nii.gz"
        for target, source in (
            (folder / "bids" / f"{name}_T1w.nii.gz", scan),
            (folder / "bids" / f"{name}_FLAIR.nii.gz", scan),
            (truth, mask),
        ):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def drawn_tree(folder: Path, cases: list[tuple[Path, Path]]) -> None:
    """Scans and segmentations as 3D Slicer saves them."""
    for part in ("images", "labels"):
        (folder / "drawn" / part).mkdir(parents=True)
    labels = LabelSet.from_names(ORGANS)
    for scan, mask in cases:
        name = scan.name.removesuffix(".nii.gz")
        files.write(files.read(scan), folder / "drawn" / "images" / f"{name}.nrrd")
        segments = files.read(mask).with_unit("label")
        files.write(segments, folder / "drawn" / "labels" / f"{name}.seg.nrrd", labels=labels)


def nnunet_tree(folder: Path, cases: list[tuple[Path, Path]]) -> None:
    """A raw data set of nnU-Net, and a trained network if there are real data."""
    raw = folder / "nnUNet_raw" / "Dataset001_Organs"
    for part in ("imagesTr", "labelsTr"):
        (raw / part).mkdir(parents=True)
    for scan, mask in cases:
        name = scan.name.removesuffix(".nii.gz")
        shutil.copyfile(scan, raw / "imagesTr" / f"{name}_0000.nii.gz")
        shutil.copyfile(mask, raw / "labelsTr" / f"{name}.nii.gz")
    facts = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, **{name: value for value, name in ORGANS.items()}},
        "numTraining": len(cases),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(facts))
    data = Path(os.environ.get("DELINEATE_DATA", ROOT.parent / "shared" / "data"))
    if not (data / "nnunet_hippocampus").is_dir():
        pytest.skip(f"real data not found in {data} (set DELINEATE_DATA)")
    results = folder / "nnUNet_results"
    results.mkdir()
    (results / "Dataset004_Hippocampus").symlink_to(data / "nnunet_hippocampus")
    scan = sorted((data / "hippocampus" / "imagesTr").glob("hipp*.nii.gz"))[0]
    shutil.copyfile(scan, folder / "hippocampus.nii.gz")


def study_tree(folder: Path, cases: list[tuple[Path, Path]]) -> None:
    """A folder for each patient with two images; the masks in another one."""
    (folder / "study" / "masks").mkdir(parents=True)
    for number, (scan, mask) in enumerate(cases, start=1):
        patient = folder / "study" / "scans" / f"P{number}_a"
        patient.mkdir(parents=True)
        for name in ("ct", "pet"):
            shutil.copyfile(scan, patient / f"{name}.nii.gz")
        shutil.copyfile(mask, folder / "study" / "masks" / f"P{number}_a.nii.gz")


def oasis_tree(folder: Path, cases: list[tuple[Path, Path]]) -> None:
    """OASIS-1 as it is unpacked, in Analyze, with the phantoms' organs as tissues."""
    tissues = {1: "CSF", 2: "grey matter", 3: "white matter"}
    for number, (scan, mask) in enumerate(cases, start=1):
        subject = f"OAS1_{number:04d}_MR1"
        name = f"{subject}_mpr_n4_anon_111_t88_masked_gfc"
        base = folder / "oasis" / "disc1" / subject
        for path, source in (
            (base / "PROCESSED" / "MPRAGE" / "T88_111" / f"{name}.img", scan),
            (base / "FSL_SEG" / f"{name}_fseg.img", mask),
        ):
            path.parent.mkdir(parents=True)
            written = nib.load(source)
            voxels = np.asarray(written.dataobj).astype(np.int16)
            voxels = np.minimum(voxels, 3) if source == mask else voxels
            nib.AnalyzeImage(voxels, written.affine).to_filename(path)
    nib.AnalyzeImage(np.asarray(nib.load(scan).dataobj), np.eye(4)).to_filename(folder / "scan.img")
    (folder / "tiny.json").write_text(tiny_plan(tissues, ("T1",)))


def brats_tree(folder: Path, cases: list[tuple[Path, Path]]) -> None:
    """BraTS of 2020, with the phantoms' organs as tumours."""
    for number, (scan, mask) in enumerate(cases, start=1):
        name = f"BraTS20_Training_{number:03d}"
        (folder / "brats" / name).mkdir(parents=True)
        for modality in ("flair", "t1", "t1ce", "t2"):
            shutil.copyfile(scan, folder / "brats" / name / f"{name}_{modality}.nii.gz")
        image = nib.load(mask)
        classes = np.array((0, 1, 2, 4, 4), np.uint8)[np.asarray(image.dataobj)]
        label = folder / "brats" / name / f"{name}_seg.nii.gz"
        nib.save(nib.Nifti1Image(classes, image.affine), label)
    names = {1: "necrotic and non-enhancing tumour core", 2: "oedema", 4: "enhancing tumour"}
    (folder / "tiny.json").write_text(tiny_plan(names, ("flair", "t1", "t1ce", "t2")))


def plan_for(*names: str, channel: str) -> Callable[[Path, list[tuple[Path, Path]]], None]:
    """Only a tiny plan for other structures; the page makes its own phantom."""

    def write(folder: Path, cases: list[tuple[Path, Path]]) -> None:
        plan = tiny_plan(dict(enumerate(names, start=1)), (channel,))
        (folder / "tiny.json").write_text(plan)

    return write


# The tutorials' own folders, by page.
OWN_TREES: dict[str, dict[str, Callable[[Path], None]]] = {
    "from-brain-mr": {
        "processed": tutorial_trees.brain_volumes,
        "coloured": partial(tutorial_trees.brain_slices, coloured=True),
        "grey": partial(tutorial_trees.brain_slices, coloured=False),
    },
    "from-liver-ct-3d": {"groups": tutorial_trees.liver_groups},
    "from-liver-mr": {
        "slices": tutorial_trees.mr_slices,
        "pictures": tutorial_trees.mr_pictures,
    },
    "from-liver-ct-2d": {
        "orig-seg": partial(
            tutorial_trees.raw_pairs, image="liver-orig{:03d}.nii", label="liver-seg{:03d}.nii"
        ),
        "orig-liver": partial(
            tutorial_trees.raw_pairs,
            image="ircad_e{:02d}_orig.nii.gz",
            label="ircad_e{:02d}_liver.nii.gz",
        ),
        "arrays": tutorial_trees.slice_arrays,
    },
    "from-brain-tumours": {
        "brats2018": tutorial_trees.brats_grades,
        "brats2015": tutorial_trees.brats_2015,
        "flat": partial(tutorial_trees.brats_flat, names="flair t1 t1ce t2"),
        "one-modality": partial(tutorial_trees.brats_flat, names="t1"),
        "arrays": tutorial_trees.brats_arrays,
    },
}
TREES = {
    "from-liver-ct-2d": plan_for("liver", channel="CT"),
    "from-liver-ct-3d": plan_for("liver", channel="CT"),
    "from-liver-mr": plan_for(*ORGANS.values(), channel="T1DUAL InPhase"),
    "from-brain-mr": oasis_tree,
    "from-brain-tumours": brats_tree,
    "describe-a-folder": study_tree,
    "from-bids": bids_tree,
    "from-slicer": drawn_tree,
    "from-nnunet": nnunet_tree,
}


def blocks(path: Path) -> list[tuple[str, str, str]]:
    """(language, title, text) of each fenced block."""
    return re.findall(
        r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```",
        path.read_text(encoding="utf-8"),
        flags=re.DOTALL | re.MULTILINE,
    )


def lines(text: str) -> list[str]:
    """The commands of a shell block, with continued lines joined; a loop is one command."""
    joined = re.sub(r"\\\n\s*", " ", text)
    if re.search(r"^(for|while|cat) ", joined, flags=re.MULTILINE):
        return [joined]
    return [line for line in joined.splitlines() if line.strip()]


def missing_packages(text: str) -> list[str]:
    """Packages that the code imports and that are not installed."""
    names = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
        )
    }
    return sorted(name for name in names if importlib.util.find_spec(name) is None)


@pytest.fixture
def folder(path, world, tmp_path, monkeypatch):
    """The folder of a page, with the files that it begins with."""
    shutil.copytree(world, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if path.stem in TREES:
        make_cohort(tmp_path / "phantoms", patients=3, seed=2, form="nifti", size=SIZE)
        scans = sorted((tmp_path / "phantoms" / "images").iterdir())
        cases = [(scan, tmp_path / "phantoms" / "labels" / scan.name) for scan in scans]
        TREES[path.stem](tmp_path, cases)
    for name, make in OWN_TREES.get(path.stem, {}).items():
        make(tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    "path",
    [path for path in PAGES if path.stem in LONG and path.stem.startswith("from-")],
    ids=lambda path: path.stem,
)
def test_the_folders_of_a_tutorial_are_checked(path, folder):
    shown = [line for language, _, text in blocks(path) if language == "sh" for line in lines(text)]
    quick = [line for line in shown if line.startswith(("delineate phantom", "delineate check"))]
    assert len([line for line in quick if "check" in line]) > 1
    for line in quick:
        command(folder, line)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.rounds] * (path.stem in LONG))
        for path in PAGES
    ],
)
def test_the_code_of_a_page_runs(path, folder):
    code = "\n".join(text for language, _, text in blocks(path) if language == "python")
    if missing := missing_packages(code):
        pytest.skip(f"needs {', '.join(missing)}")
    variables: dict[str, object] = {"__name__": path.stem}
    for language, title, text in blocks(path):
        if title:
            Path(title).parent.mkdir(parents=True, exist_ok=True)
            Path(title).write_text(text, encoding="utf-8")
        elif language == "python":
            exec(compile(text, path.name, "exec"), variables)
        elif language == "sh":
            for line in lines(text):
                command(folder, line)
    for name in RESULTS.get(path.stem, ()):
        assert Path(name).is_file(), name
