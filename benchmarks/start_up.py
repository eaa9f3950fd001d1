"""Prediction of one small scan and of twenty, including the start of the process: `delineate
predict` with an imported nnU-Net, compared with nnU-Net's own command and the original model.

    python benchmarks/start_up.py [--peer FOLDER_OF_A_VENV] [--data ../shared/data] [--runs 5]

Whole processes are measured on the same hippocampus scans, with and without mirroring. Memory is
the sum over all processes that a command starts (shared memory is counted once), sampled every 0.1
s. Ours has two rows: with the graph of the network made before the clock starts, as on any machine
that has used the model before, and made inside it, at the first use of a model. nnU-Net has two
rows as well: as installed, and with one process each for reading and writing (`-npp 1 -nps 1`).
All are measured in turns.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import psutil

from import_nnunet import DELINEATE, arguments
from measure import keep
from nnunet_peer import TRAINED, link_scans, predict

MODEL = "hippocampus.model"


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds and peak memory in MB of a command and its children."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | environment
    )
    peak, over = [0.0], threading.Event()

    def watch() -> None:
        # PSS divides shared memory among its processes; a process may end while it is read.
        me = psutil.Process(process.pid)
        while not over.wait(0.1):
            total = 0
            with contextlib.suppress(psutil.Error):
                for one in (me, *me.children(recursive=True)):
                    with contextlib.suppress(psutil.Error):
                        total += one.memory_full_info().pss
            peak[0] = max(peak[0], total / 1e6)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, errors = process.communicate()
    taken = time.perf_counter() - began
    over.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{command[0]} failed:\n{errors.decode()[-2000:]}")
    return taken, peak[0]


def compared(a: Namespace, work: Path, trained: Path, count: int, mirror: bool) -> dict[str, Any]:
    """Seconds and memory of every way on ``count`` scans, measured in turns: medians, and the
    quartiles of the seconds.
    """
    scans, flag = work / f"{count}", "--mirror" if mirror else "--no-mirror"
    runs: dict[str, list[tuple[float, float]]] = {}
    for run in range(a.runs):
        # A copy of the model has no graph yet.
        first = work / f"first_{count}_{mirror}_{run}.model"
        shutil.copy(work / MODEL, first)
        for way, model in (("graph kept", work / MODEL), ("first use", first)):
            out = work / f"{way}_{count}_{mirror}_{run}"
            environment = (
                {"XDG_CACHE_HOME": str(work / f"cache_{out.name}")} if model == first else {}
            )
            line = [*DELINEATE, "predict", str(model), str(scans), "-o", str(out), flag]
            runs.setdefault(way, []).append(measured(line, environment))
        for way in ("as installed", "tuned") if a.peer else ():
            out = work / f"peer_{way}_{count}_{mirror}_{run}"
            line, environment = predict(
                a.peer, trained, scans, out, mirror=mirror, tuned=way == "tuned"
            )
            runs.setdefault(way, []).append(measured(line, environment))
    found: dict[str, Any] = {}
    for way, each in runs.items():
        taken = [s for s, _ in each]
        quartiles = statistics.quantiles(taken, method="inclusive") if len(taken) > 1 else taken * 3
        found[way] = {
            "seconds": round(statistics.median(taken), 2),
            "quartiles": [round(quartiles[0], 2), round(quartiles[2], 2)],
            "mb": round(statistics.median(m for _, m in each), 1),
        }
    return found


def main() -> None:
    a = arguments(__doc__)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work, trained = Path(temporary), a.data / "nnunet_hippocampus" / TRAINED
        model = str(work / MODEL)
        measured([*DELINEATE, "import", "nnunet", str(trained), "-o", model], {})
        scans = sorted((a.data / "hippocampus" / "imagesTr").glob("hippocampus_*.nii.gz"))
        for count in (1, 20):
            names = {path.name.removesuffix(".nii.gz"): path for path in scans[:count]}
            link_scans(names, work / f"{count}")
        # The first prediction compiles the network and is not counted.
        warm = ["predict", model, str(work / "1"), "-o", str(work / "warm")]
        measured([*DELINEATE, *warm], {})
        for count in (1, 20):
            for mirror in (False, True):
                name = (
                    f"{count} {'scan' if count == 1 else 'scans'}, "
                    f"{'mirrored' if mirror else 'plain'}"
                )
                found[name] = compared(a, work, trained, count, mirror)
    keep("start_up", {"runs": a.runs, **found})


if __name__ == "__main__":
    main()
