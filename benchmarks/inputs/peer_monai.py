"""What MONAI makes of inputs; runs in an environment of its own, without delineate.

    FOLDER/bin/python peer_monai.py WORK < tasks.json

"plain" is the chain of its tutorials: ``LoadImaged``, ``EnsureChannelFirstd``, ``Orientationd``,
``Spacingd``, and ``DiceLoss(to_onehot_y=True)``, whose one-hot labels are counted. "expert" is one
chain that somebody writes who knows these difficulties: pictures are turned as their EXIF says and
palettes kept, several channels are one structure each, the label is placed on the image
(``ResampleToMatchd``), floats near whole numbers are rounded, and other values are an error that
names the file. Both use no knowledge of the single input.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import numpy as np
import torch
from monai.data import ITKReader, NibabelReader, NrrdReader, PILReader
from monai.losses import DiceLoss
from monai.networks.utils import one_hot
from monai.transforms import (
    Compose,
    EnsureChannelFirstd,
    LoadImaged,
    MapLabelValued,
    Orientationd,
    ResampleToMatchd,
    Spacingd,
)
from PIL import ImageOps

PICTURES = (".png", ".jpg", ".bmp", ".tif", ".gif")


def is_picture(path):
    return path.lower().endswith(PICTURES)


def upright(image):
    """A picture as the camera meant it; a palette stays one of indices."""
    return ImageOps.exif_transpose(image)


def upright_mask(image):
    """A mask: a palette stays one of indices, colours become grey."""
    turned = ImageOps.exif_transpose(image)
    return turned.convert("L") if turned.mode in ("RGB", "RGBA", "LA") else turned


def reader(path, key, expert):
    if not expert:
        return None
    if is_picture(path):
        return PILReader(converter=upright if key == "image" else upright_mask)
    if path.endswith(".nrrd"):
        return NrrdReader()
    return ITKReader() if path.endswith(".mha") else NibabelReader()


def chain(task, image, label, expert):
    """Load one pair and bring it to a common grid."""
    steps = []
    for key, path in (("image", image), ("label", label)):
        steps.append(LoadImaged(key, reader=reader(path, key, expert)))
    steps.append(EnsureChannelFirstd(["image", "label"]))
    if not is_picture(image):
        # The chain of the 3-D tutorials; its target spacing is that of the images.
        steps.append(Orientationd(["image", "label"], axcodes="RAS"))
        steps.append(
            Spacingd(["image", "label"], pixdim=task["spacing_mm"], mode=("bilinear", "nearest"))
        )
    if expert and not is_picture(label):
        steps.append(ResampleToMatchd("label", key_dst="image", mode="nearest"))
    values = list(task["stated"].values())
    if values != list(range(1, len(values) + 1)):
        steps.append(MapLabelValued("label", values, list(range(1, len(values) + 1))))
    return Compose(steps)({"image": image, "label": label})


def counts(task, image, label, expert):
    data = chain(task, image, label, expert)
    picture, mask = data["image"], torch.as_tensor(np.asarray(data["label"], np.float64))
    number = len(task["stated"])
    if expert and mask.shape[1:] != picture.shape[1:]:
        raise ValueError(f"shapes {tuple(mask.shape)} and {tuple(picture.shape)} in {label}")
    if expert and len(mask) > 1:
        if len(mask) - number not in (0, 1) or not set(mask.unique().tolist()) <= {0.0, 1.0}:
            raise ValueError(f"{len(mask)} channels for {number} structures in {label}")
        # One channel more than structures: the largest is the background.
        background = int(mask.sum((1, 2, 3)).argmax()) if len(mask) > number else None
        kept = [c > 0 for k, c in enumerate(mask) if k != background]
        return [int(c.sum()) for c in kept], contrast_of(picture, sum(kept) > 0)
    if expert:
        whole = mask.round()
        if not (abs(whole - mask) <= 0.01).all() or not set(whole.unique().tolist()) <= {
            *map(float, range(number + 1))
        }:
            raise ValueError(f"unexpected label values {mask.unique().tolist()[:8]} in {label}")
        mask = whole
    hot = one_hot(mask[None], number + 1)
    # The loss compares the label with an output on the image's grid.
    output = torch.zeros((1, number + 1, *picture.shape[1:]))
    DiceLoss(to_onehot_y=True)(output, mask[None])
    numbers = [int(hot[0, k].sum()) for k in range(1, number + 1)]
    return numbers, contrast_of(picture, hot[0, 1:].sum(0) > 0)


def contrast_of(picture, inside):
    """Mean intensity inside the structures over that outside."""
    image = np.asarray(picture[0], np.float64)
    inside = np.asarray(inside)
    if inside.all() or not inside.any():
        return None
    return float(np.nanmean(image[inside]) / np.nanmean(image[~inside]))


def answer(task, expert):
    """Voxels of each structure; an exception that names the file makes the case a bad one."""
    found, bad, said, contrasts = dict.fromkeys(task["stated"], 0), [], [], []
    for case, image, label in task["pairs"]:
        try:
            numbers, contrast = counts(task, image, label, expert)
            contrasts += [] if contrast is None else [contrast]
            for name, count in zip(found, numbers, strict=True):
                found[name] += count
        except Exception as error:
            text = f"{type(error).__name__}: {error}"
            cause = error.__cause__ or error.__context__
            while cause is not None:
                text += f" | {cause}"
                cause = cause.__cause__ or cause.__context__
            traceback.print_exc(file=sys.stderr)
            if Path(image).name not in text and Path(label).name not in text:
                return {"crashed": text[:300]}
            bad.append(case)
            said.append(text[:300])
    if len(bad) == len(task["pairs"]):
        return {"refused": "; ".join(said)}
    return {"voxels": found, "bad": bad, "contrast": min(contrasts, default=None)}


def main():
    tasks = json.load(sys.stdin)
    answers = {
        task["name"]: {"plain": answer(task, False), "expert": answer(task, True)} for task in tasks
    }
    (Path(sys.argv[1]) / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
