"""A whole CT with a trained model of our own, of 31 million parameters: with the windows, the
coarse pass and the precision that `train` chose by measurement, compared with an earlier checkout,
which runs all windows of the same network.

    python benchmarks/trained_ct.py [--before CHECKOUT] [--budget 30m] [--cases 10] [--patch 64]
        [--runs 3] [--model MODEL] [--data ../shared/data]

The cases are parts of the enlarged small CT of `ct_small`, as `whole_ct.py` makes it, each turned,
scaled, brightened and with noise in another way; the structure is the spleen. The scan of
512 x 512 x 300 is made in the same way, and is none of them. All show one patient: Dice tells what
fewer windows and INT8 cost, and not how good such a model is for other patients. The earlier
checkout has a network of the same size with random weights and the overlap of 0.5, which was what
it had. Seconds and memory are those of whole processes, all warm, in turns. ``--model`` measures a
model that was trained before.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from delineate.core.bundle import Bundle
from forward import nnunet_3d
from import_nnunet import DELINEATE
from measure import DATA, checkout, child, commit, keep, summed, timed, whole_process
from whole_ct import OWN, SPACING_MM

SIZE, VOXEL_MM = (512, 512, 300), (0.8, 0.8, 1.0)  # of the scan, and so of the anatomy
PART = (200, 200, 140)  # voxels of a case
SPLEEN = 1  # its value in ct_small
FULL = ("--overlap", "0.5", "--no-coarse", "--precision", "float")


class Anatomy:
    """The small CT and its spleen, enlarged to the size of the scan."""

    def __init__(self, data: Path):
        folder = data / "ct_small"
        self.ct = nib.load(folder / "example_ct_sm.nii.gz").get_fdata(dtype=np.float32)
        labels = np.asarray(nib.load(folder / "example_seg.nii.gz").dataobj)
        self.spleen = (labels == SPLEEN).astype(np.float32)
        self.size_mm = np.multiply(SIZE, VOXEL_MM)

    def write(
        self,
        seed: int,
        shape: tuple[int, ...],
        voxel_mm: tuple[float, ...],
        image: Path,
        mask: Path,
    ) -> None:
        """Write a part of ``shape`` voxels, and where the spleen is in it."""
        rng, half = np.random.default_rng(seed), np.multiply(shape, voxel_mm) / 2
        middle = rng.uniform(np.minimum(half, self.size_mm / 2), self.size_mm - half)
        turn, scale = np.radians(rng.uniform(-8, 8)), rng.uniform(0.94, 1.06, 3)
        across = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0]])
        to_mm = np.vstack([across, [0, 0, 1]]) * scale * voxel_mm
        to_index = np.divide(self.ct.shape, self.size_mm)
        matrix = to_index[:, None] * to_mm
        offset = to_index * middle - matrix @ (np.array(shape) / 2)
        ct, spleen = (
            ndimage.affine_transform(one, matrix, offset, shape, order=1, mode="nearest")
            for one in (self.ct, self.spleen)
        )
        ct += rng.normal(rng.uniform(-15, 15), 12, shape).astype(np.float32)
        affine = np.diag([*voxel_mm, 1.0])
        for array, path in ((ct.round().clip(-1024, 3071), image), (spleen > 0.5, mask)):
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = np.uint8 if array.dtype == bool else np.int16
            nib.save(nib.Nifti1Image(array.astype(kind), affine), path)


def train(a: argparse.Namespace, anatomy: Anatomy, work: Path) -> Path:
    """Train the model with the command that users type; the network, the patch and the spacing are
    set, because the rules plan a smaller network for so few minutes.
    """
    cohort, network = work / "cohort", nnunet_3d(2).model_dump(mode="json")
    for n in range(a.cases):
        name = f"case_{n:02}.nii.gz"
        places = cohort / "images" / name, cohort / "labels" / name
        anatomy.write(n + 1, PART, (SPACING_MM,) * 3, *places)
    (work / "labels.yaml").write_text("labels:\n  spleen: 1\n")
    keys = ("widths", "strides", "kernels", "convs", "decoder_convs", "encoder")
    changes = {f"network.{key}": network[key] for key in keys}
    # The low resolution at which structures are found is a multiple.
    spacing = {"spacing_mm": [SPACING_MM] * 3, "low_resolution.spacing_mm": [4 * SPACING_MM] * 3}
    changes |= {"patch": [a.patch] * 3} | spacing
    words = [
        one for key, value in changes.items() for one in ("--set", f"{key}={json.dumps(value)}")
    ]
    model = work / "ct.model"
    line = [*DELINEATE, "train", cohort, "-o", model, "--budget", a.budget, *words]
    timed([*line, "--labels", work / "labels.yaml"], allowed=(0, 3))
    return model


def dice(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(2 * np.logical_and(a, b).sum() / (a.sum() + b.sum()))


def mask_of(out: Path) -> NDArray[np.bool_]:
    return np.asarray(nib.load(out / "ct.nii.gz").dataobj) > 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--budget", default="30m")
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--patch", type=int, default=64)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--model", type=Path, help="trained by this script before")
    parser.add_argument("--data", type=Path, default=DATA)
    a = parser.parse_args()
    anatomy = Anatomy(a.data)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        model = a.model or train(a, anatomy, work)
        scan = work / "scan" / "ct.nii.gz"
        anatomy.write(0, SIZE, VOXEL_MM, scan, work / "truth.nii.gz")
        bundle = Bundle.load(model)
        plan = bundle.plan
        found: dict[str, Any] = {
            "scan": "512x512x300 int16, 0.8x0.8x1.0 mm, network at 1.5 mm",
            "patch": list(plan.patch),
            "parameters": sum(one.size for one in bundle.members[0].weights.values()),
            "chosen": {
                "overlap": plan.inference.overlap,
                "coarse": bundle.card.get("coarse_choice"),
                "int8": bundle.card.get("int8_choice"),
            },
        }
        ways = {"as trained": ((str(model),), {}), "full grid": ((str(model), *FULL), {})}
        if a.before:
            found["before"], environment = commit(a.before), dict(checkout(a.before))
            first = work / "before.model"
            network = plan.network.model_dump(mode="json", exclude_defaults=True)
            words = json.dumps([plan.patch[0], network, 0.5, SPACING_MM])
            child(OWN, str(Path(__file__).parent), words, str(first), environment=environment)
            ways["before"] = ((str(first),), environment)
        runs: dict[str, list[tuple[float, float]]] = {}
        masks = {}
        for turn in range(a.runs + 1):
            for name, (words, environment) in ways.items():
                if name == "full grid" and turn > 1:
                    continue
                out = work / f"{name}_{turn}"
                line = [*DELINEATE, "predict", words[0], str(scan.parent), "-o", str(out)]
                taken = whole_process([*line, "--no-mirror", *words[1:]], environment)
                if turn:  # the first turn makes the graphs
                    runs.setdefault(name, []).append(taken)
                masks[name] = mask_of(out)
                shutil.rmtree(out)
            found["rows"] = {name: summed(each) for name, each in runs.items()}
        truth = np.asarray(nib.load(work / "truth.nii.gz").dataobj) > 0
        found["dice"] = {name: round(dice(masks[name], truth), 5) for name in masks}
        found["agreement"] = round(dice(masks["as trained"], masks["full grid"]), 5)
        keep("trained_ct", found)


if __name__ == "__main__":
    main()
