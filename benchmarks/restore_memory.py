"""Seconds and memory of ``restore()`` for a scan of 512x512x300, by number of labels; and a check
that slabs are handed over while windows are still computed.

    python benchmarks/restore_memory.py [--peer FOLDER_OF_A_VENV] [--before CHECKOUT] [--runs 5]
        [--labels 4 41 104] [--shape 512 512 300]

Smooth probabilities at 1.5 mm are written to disk, slab by slab, before the clock starts: every
class is the largest somewhere in every slab, which is harder than a real scan. For each number of
labels a new process reads them slab by slab; the time of reading alone is subtracted, on a page
cache that is warm. Memory is the growth of a peak counter that is reset just before the call, minus
the returned labels; one slab is part of it. With ``--peer``, nnU-Net's own functions do the same
for 4 labels, on the same scores in memory: resampling of order 1, then the class with the largest
score. With ``--before`` an earlier checkout of this project does the same, once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from measure import absent, checkout, child, commit, keep, python_with

SPACING, TARGET, DEPTH = (0.8, 0.8, 1.0), 1.5, 16
RESTORE = """
import json, sys
from pathlib import Path
import numpy as np, torch
from delineate.core.grid import Grid
from delineate.preprocessing.prepare import PreprocessingRecord, restore

shape, spacing, runs = json.loads(sys.argv[2]), (0.8, 0.8, 1.0), int(sys.argv[3])
source = Grid.from_spacing(shape, spacing)
oriented, axes = source.reorient("RAS")
record = PreprocessingRecord(
    source, oriented, axes, (0, 0, 0), source.shape, source.respace((1.5, 1.5, 1.5))
)
files = sorted(Path(sys.argv[1]).glob("*.npy"))
labels = len(np.load(files[0], mmap_mode="r"))
values = np.arange(labels).astype(np.uint8)


def slabs():
    for file in files:
        slab = torch.from_numpy(np.load(file))
        yield slab
        del slab


def reading():
    for _ in slabs():
        pass


work = lambda: restore(slabs(), record, 2, values, None, True)
found = measured(work, runs)
read_s = measured(reading, runs)["work_s"]
found["restore_s"] = found["work_s"] - read_s
found["each_s"] = [one - read_s for one in found["each_s"]]
out = work()
found["beyond_input_mb"] -= out.nbytes / 1e6
found["slab_mb"] = np.load(files[0], mmap_mode="r").nbytes / 1e6
if len(sys.argv) > 4:
    np.save(sys.argv[4], out)
print(json.dumps(found))
"""
PEER = """
import json, sys
from pathlib import Path
import numpy as np
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

shape, runs = json.loads(sys.argv[2]), int(sys.argv[3])
files = sorted(Path(sys.argv[1]).glob("*.npy"))
scores = np.concatenate([np.load(f) for f in files], 1).transpose(0, 2, 3, 1).astype(np.float32)


def work():
    fine = resample_data_or_seg_to_shape(
        scores, shape, (1.5, 1.5, 1.5), (0.8, 0.8, 1.0), is_seg=False, order=1, order_z=0
    )
    return fine.argmax(0).astype(np.uint8)


found = measured(work, runs)
found["restore_s"] = found["work_s"]
out = work() if len(sys.argv) > 4 else np.zeros(shape, np.uint8)
found["beyond_input_mb"] -= out.nbytes / 1e6
if len(sys.argv) > 4:
    found["same_voxels"] = float((np.load(sys.argv[4]) == out).mean())
print(json.dumps(found))
"""

HANDOVER = """
import json, sys, time
import torch
from delineate.inference.engine import Engine, slabs

sys.path.insert(0, sys.argv[1])
from model import model_plan

plan = model_plan(41)
seen = []


class Timed(torch.nn.Module):
    def forward(self, x):
        seen.append(time.perf_counter())
        return torch.zeros(x.shape[0], plan.network.classes, *x.shape[2:])


engine = Engine(plan, ((Timed(), 1.0),), torch.device("cpu"), torch.float32)
sizes_mb, first = [], None
for slab in slabs(torch.rand(1, 273, 273, 200), engine):
    first = first or time.perf_counter()
    sizes_mb.append(slab.numel() * slab.element_size() / 1e6)
after_first = sum(t > first for t in seen)
whole = 41 * 273 * 273 * 200 * 4 / 1e6
largest = max(sizes_mb)
print(
    json.dumps(
        {
            "windows": len(seen),
            "windows_after_first_slab": after_first,
            "slabs": len(sizes_mb),
            "largest_slab_mb": largest,
            "whole_volume_of_scores_mb": whole,
        }
    )
)
"""


def write_slabs(folder: Path, labels: int, shape: tuple[int, ...]) -> None:
    """Probabilities (L, d, A, B) float16 in files of ``DEPTH`` planes along the last axis."""
    import torch

    i, j, k = (max(1, round(n * s / TARGET)) for n, s in zip(shape, SPACING, strict=True))
    coarse = [max(2, n // 8) for n in (k, i, j)]
    low = 3 * torch.randn(1, labels, *coarse, generator=torch.Generator().manual_seed(0))
    for start in range(0, k, DEPTH):
        # The coarse planes at the positions of these planes, then each plane at full size.
        at = torch.arange(start, min(start + DEPTH, k)) / k * (coarse[0] - 1)
        below = at.floor().long()
        share = (at - below).view(-1, 1, 1)
        above = (below + 1).clamp(max=coarse[0] - 1)
        planes = torch.lerp(low[0][:, below], low[0][:, above], share)
        fine = torch.nn.functional.interpolate(planes, size=(i, j), mode="bilinear")
        np.save(folder / f"{start:04d}.npy", fine.softmax(0).half().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peer", type=Path, help="virtual environment with nnunetv2")
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--labels", type=int, nargs="+", default=[4, 41, 104])
    parser.add_argument("--shape", type=int, nargs=3, default=[512, 512, 300])
    a = parser.parse_args()
    found, peer, before, shape = {}, {}, {}, json.dumps(a.shape)
    for labels in a.labels:
        with tempfile.TemporaryDirectory() as name:
            folder, ours = Path(name), Path(name) / "labels"
            ours.mkdir()
            write_slabs(folder, labels, tuple(a.shape))
            words = (name, shape, str(a.runs), str(ours / "ours.npy"))
            found[labels] = child(RESTORE, *words)
            if a.before:
                once = (name, shape, "1")
                before[labels] = child(RESTORE, *once, environment=checkout(a.before))
            if python_with("nnunetv2", a.peer) and labels == a.labels[0]:
                words = (name, shape, str(a.runs), str(ours / "ours.npy"))
                peer = {
                    "peer": {
                        "name": "nnU-Net",
                        **child(PEER, *words, python=python_with("nnunetv2", a.peer)),
                    }
                }
    keep(
        "restore_memory",
        {
            **peer,
            **({"before": commit(a.before), "labels before": before} if a.before else {}),
            "absent": absent({"nnU-Net": "nnunetv2"}, a.peer),
            "scan": f"{'x'.join(map(str, a.shape))} from 1.5 mm",
            "runs": a.runs,
            "labels": found,
            "handover": child(HANDOVER, str(Path(__file__).parent)),
        },
    )


if __name__ == "__main__":
    main()
