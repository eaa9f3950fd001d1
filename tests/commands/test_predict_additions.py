"""What is asked for beside the masks: what cannot be written is known before a network runs, and
never costs the mask or its record.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from tests.calls import run
from tests.plans import small_plan
from tests.scans import scan

import delineate as dl
from delineate.commands.options import PredictOptions
from delineate.commands.predict import predict, session
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import UsageError
from delineate.core.plan import Augmentation, Inference
from delineate.core.volume import Volume
from delineate.evaluation.pairing import masks_in
from delineate.formats.dicom.rtstruct import read_rtstruct
from delineate.formats.dicom.seg import read_seg
from delineate.inference import predictor
from delineate.inference.devices import Cpu
from delineate.inference.engine import Engine
from delineate.networks.build import build, weights_of


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    plan = small_plan()
    path = tmp_path_factory.mktemp("m") / "m.model"
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0))),)).save(path)
    return path


@pytest.fixture
def series(tmp_path, real_data) -> Path:
    return Path(shutil.copytree(real_data / "hippocampus_dicom", tmp_path / "p1"))


def without(folder: Path, *names: str) -> Path:
    for path in folder.glob("*.dcm"):
        dataset = pydicom.dcmread(path)
        for name in names:
            del dataset[name]
        dataset.save_as(path)
    return folder


def record(out: Path) -> dict:
    return json.loads((out / "predictions.json").read_text())["cases"]


@pytest.mark.parametrize("lacking", ["StudyInstanceUID"])
def test_a_series_that_takes_no_seg_is_known_before_inference(
    model, series, tmp_path, monkeypatch, lacking
):
    told, order = [], []
    monkeypatch.setattr(
        predictor,
        "segment",
        lambda *a, was=predictor.segment, **k: order.append("segment") or was(*a, **k),
    )

    def say(text: str) -> None:
        order.append("say")
        told.append(text)

    done = predict(
        model,
        [without(series, lacking)],
        tmp_path / "out",
        PredictOptions(device="cpu", dicom_seg=True),
        say=say,
    )
    assert (
        order == ["say", "segment"]
        and lacking in told[0]
        and "mask is written without it" in told[0]
    )
    (failed,) = done.failures
    assert (
        failed.value is not None
        and lacking in str(failed.error)
        and "mask is written" in str(failed.error)
    )
    entry = record(tmp_path / "out")["p1"]
    assert (
        entry["file"] == "p1.nii.gz"
        and lacking in entry["not_written"]["dicom_seg"]
        and "dicom_seg" not in entry
    )
    assert dl.read(tmp_path / "out" / "p1.nii.gz").grid.shape == dl.read(series).grid.shape
    assert not (tmp_path / "out" / "p1.seg.dcm").exists() and done.written == [failed]


def test_a_seg_of_probabilities_of_a_series_without_frame_of_reference(model, series, tmp_path):
    out = tmp_path / "out"
    options = PredictOptions(
        device="cpu", dicom_seg=True, seg_type="FRACTIONAL", seg_syntax="rle", probabilities=True
    )
    assert not predict(model, [without(series, "FrameOfReferenceUID")], out, options).failures
    mask, chances = dl.read(out / "p1.nii.gz"), dl.read(out / "probabilities" / "p1.nii.gz")
    shares = read_seg(out / "p1.seg.dcm", mask.grid, threshold=None)
    names = list(shares.meta["names"].values())
    assert names and set(names) <= {"left part", "right part"}
    for share, name in zip(shares.array, names, strict=True):
        chance = chances.array[1 + ["left part", "right part"].index(name)]
        assert np.abs(share - chance).max() <= 0.5 / 255 + 1e-4
    assert pydicom.dcmread(out / "p1.seg.dcm").FrameOfReferenceUID.startswith("2.25.")
    assert "FrameOfReferenceUID" in " ".join(record(out)["p1"]["notes"])
    for words, reason in (
        ({"seg_type": "LABELMAP"}, "are for --format seg"),
        ({"dicom_seg": True, "seg_syntax": "rle"}, "one bit for each pixel"),
        ({"dicom_seg": True, "seg_type": "FRACTIONAL", "ram_bytes": 1 << 30}, "FRACTIONAL"),
    ):
        with pytest.raises(UsageError, match=reason):
            predict(model, [series], out, PredictOptions(device="cpu", **words))


def test_a_seg_is_written_where_it_can_be(model, series, tmp_path):
    scan(tmp_path / "plain.nii.gz")
    done = predict(
        model,
        [series, tmp_path / "plain.nii.gz"],
        tmp_path / "out",
        PredictOptions(device="cpu", dicom_seg=True),
    )
    cases = record(tmp_path / "out")
    assert cases["p1"]["dicom_seg"] == "p1.seg.dcm" and (tmp_path / "out" / "p1.seg.dcm").is_file()
    assert [o.name for o in done.failures] == ["plain"] and "one DICOM series" in cases["plain"][
        "not_written"
    ]["dicom_seg"]
    assert (tmp_path / "out" / "plain.nii.gz").is_file() and len(done.written) == 2
    # Another spelling of the same outputs.
    said: list[str] = []
    options = PredictOptions(device="cpu", form="seg")
    predict(model, [series], tmp_path / "out", options, say=said.append)
    assert any("1 of 1 scans have their results already" in text for text in said)


def test_contours_have_the_voxels_of_the_mask(model, series, tmp_path):
    # The masks of an untrained network are noise with hundreds of contours in a slice.
    for path in sorted(series.iterdir(), key=lambda path: int(path.stem))[6:]:
        path.unlink()
    out = tmp_path / "out"
    done = predict(model, [series], out, PredictOptions(device="cpu", rtstruct=True))
    assert not done.failures
    entry = record(out)["p1"]
    assert entry["rtstruct"] == "p1.rtstruct.dcm" and "dicom_seg" not in entry
    mask = dl.read(out / "p1.nii.gz")
    drawn = read_rtstruct(out / "p1.rtstruct.dcm", mask.grid)
    assert set(drawn.meta["names"].values()) <= {"left part", "right part"}
    np.testing.assert_array_equal(drawn.array > 0, mask.array > 0)
    assert drawn.array.any()
    # An evaluation reads the mask alone.
    assert [path.name for path in masks_in(out)] == ["p1.nii.gz"]
    first = (out / "p1.rtstruct.dcm").read_bytes()
    predict(model, [series], out, PredictOptions(device="cpu", rtstruct=True, again=True))
    assert (out / "p1.rtstruct.dcm").read_bytes() == first
    predict(model, [series], out, PredictOptions(device="cpu", form="rtstruct", smallest_mm2=2))
    assert any("of less than 2 mm2 are left out" in note for note in record(out)["p1"]["notes"])
    assert len((out / "p1.rtstruct.dcm").read_bytes()) < len(first)


def test_all_objects_of_a_series_by_one_option(model, series, tmp_path):
    out, plain = tmp_path / "out", scan(tmp_path / "plain.nii.gz")
    words = ("predict", model, series, plain, "-o", out, "--device", "cpu")
    code, text = run(*words, "--format", "nrrd,sr,kos,pm,sc")
    assert code == 1, text
    entry, other = record(out)["p1"], record(out)["plain"]
    written = {"dicom_seg": "p1.seg.dcm"} | {k: f"p1.{k}.dcm" for k in ("sr", "pm", "kos", "sc")}
    assert {key: entry[key] for key in written} == written and "not_written" not in entry
    assert {path.name for path in out.glob("p1.*")} == {"p1.nrrd", *written.values()}
    assert set(other["not_written"]) == set(written) and "one DICOM series" in text
    report = pydicom.dcmread(out / "p1.sr.dcm")
    named = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    seg = pydicom.dcmread(out / "p1.seg.dcm", stop_before_pixels=True)
    assert seg.SeriesInstanceUID in {one.SeriesInstanceUID for one in named}
    # Nothing is written again, and an evaluation reads the masks alone.
    code, text = run(*words, "--format", "nrrd,sr,kos,pm,sc")
    assert "1 of 2 scans have their results already" in text
    assert [path.name for path in masks_in(out)] == ["p1.nrrd", "plain.nrrd"]


def test_an_empty_prediction_keeps_its_mask_and_record(model, series, tmp_path, monkeypatch):
    """A SEG needs a voxel; that none was found is a result all the same."""
    was = session.write_result

    def nothing_found(case, manifest, prediction, *rest):
        labels = prediction.labels
        empty = Volume(
            np.zeros_like(labels.array), labels.grid, "label", labels.source, labels.meta
        )
        return was(case, manifest, replace(prediction, labels=empty), *rest)

    monkeypatch.setattr(session, "write_result", nothing_found)
    done = predict(
        model,
        [series],
        tmp_path / "out",
        PredictOptions(device="cpu", form="sr,kos", ram_bytes=8 << 30),
    )
    entry = record(tmp_path / "out")["p1"]
    assert "refers to the seg, which was not written" in entry["not_written"]["sr"]
    assert "no slice to look at" in entry["not_written"]["kos"]
    assert "has a voxel" in entry["not_written"]["dicom_seg"] and entry["volumes_ml"] == {
        "left part": 0.0,
        "right part": 0.0,
    }
    assert len(done.failures) == 1 and not dl.read(tmp_path / "out" / "p1.nii.gz").array.any()


def test_a_picture_that_cannot_be_drawn_costs_no_mask(model, tmp_path):
    scan(tmp_path / "a.nii.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "montages").write_text("a file where a folder is needed")
    done = predict(
        model,
        [tmp_path / "a.nii.gz"],
        tmp_path / "out",
        PredictOptions(device="cpu", montage="outlined"),
    )
    assert (
        list(record(tmp_path / "out")["a"]["not_written"]) == ["montage"]
        and len(done.written) == len(done.failures) == 1
    )


def test_a_format_that_cannot_hold_the_mask_is_refused_before_inference(
    model, tmp_path, monkeypatch
):
    monkeypatch.setattr(predictor, "segment", lambda *a, **k: pytest.fail("a network ran"))
    done = predict(
        model,
        [scan(tmp_path / "a.nii.gz")],
        tmp_path / "out",
        PredictOptions(device="cpu", form="png"),
    )
    assert "a PNG holds one slice, the scan has 16" in str(done.failures[0].error)


def test_every_input_of_every_channel_is_recorded(tmp_path):
    from tests.commands.test_predict import model as make

    for name in ("t1c", "flair"):
        scan(tmp_path / "in" / "p1" / f"p1-{name}.nii.gz")
    predict(
        make(tmp_path / "m.model"),
        [tmp_path / "in"],
        tmp_path / "out",
        PredictOptions(device="cpu"),
    )
    inputs = record(tmp_path / "out")["p1"]["inputs"]
    assert inputs == {
        "Flair": str(tmp_path / "in/p1/p1-flair.nii.gz"),
        "T1c": str(tmp_path / "in/p1/p1-t1c.nii.gz"),
    }
    (tmp_path / "in/p1/p1-t1c.nii.gz").unlink()
    predict(
        tmp_path / "m.model",
        [tmp_path / "in"],
        tmp_path / "part",
        PredictOptions(device="cpu", allow_missing=True),
    )
    assert record(tmp_path / "part")["p1"]["inputs"] == {
        "Flair": str(tmp_path / "in/p1/p1-flair.nii.gz"),
        "T1c": None,
    }


def test_mirroring_is_what_is_asked_for(tmp_path, monkeypatch):
    """An imported nnU-Net's plan mirrors: False never does, None does what the plan says, True
    mirrors.
    """
    plan = small_plan(inference=Inference(mirror=(0, 1)), augmentation=Augmentation(mirror=(0, 1)))
    Bundle(plan, (Member("fold_0", weights_of(build(plan.network, 0))),)).save(tmp_path / "m.model")
    model, image = dl.load(tmp_path / "m.model", device="cpu"), dl.read(scan(tmp_path / "a.nii.gz"))
    seen = []
    monkeypatch.setattr(
        predictor.coarse,
        "slabs",
        lambda s, e, inference, *a, was=predictor.coarse.slabs: (
            seen.append(inference.mirror) or was(s, e, inference, *a)
        ),
    )
    for mirror in (False, None, True):
        model.predict(image, mirror=mirror)
    assert seen == [(), (0, 1), (0, 1)]
    # By the masks themselves, from the engine that the model uses.
    engine = Engine.from_bundle(model.bundle, Cpu())
    plain = predictor.predict(image, engine, inference=Inference()).labels.array
    assert np.array_equal(model.predict(image, mirror=False).labels.array, plain)
    assert not np.array_equal(model.predict(image).labels.array, plain)
    none = small_plan(augmentation=Augmentation(mirror=()), inference=Inference(mirror=(1,)))
    assert (
        predictor.with_mirroring(none, True).mirror == (1,)
        and predictor.with_mirroring(small_plan(), None).mirror == ()
    )
    assert predictor.with_mirroring(small_plan(), True).mirror == (0,)
