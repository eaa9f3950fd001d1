"""One small scan and twenty, process start included: `delineate predict` with an imported nnU-Net,
and nnU-Net's own command with the original.

    python benchmarks/start_up.py [--peer FOLDER_OF_A_VENV] [--data ../shared/data] [--runs 3]

Whole processes on the same hippocampus scans, with mirroring and without. Memory is that of all
processes a command starts together (what they share counted once), looked at every 0.1 s. Graphs
are compiled once before, as on any machine that has used the model before.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from import_nnunet import arguments
from measure import keep
from nnunet_peer import TRAINED, link_scans, predict


def measured(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds and peak memory in MB of a command and its children."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | environment
    )
    peak, over = [0.0], threading.Event()

    def watch() -> None:
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


def main() -> None:
    a = arguments(__doc__)
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        work, trained = Path(temporary), a.data / "nnunet_hippocampus" / TRAINED
        delineate, model = [sys.executable, "-m", "delineate.cli"], work / "hippocampus.model"
        measured([*delineate, "import", "nnunet", str(trained), "-o", str(model)], {})
        scans = sorted(
            p for p in (a.data / "hippocampus" / "imagesTr").glob("hippocampus_*.nii.gz")
        )
        for count in (1, 20):
            link_scans(
                {path.name.removesuffix(".nii.gz"): path for path in scans[:count]},
                work / f"{count}",
            )
        measured([*delineate, "predict", str(model), str(work / "1"), "-o", str(work / "warm")], {})
        for count in (1, 20):
            for mirror in (False, True):
                ours, peer = [], []
                for run in range(a.runs):  # side by side
                    out = [
                        "-o",
                        str(work / f"ours_{count}_{mirror}_{run}"),
                        "--mirror" if mirror else "--no-mirror",
                    ]
                    ours.append(
                        measured(
                            [*delineate, "predict", str(model), str(work / f"{count}"), *out], {}
                        )
                    )
                    if a.peer:
                        peer.append(
                            measured(
                                *predict(
                                    a.peer,
                                    trained,
                                    work / f"{count}",
                                    work / f"peer_{run}",
                                    mirror=mirror,
                                )
                            )
                        )
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
                found[
                    f"{count} {'scan' if count == 1 else 'scans'}, "
                    f"{'mirrored' if mirror else 'plain'}"
                ] = {k: round(v, 2) for k, v in row.items()}
    keep("start_up", {"runs": a.runs, **found})


if __name__ == "__main__":
    main()
