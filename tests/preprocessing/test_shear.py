"""Sheared grids from file to score, against SciPy, SimpleITK and nibabel."""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from scipy import ndimage
from scipy.spatial import cKDTree
from tests.conftest import affine
from tests.plans import small_plan

from delineate.commands.check import check
from delineate.commands.evaluate import evaluate
from delineate.commands.options import CheckOptions, EvaluateOptions
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.prediction import PROBABILITY_ONE
from delineate.core.volume import Volume
from delineate.formats import files
from delineate.preprocessing import shear
from delineate.preprocessing.prepare import prepare, prepare_label, restore

RADIUS_MM = 14.0


def sheared(shape, spacing_mm, tilt, degrees=(10, -6, 20), codes=None) -> Grid:
    """A grid whose second axis is tilted along the third, with float32 numbers as NIfTI has."""
    matrix = affine(spacing_mm, np.eye(3) if codes is None else codes, degrees)
    matrix[:3, 2] += tilt * matrix[:3, 1]
    matrix[:3, 1] += 0.05 * matrix[:3, 0]
    return Grid(shape, matrix.astype(np.float32).astype(float), allow_shear=True)


GRIDS = {
    "tilted": sheared((48, 44, 20), (1.0, 1.0, 3.0), 0.8),
    "isotropic": sheared((40, 42, 44), (1.0, 1.1, 1.0), -0.4),
    "sagittal": sheared((44, 40, 24), (1.2, 0.9, 2.5), 0.5, codes=np.roll(np.eye(3), 1, axis=0)),
}


@pytest.fixture(params=list(GRIDS))
def grid(request) -> Grid:
    return GRIDS[request.param]


def distance_mm(grid: Grid, centre_mm) -> np.ndarray:
    ijk = np.moveaxis(np.indices(grid.shape), 0, -1)
    return np.linalg.norm(grid.to_mm(ijk) - centre_mm, axis=-1)


def ball(grid: Grid, offset_mm=(0.0, 0.0, 0.0)) -> np.ndarray:
    return (distance_mm(grid, grid.centre_mm + offset_mm) < RADIUS_MM).astype(np.uint8)


def waves(points_mm: np.ndarray) -> np.ndarray:
    """A smooth image of world coordinates."""
    x, y, z = np.moveaxis(points_mm / 9, -1, 0)
    return (100 + 30 * np.sin(x) * np.cos(y + 0.3 * z) + 20 * np.sin(z)).astype(np.float32)


def image_on(grid: Grid) -> np.ndarray:
    return waves(grid.to_mm(np.moveaxis(np.indices(grid.shape), 0, -1)))


def test_the_orthogonal_grid_contains_the_sheared_one_in_the_same_planes(grid):
    straight = grid.orthogonal()
    assert not straight.is_sheared and straight.voxel_ml == pytest.approx(grid.voxel_ml)
    faces = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in grid.shape])).reshape(3, 8).T
    index = straight.to_index(grid.to_mm(faces))
    assert (index > -0.5 - 1e-4).all() and (index < np.array(straight.shape) - 0.5 + 1e-4).all()
    # The planes of the slices are the same.
    axis = grid.slice_axis
    assert straight.shape[axis] == grid.shape[axis]
    last = np.array(grid.shape) - 1
    np.testing.assert_allclose(straight.to_index(grid.to_mm(last))[axis], last[axis], atol=1e-4)
    # Rounding in a header is no shear.
    bent = GRIDS["tilted"].orthogonal().affine + np.full((4, 4), 2e-4) * ([[1]] * 3 + [[0]])
    assert not Grid((4, 4, 4), bent).is_sheared


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_formats_keep_sheared_grids(tmp_path, grid, ending):
    path, array = tmp_path / f"a{ending}", ball(grid)
    files.write(Volume(array, grid, "label"), path)
    back = files.read(path)
    np.testing.assert_array_equal(back.array, array)
    np.testing.assert_allclose(back.affine, grid.affine, rtol=0, atol=1e-9)
    assert back.grid == files.read_grid(path)
    if ending == ".nii.gz":
        np.testing.assert_array_equal(nib.load(path).affine, grid.affine)
    else:
        image = sitk.ReadImage(str(path))
        corner = image.TransformIndexToPhysicalPoint([n - 1 for n in grid.shape])
        ours = grid.to_mm(np.array(grid.shape) - 1) * (-1, -1, 1)
        np.testing.assert_allclose(corner, ours, atol=1e-3)


def test_a_prepared_image_equals_an_independent_resampling(grid):
    plan = small_plan(spacing_mm=(None, None, None), orientation="ijk", crop="none")
    prepared, record = prepare(Volume(image_on(grid), grid), plan)
    assert record.source == grid and record.prepared.matches(grid.orthogonal(), 1e-6)
    # SciPy with the whole affine, inside the scan.
    matrix = np.linalg.inv(grid.affine) @ record.prepared.affine
    shape = record.prepared.shape
    index = np.moveaxis(np.indices(shape), 0, -1) @ matrix[:3, :3].T + matrix[:3, 3]
    inside = ((index > 2) & (index < np.array(grid.shape) - 3)).all(axis=-1)
    assert inside.sum() > 5000
    other = ndimage.affine_transform(image_on(grid), matrix[:3, :3], matrix[:3, 3], shape, order=3)
    ours = prepared[0].numpy()
    np.testing.assert_allclose(ours[inside], other[inside], atol=0.05)
    # The image itself at these places.
    np.testing.assert_allclose(ours[inside], image_on(record.prepared)[inside], atol=0.5)
    # SimpleITK, with its own idea of the grid.
    volume = Volume(image_on(grid), grid)
    from delineate.formats.itk import to_image

    like = to_image(Volume(np.zeros(shape, np.float32), record.prepared))
    linear = sitk.GetArrayFromImage(sitk.Resample(to_image(volume), like, sitk.Transform()))
    np.testing.assert_allclose(ours[inside], linear.T[inside], atol=3)


def test_labels_return_to_the_sheared_grid(grid):
    truth = ball(grid)
    plan = small_plan(spacing_mm=(1.0, 1.0, 1.2), orientation="RAS", crop="nonzero")
    # Outside the ball all is background, so that the scan is cropped.
    image = Volume(np.where(truth == 1, image_on(grid), 0), grid)
    prepared, record = prepare(image, plan)
    classes = prepare_label(Volume(truth, grid, "label"), record, {1: 1})
    assert classes.shape == prepared.shape[1:]
    ml = np.count_nonzero(classes) * record.prepared.voxel_ml
    assert ml == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3 / 1000, rel=0.04)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(classes.astype(np.int64)), 2)
    scores = one_hot.movedim(-1, 0).float()
    shares = np.empty((2, *grid.shape), np.uint16)
    back = restore([scores], record, 0, np.array([0, 1], np.uint8), sum_to_one=True)
    again = restore([scores], record, 0, np.array([0, 1], np.uint8), None, True, shares)
    np.testing.assert_array_equal(back, again)
    assert back.shape == grid.shape
    assert 2 * (back & truth).sum() / (back.sum() + truth.sum()) > 0.95
    assert np.abs(shares.sum(axis=0, dtype=np.int64) - PROBABILITY_ONE).max() <= 2
    assert ((shares[1] > PROBABILITY_ONE / 2) == back).mean() > 0.99


def test_nothing_is_resampled_without_shear():
    grid = GRIDS["tilted"].orthogonal()
    array = ball(grid)
    assert shear.labels_on(array, grid, grid.orthogonal()) is array
    volume = Volume(array, grid)
    assert shear.orthogonal(volume) is volume


def test_a_bool_mask_keeps_every_voxel_of_a_slice_that_moves_by_whole_voxels():
    tilted = np.array([[1.0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 5, 0], [0, 0, 0, 1]])
    grid = Grid((6, 5, 4), tilted, allow_shear=True)
    mask = np.random.default_rng(0).random(grid.shape) > 0.5
    moved = shear.labels_on(mask, grid, grid.orthogonal())
    assert moved.dtype == bool and moved.sum() == mask.sum()
    np.testing.assert_array_equal(shear.labels_on(moved, grid.orthogonal(), grid), mask)


def surface_mm(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """World coordinates of the voxels at the border of a mask."""
    return grid.to_mm(np.argwhere(mask & ~ndimage.binary_erosion(mask)))


def test_evaluate_measures_in_millimetres_of_the_patient(tmp_path, grid):
    shift_mm = np.array([2.0, -3.0, 1.5])
    truth, predicted = ball(grid), ball(grid, shift_mm)
    labels = LabelSet.from_names({1: "ball"})
    for name, array in (("truth", truth), ("pred", predicted)):
        files.write(Volume(array, grid, "label"), tmp_path / name / "a.nii.gz", labels=labels)
    chosen = EvaluateOptions(surface="voxels", workers=1, report=False)
    scores = evaluate(tmp_path / "pred", tmp_path / "truth", tmp_path / "out", chosen).scores
    found = {row.metric: row.value for row in scores.rows if row.case == "a"}
    hd95_mm = next(value for name, value in found.items() if name.startswith("hd95_"))
    expected_ml = 4 / 3 * np.pi * RADIUS_MM**3 / 1000
    assert found["volume_truth_ml"] == pytest.approx(truth.sum() * grid.voxel_ml, rel=1e-6)
    assert found["volume_truth_ml"] == pytest.approx(expected_ml, rel=0.03)
    # Distances between border voxels in world mm, which know nothing of grids.
    a, b = surface_mm(truth == 1, grid), surface_mm(predicted == 1, grid)
    both = [cKDTree(b).query(a)[0], cKDTree(a).query(b)[0]]
    independent = max(np.percentile(one, 95) for one in both)
    assert hd95_mm == pytest.approx(independent, abs=0.75)
    assert hd95_mm == pytest.approx(np.linalg.norm(shift_mm), abs=0.9)
    assert found["dice"] == pytest.approx(
        2 * (truth & predicted).sum() / (truth.sum() + predicted.sum())
    )


def test_check_notes_shear_once_per_case_and_accepts_it(tmp_path):
    grid, other = GRIDS["tilted"], GRIDS["tilted"].orthogonal()
    for n, one in enumerate((grid, other)):
        files.write(Volume(image_on(one), one), tmp_path / f"images/c{n}.nii.gz")
        files.write(Volume(ball(one), one, "label"), tmp_path / f"labels/c{n}.nii.gz")
    report = check(tmp_path, options=CheckOptions(workers=1))
    noted = [f for f in report.findings if f.kind == "sheared"]
    assert [(f.case, f.severity) for f in noted] == [("c0", "note")]
    assert len(report.usable) == 2


def test_pictures_and_the_viewer_show_right_angles(tmp_path):
    from delineate.reporting.pictures import montage, side_by_side
    from delineate.viewer.scenes import Mask, Scene, described
    from delineate.viewer.voxels import straightened

    grid = GRIDS["tilted"]
    image, mask = Volume(image_on(grid), grid), Volume(ball(grid), grid, "label")
    labels = LabelSet.from_names({1: "ball"})
    assert montage(image, {"truth": mask}, labels, tmp_path / "a.png").stat().st_size > 5000
    assert side_by_side(image, mask, mask, labels, tmp_path / "b.png").stat().st_size > 5000
    scene = straightened(Scene("a", image, (Mask("truth", mask, labels),)))
    assert scene.image.grid == scene.masks[0].volume.grid == grid.orthogonal()
    assert json.dumps(described(scene))


def test_predict_saves_the_affine_of_the_sheared_scan(example_folder, tmp_path):
    from delineate.commands.options import PredictOptions
    from delineate.commands.predict import predict

    ct = nib.load(example_folder / "ct.nii.gz")
    matrix = ct.affine.copy()
    matrix[:3, 2] += 0.4 * matrix[:3, 1]
    image = nib.Nifti1Image(np.asanyarray(ct.dataobj), matrix)
    nib.save(image, tmp_path / "scan.nii.gz")
    predict(
        example_folder / "liver.model",
        [tmp_path / "scan.nii.gz"],
        tmp_path / "out",
        PredictOptions(device="cpu"),
    )
    mask = nib.load(tmp_path / "out" / "scan.nii.gz")
    assert mask.shape == image.shape[:3]
    assert mask.affine.tobytes() == nib.load(tmp_path / "scan.nii.gz").affine.tobytes()
