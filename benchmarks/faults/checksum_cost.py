"""What the checksums of prepared cases cost, as a share of a training step on this machine.

    python benchmarks/faults/checksum_cost.py [--patches 48 96 128] [--reads 30]

Random patches are read from a case of 200 x 200 x 160 smooth voxels with noise, with and without
comparing its chunks, in one thread, with the files in the page cache. The step is one of a U-Net
with 16 to 128 channels on a batch of two such patches. Patches are read ahead of the steps in
threads of their own, so the share is what a core spends, not how much longer a training takes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from scipy import ndimage

from delineate.core.plan import Network
from delineate.core.store import Store
from delineate.planning.capacity import measure_step
from measure import keep

SHAPE = (200, 200, 160)


def timed(read: Callable[[tuple[slice, ...]], Any], boxes: Sequence[tuple[slice, ...]]) -> float:
    """Median milliseconds of reading a box, the first pass not counted."""
    seconds: list[float] = []
    for box in (*boxes, *boxes):
        began = time.perf_counter()
        read(box)
        seconds.append(time.perf_counter() - began)
    return 1e3 * median(seconds[len(boxes) :])


def measured(folder: Path, size: int, reads: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    image = ndimage.gaussian_filter(rng.normal(size=SHAPE).astype(np.float32), 2)[None] * 30
    image += rng.normal(scale=0.1, size=image.shape).astype(np.float32)
    store, patch = Store(folder), (size,) * 3
    store.add("a", image, (image[0] > 0.5).astype(np.uint8), 2, patch)
    case = store.open("a")
    lows = rng.integers(0, [n - size + 1 for n in SHAPE], (reads, 3))
    boxes = [tuple(slice(int(a), int(a) + size) for a in low) for low in lows]
    plain = timed(lambda b: (case.image.array[(slice(None), *b)], case.label.array[b]), boxes)
    checked = timed(lambda b: (case.image[(slice(None), *b)], case.label[b]), boxes)
    network = Network(
        dims=3,
        channels=1,
        classes=2,
        widths=(16, 32, 64, 128),
        strides=((2, 2, 2),) * 3,
        kernels=((3, 3, 3),) * 4,
    )
    step = 1e3 * min(measure_step(network, patch, 2) for _ in range(2))
    share = 2 * (checked - plain) / step
    return {"plain_ms": plain, "checked_ms": checked, "step_ms": step, "share": round(share, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patches", type=int, nargs="+", default=[48, 96, 128])
    parser.add_argument("--reads", type=int, default=30)
    a = parser.parse_args()
    found = {}
    for size in a.patches:
        with tempfile.TemporaryDirectory() as name:
            found[str(size)] = measured(Path(name), size, a.reads)
    keep("checksum_cost", {"threads": torch.get_num_threads(), "patches": found})


if __name__ == "__main__":
    main()
