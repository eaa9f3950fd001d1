"""SUV of PET series in check, plan, train and predict: stated once, recorded, and applied again."""

from __future__ import annotations

import numpy as np
import pytest
from tests.calls import run
from tests.formats.dicom.objects import pet, write
from tests.plans import small_plan

from delineate.cohorts.discovery.layouts import discover
from delineate.cohorts.reading import read_image
from delineate.commands.check import check
from delineate.commands.options import CheckOptions
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import InputError, LayoutError
from delineate.core.grid import Grid
from delineate.core.manifest import Manifest
from delineate.core.volume import Volume
from delineate.formats import files, nifti
from delineate.networks.build import build, weights_of
from delineate.planning.capacity import Machine
from delineate.planning.rules import fingerprint, make_plan
from delineate.preprocessing.prepare import prepare

pytestmark = pytest.mark.usefixtures("figures_of_module_empty")

WEIGHTS_KG = (50, 70, 90)
DESCRIPTION = "channels: {PET: '{id}/pet'}\nlabel: '{id}/mask.nii.gz'\nlabels: {tumour: 1}\n"


def pixels(k):
    """Stored values of a slice; times 100 in Bq/ml, of which 2500 are 1 g/ml at 70 kg."""
    plane = np.full((20, 20), 25, np.int16)
    plane[4:16, 4:16] = 100 + min(k, 5)
    return plane


def patient(folder, kg, first=1, **fields):
    """A series of ten slices from number ``first`` on, and the mask of its bright voxels."""
    folder.mkdir(parents=True)
    own = {"PatientWeight": str(kg), "PatientID": folder.name, "SeriesInstanceUID": f"1.2.{kg}"}
    numbered = (own | {"InstanceNumber": k + first} | fields for k in range(10))
    write(folder / "pet", *(pet(k, pixels=pixels(k), **one) for k, one in enumerate(numbered)))
    mask = np.stack([pixels(k).T >= 100 for k in range(10)], -1).astype(np.uint8)
    nifti.write(Volume(mask, files.read_grid(folder / "pet"), "label"), folder / "mask.nii.gz")
    return folder


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pet")
    for kg in WEIGHTS_KG:
        patient(folder / "data" / f"P{kg}", kg)
    (folder / "suv.yaml").write_text(DESCRIPTION + "unit: {PET: suv}\n")
    (folder / "stored.yaml").write_text(DESCRIPTION)
    return folder


def highest(manifest):
    return [float(read_image(case, manifest).array.max()) for case in manifest]


def test_a_channel_is_suv_by_description_or_option(cohort):
    # 105 * 100 Bq/ml by 175 MBq of 50, 70 and 90 kg.
    expected = [3.0, 4.2, 5.4]
    described = discover(cohort / "data", description=cohort / "suv.yaml").manifest
    assert highest(described) == pytest.approx(expected, rel=1e-5)
    asked = discover(cohort / "data", unit="suv").manifest
    assert (asked.layout, asked.units) == ("hospital", ("suv",))
    assert highest(asked) == pytest.approx(expected, rel=1e-5)
    assert highest(discover(cohort / "data").manifest) == [10500.0] * 3
    # A manifest keeps it.
    again = Manifest.from_jsonl(asked.to_jsonl())
    assert again == asked and highest(again) == pytest.approx(expected, rel=1e-5)


def test_check_shows_the_unit_and_names_the_scan_without_suv(cohort, tmp_path):
    code, text = run(
        "check", cohort / "data", "--unit", "suv", "--workers", "1", "-o", tmp_path / "out"
    )
    assert (code, "channels: PT as SUV (PT)" in text) == (0, True)
    patient(tmp_path / "data" / "P60", 60, PatientWeight=None)
    for kg in WEIGHTS_KG[:2]:
        patient(tmp_path / "data" / f"P{kg}", kg)
    code, text = run(
        "check", tmp_path / "data", "--unit", "suv", "--workers", "1", "-o", tmp_path / "out"
    )
    assert code == 1 and "no SUV: PatientWeight is missing" in " ".join(text.split())


def test_check_shows_mixed_units_and_what_the_reader_noted(tmp_path):
    patient(tmp_path / "P50", 50)
    patient(tmp_path / "P70", 70, first=2, Units="GML", RescaleSlope="0.04")
    found = check(tmp_path, options=CheckOptions(workers=1)).findings
    told = [(one.case, one.kind, one.message) for one in found if one.severity == "warning"]
    note = "InstanceNumber begins at 2: slices may be missing at an end"
    assert ("P70", "series", note) in told
    assert any("different units (1 in Bq/ml, 1 in SUV)" in message for _, _, message in told)
    assert highest(discover(tmp_path, unit="suv").manifest) == pytest.approx([3.0, 4.2], rel=1e-5)


def test_what_cannot_be_suv_is_refused(cohort, tmp_path):
    assert run("check", cohort / "data", "--unit", "sul")[0] == 2
    patient(tmp_path / "ct" / "P1", 50, Modality="CT")
    with pytest.raises(LayoutError, match="no channel is PET"):
        discover(tmp_path / "ct", unit="suv")
    (tmp_path / "x.yaml").write_text(DESCRIPTION + "unit: {CT: suv}\n")
    with pytest.raises(LayoutError, match="unit names CT, which is no channel"):
        discover(cohort / "data", description=tmp_path / "x.yaml")
    half = discover(cohort / "data").manifest.cases[:1]
    with pytest.raises(LayoutError, match="SUV in some cases and not in others"):
        Manifest((*half, *discover(cohort / "data", unit="suv").manifest.cases[1:]), ("PT",))


@pytest.fixture(scope="module")
def model(cohort):
    """An untrained model with the plan that the rules make of the cohort."""
    manifest = discover(cohort / "data", unit="suv").manifest
    machine = Machine("cpu", 1, 8 << 30)
    found = fingerprint(manifest, workers=1)
    plan = make_plan(found, manifest, machine, epochs=1, probe=lambda *_: 0.1)
    plan.save(cohort / "plan.json")
    assert "SUV are comparable between scans" in plan.reasons["normalise.PT"]
    (channel,) = plan.channels
    assert (channel.unit, channel.normalise.kind, channel.normalise.low) == ("suv", "window", 0.0)
    assert channel.normalise.high == pytest.approx(5.4, rel=1e-3)
    plan = small_plan(3, {1: "mask"}, channels=plan.channels)
    bundle = Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 3)), 0),))
    bundle.save(cohort / "m.model")
    return cohort / "m.model"


def test_predict_applies_what_the_model_was_trained_with(cohort, model, tmp_path):
    series = cohort / "data" / "P90" / "pet"
    assert run("convert", series, tmp_path / "suv.nii.gz", "--unit", "suv")[0] == 0
    assert run("convert", series, tmp_path / "stored.nii.gz")[0] == 0

    def predicted(scan, out):
        words = ("--channels", f"PT={scan}", "--device", "cpu", "--probabilities")
        return run("predict", model, "-o", tmp_path / out, *words)

    for scan, out in ((series, "a"), (tmp_path / "suv.nii.gz", "b")):
        code, text = predicted(scan, out)
        assert code == 0, text
    found = [files.read(next((tmp_path / n / "probabilities").iterdir())).array for n in "ab"]
    np.testing.assert_array_equal(*found)
    # A file that states no unit, and a series without a dose.
    code, text = predicted(tmp_path / "stored.nii.gz", "c")
    assert code == 1 and "SUV needs a PET series in DICOM" in " ".join(text.split())
    bad = patient(tmp_path / "P1", 60, RadiopharmaceuticalInformationSequence=None)
    code, text = run("predict", model, bad / "pet", "-o", tmp_path / "d", "--device", "cpu")
    assert code == 1 and "no SUV: 0 radiopharmaceuticals are stated" in " ".join(text.split())


def test_prepare_refuses_another_unit(model):
    plan = Bundle.load(model).plan
    scan = Volume(np.ones((12, 12, 6), np.float32), Grid.from_spacing((12, 12, 6), (1, 1, 2.5)))
    prepare(scan.with_unit("SUV"), plan)
    prepare(scan, plan)  # an array states none
    with pytest.raises(InputError, match="is in Bq/ml, the model needs SUV by body weight"):
        prepare(scan.with_unit("Bq/ml"), plan)


def test_a_given_plan_must_read_as_the_cohort_does(cohort, model, tmp_path):
    words = ("--plan", cohort / "plan.json", "--device", "cpu", "--epochs", "1")
    code, text = run("train", cohort / "data", "-o", tmp_path / "m.model", *words)
    assert code == 2 and "--unit suv reads PET channels as SUV" in " ".join(text.split())
