"""nnU-Net as a peer, installed in an environment of its own: its commands with what they want
around them, and data as it wants them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np

TRAINED = "nnUNetTrainer__nnUNetPlans__3d_fullres"  # what it calls a trained folder
Command = tuple[list[str], dict[str, str]]  # and the environment it wants


def command(peer: Path, work: Path, program: str, *words: str | Path) -> Command:
    """A program of the environment ``peer``, with nnU-Net's three folders under ``work``."""
    folders = {f"nnUNet_{name}": str(work / name) for name in ("raw", "preprocessed", "results")}
    return [str(peer / "bin" / program), *map(str, words)], folders


def prepare(peer: Path, work: Path, number: int) -> Command:
    """Fingerprint, plan and preprocess for ``3d_fullres`` with a process a core."""
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
    peer: Path, trained: Path, scans: Path, out: Path, *, fold: str = "0", mirror: bool = False
) -> Command:
    """Masks of ``scans`` (``CASE_0000.nii.gz``) on the CPU, with a trained folder."""
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
    )
    return command(peer, out.parent, "nnUNetv2_predict_from_modelfolder", *words)


def raw_dataset(
    work: Path, number: int, name: str, cases: dict[str, tuple[Path, Path]], labels: dict[str, int]
) -> None:
    """Raw images (linked) and labels of the cases to train on; nnU-Net counts its labels 1, 2, ...,
    so other values are written anew.
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
    """A folder of scans under the names that nnU-Net wants."""
    folder.mkdir(parents=True, exist_ok=True)
    for case, image in images.items():
        link = folder / f"{case}_0000.nii.gz"
        link.unlink(missing_ok=True)
        link.symlink_to(image.resolve())
    return folder


def counted_back(folder: Path, labels: dict[str, int]) -> None:
    """Give masks that count 1, 2, ... the values of ``labels``."""
    for path in sorted(folder.glob("*.nii.gz")):
        mapped(path, path, dict(enumerate(labels.values(), start=1)))


def mapped(source: Path, target: Path, values: dict[int, int]) -> None:
    """A mask with its values replaced; a value not named becomes background."""
    mask = nib.load(source)
    found = np.asarray(mask.dataobj).astype(np.int64)
    table = np.zeros(max(int(found.max()), *values) + 1, np.uint16)
    for old, new in values.items():
        table[old] = new
    nib.save(nib.Nifti1Image(table[found], mask.affine), target)
