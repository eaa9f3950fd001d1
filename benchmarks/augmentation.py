"""Augmented patches of 128 x 128 x 128 per second on two cores, with the same set of effects,
compared with nnU-Net, MONAI and TorchIO.

    python benchmarks/augmentation.py [--peer FOLDER_OF_A_VENV] [--before CHECKOUT] [--runs 5]
        [--patches 40]

The effects and their probabilities are the default of our plans, plus rotation and scaling:
rotation up to 15 degrees about every axis and scaling 0.75 to 1.3 (0.3 each), mirroring along one
axis, noise 0.15, blur 0.15, brightness 0.2, contrast 0.2, gamma 0.25, low resolution 0.15. With
"every effect", all probabilities are 1. Each library reads patches from a volume of 200 x 200 x 200
in memory, two patches at a time: ours in two threads, the others in two processes with one thread
each. The mean and standard deviation of the voxels and the share of foreground are also printed, to
check that no library is faster because it does less. All are measured in turns, several times;
with ``--before`` an earlier checkout of this project too.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from measure import absent, checkout, child, commit, keep, medians, python_with

OURS = """
import json, sys, time
from concurrent.futures import ThreadPoolExecutor
import numpy as np, torch
from delineate.core.plan import Augmentation
from delineate.core.store import StoredCase
from delineate.training import augmentation

sys.path.insert(0, sys.argv[5])
from model import model_plan

volume, label, count, always = (
    np.load(sys.argv[1]),
    np.load(sys.argv[2]),
    int(sys.argv[3]),
    sys.argv[4] == "every effect",
)
# The store keeps int16 steps.
step = float(np.abs(volume).max() / 32767)
case = StoredCase(
    "a", np.rint(volume / step).astype(np.int16)[None], label, {}, (1.0, 1.0, 1.0), (step,)
)
aug = Augmentation(mirror=(0,))
if always:
    aug = aug.model_copy(
        update={
            name: 1.0
            for name in (
                "rotation_p",
                "scale_p",
                "noise_p",
                "blur_p",
                "brightness_p",
                "contrast_p",
                "gamma_p",
                "low_resolution_p",
            )
        }
    )

plan = model_plan(1, patch=128).replace(augmentation=aug.model_dump())


def draw(seed):
    rng = np.random.default_rng(seed)
    centre = [int(v) for v in rng.integers(64, 136, 3)]
    spatial = augmentation.draw(plan, rng, (1.0, 1.0, 1.0), label.shape)
    image, classes = augmentation.sample_patch(case, centre, plan.patch, spatial)
    image, classes = augmentation.change_intensity(image, classes, plan, rng)
    return float(image.mean()), float(image.std()), float((classes > 0).float().mean())


with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
    list(pool.map(draw, range(4)))
    began = time.perf_counter()
    found = np.array(list(pool.map(draw, range(count))))
    taken = time.perf_counter() - began
print(
    json.dumps(
        {
            "patches_a_second": count / taken,
            "mean": found[:, 0].mean(),
            "deviation": found[:, 1].mean(),
            "foreground": found[:, 2].mean(),
        }
    )
)
"""
# The frame for the other libraries; each adds ``make`` (its transforms) and ``crop`` (one patch).
PEER = """
import json, sys, time
from multiprocessing import get_context
import numpy as np


def start(image, classes, how):
    global change, volume, label
    import torch

    torch.set_num_threads(1)
    volume, label = (
        torch.from_numpy(np.load(image)[None]).float(),
        torch.from_numpy(np.load(classes)[None]),
    )
    p = (lambda own: 1.0) if how == "every effect" else (lambda own: own)
    change = make(torch, p)


def draw(seed):
    import torch, random

    rng = np.random.default_rng(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    random.seed(seed)
    image, classes = crop(volume, label, [int(v) for v in rng.integers(64, 136, 3)])
    return float(image.mean()), float(image.std()), float((classes > 0).float().mean())


if __name__ == "__main__":
    with get_context("fork").Pool(2, start, (sys.argv[1], sys.argv[2], sys.argv[4])) as pool:
        pool.map(draw, range(4), chunksize=1)
        began, count = time.perf_counter(), int(sys.argv[3])
        found = np.array(pool.map(draw, range(count), chunksize=1))
        taken = time.perf_counter() - began
    print(
        json.dumps(
            {
                "patches_a_second": count / taken,
                "mean": found[:, 0].mean(),
                "deviation": found[:, 1].mean(),
                "foreground": found[:, 2].mean(),
            }
        )
    )
"""
NNUNET = """
def make(torch, p):
    from batchgeneratorsv2.helpers.scalar_type import RandomScalar
    from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
    from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform, BGContrast
    from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
    from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
    from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
    from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
    from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    from batchgeneratorsv2.transforms.utils.random import RandomTransform

    turn = 15 / 360 * 2 * np.pi
    return ComposeTransforms(
        [
            SpatialTransform(
                (128, 128, 128),
                patch_center_dist_from_border=0,
                random_crop=False,
                p_elastic_deform=0,
                p_rotation=p(0.3),
                rotation=(-turn, turn),
                p_scaling=p(0.3),
                scaling=(0.75, 1.3),
                p_synchronize_scaling_across_axes=1,
                bg_style_seg_sampling=False,
            ),
            RandomTransform(
                GaussianNoiseTransform(noise_variance=(0, 0.15), p_per_channel=1), p(0.15)
            ),
            RandomTransform(GaussianBlurTransform(blur_sigma=(0.5, 1.2), p_per_channel=1), p(0.15)),
            RandomTransform(
                MultiplicativeBrightnessTransform(
                    BGContrast((0.8, 1.2)), synchronize_channels=False, p_per_channel=1
                ),
                p(0.2),
            ),
            RandomTransform(
                ContrastTransform(
                    BGContrast((0.7, 1.4)),
                    preserve_range=True,
                    synchronize_channels=False,
                    p_per_channel=1,
                ),
                p(0.2),
            ),
            RandomTransform(
                SimulateLowResolutionTransform(
                    scale=(0.5, 1),
                    synchronize_channels=False,
                    synchronize_axes=True,
                    ignore_axes=None,
                    p_per_channel=1,
                ),
                p(0.15),
            ),
            RandomTransform(
                GammaTransform(
                    BGContrast((0.7, 1.5)),
                    p_invert_image=0.3,
                    synchronize_channels=False,
                    p_per_channel=1,
                    p_retain_stats=1,
                ),
                p(0.25),
            ),
            MirrorTransform(allowed_axes=(0,)),
        ]
    )


def crop(volume, label, centre):
    # nnU-Net reads a box that is large enough for every rotation, then resamples it.
    size = [min(n, 170) for n in label.shape[1:]]
    low = [min(max(0, c - s // 2), n - s) for c, s, n in zip(centre, size, label.shape[1:])]
    box = tuple(slice(a, a + s) for a, s in zip(low, size))
    out = change(image=volume[(slice(None), *box)], segmentation=label[(slice(None), *box)])
    return out["image"], out["segmentation"]
"""
MONAI = """
def make(torch, p):
    from monai import transforms as m

    turn = 15 / 360 * 2 * np.pi
    return m.Compose(
        [
            m.RandAffined(
                ("image", "label"),
                prob=p(0.51),
                spatial_size=(128,) * 3,
                rotate_range=(turn,) * 3,
                scale_range=(0.27,) * 3,
                mode=("bilinear", "nearest"),
                padding_mode="zeros",
            ),
            m.RandFlipd(("image", "label"), prob=0.5, spatial_axis=0),
            m.RandGaussianNoised("image", prob=p(0.15), std=0.15),
            m.RandGaussianSmoothd("image", (0.5, 1.2), (0.5, 1.2), (0.5, 1.2), prob=p(0.15)),
            m.RandShiftIntensityd("image", 0.2, prob=p(0.2)),
            m.RandScaleIntensityd("image", 0.3, prob=p(0.2)),
            m.RandAdjustContrastd("image", gamma=(0.7, 1.5), prob=p(0.25), retain_stats=True),
            m.RandSimulateLowResolutiond("image", prob=p(0.15), zoom_range=(0.5, 1.0)),
        ]
    )


def crop(volume, label, centre):
    box = tuple(slice(c - 64, c + 64) for c in centre)
    out = change({"image": volume[(slice(None), *box)], "label": label[(slice(None), *box)]})
    return out["image"], out["label"]
"""
TORCHIO = """
def make(torch, p):
    import torchio as tio

    return tio.Compose(
        [
            tio.RandomAffine(
                scales=(0.75, 1.3), degrees=15, isotropic=True, default_pad_value=0, p=p(0.51)
            ),
            tio.RandomFlip((0,)),
            tio.RandomNoise(std=(0, 0.15), p=p(0.15)),
            tio.RandomBlur((0.5, 1.2), p=p(0.15)),
            tio.RandomGamma((-0.35, 0.4), p=p(0.25)),
            tio.RandomAnisotropy(downsampling=(1, 2), p=p(0.15)),
        ]
    )


def crop(volume, label, centre):
    import torchio as tio

    box = tuple(slice(c - 64, c + 64) for c in centre)
    out = change(
        tio.Subject(
            image=tio.ScalarImage(tensor=volume[(slice(None), *box)]),
            label=tio.LabelMap(tensor=label[(slice(None), *box)]),
        )
    )
    return out["image"].data, out["label"].data
"""
# name -> (program, the module that it needs)
PEERS = {
    "nnU-Net": (NNUNET, "batchgeneratorsv2"),
    "MONAI": (MONAI, "monai"),
    "TorchIO": (TORCHIO, "torchio"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer", type=Path, help="virtual environment with nnunetv2, monai and torchio"
    )
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument(
        "--patches", type=int, default=40, help="patches per peer; ours draws four times as many"
    )
    a = parser.parse_args()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        volume, label = Path(temporary) / "volume.npy", Path(temporary) / "label.npy"
        rng = np.random.default_rng(0)
        coarse = rng.normal(0, 1, (20, 20, 20)).repeat(10, 0).repeat(10, 1).repeat(10, 2)
        np.save(volume, (coarse + rng.normal(0, 0.1, coarse.shape)).astype(np.float32))
        np.save(label, (coarse > 1).astype(np.uint8))
        for how in ("default", "every effect"):
            sides: dict[str, tuple[str, int, Path | None, dict[str, str]]] = {
                "delineate": (OURS, 4 * a.patches, None, {})
            }
            if a.before:
                sides["before"] = OURS, 4 * a.patches, None, checkout(a.before)
            for name, (code, module) in PEERS.items():
                if python := python_with(module, a.peer):
                    program = PEER.replace("if __name__", code + "\nif __name__", 1)
                    sides[name] = program, a.patches, python, {}
            runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
            for _ in range(a.runs):
                for name, (code, count, python, environment) in sides.items():
                    words = (str(volume), str(label), str(count), how, str(Path(__file__).parent))
                    runs[name].append(child(code, *words, python=python, environment=environment))
            found[how] = {
                name: {k: v for k, v in medians(each).items() if k not in ("peak_mb", "seconds")}
                | {"each": [round(one["patches_a_second"], 3) for one in each]}
                for name, each in runs.items()
            }
    found |= {"before": commit(a.before)} if a.before else {}
    found["absent"] = absent({name: module for name, (_, module) in PEERS.items()}, a.peer)
    keep("augmentation", {"patch": "128x128x128 float32 from 200x200x200", "runs": a.runs, **found})


if __name__ == "__main__":
    main()
