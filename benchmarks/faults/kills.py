"""kill -9 at random moments of a batch: what is finished stays, and is not done again.

    python -m benchmarks.faults.kills FOLDER [--cases 300] [--kills 100] [--minutes 60]

segments a folder of small scans in a process that is killed at random moments and started again,
and then without a kill. It is checked that

    - each finished mask is in the journal with its SHA-256 at every moment, except the one at work;
    - no case has two lines in the journal, so none was done twice but those at work;
    - the masks of the last call are those of a call that was not killed, bit for bit, and only they
      and the records are left.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from delineate.core.atomic import TEMPORARY
from delineate.core.inputs import read_json_lines
from measure import keep

from .batch import hashes, make, small_model

RECORDS = {"predictions.json", "predictions.jsonl"}


def start(folder: Path, out: Path) -> subprocess.Popen[bytes]:
    command = ["predict", folder / "m.model", folder / "scans", "-o", out, "--device", "cpu"]
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "delineate.cli", *map(str, command)], stdout=said, stderr=said
        )


def journal(out: Path) -> list[dict[str, dict[str, str]]]:
    path = out / "predictions.jsonl"
    return read_json_lines(path) if path.is_file() else []


def size(out: Path) -> int:
    path = out / "predictions.jsonl"
    return path.stat().st_size if path.is_file() else 0


def killed(folder: Path, out: Path, longest_s: float, rng: random.Random) -> bool:
    """Kill a call at a random moment after its first case; whether it still ran."""
    process, before = start(folder, out), size(out)
    while process.poll() is None and size(out) == before:
        time.sleep(0.01)
    time.sleep(rng.random() * longest_s)
    ran = process.poll() is None
    process.kill()
    process.wait()
    return ran


def wrong(out: Path) -> Iterable[str]:
    """What is wrong with the results of a call that was killed."""
    lines, masks = journal(out), hashes(out)
    known = {name: digest for line in lines for name, digest in line["files"].items()}
    if lost := [name for name, digest in known.items() if masks.get(name) != digest]:
        yield f"a mask of the journal is missing or another: {lost[0]}"
    if len(masks.keys() - known.keys()) > 1:
        yield "several masks are not in the journal"
    if twice := [case for case, n in Counter(str(x["case"]) for x in lines).items() if n > 1]:
        yield f"done twice: {twice[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no kill comes later")
    a = parser.parse_args()
    folder, out, rng = a.folder, a.folder / "killed", random.Random(0)
    make(folder / "scans", a.cases, 0)
    small_model(folder / "m.model")
    began = time.monotonic()
    codes = [start(folder, folder / "whole").wait()]
    # The kills are spread over the work of all cases.
    longest_s = 2 * (time.monotonic() - began) / a.kills
    kills, faults = 0, Counter[str]()
    began = time.monotonic()
    while kills < a.kills and time.monotonic() - began < 60 * a.minutes:
        if not killed(folder, out, longest_s, rng):
            break
        kills += 1
        faults.update(wrong(out))
        print(kills, len(journal(out)), dict(faults), flush=True)
    finished = len(journal(out))
    codes.append(start(folder, out).wait())
    if hashes(out) != hashes(folder / "whole"):
        faults["other masks than those of a call that was not killed"] += 1
    left = {name for name in os.listdir(out) if not name.endswith(".nii.gz")} - RECORDS
    if left or any(TEMPORARY.fullmatch(path.name) for path in out.rglob("*")):
        faults[f"left: {sorted(left)}"] += 1
    shutil.rmtree(folder)
    found = {"cases": a.cases, "kills": kills, "finished before the last call": finished}
    keep("kills", {**found, "exit codes": codes, "faults": dict(faults)})
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
