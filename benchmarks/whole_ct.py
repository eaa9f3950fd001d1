"""`delineate predict` of a CT of 512 x 512 x 300 with networks of 31 million parameters, whole
process: an imported nnU-Net, compared with nnU-Net's own command, and a model of our own.

    python benchmarks/whole_ct.py [--peer FOLDER_OF_A_VENV] [--before CHECKOUT] [--runs 5]
        [--peer-runs 3] [--overlaps 0.25 0.5] [--without ROW ...] [--size 512 512 300]
        [--patch 128] [--widths 32 64 128 256 320 320] [--data ../shared/data]

The scan is the small CT of `ct_small`, enlarged, with noise of 12 HU; the networks have random
weights, because only their size matters here, and a spacing of 1.5 mm. The imported model keeps
nnU-Net's grid of windows. A model of our own has the overlap of windows that `train` measured on
its validation cases, 0.25 where that costs less than 0.0005 Dice, so it is measured with several
overlaps; with ``--before`` an earlier checkout predicts with 0.5, which was what it had.

Its limit is OpenVINO alone on one window of the same graph, times the number of windows.
Seconds and memory are those of all processes that a command starts. "first use" makes its graphs
inside the clock. nnU-Net is tuned by one process each for reading and writing. All are measured in
turns; nnU-Net, which needs minutes, less often. The record is kept after each turn.
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
from scipy import ndimage

from delineate.inference import placement
from forward import CODE, nnunet_3d
from import_nnunet import DELINEATE, options
from measure import absent, checkout, child, commit, keep, python_with, summed, whole_process
from nnunet_peer import TRAINED, predict

SPACING_MM, CLASSES = 1.5, 4
# Runs in the peers' environment: an untrained nnU-Net of a given size, in its folder of results.
UNTRAINED = """
import json, sys
from pathlib import Path
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet

own, out = Path(sys.argv[1]), Path(sys.argv[2])
patch, widths, classes, spacing = json.loads(sys.argv[3])
n = len(widths)
(out / "fold_0").mkdir(parents=True)
plans = json.loads((own / "plans.json").read_text())
plan = plans["configurations"]["3d_fullres"]
plan.update(
    patch_size=[patch] * 3,
    spacing=[spacing] * 3,
    normalization_schemes=["CTNormalization"],
    median_image_size_in_voxels=[200, 273, 273],
)
plan["architecture"]["arch_kwargs"].update(
    n_stages=n,
    features_per_stage=widths,
    kernel_sizes=[[3] * 3] * n,
    strides=[[1] * 3] + [[2] * 3] * (n - 1),
    n_conv_per_stage=[2] * n,
    n_conv_per_stage_decoder=[2] * (n - 1),
)
plans["configurations"] = {"3d_fullres": plan}
plans["foreground_intensity_properties_per_channel"] = {
    "0": {
        "max": 1000.0, "mean": 50.0, "median": 60.0, "min": -900.0,
        "percentile_00_5": -200.0, "percentile_99_5": 300.0, "std": 100.0,
    }
}
(out / "plans.json").write_text(json.dumps(plans))
labels = {"background": 0} | {f"structure {v}": v for v in range(1, classes)}
(out / "dataset.json").write_text(
    json.dumps(
        {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 1, "file_ending": ".nii.gz"}
    )
)
torch.manual_seed(0)
network = PlainConvUNet(
    1, n, widths, torch.nn.Conv3d, 3, [1] + [2] * (n - 1), 2, classes, 2, True,
    torch.nn.InstanceNorm3d, {"eps": 1e-5, "affine": True}, None, None,
    torch.nn.LeakyReLU, {"inplace": True}, deep_supervision=True,
)
network.apply(PlainConvUNet.initialize)
kept = torch.load(own / "fold_0/checkpoint_final.pth", map_location="cpu", weights_only=False)
kept["network_weights"] = network.state_dict()
torch.save(kept, out / "fold_0/checkpoint_final.pth")
print(json.dumps({"parameters": sum(p.numel() for p in network.parameters())}))
"""
# Runs with this checkout or an earlier one: an untrained model of our own.
OWN = """
import json, sys

sys.path.insert(0, sys.argv[1])
from delineate.core.plan import Network
from model import model_plan, untrained

patch, network, overlap, spacing = json.loads(sys.argv[2])
plan = model_plan(network["classes"] - 1, spacing, patch=patch)
inference = plan.inference.model_dump() | {"overlap": overlap, "mirror": ()}
plan = plan.replace(network=Network(**network), crop="none", inference=inference)
untrained(plan).save(sys.argv[3])
"""


def ct(data: Path, size: tuple[int, ...], out: Path) -> None:
    """The small CT enlarged to ``size`` voxels of 0.8 x 0.8 x 1.0 mm, with noise."""
    small = nib.load(data / "ct_small" / "example_ct_sm.nii.gz").get_fdata(dtype=np.float32)
    factors = [n / m for n, m in zip(size, small.shape, strict=True)]
    large = ndimage.zoom(small, factors, order=1, grid_mode=True, mode="nearest")
    large += np.random.default_rng(0).normal(0, 12, large.shape).astype(np.float32)
    voxels = large.round().clip(-1024, 3071).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.diag([0.8, 0.8, 1.0, 1.0])), out)


def windows(size: tuple[int, ...], patch: int, overlap: float) -> int:
    """The number of windows of a scan that is not cropped."""
    shape = [round(n * mm / SPACING_MM) for n, mm in zip(size, (0.8, 0.8, 1.0), strict=True)]
    return placement.count(shape, (patch,) * 3, overlap)


def models(
    a: argparse.Namespace, work: Path, network: dict[str, Any]
) -> dict[str, tuple[Path, dict[str, str]]]:
    """Make every model: name of a row -> its file, and the environment of ``predict``."""
    trained, rows = work / TRAINED, {}
    for side, folder in {"now": None, "before": a.before}.items():
        is_before, environment = side == "before", checkout(folder)
        if is_before and not folder:
            continue
        if trained.is_dir():
            model = work / f"imported_{side}.model"
            line = [*DELINEATE, "import", "nnunet", str(trained), "-o", str(model)]
            whole_process(line, environment)
            for name in ("before",) if is_before else ("graph kept", "first use"):
                rows[f"imported, {name}"] = model, environment
        for overlap in [0.5] if is_before else a.overlaps:
            model = work / f"own_{overlap}_{side}.model"
            words = json.dumps([a.patch, network, overlap, SPACING_MM])
            child(OWN, str(Path(__file__).parent), words, str(model), environment=environment)
            name = "before" if is_before else f"overlap {overlap}"
            rows[f"own, {name}"] = model, environment
    return rows


def main() -> None:
    parser = options(__doc__, 5)
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--peer-runs", type=int, default=3)
    parser.add_argument("--overlaps", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--size", type=int, nargs=3, default=[512, 512, 300])
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--widths", type=int, nargs="+", default=[32, 64, 128, 256, 320, 320])
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="ROW", help="such as 'imported, first use'"
    )
    a = parser.parse_args()
    has_peer = python_with("nnunetv2", a.peer) is not None
    network = nnunet_3d(CLASSES, tuple(a.widths)).model_dump(mode="json")
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        for folder, size in (("scan", tuple(a.size)), ("small", (a.patch,) * 3)):
            (work / folder).mkdir()
            ct(a.data, size, work / folder / "ct_0000.nii.gz")
        if has_peer:
            own = str(a.data / "nnunet_hippocampus" / TRAINED)
            words = json.dumps([a.patch, a.widths, CLASSES, SPACING_MM])
            child(
                UNTRAINED, own, str(work / TRAINED), words, python=python_with("nnunetv2", a.peer)
            )
        rows = models(a, work, network)
        alone = child(CODE, json.dumps(network), json.dumps([a.patch] * 3), str(a.runs), "alone")
        found: dict[str, Any] = {
            "scan": f"{'x'.join(map(str, a.size))} int16, 0.8x0.8x1.0 mm, network at 1.5 mm",
            "absent": absent({"nnU-Net": "nnunetv2"}, a.peer),
            "OpenVINO alone, one window": alone,
            "windows": {
                f"overlap {one}": windows(tuple(a.size), a.patch, one) for one in (0.5, *a.overlaps)
            },
            "rows": {},
        }
        if a.before:
            found["before"] = commit(a.before)
        runs: dict[str, list[tuple[float, float]]] = {}
        rows = {name: row for name, row in rows.items() if name not in a.without}
        for name, (model, environment) in rows.items():
            if not name.endswith("first use"):  # a scan of one window makes the graph
                line = [*DELINEATE, "predict", str(model), str(work / "small"), "--no-mirror"]
                whole_process([*line, "-o", str(work / f"{name}_warm")], environment)
        for turn in range(a.runs):
            for name, (model, environment) in rows.items():
                out = work / f"{name}_{turn}"
                if name.endswith("first use"):
                    model = Path(shutil.copy(model, work / f"first_{turn}.model"))
                    environment = environment | {"XDG_CACHE_HOME": f"{out}_cache"}
                line = [*DELINEATE, "predict", str(model), str(work / "scan"), "--no-mirror"]
                taken = whole_process([*line, "-o", str(out)], environment)
                runs.setdefault(name, []).append(taken)
                shutil.rmtree(out)
            if has_peer and turn < a.peer_runs and "nnU-Net tuned" not in a.without:
                out = work / f"peer_{turn}"
                line, environment = predict(a.peer, work / TRAINED, work / "scan", out, tuned=True)
                runs.setdefault("nnU-Net tuned", []).append(whole_process(line, environment))
            found["rows"] = {name: summed(each) for name, each in runs.items()}
            found["runs"] = turn + 1
            keep("whole_ct", found)


if __name__ == "__main__":
    main()
