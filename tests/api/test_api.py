"""The Python interface: exchange with other libraries, and what a scientist writes."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

import delineate as dl
from delineate.core.errors import UsageError

SOURCE = Path(dl.__file__).parents[1]
GOLDEN = Path(__file__).parents[1] / "golden" / "schema_1" / "finished" / "m.model"
# oblique, anisotropic, left-handed
AFFINE = np.array([[-0.8, 0.1, 0, 9], [0.1, 0.9, 0.3, -4], [0, -0.2, 2.5, 30], [0, 0, 0, 1.0]])


@pytest.fixture
def scan():
    from delineate.core.grid import Grid

    rng = np.random.default_rng(0)
    axes = np.linalg.qr(AFFINE[:3, :3])[0] @ np.diag([0.7, 0.9, 2.5])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = axes, (9, -4, 30)
    return dl.Volume(rng.normal(0, 300, (9, 7, 5)).astype(np.float32), Grid((9, 7, 5), affine))


def test_a_volume_is_an_array_with_a_place(scan):
    assert scan.shape == np.asarray(scan).shape == (9, 7, 5) and scan.numpy() is scan.array
    assert np.asarray(scan, np.float64).dtype == np.float64
    assert np.array_equal(np.asarray(scan), scan.array) and np.mean(scan) == scan.array.mean()
    np.testing.assert_allclose(scan.spacing_mm, (0.7, 0.9, 2.5))
    assert np.array_equal(scan.affine, scan.grid.affine)
    assert type(scan.reorient("LPS")) is type(scan.with_unit("HU")) is dl.Volume
    with pytest.raises(ValueError, match="without a copy"):
        np.array(scan, np.int16, copy=False)


@pytest.mark.parametrize("channels", [1, 2])
def test_there_and_back_through_other_libraries(scan, channels):
    if channels == 2:
        scan = dl.Volume(np.stack([scan.array, 1 - scan.array]), scan.grid)
    for other in (scan.to_nibabel(), scan.to_sitk()):
        back = dl.Volume.of(other)
        assert np.array_equal(back.array, scan.array)
        assert back.grid.matches(scan.grid, 1e-4)
    # both libraries give one physical point for one voxel
    point = (scan.affine @ (3, 2, 4, 1))[:3]
    ours = np.array(scan.to_sitk().TransformIndexToPhysicalPoint((3, 2, 4))) * (-1, -1, 1)
    np.testing.assert_allclose(ours, point, atol=1e-4)
    np.testing.assert_allclose((scan.to_nibabel().affine @ (3, 2, 4, 1))[:3], point, atol=1e-4)


def test_anything_that_holds_a_scan_can_be_read(scan, tmp_path):
    scan.save(tmp_path / "a.nii.gz")
    nib.save(scan.to_nibabel(), tmp_path / "b.nii")
    SimpleITK.WriteImage(scan.to_sitk(), str(tmp_path / "c.mha"))
    for image in (
        tmp_path / "a.nii.gz",
        str(tmp_path / "b.nii"),
        tmp_path / "c.mha",
        nib.load(tmp_path / "b.nii"),
        SimpleITK.ReadImage(str(tmp_path / "c.mha")),
        (scan.array, scan.affine),
        scan,
    ):
        read = dl.read(image)
        assert type(read) is dl.Volume and np.array_equal(read.array, scan.array)
        assert read.grid.matches(scan.grid, 1e-3)
    with pytest.raises(UsageError, match="found list; allowed are a path"):
        dl.read([1, 2])
    with pytest.raises(UsageError, match="either affine or spacing_mm"):
        dl.Volume.from_numpy(scan.array)


def test_a_missing_package_is_one_sentence(scan, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchio", None)
    with pytest.raises(UsageError, match=r"needs the package torchio, .* pip install torchio"):
        scan.to_torchio()


def test_pictures_of_volumes_and_predictions(scan):
    assert len(scan.plot().axes) == 3 and "image/png;base64," in scan._repr_html_()
    labels = dl.Volume((scan.array > 0).astype(np.uint8), scan.grid, "label")
    found = dl.Prediction(labels, dl.LabelSet.from_names({1: "liver"}))
    assert len(found.plot(scan).axes) == 3 and "base64" in found._repr_html_()
    assert len(scan.plot(labels).axes) == 3


def test_a_prediction_by_structure():
    model = dl.load(GOLDEN, device="cpu")
    rng = np.random.default_rng(1)
    array = rng.normal(0, 1, (20, 18, 16)).astype(np.float32)
    prediction = model.predict((array, np.diag([1, 1, 2, 1.0])))
    assert type(prediction) is dl.Prediction and prediction.shape == array.shape
    assert list(prediction) == model.labels.names == ["left part", "right part"]
    for name, ml in prediction.volumes_ml.items():
        mask = prediction[name]
        assert mask.dtype == bool and mask.sum() * 0.002 == pytest.approx(ml)
    with pytest.raises(KeyError, match="the structures are left part, right part"):
        prediction["liver"]
    assert np.array_equal(np.asarray(prediction), prediction.numpy())
    assert np.array_equal(prediction.to_nibabel().get_fdata(), prediction.numpy())
    again = pickle.loads(pickle.dumps(model)).predict((array, np.diag([1, 1, 2, 1.0])))
    assert np.array_equal(again.numpy(), prediction.numpy())


def test_a_model_gives_its_network_plan_and_card():
    import torch

    model = dl.load(GOLDEN)
    assert isinstance(model.module, torch.nn.Module) and not model.module.training
    weights = model.bundle.members[0].weights
    for name, tensor in model.module.state_dict().items():
        assert np.array_equal(tensor.numpy(), weights[name])
    assert model.plan is model.bundle.plan and model.card["seed"] == model.bundle.card["seed"]
    assert repr(model).startswith(f"Model({model.id}, 3-D unet: left part")


SCIENTIST = Path(__file__).with_name("scientist.py")
# Each line has one error.
WRONG = """import delineate as dl

model: int = dl.load("a")
dl.nothing
dl.load(3)
dl.train("data", "a.model", budget=600)
dl.train("data", "a.model", budget_s="10m")
table: str = dl.Scores.from_csv("a.csv")
prediction: int = dl.predict("a.model", "ct.nii.gz")
"""
ALL_WRONG = {("wrong.py", n) for n in range(3, 10)}


@pytest.fixture
def typed(tmp_path):
    """A folder with a file that is right and one with an error in each line from the third on."""
    shutil.copy(SCIENTIST, tmp_path / "right.py")
    (tmp_path / "wrong.py").write_text(WRONG)
    return tmp_path


def errors(folder: Path, *command: str) -> set[tuple[str, int]]:
    """File and line of each error that a type checker prints."""
    done = subprocess.run([*command], cwd=folder, capture_output=True, text=True)
    found = re.findall(r"(\w+\.py):(\d+)(?::\d+)?[ :-]+error", done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    return {(name, int(line)) for name, line in found}


def test_a_scientists_file_is_typed_for_mypy(typed):
    # The cache of the project's own type check saves most of the time.
    cache = str(Path(__file__).parents[2] / ".mypy_cache")
    command = [sys.executable, "-m", "mypy", "--strict", "--ignore-missing-imports"]
    assert errors(typed, *command, "--cache-dir", cache, "right.py", "wrong.py") == ALL_WRONG


@pytest.mark.rounds
def test_a_scientists_file_is_typed_for_pyright(typed):
    """By basedpyright, which is pyright in one wheel; its own checks are off in this mode."""
    settings = {"typeCheckingMode": "standard", "extraPaths": [str(SOURCE)]}
    (typed / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--pythonpath", sys.executable]
    assert errors(typed, *command) == ALL_WRONG


@pytest.mark.skipif(importlib.util.find_spec("pandas") is None, reason="the file makes a table")
def test_a_scientists_file_runs(example_folder, monkeypatch):
    monkeypatch.chdir(example_folder)
    runpy.run_path(str(SCIENTIST))
    assert Path("planes.png").is_file() and Path("mine.nii.gz").is_file()
