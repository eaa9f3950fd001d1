"""Every comparison of the performance page on this machine, which must do nothing else meanwhile;
then the page of this machine.

    python benchmarks/all_rows.py [--quick] [--resume] [--before COMMIT] [--only NAME ...]
        [--peer FOLDER_OF_A_VENV]

``make benchmarks`` is the quick set: less than 40 minutes on two cores. ``make benchmarks-all``
adds the long ones, with more runs. The most important comparisons come first. The peers are
installed in an environment of their own, ``build/peers``, outside the lock of the project; a peer
that cannot be installed is named, in the tables too. A comparison that fails is named, and does not
stop the others. The page is written after each; Ctrl-C ends, and with ``--resume`` those that were
finished at the same commit with the same options are not run again. With ``--before`` an earlier
commit of this project is measured too, in a worktree in ``build/``.
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

from measure import commit, machine, python_with, slug
from performance_page import ROWS

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
# What is installed -> its module, by which it is found again.
PEERS = {
    "SimpleITK": "SimpleITK",
    "nnunetv2": "nnunetv2",
    "monai": "monai",
    "torchio": "torchio",
    "surface-distance-based-measures": "surface_distance",
    "medpy": "medpy",
    "scikit-image": "skimage",
}
# More words of a comparison in the quick set; those that are not here are not in it.
QUICK: dict[str, tuple[str, ...]] = {
    "start_up": ("--rows", "1:plain", "20:plain"),
    "forward": ("--runs", "3", "--windows", "3:128", "2:512"),
    "step_time": ("--cases", "1"),
    "metric_speed": ("--runs", "3"),
    "restore_memory": ("--runs", "3", "--labels", "4", "41"),
    "preparing": ("--runs", "3"),
    "dicom_speed": ("--files", "1000"),
    "volume_files": (),
    "loss_speed": (),
    "augmentation": ("--patches", "8"),
}
NO_PEERS = {"forward", "dicom_speed", "volume_files", "predict_memory"}
KNOWS_BEFORE = {
    *("start_up", "forward", "step_time", "restore_memory", "preparing", "dicom_speed"),
    *("augmentation", "whole_ct"),
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
        for name in (torch, *PEERS):
            line = [python, "-m", "pip", "install", "--quiet", "-c", held, name]
            subprocess.run([str(word) for word in line])
    for name, module in PEERS.items():
        if python_with(module, folder) is None:
            print(f"{name} is not installed: the tables name it without figures", flush=True)
    return folder


def earlier(name: str) -> Path:
    """A worktree of a commit of this project, made if it is not there."""
    folder = BUILD / f"before-{name}"
    if not folder.is_dir():
        git = ["git", "-C", str(HERE.parent), "worktree", "add", "--detach", str(folder), name]
        subprocess.run(git, check=True)
    return folder


def run(words: tuple[str, ...], environment: dict[str, str]) -> bool:
    """Run one script; False if it failed."""
    began = time.monotonic()
    print(f"== {' '.join(words)}", flush=True)
    done = subprocess.run([sys.executable, str(HERE / words[0]), *words[1:]], env=environment)
    minutes = (time.monotonic() - began) / 60
    print(f"== {words[0]}: {minutes:.1f} min{', FAILED' * bool(done.returncode)}", flush=True)
    return done.returncode == 0


def lines_of(a: argparse.Namespace, peer: Path) -> list[tuple[str, ...]]:
    """The command lines to run, in order."""
    before = ("--before", str(earlier(a.before))) if a.before else ()
    found: list[tuple[str, ...]] = []
    for name in ROWS:
        if name in a.only or (not a.only and (name in QUICK or not a.quick)):
            words = () if name in NO_PEERS else ("--peer", str(peer))
            words += before if name in KNOWS_BEFORE else ()
            found.append((f"{name}.py", *words, *(QUICK.get(name, ()) if a.quick else ())))
    if "trainings" in a.only or not (a.only or a.quick):
        for line in TRAININGS:
            found.append((*line, *(("--peer", str(peer)) if "nnunet" in line[0] else ())))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--resume", action="store_true", help="skip those that are finished")
    parser.add_argument("--before", default="", help="a commit of this project")
    parser.add_argument("--only", nargs="+", default=[], choices=[*ROWS, "trainings"])
    parser.add_argument("--peer", type=Path, help="an environment with the peers")
    a = parser.parse_args()
    peer = peers(a.peer or BUILD / "peers")
    here = slug(machine())
    results = Path(os.environ.get("BENCHMARK_RESULTS") or HERE / "results" / here)
    environment = os.environ | {"BENCHMARK_RESULTS": str(results)}
    # What is finished, by command line and commit.
    state = BUILD / f"benchmarks-{here}.json"
    finished = json.loads(state.read_text()) if a.resume and state.is_file() else {}
    failed = []
    for line in lines_of(a, peer):
        key = " ".join(line)
        if finished.get(key) == commit():
            print(f"== {key}: finished before", flush=True)
            continue
        if run(line, environment):
            finished[key] = commit()
            state.parent.mkdir(exist_ok=True)
            state.write_text(json.dumps(finished, indent=1))
            run(("performance_page.py",), environment)
        else:
            failed.append(key)
    run(("performance_page.py",), environment)
    print(json.dumps({"machine": machine(), "failed": failed}, indent=1))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; --resume goes on from here")
