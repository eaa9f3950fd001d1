"""kill -9 at random moments of a batch: what is finished stays, and is not done again.

    python -m benchmarks.faults.kills FOLDER [--cases 300] [--kills 100] [--minutes 60]

segments a folder of small scans in a process that is killed at random moments and started again,
and then without a kill. Of ten kills, three come before the call has finished its first case (while
it starts, compares what is finished, or compiles), seven after; a batch that is done before all
kills begins again in another folder. The processes are copies of one that has loaded the modules,
so that a call costs little. It is checked that

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
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from delineate.core.atomic import TEMPORARY
from delineate.core.inputs import read_json_lines
from measure import keep

from .batch import hashes, make, small_model
from .warm import Command, Warm

EARLY = 0.3  # share of the kills before the first case of a call
RECORDS = {"predictions.json", "predictions.jsonl"}


def start(warm: Warm, folder: Path, out: Path) -> Command:
    command = ["predict", folder / "m.model", folder / "scans", "-o", out, "--device", "cpu"]
    return warm.start([str(word) for word in command], folder, folder / "said.txt")


def journal(out: Path) -> list[dict[str, dict[str, str]]]:
    path = out / "predictions.jsonl"
    return read_json_lines(path) if path.is_file() else []


def size(out: Path) -> int:
    path = out / "predictions.jsonl"
    return path.stat().st_size if path.is_file() else 0


@dataclass
class Kills:
    """Kills of one batch after another.

    Args:
        first_s: the time until a call has finished its first case.
        longest_s: the longest time between its first case and a kill.
    """

    folder: Path
    warm: Warm
    rng: random.Random
    first_s: float
    longest_s: float
    done: int = 0
    early: int = 0  # before the first case of a call
    finished: list[int] = field(default_factory=list)  # cases, before the last call of each batch
    faults: Counter[str] = field(default_factory=Counter)
    codes: list[int] = field(default_factory=list)

    def batch(self, out: Path, wanted: int, end_s: float) -> None:
        """Kill the calls of one batch until it is done; ``done`` becomes ``wanted`` at most."""
        while self.done < wanted and time.monotonic() < end_s:
            if not self._killed(out):
                break
            self.done += 1
            self.faults.update(wrong(out))
            print(self.done, len(journal(out)), dict(self.faults), flush=True)
        self.finished.append(len(journal(out)))
        self.codes.append(start(self.warm, self.folder, out).wait())
        if hashes(out) != hashes(self.folder / "whole"):
            self.faults["other masks than those of a call that was not killed"] += 1
        left = {name for name in os.listdir(out) if not name.endswith(".nii.gz")} - RECORDS
        if left or any(TEMPORARY.fullmatch(path.name) for path in out.rglob("*")):
            self.faults[f"left: {sorted(left)}"] += 1

    def _killed(self, out: Path) -> bool:
        """Kill a call at a random moment; whether it still ran."""
        process, before = start(self.warm, self.folder, out), size(out)
        if self.rng.random() < EARLY:
            time.sleep(self.rng.random() * self.first_s)
        else:
            while process.poll() is None and size(out) == before:
                time.sleep(0.005)
            time.sleep(self.rng.random() * self.longest_s)
        ran = process.poll() is None
        self.early += ran and size(out) == before
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
    folder = a.folder.absolute()
    make(folder / "scans", a.cases, 0)
    small_model(folder / "m.model")
    warm = Warm()
    one = ["predict", "m.model", "scans/case_0000.nii.gz", "-o", "one", "--device", "cpu"]
    loading = warm.start(one, folder, folder / "said.txt", None, folder / "modules").wait()
    warm.load(folder / "modules")
    process, began = start(warm, folder, folder / "whole"), time.monotonic()
    while process.poll() is None and not size(folder / "whole"):
        time.sleep(0.005)
    first_s = time.monotonic() - began
    code = process.wait()
    # The kills are spread over the work of all cases.
    longest_s = 2 * (time.monotonic() - began - first_s) / a.kills
    kills = Kills(folder, warm, random.Random(0), first_s, longest_s, codes=[loading, code])
    end_s = time.monotonic() + 60 * a.minutes
    while kills.done < a.kills and time.monotonic() < end_s:
        out = folder / f"killed_{len(kills.finished)}"
        kills.batch(out, a.kills, end_s)
        shutil.rmtree(out)
    warm.close()
    shutil.rmtree(folder)
    found = {
        "cases": a.cases,
        "kills": kills.done,
        "before the first case of a call": kills.early,
        "batches": len(kills.finished),
        "finished before the last call": kills.finished,
        "exit codes": kills.codes,
        "faults": dict(kills.faults),
    }
    keep("kills", found)
    sys.exit(bool(kills.faults) or any(kills.codes))


if __name__ == "__main__":
    main()
