"""Every comparison of the performance page on this machine, which must do nothing else meanwhile;
then the page of this machine.

    python benchmarks/all_rows.py [--quick] [--only NAME ...] [--peer FOLDER_OF_A_VENV]

``make benchmarks`` is the quick set: less than 40 minutes on two cores. ``make benchmarks-all``
adds the long ones. The peers are installed in an environment of their own, ``build/peers``, outside
the lock of the project; a peer that cannot be installed is named, and its rows are left out. A
comparison that fails is named too, and does not stop the others.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

from measure import machine, slug

HERE = Path(__file__).parent
PEERS = ("nnunetv2", "monai", "torchio", "surface-distance-based-measures", "medpy", "scikit-image")
# name -> (whether it is in the quick set, whether it has peers, more words for the quick set)
ROWS: dict[str, tuple[bool, bool, tuple[str, ...]]] = {
    "start_up": (True, True, ()),
    "restore_memory": (True, True, ("--runs", "3")),
    "step_time": (True, True, ("--runs", "3")),
    "preparing": (True, True, ("--runs", "3")),
    "forward": (True, False, ()),
    "metric_speed": (True, True, ()),
    "volume_files": (True, False, ()),
    "loss_speed": (True, True, ()),
    "predict_memory": (False, False, ()),
    "surface_distances": (False, True, ()),
    "patch_reads": (False, True, ()),
    "augmentation": (False, True, ()),
    "prepare_cohort": (False, True, ()),
}
TRAININGS = (
    ("train_real.py", "hippocampus", "--budget", "20m", "--mirror"),
    ("train_nnunet.py", "hippocampus", "--budget", "20m", "--mirror"),
    ("train_nnunet.py", "hippocampus", "--budget", "20m", "--mirror", "--tuned"),
)


def peers(folder: Path) -> Path:
    """The environment of the peers, made if it is not there; torch has the version of ours."""
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
        torch = next(
            line
            for line in (HERE.parent / "requirements-torch.txt").read_text().splitlines()
            if line.startswith("torch")
        )
        held = folder / "constraints.txt"
        held.write_text(torch + "\n")
        for name in (torch, "SimpleITK", *PEERS):
            line = [python, "-m", "pip", "install", "--quiet", "-c", held, name]
            if subprocess.run([str(word) for word in line]).returncode:
                print(f"{name} could not be installed: its rows are missing", flush=True)
    return folder


def run(words: tuple[str, ...], environment: dict[str, str]) -> bool:
    """Run one script; False if it failed."""
    began = time.monotonic()
    print(f"== {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, str(HERE / words[0]), *words[1:]], env=environment)
    minutes = (time.monotonic() - began) / 60
    print(f"== {words[0]}: {minutes:.1f} min{', FAILED' * bool(done.returncode)}", flush=True)
    return done.returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", default=[], choices=[*ROWS, "trainings"])
    parser.add_argument("--peer", type=Path, help="an environment with the peers")
    a = parser.parse_args()
    peer = peers(a.peer or HERE.parent / "build" / "peers")
    results = HERE / "results" / slug(machine())
    environment = os.environ | {"BENCHMARK_RESULTS": str(results)}
    failed = []
    for name, (quick, has_peers, words) in ROWS.items():
        if name in a.only or (not a.only and (quick or not a.quick)):
            more = ("--peer", str(peer)) if has_peers else ()
            if not run((f"{name}.py", *more, *(words if a.quick else ())), environment):
                failed.append(name)
    if "trainings" in a.only or not (a.only or a.quick):
        for line in TRAININGS:
            more = ("--peer", str(peer)) if "nnunet" in line[0] else ()
            if not run((*line, *more), environment):
                failed.append(" ".join(line))
    run(("performance_page.py",), environment)
    print(json.dumps({"machine": machine(), "failed": failed}, indent=1))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
