"""The phantom cohort as folders on disk, each in the layout of a known collection: one small
function per form.

A writer is called with (folder of the cohort, scan, structures in the masks, number of the patient
from 0, whether it is a test patient). This module knows no anatomy and no scanner; DICOM itself is
written by ``phantom.dicom``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...core import atomic
from ...core.labels import LabelSet
from ...core.volume import Volume
from . import dicom as phantom_dicom
from .mr import t1_dual

if TYPE_CHECKING:
    from .scan import PhantomScan

Writer = Callable[[Path, "PhantomScan", LabelSet, int, bool], None]


def write_head(folder: Path, form: str, labels: LabelSet) -> None:
    """Write the files that a cohort has once: the names of the label values, if the form has no
    other place for them.
    """
    if form in ("nifti", "volumes"):
        atomic.write_text(
            folder / "labels.csv", "value,name\n" + "".join(f"{b.value},{b.name}\n" for b in labels)
        )


def nifti(folder: Path, scan: PhantomScan, labels: LabelSet, index: int, test: bool) -> None:
    """Write ``images/PATIENT.nii.gz`` and ``labels/PATIENT.nii.gz``."""
    _pair(scan, labels, folder / "images", folder / "labels")


def volumes(folder: Path, scan: PhantomScan, labels: LabelSet, index: int, test: bool) -> None:
    """Write ``TrainVolumes``, ``TrainSegmentation``, ``TestVolumes`` and ``TestSegmentation``: the
    layout of the 3-D U-Net liver tutorial.
    """
    part = "Test" if test else "Train"
    _pair(scan, labels, folder / f"{part}Volumes", folder / f"{part}Segmentation")


def _pair(scan: PhantomScan, labels: LabelSet, images: Path, truths: Path) -> None:
    """Write an image and its label volume."""
    from ...formats import files

    files.write(scan.image, images / f"{scan.patient}.nii.gz")
    files.write(_truth(scan, labels), truths / f"{scan.patient}.nii.gz", labels=labels)


def _truth(scan: PhantomScan, labels: LabelSet) -> Volume:
    """Return the scan's label volume with only the chosen structures."""
    array = scan.label.array
    return scan.label.with_array(
        np.where(np.isin(array, labels.values), array, 0).astype(array.dtype)
    )


def chaos_ct(folder: Path, scan: PhantomScan, labels: LabelSet, index: int, test: bool) -> None:
    """Write ``PATIENT/DICOM_anon`` and ``PATIENT/Ground``."""
    phantom_dicom.write_patient(
        folder / scan.patient, scan.image, _truth(scan, labels), scan.storage
    )


def chaos_mr(folder: Path, scan: PhantomScan, labels: LabelSet, index: int, test: bool) -> None:
    """Write ``PATIENT/T1DUAL/DICOM_anon/{InPhase,OutPhase}`` and ``PATIENT/T1DUAL/Ground``: the
    bodies of the CT cohort in an MR scanner.
    """
    # The scan itself is CT; the MR is computed from its noise-free body with random numbers of its
    # own.
    inside, outside = t1_dual(
        scan.clean_hu, scan.label.array, np.random.default_rng([scan.seed, 1])
    )
    phases = {
        name: Volume(array, scan.image.grid, "a.u.")
        for name, array in (("InPhase", inside), ("OutPhase", outside))
    }
    phantom_dicom.write_dual_echo(
        folder / scan.patient / "T1DUAL", phases, _truth(scan, labels), scan.storage
    )


def ircadb(folder: Path, scan: PhantomScan, labels: LabelSet, index: int, test: bool) -> None:
    """Write ``3Dircadb1.N/PATIENT_DICOM`` and ``3Dircadb1.N/MASKS_DICOM/leftkidney``. A structure
    that the patient lacks has no folder.
    """
    # 3D-IRCADb names its mask folders without spaces.
    inside = {"".join(label.name.split()): scan.label.array == label.value for label in labels}
    masks = {
        name: scan.label.with_array(mask.astype(np.uint8) * np.uint8(255), "a.u.")
        for name, mask in inside.items()
        if mask.any()
    }
    phantom_dicom.write_with_mask_series(
        folder / f"3Dircadb1.{index + 1}", scan.image, masks, scan.storage
    )


WRITERS: dict[str, Writer] = {
    "nifti": nifti,
    "volumes": volumes,
    "dicom": chaos_ct,
    "chaos-mr": chaos_mr,
    "ircadb": ircadb,
}
