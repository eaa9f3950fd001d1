"""A synthetic abdominal CT and MR cohort with liver, spleen and both kidneys: the data of the demo.

This module owns how each phantom patient is scanned (matrix, spacing, coverage, noise, slice
numbering) and the forms of a cohort. The bodies come from ``anatomy``, the folders on disk are
written by ``trees``. The cohort is meant to break pipelines that are nearly right: the gap differs
from SliceThickness, file names and the instance numbers of one patient do not follow the slices,
one orientation is rotated and one upside down, and both halves of the body look alike enough that a
mirrored or misordered volume scores badly.

    form="nifti"     FOLDER/images/PATIENT.nii.gz, FOLDER/labels/PATIENT.nii.gz, FOLDER/labels.csv
    form="volumes"   FOLDER/{TrainVolumes,TestVolumes}/PATIENT.nii.gz,
                     FOLDER/{TrainSegmentation,TestSegmentation}/PATIENT.nii.gz, FOLDER/labels.csv
    form="dicom"     FOLDER/PATIENT/DICOM_anon/*.dcm, FOLDER/PATIENT/Ground/*.png (grey levels of
                     CHAOS MR)
    form="chaos-mr"  FOLDER/PATIENT/T1DUAL/DICOM_anon/{InPhase,OutPhase}/*.dcm,
                     FOLDER/PATIENT/T1DUAL/Ground/*.png
    form="ircadb"    FOLDER/3Dircadb1.N/PATIENT_DICOM/image_*,
                     FOLDER/3Dircadb1.N/MASKS_DICOM/ORGAN/image_*

All forms hold the same labels at the same positions, and all but chaos-mr the same voxels.
Everything follows from the seed. Patient n of a cohort is the same whatever the size of the cohort
(in "volumes" the last quarter of the patients is the test set).
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...core import atomic
from ...core.errors import OutputError, UsageError
from ...core.grid import Grid
from ...core.labels import LabelSet
from ...core.progress import Progress, silent
from ...core.volume import Volume
from . import dicom as phantom_dicom
from . import trees as phantom_trees
from .anatomy import LABELS, Patient, scene
from .scan import PhantomScan

__all__ = ["FORMS", "GREY_VALUES", "LABELS", "Form", "PhantomScan", "make_cohort", "make_scan"]

GREY_VALUES = phantom_dicom.GREY_VALUES
Form = Literal["dicom", "nifti", "volumes", "chaos-mr", "ircadb"]
FORMS: tuple[str, ...] = get_args(Form)
# Five of every ten patients (counted from 0) are numbered, oriented or stored in an unusual way.
_UNUSUAL = {
    1: "misleading numbers",
    3: "turned",
    5: "upside down",
    6: "half steps",
    7: "numbered upwards",
}


def make_cohort(
    folder: str | Path,
    *,
    patients: int = 20,
    seed: int = 0,
    form: Form = "dicom",
    organs: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    progress: Progress = silent,
) -> Path:
    """Make a cohort in ``folder``, which must be empty or missing.

    Args:
        folder: the target.
        patients: their number, at least 1; one scan each.
        seed: everything random follows from it.
        form: one of ``FORMS`` (see the module docstring).
        organs: names of ``LABELS`` that the masks contain, with their usual values; () for all
            four. The images never change.
        size: (matrix, slices) of every scan over the same field of view; None: 112 to 144 and 30 to
            46, depending on the patient.
        progress: see ``core.progress``.

    Returns:
        The folder.

    Raises:
        UsageError: an unknown form or organ, no patient, or a size below (16, 4).
        OutputError: the folder is not empty, or cannot be written.
    """
    folder = Path(folder)
    _refuse_bad_arguments(patients, form, organs, size)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError("is not empty; a phantom cohort needs a new or empty folder", path=folder)
    atomic.make_folder(folder)
    labels = LabelSet(tuple(label for label in LABELS if not organs or label.name in organs))
    phantom_trees.write_head(folder, form, labels)
    make = partial(
        _make_and_write,
        folder=folder,
        seed=seed,
        form=form,
        size=size,
        labels=labels,
        patients=patients,
    )
    # NumPy releases the interpreter lock; two threads keep the memory below 0.2 GB.
    with ThreadPoolExecutor(max_workers=2) as pool:
        for done, patient in enumerate(pool.map(make, range(patients)), start=1):
            progress("phantom", done, patients, patient)
    return folder


def make_scan(index: int, *, seed: int = 0, size: tuple[int, int] | None = None) -> PhantomScan:
    """Make patient ``index`` (from 0) of the cohort of ``seed``, in memory. Arguments as for
    ``make_cohort``.
    """
    # Each patient has its own random stream, so it does not depend on the others.
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(index,)))
    patient = Patient(rng)
    unusual = _UNUSUAL.get(index % 10, "")
    grid = _scan_grid(patient, rng, size, turned=unusual == "turned")
    clean_hu, label = scene(patient, grid)
    hu = clean_hu + _noise(grid.shape, rng, float(rng.uniform(6, 17)))
    # SliceThickness is off by a random step, so it never equals the gap.
    name, (offset, step) = (
        f"phantom_{index + 1:03d}",
        (rng.uniform(-600, 200), rng.choice([-0.5, 0.75, 1.0])),
    )
    shifted = grid.affine.copy()
    shifted[2, 3] += np.round(offset, 1)  # the zero of the table position is arbitrary
    placed = Grid(grid.shape, shifted)
    meta = {"modality": "CT", "patient": name}
    # HU are stored in the 12-bit range of CT.
    image = Volume(np.rint(hu).clip(-1024, 3071).astype(np.int16), placed, "HU", meta=meta)
    thickness_mm, own_seed = round(grid.spacing_mm[2] + float(step), 2), int(rng.integers(2**31))
    return PhantomScan(
        name,
        image,
        Volume(label, placed, "label", meta=meta),
        unusual,
        thickness_mm,
        own_seed,
        clean_hu,
    )


def _refuse_bad_arguments(
    patients: int, form: str, organs: Sequence[str], size: tuple[int, int] | None
) -> None:
    """Raise ``UsageError`` for an unknown form or organ, no patient, or a scan that is too
    small.
    """
    if form not in FORMS:
        raise UsageError(
            f"the form of a phantom cohort must be {', '.join(FORMS[:-1])} or {FORMS[-1]}, found "
            f"{form!r}"
        )
    if unknown := [name for name in organs if name not in LABELS.names]:
        raise UsageError(
            f"the phantom has the organs {', '.join(LABELS.names)}, found "
            f"{', '.join(map(repr, unknown))}"
        )
    if patients < 1:
        raise UsageError(f"a phantom cohort needs at least one patient, found {patients}")
    if size is not None and (size[0] < 16 or size[1] < 4):
        raise UsageError(
            f"a phantom scan needs a matrix of at least 16 and at least 4 slices, found {size}"
        )


def _make_and_write(
    index: int,
    *,
    folder: Path,
    seed: int,
    form: Form,
    size: tuple[int, int] | None,
    labels: LabelSet,
    patients: int,
) -> str:
    """Make one patient and write it in the given form; return its id."""
    scan = make_scan(index, seed=seed, size=size)
    # The last quarter is the test set (at least one patient, if there are two or more).
    test = patients > 1 and index >= patients - max(1, round(patients / 4))
    phantom_trees.WRITERS[form](folder, scan, labels, index, test)
    return scan.patient


# ---- the scanner ----


def _scan_grid(
    patient: Patient, rng: np.random.Generator, size: tuple[int, int] | None, *, turned: bool
) -> Grid:
    """Choose the grid: columns to the left, rows to the back, slices upwards. The field of view
    just contains the body.

    Every number has few decimals, so that DICOM's decimal strings hold it exactly.
    """
    matrix, gap = (
        int(rng.choice([112, 120, 128, 136, 144])),
        float(rng.choice([3.0, 4.0, 4.5, 5.0, 5.0, 6.0])),
    )
    # The field of view exceeds the body by 6 to 20 %.
    reach = 2 * max(patient.half_width_mm, patient.half_depth_mm)
    spacing = float(np.clip(reach * rng.uniform(1.06, 1.2) / matrix, 2.0, 3.0))
    middle, extent = float(rng.uniform(8, 34)) * patient.stretch[2], float(rng.uniform(150, 215))
    slices = int(np.clip(round(extent / gap), 30, 46))
    extent = slices * gap
    # A requested matrix keeps the field of view and the extent.
    if size is not None:
        spacing, gap = spacing * matrix / size[0], extent / size[1]
        matrix, slices = size
    spacing, gap = round(spacing, 3), round(gap, 2)
    # A turned patient has oblique axes, by 4 to 8 degrees about z.
    turn = np.eye(3)
    if turned:
        angle = np.deg2rad(float(rng.uniform(4, 8)) * rng.choice([-1, 1]))
        turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    # The middle of the volume is on the axis of the scanner.
    affine = np.eye(4)
    affine[:3, :3] = np.round(turn, 9) @ np.diag([-spacing, -spacing, gap])
    centre = affine[:3, :3] @ (np.array([matrix - 1, matrix - 1, slices - 1]) / 2)
    affine[:3, 3] = np.round(np.array([0, 0, middle]) - centre, 3)
    return Grid((matrix, matrix, slices), affine)


def _noise(
    shape: tuple[int, int, int], rng: np.random.Generator, std_hu: float
) -> NDArray[np.float32]:
    """Make noise that is correlated between neighbouring voxels, as after reconstruction;
    ``std_hu`` is its standard deviation.
    """
    noise = rng.standard_normal(shape, dtype=np.float32)
    for axis, weight in ((0, 0.55), (1, 0.55), (2, 0.15)):
        noise = noise + np.float32(weight) * (np.roll(noise, 1, axis) + np.roll(noise, -1, axis))
    return np.asarray(noise * np.float32(std_hu / noise.std()), np.float32)
