"""Prediction of one small scan and of twenty, including the start of the process: `delineate
predict` with an imported nnU-Net, compared with nnU-Net's own command and the original model.

    python benchmarks/start_up.py [--peer FOLDER_OF_A_VENV] [--data ../shared/data] [--runs 3]

Whole processes are measured on the same hippocampus scans, with and without mirroring. Memory is
the sum over all processes that a command starts (shared memory is counted once), sampled every 0.1
s. Compiled networks are cached by one prediction before, as on any machine that has used the model
before.
"""

from __future__ import annotations

import contextlib
import os
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


def compared(a: Namespace, work: Path, trained: Path, count: int, mirror: bool) -> dict[str, float]:
    """Median seconds and memory on ``count`` scans, ours and nnU-Net's measured in turns."""
    scans, flag = work / f"{count}", "--mirror" if mirror else "--no-mirror"
    ours, peer = [], []
    for run in range(a.runs):
        out = work / f"ours_{count}_{mirror}_{run}"
        line = [*DELINEATE, "predict", str(work / MODEL), str(scans), "-o", str(out), flag]
        ours.append(measured(line, {}))
        if a.peer:
            out = work / f"peer_{run}"
            peer.append(measured(*predict(a.peer, trained, scans, out, mirror=mirror)))
    row = {
        "ours_s": statistics.median(s for s, _ in ours),
        "ours_mb": statistics.median(m for _, m in ours),
    }
    if peer:
        row |= {
            "peer_s": statistics.median(s for s, _ in peer),
            "peer_mb": statistics.median(m for _, m in peer),
        }
        row["ratio"] = row["peer_s"] / row["ours_s"]
    return {k: round(v, 2) for k, v in row.items()}


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
