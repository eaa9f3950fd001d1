"""`delineate predict` of a CT of 512 x 512 x 300 with a trained network of 31 million parameters,
whole process: with what `train` chose on its validation cases (overlap and coarse pass), the same
in INT8 (`quantise`), and with the full grid of windows.

    python benchmarks/trained_ct.py FOLDER [--budget 40m] [--before CHECKOUT] [--runs 3]
        [--cases 12] [--structure 5] [--data ../shared/data]

Only one CT of a trunk is at hand, `ct_small`, so the network learns from deformed copies of it:
random smooth displacements of 12 mm, scales, contrast and noise, in the size of the scan that
`whole_ct.py` measures, at 1.5 mm. The scan that is segmented has none of these. So the Dice that
is reported compares ways to run one model; it says nothing about patients. The structure is the
liver.

`train` measures INT8 too where its budget has time for it, which 40 minutes do not here: each
validation case takes longer than the share that it may use. FOLDER keeps the cohort, the run and
the model; a later call continues there. With ``--before`` an earlier checkout predicts with the
same weights, and its own overlap of 0.5. All are measured in turns, after a scan of one window that
makes their graphs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from forward import nnunet_3d
from import_nnunet import DELINEATE, options
from measure import checkout, child, commit, keep, summed, whole_process
from whole_ct import SPACING_MM, ct

SHAPE, PATCH, HELD_BACK = (273, 273, 200), 128, 2
DISPLACED_MM, APART = 12.0, 6  # standard deviation, and control points along each axis
FULL_GRID = ["--overlap", "0.5", "--no-coarse", "--precision", "float"]
# Runs with an earlier checkout: the same network, weights and preprocessing in its own format.
BEFORE = """
import json, sys
import numpy as np
import torch

sys.path.insert(0, sys.argv[1])
from dataclasses import replace
from delineate.core.plan import Network, Normalisation
from model import model_plan, untrained

told = json.loads(sys.argv[2])
network = {k: v for k, v in told["network"].items() if k in Network.model_fields}
rule = {k: v for k, v in told["normalise"].items() if k in Normalisation.model_fields}
plan = model_plan(network["classes"] - 1, told["spacing"], patch=told["patch"])
inference = plan.inference.model_dump() | {"overlap": 0.5, "mirror": ()}
channels = [plan.channels[0].model_dump() | {"normalise": rule, "name": told["channel"]}]
plan = plan.replace(
    network=Network(**network), crop="none", inference=inference, channels=channels,
    orientation=told["orientation"],
)
bundle = untrained(plan)
weights = {k: torch.from_numpy(v) for k, v in np.load(sys.argv[4]).items()}
own = bundle.members[0].weights
shapes = [{k: tuple(v.shape) for k, v in one.items()} for one in (own, weights)]
assert shapes[0] == shapes[1]
kept = type(own)(weights) if not isinstance(own, dict) else weights
replace(bundle, members=(replace(bundle.members[0], weights=kept),)).save(sys.argv[3])
"""


def deformed(
    scan: NDArray[np.float32], label: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """A deformed copy of a scan and its mask, (I, J, K), of the shape ``SHAPE``."""
    # Places of the copy's voxels in the original, which fills the same field of view.
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in SHAPE), indexing="ij"))
    scale = rng.uniform(0.92, 1.08, 3)
    places = []
    for axis, (n, m) in enumerate(zip(SHAPE, scan.shape, strict=True)):
        field = rng.normal(0, DISPLACED_MM / SPACING_MM, (APART,) * 3).astype(np.float32)
        zoom = [size / APART for size in SHAPE]
        field = ndimage.zoom(field, zoom, order=2, grid_mode=True, mode="nearest")
        place = (grid[axis] - n / 2) * scale[axis] + n / 2 + field
        places.append((place + 0.5) * (m / n) - 0.5)
    voxels = ndimage.map_coordinates(scan, places, order=1, mode="nearest")
    voxels = voxels * rng.uniform(0.95, 1.05) + rng.normal(0, 10)
    voxels += rng.normal(0, rng.uniform(6, 14), SHAPE)
    mask = ndimage.map_coordinates(label.astype(np.float32), places, order=1, mode="nearest") > 0.5
    return voxels.round().clip(-1024, 3071).astype(np.int16), mask.astype(np.uint8)


def cohort(a: argparse.Namespace, out: Path) -> None:
    """The deformed copies, as `images` and `labels`."""
    small = a.data / "ct_small"
    scan = nib.load(small / "example_ct_sm.nii.gz").get_fdata(dtype=np.float32)
    label = np.asarray(nib.load(small / "example_seg.nii.gz").dataobj) == a.structure
    affine = np.diag([*(SPACING_MM,) * 3, 1.0])
    for folder in ("images", "labels"):
        (out / folder).mkdir(parents=True)
    for number in range(a.cases):
        arrays = deformed(scan, label, np.random.default_rng(number + 1))
        for folder, array in zip(("images", "labels"), arrays, strict=True):
            nib.save(nib.Nifti1Image(array, affine), out / folder / f"copy_{number:02}.nii.gz")
    names = [f"copy_{number:02}" for number in range(a.cases)]
    split = {"train": names[:-HELD_BACK], "val": names[-HELD_BACK:]}
    (out.parent / "split.json").write_text(json.dumps(split))
    (out.parent / "labels.yaml").write_text("liver: 1\n")


def train(a: argparse.Namespace, model: Path) -> None:
    """Train the network of 31 million parameters for the budget."""
    network = nnunet_3d(2).model_dump(mode="json")
    fields = {f"network.{k}": network[k] for k in ("widths", "strides", "kernels")}
    fields |= {"network.convs": 2, "network.decoder_convs": None, "network.encoder": "plain"}
    fields |= {"patch": [PATCH] * 3, "batch": 1, "spacing_mm": [SPACING_MM] * 3, "crop": "none"}
    line = [*DELINEATE, "train", str(a.folder / "cohort"), "-o", str(model), "--budget", a.budget]
    line += ["--labels", str(a.folder / "labels.yaml"), "--split", str(a.folder / "split.json")]
    for name, value in fields.items():
        line += ["--set", f"{name}={json.dumps(value)}"]
    subprocess.run(line, check=True)


def earlier(a: argparse.Namespace, model: Path, out: Path) -> None:
    """The same network in the format of an earlier checkout."""
    from delineate.core.bundle import Bundle

    bundle = Bundle.load(model)
    plan, weights = bundle.plan, bundle.segmenting[0].weights
    told: dict[str, Any] = {
        "network": plan.network.model_dump(mode="json"),
        "normalise": plan.channels[0].normalise.model_dump(mode="json"),
        "channel": plan.channels[0].name,
        "orientation": plan.orientation,
        "spacing": SPACING_MM,
        "patch": PATCH,
    }
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, **{name: np.asarray(weights[name]) for name in weights})
        file.flush()
        folder = str(Path(__file__).parent)
        child(BEFORE, folder, json.dumps(told), str(out), file.name, environment=checkout(a.before))


def windows_of(out: Path) -> dict[str, int]:
    """The windows that were run and all; {} without a coarse pass."""
    cases = json.loads((out / "predictions.json").read_text())["cases"]
    return dict(next(iter(cases.values())).get("windows", {}))


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (mask & truth).sum() / max(1, mask.sum() + truth.sum()))


def main() -> None:
    parser = options(__doc__, 3)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--budget", default="40m")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--structure", type=int, default=5)
    a = parser.parse_args()
    if not (a.folder / "split.json").is_file():
        cohort(a, a.folder / "cohort")
    model = a.folder / "liver.model"
    if not model.is_file():
        train(a, model)
    for folder, size in (("scan", (512, 512, 300)), ("small", (PATCH,) * 3)):
        (a.folder / folder).mkdir(exist_ok=True)
        ct(a.data, size, a.folder / folder / "ct.nii.gz")
    rounded = a.folder / "liver8.model"
    if not rounded.is_file():
        images = [str(one) for one in sorted((a.folder / "cohort" / "images").iterdir())[:2]]
        subprocess.run(
            [*DELINEATE, "quantise", str(model), *images, "-o", str(rounded)], check=True
        )
    own = checkout(None)
    rows = {
        "as chosen": (model, own, ["--no-mirror"]),
        "as chosen, INT8": (rounded, own, ["--no-mirror", "--precision", "int8"]),
        "overlap 0.25, INT8": (
            rounded,
            own,
            ["--no-mirror", "--precision", "int8", "--overlap", "0.25"],
        ),
        "full grid": (model, own, ["--no-mirror", *FULL_GRID]),
    }
    if a.before:
        earlier(a, model, a.folder / "before.model")
        rows["before"] = (a.folder / "before.model", checkout(a.before), ["--no-mirror"])
    for file, environment, flags in rows.values():
        line = [*DELINEATE, "predict", str(file), str(a.folder / "small"), *flags]
        with tempfile.TemporaryDirectory() as out:
            whole_process([*line, "-o", f"{out}/warm"], environment)
    card = json.loads((a.folder / "liver.model.run" / "card.json").read_text())
    found: dict[str, Any] = {
        "scan": "512x512x300 int16, 0.8x0.8x1.0 mm, network at 1.5 mm",
        "training": a.budget,
        "copies": a.cases,
        "overlap": card["overlap"],
        "coarse_choice": card["coarse_choice"],
        "rows": {},
    }
    if a.before:
        found["before"] = commit(a.before)
    small = nib.load(a.data / "ct_small" / "example_seg.nii.gz")
    liver = (np.asarray(small.dataobj) == a.structure).astype(np.float32)
    runs: dict[str, list[tuple[float, float]]] = {}
    masks: dict[str, NDArray[np.bool_]] = {}
    windows: dict[str, Any] = {}
    for turn in range(a.runs):
        for name, (file, environment, flags) in rows.items():
            out = a.folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            line = [*DELINEATE, "predict", str(file), str(a.folder / "scan"), *flags]
            taken = whole_process([*line, "-o", str(out)], environment)
            runs.setdefault(name, []).append(taken)
            mask = next(out.glob("**/*.nii.gz"))
            masks[name] = np.asarray(nib.load(mask).dataobj) > 0
            if name != "before":
                windows[name] = windows_of(out)
        found["rows"] = {name: summed(each) for name, each in runs.items()}
        found["runs"] = turn + 1
        shape = masks["full grid"].shape
        factors = [n / m for n, m in zip(shape, liver.shape, strict=True)]
        truth = ndimage.zoom(liver, factors, order=1, grid_mode=True, mode="nearest") > 0.5
        found["dice"] = {name: dice(mask, truth) for name, mask in masks.items()}
        found["dice with full grid"] = {
            name: dice(mask, masks["full grid"]) for name, mask in masks.items()
        }
        found["windows"] = windows
        keep("trained_ct", found)


if __name__ == "__main__":
    main()
