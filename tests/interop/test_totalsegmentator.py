"""TotalSegmentator's published folders: the real nnU-Net of the hippocampus under their names, with
their reader, older plans, trainer without mirroring and a spacing of 3 mm.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from delineate.cli import app
from delineate.core.bundle import Bundle
from delineate.core.errors import GeometryError, UsageError
from delineate.formats import files
from delineate.interop.nnunet import read_bundle

TRAINED = "nnUNetTrainer__nnUNetPlans__3d_fullres"
# Data set, trainer and reader of images, as published.
FAST = (
    "Dataset297_TotalSegmentator_total_3mm_1559subj",
    "nnUNetTrainer_4000epochs_NoMirroring",
    "NibabelIOWithReorient",
)
ORGANS = (
    "Dataset291_TotalSegmentator_part1_organs_1559subj",
    "nnUNetTrainerNoMirroring",
    "NibabelIOWithReorient",
)
VESSELS = ("Dataset258_lung_vessels_248subj", "nnUNetTrainer", "SimpleITKIO")


def published(results: Path, real_data: Path, data_set: str, trainer: str, reader: str) -> Path:
    """A folder as it is unpacked into TotalSegmentator's ``nnunet/results``."""
    source = real_data / "nnunet_hippocampus" / TRAINED
    folder = results / data_set / f"{trainer}__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    plans = json.loads((source / "plans.json").read_text())
    config = plans["configurations"]["3d_fullres"]
    words = config.pop("architecture")["arch_kwargs"]
    # The plans are those of the first versions of nnU-Net v2.
    config |= {
        "spacing": [3.0, 3.0, 3.0],
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 32,
        "unet_max_num_features": 320,
        "conv_kernel_sizes": words["kernel_sizes"],
        "pool_op_kernel_sizes": words["strides"],
        "n_conv_per_stage_encoder": words["n_conv_per_stage"],
        "n_conv_per_stage_decoder": words["n_conv_per_stage_decoder"],
    }
    plans |= {"dataset_name": data_set, "image_reader_writer": reader}
    (folder / "plans.json").write_text(json.dumps(plans))
    data = json.loads((source / "dataset.json").read_text())
    data |= {"name": "TotalSegmentator", "licence": "Apache 2.0"}
    (folder / "dataset.json").write_text(json.dumps(data))
    content = torch.load(source / "fold_0" / "checkpoint_final.pth", weights_only=False)
    content |= {"trainer_name": trainer}
    if "NoMirroring" in trainer:
        content["inference_allowed_mirroring_axes"] = None
    torch.save(content, folder / "fold_0" / "checkpoint_final.pth")
    # The archives were packed on a Mac.
    fork = results / "__MACOSX" / data_set / folder.name
    fork.mkdir(parents=True)
    (fork / "._plans.json").write_bytes(b"\0\5\26\7")
    return folder


@pytest.mark.parametrize("names", [FAST, ORGANS], ids=["3 mm", "part 1"])
def test_a_published_folder_is_imported_and_predicts(tmp_path, real_data, names):
    folder = published(tmp_path / "results", real_data, *names)
    shutil.copyfile(
        next((real_data / "hippocampus" / "imagesTr").glob("hippocampus_0*.nii.gz")),
        tmp_path / "scan.nii.gz",
    )
    model = tmp_path / "total.model"
    run = CliRunner().invoke(app, ["import", "nnunet", str(tmp_path / "results"), "-o", str(model)])
    assert run.exit_code == 0, run.output
    bundle = Bundle.load(model)
    assert bundle.card["folder"] == folder.name and bundle.card["dataset"] == names[0]
    assert bundle.card["licence"].startswith("of the weights: Apache 2.0, as of the data")
    assert bundle.plan.orientation == "SAR" and bundle.plan.spacing_mm == (3.0, 3.0, 3.0)
    assert bundle.plan.inference.mirror == ()
    # A scan gives the same mask in whatever direction its axes are stored.
    scan = files.read(tmp_path / "scan.nii.gz")
    masks = []
    for codes in ("RAS", "LPS"):
        files.write(scan.reorient(codes), tmp_path / f"{codes}.nii.gz")
        words = ["predict", str(model), str(tmp_path / f"{codes}.nii.gz"), "--backend", "torch"]
        run = CliRunner().invoke(app, [*words, "-o", str(tmp_path / codes)])
        assert run.exit_code == 0, run.output
        masks.append(files.read(tmp_path / codes / f"{codes}.nii.gz").reorient("RAS").array)
    assert np.array_equal(*masks)


def test_axes_of_the_training_scans_are_stated_if_the_reader_keeps_them(tmp_path, real_data):
    folder = published(tmp_path, real_data, *VESSELS)
    assert read_bundle(folder).plan.orientation == "kji"
    stated = read_bundle(folder, axes="RAS", licence="for non-commercial use")
    assert stated.plan.orientation == "SAR" and stated.plan.inference.mirror == (0, 1, 2)
    assert stated.card["licence"].startswith("of the weights: for non-commercial use")
    with pytest.raises(GeometryError, match="found 'RAX'"):
        read_bundle(folder, axes="RAX")
    fast = published(tmp_path / "fast", real_data, *FAST)
    with pytest.raises(UsageError, match="NibabelIOWithReorient reorients every scan to RAS"):
        read_bundle(fast, axes="LPS")
