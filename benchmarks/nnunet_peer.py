"""nnU-Net as a peer, installed in an environment of its own: its commands with their environment
variables, and data in its layout.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np

TRAINED = "nnUNetTrainer__nnUNetPlans__3d_fullres"  # its name of the folder of a trained model
Command = tuple[list[str], dict[str, str]]  # the command line and its environment variables


def command(peer: Path, work: Path, program: str, *words: str | Path) -> Command:
    """A program of the virtual environment ``peer``; nnU-Net's three folders are in ``work``."""
    folders = {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    return [str(peer / "bin" / program), *map(str, words)], folders


def prepare(peer: Path, work: Path, number: int) -> Command:
    """Fingerprint, plan and preprocess for ``3d_fullres``, with one process per core."""
    cores = str(os.cpu_count())
    return command(
        peer,
        work,
        "nnUNetv2_plan_and_preprocess",
        "-d",
        str(number),
        "-c",
        "3d_fullres",
        "-np",
        cores,
        "-npfp",
        cores,
    )


def predict(
    peer: Path,
    trained: Path,
    scans: Path,
    out: Path,
    *,
    fold: str = "0",
    mirror: bool = False,
    tuned: bool = False,
) -> Command:
    """Segment ``scans`` (``CASE_0000.nii.gz``) on the CPU with a trained model folder; ``tuned``
    uses one process each for reading and writing, not three.
    """
    words = (
        "-i",
        scans,
        "-o",
        out,
        "-m",
        trained,
        "-f",
        fold,
        "-device",
        "cpu",
        *(() if mirror else ("--disable_tta",)),
        *(("-npp", "1", "-nps", "1") if tuned else ()),
    )
    return command(peer, out.parent, "nnUNetv2_predict_from_modelfolder", *words)


def raw_dataset(
    work: Path, number: int, name: str, cases: dict[str, tuple[Path, Path]], labels: dict[str, int]
) -> None:
    """Write a raw data set of the training cases: images as links, labels, ``dataset.json``.

    nnU-Net needs the label values 1, 2, ..., so masks with other values are converted.

    Args:
        number, name: of the data set, in nnU-Net's folder names.
        cases: case -> (image, label).
        labels: structure -> label value.
    """
    raw = work / "raw" / f"Dataset{number:03d}_{name}"
    truths = raw / "labelsTr"
    truths.mkdir(parents=True, exist_ok=True)
    link_scans({case: image for case, (image, _) in cases.items()}, raw / "imagesTr")
    counted = list(labels.values()) == list(range(1, len(labels) + 1))
    for case, (_, truth) in cases.items():
        if counted:
            (truths / f"{case}.nii.gz").symlink_to(truth.resolve())
        else:
            mapped(
                truth,
                truths / f"{case}.nii.gz",
                {value: k for k, value in enumerate(labels.values(), start=1)},
            )
    names = {"background": 0} | {label: k for k, label in enumerate(labels, start=1)}
    info = {
        "channel_names": {"0": "MRI"},
        "labels": names,
        "file_ending": ".nii.gz",
        "numTraining": len(cases),
    }
    (raw / "dataset.json").write_text(json.dumps(info))


def link_scans(images: dict[str, Path], folder: Path) -> Path:
    """Link scans into ``folder`` under nnU-Net's names (``CASE_0000.nii.gz``)."""
    folder.mkdir(parents=True, exist_ok=True)
    for case, image in images.items():
        link = folder / f"{case}_0000.nii.gz"
        link.unlink(missing_ok=True)
        link.symlink_to(image.resolve())
    return folder


def counted_back(folder: Path, labels: dict[str, int]) -> None:
    """Replace the values 1, 2, ... of the masks in ``folder`` by the values of ``labels``."""
    for path in sorted(folder.glob("*.nii.gz")):
        mapped(path, path, dict(enumerate(labels.values(), start=1)))


def mapped(source: Path, target: Path, values: dict[int, int]) -> None:
    """Write a mask with its values replaced; values not in ``values`` become background."""
    mask = nib.load(source)
    found = np.asarray(mask.dataobj).astype(np.int64)
    table = np.zeros(max(int(found.max()), *values) + 1, np.uint16)
    for old, new in values.items():
        table[old] = new
    nib.save(nib.Nifti1Image(table[found], mask.affine), target)
