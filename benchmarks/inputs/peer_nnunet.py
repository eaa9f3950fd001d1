"""What nnU-Net v2 makes of inputs; runs in an environment of its own, without delineate.

    FOLDER/bin/python peer_nnunet.py WORK < tasks.json > answers.json

Each input is converted to a raw data set with least effort: files are copied if their ending is one
that nnU-Net reads, else stored again by Pillow, nibabel or SimpleITK; values that are not 1, 2, ...
are replaced, as its documentation asks. Then it is read in two ways. "plain" uses the reader that
nnU-Net chooses, the shape test, the cropping and the integer cast of its preprocessor, and its
loss. "expert" calls ``verify_dataset_integrity`` first, which is off unless
``--verify_dataset_integrity`` is given, and counts its warnings as refusals; masks in colours
become grey, palettes indices, and pictures are turned as their EXIF says.
"""

from __future__ import annotations

import contextlib
import io
import json
import multiprocessing.pool
import re
import shutil
import sys
import traceback
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
import torch
from nnunetv2.experiment_planning import verify_dataset_integrity as verification
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from PIL import Image, ImageOps

VOLUMES = (".nii.gz", ".nrrd", ".mha", ".nii")
PICTURES = (".png", ".bmp", ".tif")
STORED = (*PICTURES, ".jpg", ".gif")


class _Here:
    """Its verification in this process: a new process for each input would only cost time."""

    @staticmethod
    def get_context(_):
        return type("Context", (), {"Pool": multiprocessing.pool.ThreadPool})


verification.multiprocessing = _Here


def ending_of(path):
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else path.suffix.lower()


def convert(source, target, expert, is_label):
    """Copy a file, or store it again in the format of ``target``."""
    if expert and ending_of(source) in STORED:
        image = ImageOps.exif_transpose(Image.open(source))
        if is_label and image.mode == "P":
            image = Image.fromarray(np.array(image))
        elif is_label and image.mode in ("RGB", "RGBA", "LA"):
            image = image.convert("L")
        image.save(target)
    elif ending_of(source) == ending_of(target) and not source.name.endswith(".seg.nrrd"):
        shutil.copy(source, target)
    elif ending_of(source) in STORED:
        Image.open(source).save(target)
    elif ending_of(source) == ".mgz":
        nibabel.save(nibabel.Nifti1Image.from_image(nibabel.load(source)), target)
    else:
        SimpleITK.WriteImage(SimpleITK.ReadImage(str(source)), str(target))


def replace_values(path, values):
    """Replace label values in a file by 1, 2, ..."""
    table = {old: new for new, old in enumerate(values, start=1)}
    if ending_of(path) in PICTURES:
        array = np.array(Image.open(path)).astype(np.int64)
        new = array.copy()
        for old, number in table.items():
            new[array == old] = number
        Image.fromarray(np.clip(new, 0, 255).astype(np.uint8)).save(path)
    else:
        image = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(image)
        new = array.astype(np.int64)
        for old, number in table.items():
            new[array == old] = number
        made = SimpleITK.GetImageFromArray(new)
        made.CopyInformation(image)
        SimpleITK.WriteImage(made, str(path))


def raw_dataset(task, folder, expert):
    """Write the raw data set; returns its ending."""
    first = Path(task["pairs"][0][1])
    ending = ending_of(first)
    if ending not in (*VOLUMES, *PICTURES):
        ending = ".png" if ending in STORED else ".nii.gz"
    if ending_of(Path(task["pairs"][0][2])) == ".nii.gz":
        ending = ".nii.gz"
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case, image, label in task["pairs"]:
        convert(Path(image), folder / "imagesTr" / f"{case}_0000{ending}", expert, False)
        target = folder / "labelsTr" / f"{case}{ending}"
        convert(Path(label), target, expert, True)
        values = list(task["stated"].values())
        if values != list(range(1, len(values) + 1)):
            replace_values(target, values)
    names = {"background": 0} | {name: k for k, name in enumerate(task["stated"], start=1)}
    sizes = {"0": "image"}
    if ending in PICTURES:
        shape = np.array(
            Image.open(folder / "imagesTr" / f"{task['pairs'][0][0]}_0000{ending}")
        ).shape
        sizes = {str(k): f"channel {k}" for k in range(shape[2] if len(shape) > 2 else 1)}
    info = {
        "channel_names": sizes,
        "labels": names,
        "file_ending": ending,
        "numTraining": len(task["pairs"]),
    }
    (folder / "dataset.json").write_text(json.dumps(info))
    return ending


def read(task, folder, ending, names_bad):
    """Voxels of each structure as its preprocessor reads them, without the cases ``names_bad``."""
    info = json.loads((folder / "dataset.json").read_text())
    cases = [case for case, *_ in task["pairs"] if case not in names_bad]
    example = str(folder / "imagesTr" / f"{cases[0]}_0000{ending}")
    reader = determine_reader_writer_from_dataset_json(info, example, verbose=False)()
    found, contrasts = dict.fromkeys(task["stated"], 0), []
    for case in cases:
        data, _ = reader.read_images((str(folder / "imagesTr" / f"{case}_0000{ending}"),))
        seg, _ = reader.read_seg(str(folder / "labelsTr" / f"{case}{ending}"))
        assert data.shape[1:] == seg.shape[1:], "Shape mismatch between image and segmentation."
        data, seg, _ = crop_to_nonzero(data, seg)
        seg = seg.astype(np.int16 if np.max(seg) > 127 else np.int8)
        seg[seg == -1] = 0  # the first step of its augmentation
        output = torch.zeros((1, len(task["stated"]) + 1, *seg.shape[1:]))
        DC_and_CE_loss({"batch_dice": False}, {})(output, torch.from_numpy(seg)[None])
        inside = (seg > 0)[0]
        if inside.any() and not inside.all():
            contrasts.append(float(np.nanmean(data[0][inside]) / np.nanmean(data[0][~inside])))
        for k, name in enumerate(task["stated"], start=1):
            found[name] += int((seg == k).sum())
    return {"voxels": found, "contrast": min(contrasts, default=None)}


def named(text, cases):
    """Cases whose file is named in a message; a reader that is tried and left names one too."""
    text = re.sub(r"(?m)^Failed to open file .*$", "", text)
    return sorted({case for case in cases if re.search(rf"{re.escape(case)}(?:_0000)?\.", text)})


def failure(error, said, cases):
    """An exception that names a file is a refusal, any other one a crash."""
    last = f"{type(error).__name__}: {error}"
    return {"refused": said + last} if named(said + str(error), cases) else {"crashed": last[:300]}


def answer(task, work, expert):
    folder = work / ("expert" if expert else "plain") / task["name"]
    shutil.rmtree(folder, ignore_errors=True)
    cases = [case for case, *_ in task["pairs"]]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
            ending = raw_dataset(task, folder, expert)
            bad = []
            if expert:
                try:
                    verification.verify_dataset_integrity(str(folder), 1)
                    bad = named(printed.getvalue(), cases)
                    if len(bad) == len(cases):
                        return {"refused": printed.getvalue()}
                except Exception as error:
                    bad = named(printed.getvalue() + str(error), cases)
                    if not bad or len(bad) == len(cases):
                        return failure(error, printed.getvalue(), cases)
            return {**read(task, folder, ending, bad), "bad": bad}
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return failure(error, "", cases)


def main():
    work = Path(sys.argv[1])
    answers = {
        task["name"]: {
            "plain": answer(task, work, expert=False),
            "expert": answer(task, work, expert=True),
        }
        for task in json.load(sys.stdin)
    }
    (work / "answers.json").write_text(json.dumps(answers, default=str))


if __name__ == "__main__":
    main()
