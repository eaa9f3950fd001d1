"""Predicting DICOM series with missing slices, sheared stacks and frames of one file: labels and
DICOM SEG are where the slices are.
"""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
import torch
from tests.calls import run
from tests.plans import small_network, small_plan
from torch import nn

from delineate import extend
from delineate.cohorts.discovery.layouts import find
from delineate.cohorts.reading import read_image
from delineate.core.bundle import Bundle, Member
from delineate.core.manifest import Manifest
from delineate.core.plan import Channel, Normalisation
from delineate.formats import files
from delineate.formats.dicom.seg import read_seg
from delineate.networks.build import weights_of

pytest.importorskip("highdicom")
SHAPE = (8, 24, 20)  # slices, rows, columns
GAP_MM = 2.5


class Threshold(nn.Module):
    """Class 1 from 500 on."""

    def __init__(self, net):
        super().__init__()
        self.layer = nn.Conv3d(1, 2, 1)
        with torch.no_grad():
            self.layer.weight[:] = torch.tensor([-0.01, 0.01]).reshape(2, 1, 1, 1, 1)
            self.layer.bias[:] = torch.tensor([5.0, -5.0])

    def forward(self, x):
        return self.layer(x)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    if "threshold" not in extend.NETWORKS.names():
        extend.NETWORKS.add("threshold", extend.NetworkKind(Threshold, "Class 1 from 500 on."))
    network = small_network(kind="threshold", classes=2)
    channels = (Channel(name="CT", normalise=Normalisation(kind="none")),)
    spacing = {"spacing_mm": (1.0, 1.0, GAP_MM), "patch": (16, 16, 8)}
    plan = small_plan(3, {1: "block"}, network=network, channels=channels, **spacing)
    path = tmp_path_factory.mktemp("model") / "threshold.model"
    Bundle(plan, (Member("fold_0", weights_of(Threshold(network))),)).save(path)
    return path


def planted(folder, missing=(), shear_mm=0.0):
    """A CT with a block of 1000 in the slices 2 to 5; returns position -> (instance, mask)."""
    folder.mkdir(parents=True)
    found = {}
    pixels = np.zeros(SHAPE, np.int16)
    pixels[2:6, 6:15, 5:12] = 1000
    for k in range(SHAPE[0]):
        one = pydicom.Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        one.SOPClassUID, one.SOPInstanceUID = pydicom.uid.CTImageStorage, f"1.2.9.{k + 1}"
        one.SeriesInstanceUID, one.StudyInstanceUID = "1.2.3", "1.2.4"
        one.FrameOfReferenceUID, one.PatientID, one.Modality = "1.2.5", "P1", "CT"
        one.SeriesNumber, one.InstanceNumber = 1, k + 1
        one.Manufacturer, one.PatientSex, one.PatientName = "ACME", "F", "Doe^Jane"
        one.ImagePositionPatient = [3.0, 10 + shear_mm * k, GAP_MM * k]
        one.ImageOrientationPatient, one.PixelSpacing = [1, 0, 0, 0, 1, 0], [1, 1]
        one.Rows, one.Columns, one.SamplesPerPixel = *SHAPE[1:], 1
        one.PhotometricInterpretation, one.PixelRepresentation = "MONOCHROME2", 1
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.RescaleSlope, one.RescaleIntercept = 1, 0
        one.PixelData = pixels[k].tobytes()
        if k not in missing:
            one.save_as(folder / f"{k}.dcm", enforce_file_format=True)
            found[tuple(map(float, one.ImagePositionPatient))] = one.SOPInstanceUID, pixels[k] > 0
    return found


def predicted(model, scan, out, *words):
    code, text = run("predict", model, scan, "-o", out, "--dicom-seg", "--device", "cpu", *words)
    assert code == 0, text
    (entry,) = json.loads((out / "predictions.json").read_text())["cases"].values()
    return files.read(out / entry["file"]), entry, out / entry["dicom_seg"]


def frames_of(path):
    """Position -> (instance that the frame is derived from, frame)."""
    seg = pydicom.dcmread(path)
    pixels = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
    found = {}
    for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        place = tuple(map(float, groups.PlanePositionSequence[0].ImagePositionPatient))
        found[place] = source, frame
    return found


@pytest.mark.parametrize(
    ("how", "slices", "interpolated", "drawn"),
    [("fill", 8, [4], [2, 3, 5]), ("run", 4, None, [2, 3])],
)
def test_a_fixed_series_has_its_seg_on_true_slices(
    model, tmp_path, how, slices, interpolated, drawn
):
    true = planted(tmp_path / "scan", missing=[4])
    code, text = run("predict", model, tmp_path / "scan", "-o", tmp_path / "refused")
    assert code == 2 and "uneven gaps: 1 of 6 differ from 2.50 mm" in text
    labels, entry, seg = predicted(model, tmp_path / "scan", tmp_path / "out", "--fix-series", how)
    assert labels.grid.shape == (20, 24, slices)
    of_slice = [k for k in range(slices) if labels.reorient("LPS").array[:, :, k].any()]
    assert of_slice == [k for k in (2, 3, 4, 5) if k < slices]
    assert entry.get("interpolated_slices") == interpolated
    assert f"fixed by {how}" in entry["notes"][0]
    assert entry["about"] == {"scanner": "ACME", "sex": "F"} and entry["machine"]
    found = frames_of(seg)
    assert sorted(round(place[2] / GAP_MM) for place in found) == drawn
    for place, (source, frame) in found.items():
        instance, mask = true[place]
        assert source.ReferencedSOPInstanceUID == instance
        assert np.array_equal(frame, mask)


def test_a_sheared_stack_keeps_its_slices(model, tmp_path):
    """Slices that are each 0.6 mm further down: about 13 degrees."""
    true = planted(tmp_path / "scan", shear_mm=0.6)
    labels, _, seg = predicted(model, tmp_path / "scan", tmp_path / "out")
    own = files.read(tmp_path / "scan")
    assert labels.grid.is_sheared and labels.grid.matches(own.grid, 1e-3)
    # The network sees an orthogonal grid, so that edges may move by half a voxel.
    block = own.array > 500
    both = np.count_nonzero(block & (labels.array > 0))
    assert 2 * both / (block.sum() + np.count_nonzero(labels.array)) > 0.93
    centres = [np.argwhere(one).mean(axis=0) for one in (block, labels.array > 0)]
    assert np.linalg.norm(own.grid.to_mm(centres[0]) - own.grid.to_mm(centres[1])) < 0.3
    # Every frame has the place of its source, and the voxels of that slice.
    found = frames_of(seg)
    for place, (source, frame) in found.items():
        assert source.ReferencedSOPInstanceUID == true[place][0]
        k = round(place[2] / GAP_MM)
        assert np.array_equal(frame, labels.reorient("LPS").array[:, :, k].T)
    assert np.array_equal(read_seg(seg, own.grid).array, labels.array)


def test_two_series_of_one_study_have_results_of_their_own(model, tmp_path):
    """In folders of their own, with one StudyInstanceUID and names of files that are the same."""
    planted(tmp_path / "a" / "CT")
    planted(tmp_path / "b" / "CT")
    for path in (tmp_path / "b" / "CT").iterdir():
        one = pydicom.dcmread(path)
        one.SeriesInstanceUID, one.SOPInstanceUID = "1.2.33", f"1.2.99.{one.InstanceNumber}"
        one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID
        rows = one.pixel_array[:, ::-1]
        one.PixelData = rows.tobytes()
        one.save_as(path)
    out, scans = tmp_path / "out", [tmp_path / "a" / "CT", tmp_path / "b" / "CT"]
    code, text = run("predict", model, *scans, "-o", out, "--dicom-seg", "--rtstruct")
    assert code == 0, text
    entries = json.loads((out / "predictions.json").read_text())["cases"].values()
    files_of = [[one[name] for name in ("file", "dicom_seg", "rtstruct")] for one in entries]
    assert len({name for names in files_of for name in names}) == 6
    masks = [files.read(out / names[0]).array for names in files_of]
    assert masks[0].any() and np.array_equal(masks[0], masks[1][::-1])
    referred = []
    for names, mask in zip(files_of, masks, strict=True):
        objects = [pydicom.dcmread(out / name) for name in names[1:]]
        assert {one.StudyInstanceUID for one in objects} == {"1.2.4"}
        referred.append(str(objects[0].ReferencedSeriesSequence[0].SeriesInstanceUID))
        assert np.array_equal(read_seg(out / names[1], files.read(out / names[0]).grid).array, mask)
    assert referred == ["1.2.3", "1.2.33"]


def test_a_cohort_keeps_how_its_series_are_fixed(tmp_path):
    planted(tmp_path / "cohort" / "p1", missing=[4])
    planted(tmp_path / "cohort" / "p2")
    manifest = find(tmp_path / "cohort", fix_series="fill")
    assert [case.images[0].fix_series for case in manifest] == ["fill", "fill"]
    again = Manifest.from_jsonl(manifest.to_jsonl())
    for case in again:
        volume = read_image(case, again)
        assert volume.grid.shape == (20, 24, 8) and (volume.array > 500).sum() == 4 * 63
    runs = find(tmp_path / "cohort", fix_series="split")
    assert [case.images[0].series for case in runs] == ["1.2.3/run1", "1.2.3/run2", ""]
    assert [read_image(case, runs).grid.shape[2] for case in runs] == [4, 3, 8]
    code, text = run("check", tmp_path / "cohort", "--fix-series", "all")
    assert code == 2 and "--fix-series is run, fill, split, found all" in text
