"""A 512 x 512 x 300 int16 CT of 0.8 x 0.8 x 1.0 mm resampled to 1.5 mm, ours compared with nnU-Net,
MONAI, TorchIO and SimpleITK: seconds, memory in addition to the input, error.

    python benchmarks/preparing.py [--peer FOLDER_OF_A_VENV] [--before CHECKOUT] [--runs 5]

Each library runs in a process of its own, after a warm-up on the same scan, in float32. All
resample the same voxels; ours is the whole of ``prepare()``, with windowing. "delineate, with its
crop" is ours as it would run: it crops to the body first, which the others do not offer as one
step.

The error is measured on a volume whose spectrum is similar to that of tissue (amplitude decreases
with frequency). It is the root mean square difference from the ideal result, relative to the
standard deviation of the signal; the ideal result keeps exactly the frequencies that the coarser
grid can represent. Labels are resampled to 1.5 mm and back; the result is the Dice of balls.
Without ``--peer`` (an environment with nnunetv2, monai and torchio), ours is only compared with
SimpleITK, which is installed in both environments. With ``--before`` an earlier checkout of this
project is measured too, on the same voxels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from measure import absent, checkout, child, commit, keep, medians, python_with

HEAD = """
import json, sys, time
import numpy as np

array, shape = np.load(sys.argv[1]), tuple(json.loads(sys.argv[2]))
spacing, target = (0.8, 0.8, 1.0), 1.5


def report(work):
    np.save(sys.argv[3], np.asarray(work(array), dtype=np.float32))
    print(json.dumps(measured(lambda: work(array), 1, warm=False)))
"""
OURS = """
from delineate.core.grid import Grid
from delineate.core.volume import Volume
from delineate.preprocessing.prepare import prepare
from model import model_plan

plan = (
    model_plan(4).replace(crop=CROP)
    if array.dtype == np.int16
    else model_plan(4).replace(
        channels=[{"name": "CT", "normalise": {"kind": "none"}}], crop="none"
    )
)
report(lambda a: prepare(Volume(a, Grid.from_spacing(a.shape, spacing), "HU"), plan)[0][0].numpy())
"""
CROPS = {"delineate": "none", "delineate, with its crop": "body"}
SITK = """
import SimpleITK as sitk


def work(a):
    image = sitk.GetImageFromArray(a.transpose())
    image.SetSpacing(spacing)
    size = [max(1, round(n * s / target)) for n, s in zip(a.shape, spacing)]
    out = sitk.Resample(
        image,
        size,
        sitk.Transform(),
        sitk.sitkLinear,
        [(target - s) / 2 for s in spacing],
        (target,) * 3,
        image.GetDirection(),
        0.0,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(out).transpose()


report(work)
"""
NNUNET = """
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape


def work(a):
    size = [max(1, round(n * s / target)) for n, s in zip(a.shape, spacing)]
    return resample_data_or_seg_to_shape(
        a[None].astype(np.float32), size, spacing, (target,) * 3, is_seg=False, order=3, order_z=0
    )[0]


report(work)
"""
MONAI = """
import torch
from monai.data import MetaTensor
from monai.transforms import Spacing

change = Spacing(pixdim=(target,) * 3, mode="bilinear", padding_mode="border", dtype=np.float32)
report(
    lambda a: change(
        MetaTensor(
            torch.from_numpy(a[None].astype(np.float32)),
            affine=torch.diag(torch.tensor([*spacing, 1.0])),
        )
    )[0].numpy()
)
"""
TORCHIO = """
import torch, torchio as tio

change = tio.Resample(target)
report(
    lambda a: (
        change(tio.ScalarImage(tensor=torch.from_numpy(a[None]), affine=np.diag([*spacing, 1.0])))
        .data[0]
        .numpy()
    )
)
"""
# Libraries whose voxel centres are those of the ideal result; the others place the first voxel
# elsewhere, so their error would only measure a shift.
SAME_VOXELS = ("delineate", "SimpleITK linear", "nnU-Net")
# name -> (program, the module that it needs)
OTHERS = {
    "nnU-Net": (NNUNET, "nnunetv2"),
    "MONAI trilinear": (MONAI, "monai"),
    "TorchIO linear": (TORCHIO, "torchio"),
}


def tissue_like(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Periodic noise with zero mean and unit standard deviation.

    Its amplitude decreases as the frequency to the power of 1.5.
    """
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfftn(rng.normal(size=shape).astype(np.float32))
    axes = [np.fft.fftfreq(n) for n in shape[:2]] + [np.fft.rfftfreq(shape[2])]
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij")))
    radius[0, 0, 0] = np.inf
    out = np.fft.irfftn(spectrum / radius**1.5, s=shape, axes=(0, 1, 2))
    return np.asarray((out - out.mean()) / out.std(), dtype=np.float32)


def ideal(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Fourier resampling to ``shape`` over the same extent.

    Voxel centres are half a voxel from the border of the extent.
    """
    for axis, (n, m) in enumerate(zip(array.shape, shape, strict=True)):
        spectrum = np.fft.rfft(array, axis=axis)
        kept = (m + 1) // 2  # frequencies below the Nyquist limit of the coarser grid
        spectrum = np.take(spectrum, np.arange(kept), axis=axis)
        shift = (n / m - 1) / 2  # of the first voxel centre, in voxels of the input
        phase = np.exp(2j * np.pi * np.arange(kept) * shift / n)
        spectrum = spectrum * phase.reshape([-1 if a == axis else 1 for a in range(3)])
        array = np.fft.irfft(spectrum, n=m, axis=axis) * (m / n)
    return array


def error(found: np.ndarray, reference: np.ndarray) -> float:
    """Relative root mean square difference, without the 6 outer voxels."""
    inner = tuple(slice(6, n - 6) for n in reference.shape)
    return round(
        float(np.sqrt(np.mean((found[inner] - reference[inner]) ** 2)) / reference[inner].std()), 4
    )


def round_trip() -> dict[str, float]:
    """Dice of balls of several radii on the CT's grid, after resampling to 1.5 mm and back."""
    import torch

    from delineate.core.grid import Grid
    from delineate.core.volume import Volume
    from delineate.preprocessing.prepare import prepare_label, restore, trace
    from model import model_plan

    radii_mm, grid = (4, 8, 16, 32), Grid.from_spacing((200, 200, 100), (0.8, 0.8, 1.0))
    mm = np.stack(
        np.meshgrid(
            *[np.arange(n) * s for n, s in zip(grid.shape, grid.spacing_mm, strict=True)],
            indexing="ij",
        ),
        -1,
    )
    truth = np.zeros(grid.shape, np.uint8)
    for value, (radius, centre) in enumerate(
        zip(radii_mm, ((20, 20, 20), (50, 20, 30), (120, 30, 50), (75, 100, 50)), strict=True), 1
    ):
        truth[((mm - centre) ** 2).sum(-1) < radius**2] = value
    record = trace(
        Volume(np.zeros(grid.shape, np.float32), grid, "HU"), model_plan(4).replace(crop="none")
    )
    classes = prepare_label(Volume(truth, grid, "label"), record, {v: v for v in range(5)})
    scores = (
        torch.nn.functional.one_hot(torch.from_numpy(classes.astype(np.int64)), 5)
        .movedim(-1, 0)
        .float()
    )
    back = restore([scores], record, 0, np.arange(5, dtype=np.uint8))
    dice = {
        r: float(2 * ((back == v) & (truth == v)).sum() / ((back == v).sum() + (truth == v).sum()))
        for v, r in enumerate(radii_mm, 1)
    }
    return {f"ball of {r} mm": round(value, 4) for r, value in dice.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path)
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--runs", type=int, default=5)
    a = parser.parse_args()
    here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})"
    ours = {name: f"{here}\nCROP = {crop!r}\n{HEAD}{OURS}" for name, crop in CROPS.items()}
    ways: dict[str, tuple[str, Path | None, dict[str, str]]] = {
        **{name: (code, None, {}) for name, code in ours.items()},
        "SimpleITK linear": (HEAD + SITK, None, {}),
    }
    if a.before:
        ways["before"] = ours["delineate"], None, checkout(a.before)
    for name, (code, module) in OTHERS.items():
        if python := python_with(module, a.peer):
            ways[name] = HEAD + code, python, {}
    found: dict[str, Any] = {name: {} for name in ways}
    with tempfile.TemporaryDirectory() as temporary:
        ct, tissue, out = (Path(temporary) / f"{name}.npy" for name in ("ct", "tissue", "out"))
        coarse = np.random.default_rng(0).normal(40, 80, (64, 64, 60))
        array = coarse.repeat(8, 0).repeat(8, 1).repeat(5, 2).astype(np.int16)
        array[:40], array[-40:], array[:, :60], array[:, -60:] = -1000, -1000, -1000, -1000
        np.save(ct, np.asfortranarray(array))  # the memory layout of NIfTI readers
        noise = tissue_like((240, 240, 150))
        np.save(tissue, noise)
        reference = ideal(noise, (128, 128, 100))
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(a.runs):  # in turns, so that all share the same conditions
            for name, (code, python, environment) in ways.items():
                words = (str(ct), "[]", str(out))
                runs[name].append(child(code, *words, python=python, environment=environment))
        for name, (code, python, _) in ways.items():
            found[name] = medians(
                [{k: run[k] for k in ("work_s", "beyond_input_mb")} for run in runs[name]]
            ) | {"each_s": [round(run["work_s"], 4) for run in runs[name]]}
            if name in SAME_VOXELS:
                child(code, str(tissue), json.dumps(reference.shape), str(out), python=python)
                found[name]["error"] = error(np.load(out), reference)
    for name, one in found.items():
        if name != "delineate":
            one["ours_times_as_fast"] = round(one["work_s"] / found["delineate"]["work_s"], 2)
    keep(
        "preparing",
        {
            "scan": "512x512x300 int16, 0.8x0.8x1.0 mm to 1.5 mm",
            "runs": a.runs,
            **({"before": commit(a.before)} if a.before else {}),
            "absent": absent({name: module for name, (_, module) in OTHERS.items()}, a.peer),
            "ways": found,
            "labels there and back, Dice": round_trip(),
        },
    )


if __name__ == "__main__":
    main()
