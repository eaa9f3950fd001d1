"""The command line: options from dataclasses, help, JSON for machines, exit codes."""

from __future__ import annotations

import importlib
import inspect
import json
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

import delineate
from delineate.cli import app
from delineate.cli.expansion import with_options
from delineate.commands import options
from delineate.commands.options import PredictOptions, option
from delineate.commands.parsing import parse_bytes, parse_duration
from delineate.core.errors import UsageError
from delineate.core.inputs import read_json

SOURCE = Path(delineate.__file__).parent
GOLDEN = Path(__file__).parents[1] / "golden" / "schema_1" / "finished" / "m.model"


def ran(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    return done.exit_code, done.stdout


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1, 1, 2, 1.0])), path)


@pytest.fixture
def cohort(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        write(tmp_path / "c/images" / f"{name}.nii.gz", rng.normal(size=(9, 8, 7)).astype("f4"))
        mask = np.zeros((9, 8, 7), np.uint8)
        mask[3:6, 3:6, 2:5] = 1
        write(tmp_path / "c/labels" / f"{name}.nii.gz", mask)
    return tmp_path / "c"


@pytest.mark.parametrize("name", get_command(app).commands)
def test_every_command_has_short_and_long_help(name):
    for flag in ("-h", "--help"):
        code, text = ran(name, flag)
        assert code == 0 and "Usage" in text


KINDS = [
    kind
    for name, kind in vars(options).items()
    if name.endswith("Options")
    # What only the command line has, and what several commands share.
    and name not in ("GlobalOptions", "CleanOptions", "CohortOptions", "ReadingOptions")
    and name not in ("ArchiveOptions", "EngineOptions", "LabelObjectOptions", "SeriesOptions")
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_command_is_one_function_that_takes_its_options(kind):
    """The functions of ``commands`` and the command line have no options of their own."""
    functions = [
        function
        for path in sorted((SOURCE / "commands").rglob("*.py"))
        for function in vars(module_of(path)).values()
        if inspect.isfunction(function)
        and function.__module__ == module_of(path).__name__
        and not function.__name__.startswith("_")
        and inspect.signature(function).parameters.get("options")
        and inspect.signature(function).parameters["options"].default == kind()
    ]
    assert len(functions) == 1
    own = set(inspect.signature(functions[0]).parameters)
    assert not own & {one.name for one in fields(kind)}


def module_of(path: Path) -> ModuleType:
    return importlib.import_module(
        ".".join(("delineate", *path.relative_to(SOURCE).with_suffix("").parts))
    )


@dataclass(frozen=True)
class Dials:
    budget_s: float | None = option(None, "Time.", "--budget", parse=parse_duration)
    label: tuple[str, ...] = option((), "Structures.", repeated=True)
    dicom_seg: bool = option(False, "Also a SEG.", "--dicom-seg")
    cases: int = option(8, "Number.")


def test_a_dataclass_becomes_options_and_comes_back():
    got: list[tuple[str, Dials]] = []
    own = typer.Typer()

    @own.command()
    @with_options(Dials)
    def run(name: str, options: Dials) -> None:
        """Run."""
        got.append((name, options))

    words = ["x", "--budget", "2m", "--label", "a", "--label", "b", "--dicom-seg", "--cases", "3"]
    assert CliRunner().invoke(own, words, catch_exceptions=False).exit_code == 0
    assert CliRunner().invoke(own, ["y"]).exit_code == 0
    assert got == [("x", Dials(120.0, ("a", "b"), True, 3)), ("y", Dials())]
    assert CliRunner().invoke(own, ["x", "--cases", "many"]).exit_code == 2
    assert isinstance(CliRunner().invoke(own, ["x", "--budget", "soon"]).exception, UsageError)


def test_an_option_without_help_is_refused_at_import():
    @dataclass(frozen=True)
    class Bare:
        cases: int = 8

    with pytest.raises(TypeError, match="option cases has no help"):

        @with_options(Bare)
        def run(options: Bare) -> None: ...


def test_every_field_of_predict_is_an_option():
    flags = {name for p in get_command(app).commands["predict"].params for name in p.opts}
    for one in fields(PredictOptions):
        spelt = one.metadata["spelling"].flags or (f"--{one.name.replace('_', '-')}",)
        assert {flag.split("/")[0] for flag in spelt} <= flags


def test_json_for_machines(cohort, tmp_path):
    code, text = ran("check", cohort, "-o", tmp_path / "k", "--json")
    found = json.loads(text)
    assert code == 0 and found == read_json(tmp_path / "k/findings.json")
    code, text = ran(
        "evaluate", cohort / "labels", cohort / "labels", "-o", tmp_path / "e", "--json"
    )
    assert code == 0 and json.loads(text)["summary"][0]["mean"] == 1.0
    assert (tmp_path / "e/report.html").is_file()
    code, text = ran("info", GOLDEN, "--json")
    assert json.loads(text)["structures"] == {"1": "left part", "2": "right part"}
    code, text = ran("recipes", "--json")
    assert code == 0 and {"brats-vnet", "brain-quicknat"} <= {
        one["name"] for one in json.loads(text)
    }
    code, text = ran("download", "--list", "--json")
    assert code == 0 and all(one["licence"] for one in json.loads(text))


def test_info_for_people(cohort):
    code, text = ran("info", GOLDEN)
    assert code == 0 and "structures:\n  1: left part\n  2: right part\n" in text
    assert "members 1:\n  name: fold_0\n" in text
    code, text = ran("info", cohort / "images" / "a.nii.gz")
    assert code == 0 and "format: NIfTI" in text and "spacing mm: 1.0, 1.0, 2.0" in text


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("1h30m", 5400), ("2d", 172800)])
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5 m", "m", "3m5", "1.5.2m"])
def test_other_durations_are_refused(text):
    with pytest.raises(UsageError, match="a time is written like"):
        parse_duration(text)


def test_amounts_of_memory():
    assert parse_bytes("4G") == 4 << 30 and parse_bytes("1.5 GiB") == 3 << 29
    with pytest.raises(UsageError, match="an amount of memory"):
        parse_bytes("lots")
