"""Writing DICOM objects of many structures on 512 x 512 x 300 slices: seconds and peak memory of
SEG of each type and of structure sets.

    python benchmarks/dicom_writing.py [--runs 3] [--slices 300] [--structures 41 117]
        [--objects SEG "structure set" ...]

The structures are ellipsoids with uneven surfaces, as organs have them. Every run is a process of
its own, which writes a small object before; the peak is counted from after the mask was made.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from delineate.core.inputs import read_json_if_any
from dicom_speed import write
from measure import child, keep, medians

RECORD = Path(__file__).parent / "results" / "dicom_writing.json"
CODE = """
import json, sys, time
from pathlib import Path
import numpy as np
from scipy import ndimage
from delineate.core.labels import LabelSet
from delineate.core.volume import Volume
from delineate.formats import dicom
from delineate.formats.dicom.{package} import {function}
from delineate.formats.dicom.seg import SegEncoding

folder, out, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
(series,) = dicom.find_series(folder)
grid, _ = dicom.layout(series)
rng = np.random.default_rng(0)
mask = np.zeros(grid.shape, np.uint8)
i, j, k = (np.arange(n, dtype=np.float32) for n in grid.shape)
for value in range(1, count + 1):
    centre, radii = rng.uniform(0.15, 0.85, 3) * grid.shape, rng.uniform(12, 45, 3)
    low = np.maximum(centre - 1.3 * radii, 0).astype(int)
    high = np.minimum(centre + 1.3 * radii + 1, grid.shape).astype(int)
    box = tuple(slice(a, b) for a, b in zip(low, high))
    axes = zip((i, j, k), box, centre, radii)
    x, y, z = (((axis[part] - c) / r) ** 2 for axis, part, c, r in axes)
    rough = ndimage.gaussian_filter(rng.normal(size=high - low).astype(np.float32), 3) * 2
    mask[box][x[:, None, None] + y[:, None] + z + rough < 1] = value
labels = LabelSet.from_names({{value: f"structure {{value}}" for value in range(1, count + 1)}})
volume = Volume(mask, grid, "label")
{function}(Volume(mask[:, :, :4] * 0 + 1, grid.crop((0, 0, 0), (*grid.shape[:2], 4)), "label"),
    labels, dicom.find_series(sys.argv[4])[0], out, algorithm_name="a", algorithm_version="1"{more})
open("/proc/self/clear_refs", "w").write("5")
begun = time.perf_counter()
{function}(volume, labels, series, out, algorithm_name="a", algorithm_version="1"{more})
taken = time.perf_counter() - begun
size = Path(out).stat().st_size / 1e6
print(json.dumps({{"seconds": taken, "peak_mb": peak_mb(), "file_mb": size}}))
"""
SEG = "seg", "write_seg"
# Package, function and further arguments.
WRITERS = {
    "SEG": (*SEG, ""),
    "SEG, LABELMAP": (*SEG, ', encoding=SegEncoding("LABELMAP")'),
    "SEG, FRACTIONAL in RLE": (*SEG, ', encoding=SegEncoding("FRACTIONAL", "rle")'),
    "structure set": ("rtstruct", "write_rtstruct", ""),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--structures", type=int, nargs="+", default=[41, 117])
    parser.add_argument("--objects", nargs="+", choices=WRITERS, default=[*WRITERS])
    a = parser.parse_args()
    # Objects that were not asked for keep their figures.
    earlier = read_json_if_any(RECORD) or {}
    found: dict[str, Any] = {k: v for k, v in earlier.items() if " of " in k}
    with tempfile.TemporaryDirectory() as temporary:
        folder, few = Path(temporary) / "ct", Path(temporary) / "few"
        write(folder, a.slices, 512)
        write(few, 4, 512)  # a small object first, so that imports are not measured
        for name in a.objects:
            package, function, more = WRITERS[name]
            code = CODE.format(package=package, function=function, more=more)
            for count in a.structures:
                arguments = (str(folder), f"{temporary}/out.dcm", str(count), str(few))
                runs = [child(code, *arguments) for _ in range(a.runs)]
                found[f"{name} of {count}"] = {"runs": a.runs, "slices": a.slices, **medians(runs)}
                keep("dicom_writing", found)


if __name__ == "__main__":
    main()
