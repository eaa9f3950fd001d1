"""Time to read random patches from a preprocessed case on disk: our store compared with nnU-Net's
blosc2 files.

    python benchmarks/patch_reads.py [--peer FOLDER_OF_A_VENV] [--reads 30]

The case has 340 x 340 x 300 smooth voxels with noise. Both read image and label of the same random
boxes, in one thread, with the files in the page cache. nnU-Net's file is written in float32 by its
own functions, with the block and chunk sizes that it chooses for the patch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from delineate.core.store import Store
from measure import absent, child, keep, python_with

SHAPE = (340, 340, 300)
THEIRS = """
import json, sys, time
from pathlib import Path
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

folder, patch, boxes = Path(sys.argv[1]), tuple(json.loads(sys.argv[2])), json.loads(sys.argv[3])
image, label = np.load(folder / "image.npy"), np.load(folder / "label.npy")
blocks, chunks = comp_blosc2_params(image.shape, patch)
blocks_seg, chunks_seg = comp_blosc2_params(image.shape, patch)
target = folder / f"case_{patch[0]}"
nnUNetDatasetBlosc2.save_case(
    image,
    label[None].astype(np.int16),
    {},
    str(target),
    chunks=chunks,
    blocks=blocks,
    chunks_seg=chunks_seg,
    blocks_seg=blocks_seg,
)
data = nnUNetDatasetBlosc2(str(folder), [target.name])
times = []
for low in boxes:
    began = time.perf_counter()
    found, seg, *_ = data.load_case(target.name)
    box = tuple(slice(a, a + n) for a, n in zip(low, patch))
    a, b = np.asarray(found[(slice(None), *box)]), np.asarray(seg[(slice(None), *box)])
    times.append(time.perf_counter() - began)
print(json.dumps({"ms": 1e3 * float(np.median(times)), "sum": float(a.sum())}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="virtual environment with nnunetv2")
    parser.add_argument("--reads", type=int, default=30)
    a = parser.parse_args()
    rng, reads = np.random.default_rng(0), []
    coarse = rng.normal(0, 1, (34, 34, 30)).repeat(10, 0).repeat(10, 1).repeat(10, 2)
    image, label = (
        (coarse + rng.normal(0, 0.1, SHAPE))[None].astype(np.float32),
        (coarse > 1).astype(np.uint8),
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "image.npy", image)
        np.save(folder / "label.npy", label)
        for n in (96, 128, 205):
            patch = (n,) * 3
            boxes = [
                [int(v) for v in rng.integers(0, np.array(SHAPE) - n + 1)] for _ in range(a.reads)
            ]
            store = Store(folder / f"store_{n}")
            store.add("a", image, label, 2, patch)
            case, times = store.open("a"), []
            for low in boxes:
                began = time.perf_counter()
                box = tuple(slice(v, v + n) for v in low)
                case.values(*box), np.asarray(case.label[box])
                times.append(time.perf_counter() - began)
            row: dict[str, Any] = {
                "patch": f"{n}x{n}x{n}",
                "ours_ms": 1e3 * float(np.median(times)),
            }
            row["stored_mb"] = round(
                sum(p.stat().st_size for p in (folder / f"store_{n}").rglob("*") if p.is_file())
                / 1e6,
                1,
            )
            if python := python_with("nnunetv2", a.peer):
                row["peer_ms"] = child(
                    THEIRS,
                    str(folder),
                    json.dumps(patch),
                    json.dumps(boxes),
                    python=python,
                )["ms"]
                row["ratio"] = row["peer_ms"] / row["ours_ms"]
            reads.append({k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()})
    missing = absent({"nnU-Net": "nnunetv2"}, a.peer)
    keep("patch_reads", {"case": "x".join(map(str, SHAPE)), "absent": missing, "reads": reads})


if __name__ == "__main__":
    main()
