"""Privacy of all that is made of a cohort: after ``convert --deidentify`` a planted name is found
nowhere, and without it in no record of a scan from an archive.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from tests import leaks as search
from tests.archives import Store, serving
from tests.calls import call
from tests.commands.test_deidentify import FAMILY, ID, WORDS, plant
from tests.formats.dicom.objects import write
from tests.plans import small_network, small_plan
from tests.segmentations import series
from tests.structure_sets import CLOSED, circle_on, write_structure_set

from delineate.core.plan import Channel, Normalisation, Schedule
from delineate.formats import files

pytest.importorskip("highdicom")
pytest.importorskip("pynetdicom")
PATIENTS = 3
OBJECTS = "seg,rtstruct,sr,pm,kos,sc"


@pytest.fixture(scope="module")
def named(tmp_path_factory) -> Path:
    """A CT with names everywhere, and a structure set, of several patients."""
    root = tmp_path_factory.mktemp("cohort") / "in"
    for n in range(PATIENTS):
        folder = root / f"{FAMILY}_{n}" / "CT"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            source = [plant(one) for one in series()]
            for one in source:
                one.PatientID = f"{ID}-{n}"
            write(folder, *source)
            grid = files.read_grid(folder)
            drawn = [(circle_on(grid, (12, 12), 4, k), CLOSED) for k in (1, 2, 3)]
            write_structure_set(
                folder.with_name("labels") / f"{FAMILY}.dcm",
                {"Left Kidney": drawn},
                patient=f"{ID}-{n}",
                frame=source[0].FrameOfReferenceUID,
                series=source[0].SeriesInstanceUID,
                instances=[one.SOPInstanceUID for one in source],
            )
    return root


@pytest.fixture(scope="module")
def plan(tmp_path_factory) -> Path:
    """Two steps of a small network."""
    flat = {"strides": ((2, 2, 1), (2, 2, 1)), "kernels": ((3, 3, 1),) * 3}
    made = small_plan(
        names={1: "left kidney"},
        channels=(Channel(name="CT", normalise=Normalisation(kind="none")),),
        patch=(16, 16, 4),
        network=small_network(classes=2, **flat),
        schedule=Schedule(epochs=1, steps_per_epoch=2),
    )
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    path.write_text(made.to_json())
    return path


def test_nothing_made_of_a_clean_cohort_has_the_name(named, plan, deep_path, monkeypatch):
    """Run folder, store, cards, logs, reports, scores, pictures, and all objects."""
    monkeypatch.setenv("DELINEATE_DEIDENTIFY_KEY", "a secret of this test")
    clean = deep_path.parent / "clean"
    done = call("convert", named, clean, "--deidentify", "basic")
    assert done.returncode == 0, done.stderr
    model, results, log = (deep_path / name for name in ("m.model", "results", "log.txt"))
    printed = []
    for allowed, *words in (
        ((0, 1), "check", clean, "-o", deep_path / "checked"),
        ((0, 3), "train", clean, "-o", model, "--plan", plan, "--device", "cpu"),
        ((0,), "info", model),
        ((0, 1), "predict", model, clean, "-o", results, "--device", "cpu", "--format", OBJECTS),
        ((0,), "evaluate", results, clean, "-o", deep_path / "scores", "--pictures"),
    ):
        done = call("-v", "--log", log, "--log-format", "json", *words)
        assert done.returncode in allowed, done.stderr
        printed.append(done.stdout + done.stderr)
    for kind in OBJECTS.split(","):
        assert list(results.glob(f"*.{kind}.dcm")), kind
    assert list((model.parent / "m.model.run" / "store").iterdir())
    assert search.leaks([deep_path, "".join(printed)], WORDS) == []


def test_records_of_a_scan_from_an_archive_have_no_name(named, plan, tmp_path, monkeypatch):
    """Only the objects repeat the patient, to whose study they belong."""
    from delineate.core.bundle import Bundle, Member
    from delineate.core.plan import Plan
    from delineate.networks.build import build, weights_of

    read = Plan.from_json(plan.read_text())
    model, out, log = tmp_path / "m.model", tmp_path / "out", tmp_path / "log.txt"
    Bundle(read, (Member("fold_0", weights_of(build(read.network, 0))),)).save(model)
    scan = next(named.glob("*/CT"))
    study, *_ = {one.StudyInstanceUID for one in series_in(scan)}
    with serving(Store(*scan.iterdir())) as store:
        done = call(
            *("-v", "--log", log, "predict", model, f"{store.url}/studies/{study}", "-o", out),
            *("--device", "cpu", "--format", "seg,sr,kos,sc", "--send"),
        )
    assert done.returncode == 0, done.stderr
    written = [path for path in out.iterdir() if path.is_file() and path.suffix != ".dcm"]
    assert {"predictions.json", "predictions.jsonl"} <= {path.name for path in written}
    assert search.leaks([*written, log, done.stdout + done.stderr], WORDS) == []
    names = " ".join(str(path.relative_to(out)) for path in out.rglob("*"))
    assert search.leaks([names], WORDS) == []


def series_in(folder: Path) -> list:
    import pydicom

    return [pydicom.dcmread(path, stop_before_pixels=True) for path in folder.iterdir()]
