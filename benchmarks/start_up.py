"""Prediction of one small scan and of twenty, including the start of the process: `delineate
predict` with an imported nnU-Net, compared with nnU-Net's own command and the original model.

    python benchmarks/start_up.py [--peer FOLDER_OF_A_VENV] [--before CHECKOUT] [--runs 5]
        [--peer-runs 5] [--rows 1:plain 20:plain 1:mirrored 20:mirrored] [--data ../shared/data]

Whole processes are measured on the same hippocampus scans, with and without mirroring. Memory is
the sum over all processes that a command starts (shared memory is counted once). Ours has two rows:
with the graph of the network made before the clock starts, as on any machine that has used the
model before, and made inside it, at the first use of a model. nnU-Net has two rows as well: as
installed, and with one process each for reading and writing (`-npp 1 -nps 1`). With ``--before`` an
earlier checkout of this project is measured too, with its graph made. All are measured in turns;
nnU-Net, which needs minutes for a row, may be measured less often.
"""

from __future__ import annotations

import shutil
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from import_nnunet import DELINEATE, options
from measure import absent, checkout, commit, keep, python_with, summed, whole_process
from nnunet_peer import TRAINED, link_scans, predict

MODEL = "hippocampus.model"
ROWS = ("1:plain", "20:plain", "1:mirrored", "20:mirrored")


def compared(a: Namespace, work: Path, trained: Path, count: int, mirror: bool) -> dict[str, Any]:
    """Seconds and memory of every way on ``count`` scans, measured in turns."""
    scans, flag = work / f"{count}", "--mirror" if mirror else "--no-mirror"
    runs: dict[str, list[tuple[float, float]]] = {}
    for run in range(a.runs):
        # A copy of the model has no graph yet.
        first = work / f"first_{count}_{mirror}_{run}.model"
        shutil.copy(work / MODEL, first)
        out = work / f"{count}_{mirror}_{run}"
        cold = {"XDG_CACHE_HOME": f"{out}_cache"}
        ours: dict[str, tuple[Path, dict[str, str]]] = {
            "graph kept": (work / MODEL, {}),
            "first use": (first, cold),
        }
        if a.before:
            ours["before"] = work / "before.model", checkout(a.before)
        for way, (model, environment) in ours.items():
            line = [*DELINEATE, "predict", str(model), str(scans), "-o", f"{out}_{way}", flag]
            runs.setdefault(way, []).append(whole_process(line, environment))
        has_peer = python_with("nnunetv2", a.peer) is not None and run < a.peer_runs
        for way in ("as installed", "tuned") if has_peer else ():
            there = work / f"peer_{way}_{count}_{mirror}_{run}"
            line, environment = predict(
                a.peer, trained, scans, there, mirror=mirror, tuned=way == "tuned"
            )
            runs.setdefault(way, []).append(whole_process(line, environment))
    return {way: summed(each) for way, each in runs.items()}


def main() -> None:
    parser = options(__doc__, 5)
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--peer-runs", type=int, default=5)
    parser.add_argument("--rows", nargs="+", default=ROWS, choices=ROWS)
    a = parser.parse_args()
    found: dict[str, Any] = {"runs": a.runs, "absent": absent({"nnU-Net": "nnunetv2"}, a.peer)}
    if a.before:
        found["before"] = commit(a.before)
    with tempfile.TemporaryDirectory() as temporary:
        work, trained = Path(temporary), a.data / "nnunet_hippocampus" / TRAINED
        scans = sorted((a.data / "hippocampus" / "imagesTr").glob("hippocampus_*.nii.gz"))
        for count in (1, 20):
            names = {path.name.removesuffix(".nii.gz"): path for path in scans[:count]}
            link_scans(names, work / f"{count}")
        # The first prediction compiles the network and is not counted.
        for name, folder in {MODEL: None, "before.model": a.before}.items():
            if name == MODEL or folder:
                model, environment = str(work / name), checkout(folder)
                whole_process(
                    [*DELINEATE, "import", "nnunet", str(trained), "-o", model], environment
                )
                warm = ["predict", model, str(work / "1"), "-o", str(work / f"warm_{name}")]
                whole_process([*DELINEATE, *warm], environment)
        for row in a.rows:
            count, way = row.split(":")
            name = f"{count} scan{'s' * (count != '1')}, {way}"
            found[name] = compared(a, work, trained, int(count), way == "mirrored")
            keep("start_up", found)


if __name__ == "__main__":
    main()
