"""The light core: which commands run without the packages of the extras, and the refusal of the
others.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from importlib.machinery import PathFinder
from pathlib import Path

import pytest
from tests.scans import write_cohort

from delineate import extras
from delineate.core.errors import UsageError, optional_package
from delineate.extras import PREDICTS

ROOT = Path(__file__).parents[2]
# What the extras install, by import name.
HIDDEN = (
    *("torch", "openvino", "lightning_fabric", "blosc2", "highdicom", "SimpleITK", "tensorboard"),
    *("pyjpegls", "jpeg_ls", "openjpeg", "libjpeg", "gdcm", "imagecodecs", "pylibjpeg"),
)
# Import name -> distribution, where they differ.
NAMES = {"jpeg_ls": "pyjpegls", "openjpeg": "pylibjpeg-openjpeg", "gdcm": "python-gdcm"}
# Runs commands, given as JSON, in one process in which these packages cannot be found.
DRIVER = """
import contextlib, io, json, sys
from importlib.machinery import PathFinder

class Without(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)

HIDDEN, commands = json.loads(sys.argv[1]), json.loads(sys.argv[2])
sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
from delineate.cli.command_line import main

results = []
for command in commands:
    sys.argv, said, code = ["delineate", *command], io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main()
        except SystemExit as error:
            code = error.code or 0
    results.append([code, said.getvalue()])
print(json.dumps([results, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def run_without_extras(
    commands: list[list[str]], cwd: Path
) -> tuple[list[tuple[int, str]], list[str]]:
    """Exit code and output of each command, and the packages loaded at the end."""
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(HIDDEN), json.dumps(commands)],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results, loaded = json.loads(done.stdout.splitlines()[-1])
    return [(code, said) for code, said in results], loaded


def test_the_light_core_checks_converts_evaluates_compares_and_reports(tmp_path):
    write_cohort(tmp_path / "cohort", 2)
    commands = [
        ["phantom", "dicom", "--patients", "1"],
        ["check", "cohort", "-o", "checked"],
        ["convert", "dicom/phantom_001/DICOM_anon", "scan.nii.gz"],
        ["info", "scan.nii.gz"],
        ["evaluate", "cohort/labels", "cohort/labels", "-o", "first"],
        ["evaluate", "cohort/labels", "cohort/labels", "-o", "second", "--no-report"],
        ["compare", "first", "second", "-o", "compared"],
        ["report", "first"],
        ["recipes"],
        ["download", "--list"],
    ]
    results, loaded = run_without_extras(commands, tmp_path)
    failed = [
        (command, said) for command, (code, said) in zip(commands, results, strict=True) if code
    ]
    assert not failed
    assert not set(loaded) & set(HIDDEN)


def test_a_missing_extra_is_one_sentence_with_the_command_that_installs_it(tmp_path):
    training = ("torch", "lightning_fabric", "blosc2")
    writing_dicom = ("highdicom", "jpeg_ls", "openjpeg", "gdcm")
    refused = {
        "predict m.model scan.nii.gz -o out": ((PREDICTS,), "predict"),
        "predict m.model scan.nii.gz -o out --dicom-seg": (writing_dicom, "dicom"),
        "quantise m.model scan.nii.gz -o q.model": (("torch",), "torch"),
        "import nnunet . -o m.model": (("torch",), "torch"),
        "plan .": (("torch",), "torch"),
        "train . -o m.model": (training, "train"),
        "demo": (training, "train"),
        "benchmark": (training, "train"),
        "convert a.mha b.mha": (("SimpleITK",), "itk"),
    }
    head = "ObjectType = Image\nNDims = 3\nDimSize = 1 1 1\nElementType = MET_UCHAR\n"
    (tmp_path / "a.mha").write_text(f"{head}ElementDataFile = LOCAL\nx")
    before = sorted(tmp_path.iterdir())
    results, _ = run_without_extras([command.split() for command in refused], tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    for (command, (packages, extra)), (code, said) in zip(refused.items(), results, strict=True):
        assert code == 2, command
        assert said.count("\n") == 1 and said.startswith("error: "), said
        assert all(name in said for name in packages), said
        assert said.rstrip().endswith(f'pip install "delineate-imaging[{extra}]"'), said


def test_every_extra_names_packages_that_it_installs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["optional-dependencies"]
    assert project["name"] == extras.DISTRIBUTION
    for extra, packages in extras.EXTRAS.items():
        wanted = {NAMES.get(name, name.replace("_", "-").lower()) for name in packages}
        assert wanted <= _installed_by(extra, declared)
    # An engine for many machines is large, and not what one machine needs.
    of_one = set(extras.EXTRAS) - {"cluster"}
    everything = _installed_by("all", declared)
    assert everything >= {name for extra in of_one for name in _installed_by(extra, declared)}


def _installed_by(extra: str, declared: dict[str, list[str]]) -> set[str]:
    """The distributions that an extra requires, those of the extras it includes too."""
    found: set[str] = set()
    for requirement in declared[extra]:
        included = re.fullmatch(rf"{extras.DISTRIBUTION}\[(.*)\]", requirement)
        if included:
            for other in included[1].split(","):
                found |= _installed_by(other, declared)
        else:
            found.add(re.split(r"[^\w.-]", requirement)[0].lower())
    return found


def test_a_package_that_no_extra_installs_is_named():
    with pytest.raises(UsageError, match=r"to_frame needs the package no_such_package, .*install"):
        optional_package("no_such_package", "to_frame")


def test_an_extra_without_a_package_is_refused(monkeypatch):
    find = PathFinder.find_spec
    extras.require_extra("train", "train")
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "blosc2" else find(name)
    )
    with pytest.raises(UsageError, match=r'package blosc2, .*"delineate-imaging\[train\]"'):
        extras.require_extra("train", "train")
