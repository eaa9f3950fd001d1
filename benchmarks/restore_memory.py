"""Seconds and memory of ``restore()`` for a scan of 512x512x300, by number of labels; and a check
that slabs are handed over while windows are still computed.

    python benchmarks/restore_memory.py [--peer FOLDER_OF_A_VENV]

For each number of labels, a new process feeds ``restore()`` with slabs of class scores at 1.5 mm,
created one at a time so that the input is one slab. The result is the growth of peak memory, minus
the size of the returned label volume. With ``--peer``, nnU-Net's own functions do the same for 4
labels: resampling of order 1, then the class with the largest score.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from measure import child, keep, medians

RESTORE = """
import json, sys, time
import numpy as np, torch
from delineate.core.grid import Grid
from delineate.preprocessing.prepare import PreprocessingRecord, restore

labels = int(sys.argv[1])
source = Grid.from_spacing((512, 512, 300), (0.8, 0.8, 1.0))
oriented, axes = source.reorient("RAS")
record = PreprocessingRecord(
    source, oriented, axes, (0, 0, 0), source.shape, source.respace((1.5, 1.5, 1.5))
)
i, j, k = record.prepared.shape


def slabs(depth=16):
    rng = torch.Generator().manual_seed(0)
    for start in range(0, k, depth):
        yield torch.rand((labels, min(depth, k - start), i, j), generator=rng, dtype=torch.float16)


values = np.arange(labels).astype(np.uint8)
one = labels * 16 * i * j * 2 / 1e6
warm = torch.rand(8, 8) @ torch.rand(8, 8)
# Time and memory of creating the slabs alone, which are subtracted below.
began = time.perf_counter()
for slab in slabs():
    pass
making = time.perf_counter() - began
held = peak_mb()
began = time.perf_counter()
out = restore(slabs(), record, 2, values)
taken = time.perf_counter() - began - making
peak = peak_mb()
print(
    json.dumps(
        {"restore_s": taken, "slab_mb": one, "beyond_input_mb": peak - held - out.nbytes / 1e6}
    )
)
"""

PEER = """
import json, time
import numpy as np
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape


def memory(what):
    return (
        next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(what))
        / 1e3
    )


scores = np.random.default_rng(0).random((4, 273, 273, 200), dtype=np.float32)
open("/proc/self/clear_refs", "w").write("5")  # reset the peak
before, began = memory("VmRSS"), time.perf_counter()
out = (
    resample_data_or_seg_to_shape(
        scores, (512, 512, 300), (1.5, 1.5, 1.5), (0.8, 0.8, 1.0), is_seg=False, order=1, order_z=0
    )
    .argmax(0)
    .astype(np.uint8)
)
print(
    json.dumps(
        {
            "restore_s": time.perf_counter() - began,
            "beyond_input_mb": memory("VmHWM") - before - out.nbytes / 1e6,
        }
    )
)
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
for slab in slabs(torch.zeros(1, 273, 273, 200), engine):
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer", type=Path, help="virtual environment with nnunetv2")
    parser.add_argument("--labels", type=int, nargs="+", default=[4, 41, 104])
    a = parser.parse_args()
    runs = a.runs
    by_labels = {
        labels: medians([child(RESTORE, str(labels)) for _ in range(runs)]) for labels in a.labels
    }
    peer = (
        {"peer": {"name": "nnU-Net", **child(PEER, python=a.peer / "bin" / "python")}}
        if a.peer
        else {}
    )
    keep(
        "restore_memory",
        {
            **peer,
            "scan": "512x512x300 from 1.5 mm",
            "runs": runs,
            "labels": by_labels,
            "handover": child(HANDOVER, str(Path(__file__).parent)),
        },
    )


if __name__ == "__main__":
    main()
