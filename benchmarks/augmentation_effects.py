"""The effect of each augmentation on a patch, ours compared with nnU-Net's, one effect at a time,
as figures and as a picture.

    python benchmarks/augmentation_effects.py --peer FOLDER_OF_A_VENV [--draws 200]
        [--picture ../docs/images/augmentation.png]

The abdominal CT of a phantom is windowed and normalised. A patch of 96 x 96 x 64 around its middle
is drawn ``--draws`` times for each effect, with this effect alone at probability 1 and our default
ranges. The results are the 10th, 50th and 90th percentile over the draws of four measures: the mean
(minus the mean of the unchanged patch); and the standard deviation, the sharpness (mean absolute
difference of neighbouring voxels) and the structures' share of the voxels, each relative to the
unchanged patch.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
from matplotlib import pyplot as plt
from numpy.typing import NDArray
from PIL import Image

from augmentation import NNUNET
from delineate.cohorts.phantom.cohort import make_scan
from measure import child, keep

PATCH = (96, 96, 64)
EFFECTS = (
    "rotation",
    "scale",
    "mirror",
    "noise",
    "blur",
    "brightness",
    "contrast",
    "gamma",
    "low_resolution",
)
LEAST_SPAN = 0.05  # of the x axis, so that a measure that does not change is not magnified
MEASURES = ("mean", "deviation", "sharpness", "structures")  # as in the results
NAMES = dict(zip(MEASURES, MEASURES, strict=True)) | {"deviation": "standard deviation"}
OURS = """
import sys
import numpy as np
from delineate.core.plan import Augmentation
from delineate.core.store import StoredCase
from delineate.training import augmentation

sys.path.insert(0, HERE)
from model import model_plan

volume, label, draws, effects, patch = (
    np.load(sys.argv[1]),
    np.load(sys.argv[2]),
    int(sys.argv[3]),
    sys.argv[4].split(","),
    tuple(map(int, sys.argv[5].split(","))),
)
case = StoredCase("a", volume[None], label, {}, (1.0, 1.0, 1.0), (1.0,))
none = {name + "_p": 0.0 for name in effects if name != "mirror"}
found = {}
for effect in effects:
    aug = Augmentation(mirror=(0,) if effect == "mirror" else ()).model_copy(
        update=none | ({} if effect == "mirror" else {effect + "_p": 1.0})
    )

    plan = model_plan(1).replace(patch=patch, augmentation=aug.model_dump())
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        image, classes = augmentation.sample_patch(
            case,
            [n // 2 for n in label.shape],
            patch,
            augmentation.draw(plan, rng, (1.0, 1.0, 1.0), label.shape),
        )
        image, classes = augmentation.change_intensity(image, classes, plan, rng)
        found.setdefault(effect, []).append((image[0].numpy(), classes.numpy()))
"""
THEIRS = (
    NNUNET.replace("(128, 128, 128)", "PATCH")
    + """
import sys, random
import numpy as np, torch

volume, label, draws, effects, patch = (
    np.load(sys.argv[1]),
    np.load(sys.argv[2]),
    int(sys.argv[3]),
    sys.argv[4].split(","),
    tuple(map(int, sys.argv[5].split(","))),
)
PATCH = patch
# The effects in the order of nnU-Net's transforms.
ORDER = ("rotation", "noise", "blur", "brightness", "contrast", "low_resolution", "gamma", "mirror")
volume, label = torch.from_numpy(volume[None]).float(), torch.from_numpy(label[None])
found = {}
for effect in effects:
    everything = make(torch, lambda p: 1.0).transforms
    spatial = everything[0]
    spatial.p_rotation, spatial.p_scaling = float(effect == "rotation"), float(effect == "scale")
    chosen = (
        [spatial] if effect in ("rotation", "scale") else [spatial, everything[ORDER.index(effect)]]
    )
    for seed in range(draws):
        np.random.seed(seed)
        torch.manual_seed(seed)
        random.seed(seed)
        pair = {"image": volume.clone(), "segmentation": label.clone()}
        for one in chosen:
            pair = one(**pair)
        found.setdefault(effect, []).append(
            (pair["image"][0].numpy(), pair["segmentation"][0].numpy())
        )
"""
)
MEASURE = """
def sharpness(x):
    return float(np.mean([np.abs(np.diff(x, axis=a)).mean() for a in range(3)]))


rows = {
    e: np.array([(x.mean(), x.std(), sharpness(x), (c > 0).mean()) for x, c in of])
    for e, of in found.items()
}
shown = {
    e + "_slices": np.stack([x[:, :, x.shape[2] // 2] for x, _ in of[:4]])
    for e, of in found.items()
}
np.savez(sys.argv[6], **rows, **shown)
"""


def volume_of_a_phantom() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A CT (-160..240 HU, zero mean, unit standard deviation, nearly isotropic) and its label."""
    scan = make_scan(0)
    # Linear interpolation along the slice axis to 72 slices; the label takes the nearest slice.
    at = np.linspace(0, scan.image.array.shape[2] - 1, 72)
    low, share = np.floor(at).astype(int), (at % 1).astype(np.float32)
    hu = np.clip(scan.image.array, -160, 240).astype(np.float32)
    high = np.minimum(low + 1, hu.shape[2] - 1)
    hu = hu[:, :, low] * (1 - share) + hu[:, :, high] * share
    return ((hu - hu.mean()) / hu.std()).astype(np.float32), np.asarray(scan.label.array)[
        :, :, np.rint(at).astype(int)
    ].astype(np.uint8)


def measured(table: NDArray[Any], plain: NDArray[Any]) -> dict[str, list[float]]:
    """Percentiles over the draws, relative to the unchanged patch."""
    relative = np.column_stack([table[:, 0] - plain[0], table[:, 1:] / plain[1:]])
    return {
        name: [round(float(v), 3) for v in np.percentile(relative[:, n], (10, 50, 90))]
        for n, name in enumerate(MEASURES)
    }


def draw(rows: dict[str, Any], plain: NDArray[Any], out: Path) -> None:
    """A row for each effect: slices of ours, slices of theirs, distributions over the draws."""
    names = list(rows)
    figure, axes = plt.subplots(
        len(EFFECTS),
        11,
        figsize=(19, 1.9 * len(EFFECTS)),
        gridspec_kw={"width_ratios": [1] * 8 + [1.35] * 3},
    )
    for line, effect in zip(axes, EFFECTS, strict=True):
        for n, name in enumerate(names):
            for k in range(4):
                line[4 * n + k].imshow(
                    np.rot90(rows[name][f"{effect}_slices"][k]), cmap="gray", vmin=-1.2, vmax=2.2
                )
                line[4 * n + k].set_axis_off()
        line[0].set_title(f"{effect.replace('_', ' ')}: {names[0]}", loc="left", fontsize=9)
        line[4].set_title(names[1], loc="left", fontsize=9)
        shown = (1, 2, 3) if effect in ("rotation", "scale", "mirror") else (0, 1, 2)
        for axis, measure in zip(line[8:], shown, strict=True):
            for name, colour, style in zip(names, ("#0072B2", "#D55E00"), ("-", "--"), strict=True):
                values = rows[name][effect][:, measure]
                values = np.sort(values - plain[0] if measure == 0 else values / plain[measure])
                axis.plot(
                    values,
                    (np.arange(len(values)) + 0.5) / len(values),
                    style,
                    color=colour,
                    label=name,
                )
            axis.set_title(
                f"{NAMES[MEASURES[measure]]}, {'change' if measure == 0 else 'relative'}",
                fontsize=8,
            )
            low, high = axis.get_xlim()
            if high - low < LEAST_SPAN:
                axis.set_xlim((low + high - LEAST_SPAN) / 2, (low + high + LEAST_SPAN) / 2)
            axis.set_ylim(0, 1)
            axis.tick_params(labelsize=7)
        if effect == EFFECTS[0]:
            line[8].legend(fontsize=7, frameon=False)
    figure.tight_layout(pad=0.4)
    figure.savefig(out, dpi=60)
    Image.open(out).convert("RGB").quantize(128, Image.Quantize.FASTOCTREE).save(out, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer", type=Path, required=True, help="virtual environment with nnunetv2"
    )
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--picture", type=Path)
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        volume, label = volume_of_a_phantom()
        np.save(work / "volume.npy", volume)
        np.save(work / "label.npy", label)
        given = (
            str(work / "volume.npy"),
            str(work / "label.npy"),
            str(a.draws),
            ",".join(EFFECTS),
            ",".join(map(str, PATCH)),
        )
        ours = OURS.replace("HERE", repr(str(Path(__file__).parent)))
        child(ours + MEASURE, *given, str(work / "ours.npz"))
        child(THEIRS + MEASURE, *given, str(work / "theirs.npz"), python=a.peer / "bin" / "python")
        rows = {
            "delineate": dict(np.load(work / "ours.npz")),
            "nnU-Net": dict(np.load(work / "theirs.npz")),
        }
    inner = tuple(
        slice(n // 2 - p // 2, n // 2 - p // 2 + p) for n, p in zip(label.shape, PATCH, strict=True)
    )
    x, classes = volume[inner], label[inner]
    sharp = float(np.mean([np.abs(np.diff(x, axis=axis)).mean() for axis in range(3)]))
    plain = np.array([x.mean(), x.std(), sharp, (classes > 0).mean()])
    if a.picture:
        draw(rows, plain, a.picture)
    effects = {
        effect: {name: measured(table[effect], plain) for name, table in rows.items()}
        for effect in EFFECTS
    }
    keep(
        "augmentation_effects", {"draws": a.draws, "percentiles": [10, 50, 90], "effects": effects}
    )


if __name__ == "__main__":
    main()
