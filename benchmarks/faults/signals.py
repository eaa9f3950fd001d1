"""Signals at random moments of every stage of real commands.

    python benchmarks/faults/signals.py [--count 100] [--seed 0] [--minutes 60]

Each round copies a small cohort, starts ``delineate`` in a process of its own (a copy of one that
has loaded the modules; a new one for the stage ``start``), waits until a stage has begun, and sends
SIGTERM, SIGINT, SIGHUP or SIGUSR1 at a random moment of it, once for 1 thread and once for 2 in
turn. Then the same command is given again. It is checked that

    - the process leaves within 10 s (on a machine with more work than cores, as much longer), with
      128 + n, or is done before;
    - a training saves every step that it has begun except the one at work, and ``predict`` makes no
      finished mask again;
    - the command, given again, ends with the result of one that was not disturbed, bit for bit, and
      leaves no temporary files.

``start`` is the time before the command does anything: Python itself may end it then.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[1]))

import small
from power_cuts import result
from warm import Command, Warm

from delineate.core.atomic import TEMPORARY
from delineate.core.bundle import load_tensors, load_weights
from delineate.core.inputs import read_json_lines
from delineate.core.plan import Schedule
from measure import keep

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
LEAVES_IN_S, LONGEST_S = 10.0, 600.0
EPOCHS, STEPS = 3, 4
# Of each step of a training that begins, a byte is written to the file of $STEPS.
COUNTING = """
import os

if os.environ.get("STEPS"):
    from delineate.training import loop

    begin = loop._Networks.step

    def step(*given):
        with open(os.environ["STEPS"], "ab") as file:
            file.write(b".")
        return begin(*given)

    loop._Networks.step = step
"""
CHILD = f"{COUNTING}\nfrom delineate.cli import main\nmain()"
COMMANDS: dict[str, list[str]] = {
    "train": [
        *("train", "cohort", "-o", "m.model", "--plan", "plan.json", "--split", "split.json"),
        *("--epochs", str(EPOCHS), "--device", "cpu", "--deterministic"),
    ],
    "predict": ["predict", "m.model", "scans", "-o", "masks", "--device", "cpu"],
    "evaluate": ["evaluate", "masks", "cohort/labels", "-o", "scores", "--no-report"],
    "view": ["view", "cohort/images/c0.nii.gz", "--no-browser"],
}
# Stage -> its command, and the file whose appearance begins it ("" at once).
STAGES = {
    "start": ("train", ""),
    "prepare": ("train", "m.model.run/store"),
    "train": ("train", "steps"),
    "validate": ("train", "m.model.run/fold_0/log.jsonl"),
    "score": ("train", "m.model.run/test/manifest.jsonl"),
    "predict": ("predict", "masks/running.json"),
    "predict, later": ("predict", "masks/predictions.jsonl"),
    "evaluate": ("evaluate", ""),
    "view": ("view", "said"),
}


@dataclass
class Process:
    """A command in a folder, while it runs: in a copy of ``warm`` if given, else in a new one."""

    command: str
    folder: Path
    threads: int
    warm: Warm | None = None
    modules: Path | None = None

    def __post_init__(self) -> None:
        own = {"STEPS": str(self.folder / "steps") if self.command == "train" else ""}
        said, words = self.folder / "said", COMMANDS[self.command]
        said.write_bytes(b"")
        self._process: Command | subprocess.Popen[bytes]
        if self.warm is not None:
            self._process = self.warm.start(words, self.folder, said, own, self.modules)
            return
        own |= {"OMP_NUM_THREADS": str(self.threads), "PYTHONDONTWRITEBYTECODE": ""}
        with said.open("ab") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CHILD, *words],
                cwd=self.folder,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **own},
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def wait_for(self, name: str) -> None:
        """Until the file has something in it, or the process has ended."""
        path = self.folder / name
        while self._process.poll() is None and not (path.exists() and path.stat().st_size):
            time.sleep(0.002)

    def send(self, number: int) -> None:
        """As a terminal, which sends SIGINT to the whole group; others go to the process alone."""
        if self._process.poll() is None:
            (os.killpg if number == signal.SIGINT else os.kill)(self._process.pid, number)

    def code(self, timeout_s: float = LONGEST_S) -> int | None:
        """The exit code as a shell reports it; None if the process had to be killed."""
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None
        return 128 - code if code < 0 else code


def made(command: str, folder: Path) -> object:
    """What a command made, without times."""
    if command == "view":
        return None
    if command != "train":
        return result(command, folder)
    run = folder / "m.model.run"
    last = load_weights(run / "fold_0/last.safetensors", lambda text: None)
    return (
        result(command, folder),
        {name: array.tobytes() for name, array in last.items()},
        (run / "test/scores.csv").read_bytes(),
        {p.name: p.read_bytes() for p in (run / "test/predictions").glob("*.nii.gz")},
    )


@dataclass
class Kit:
    """Undisturbed commands, for each number of threads: their folders before and results, and how
    long each stage took.
    """

    place: Path
    before: dict[tuple[str, int], Path] = field(default_factory=dict)
    wanted: dict[tuple[str, int], object] = field(default_factory=dict)
    codes: dict[str, int] = field(default_factory=dict)
    warm: dict[int, Warm] = field(default_factory=dict)
    lengths_s: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for threads in (1, 2):
            folder = self.place / f"clean_{threads}"
            small.write_inputs(folder)
            schedule = Schedule(epochs=EPOCHS, steps_per_epoch=STEPS)
            (folder / "plan.json").write_text(small.plan().replace(schedule=schedule).to_json())
            self.warm[threads] = self._loaded(folder, threads)
            for command in COMMANDS:
                self.before[command, threads] = self.place / f"before_{command}_{threads}"
                shutil.copytree(folder, self.before[command, threads])
                self._run(command, folder, self.warm[threads])
                self.wanted[command, threads] = made(command, folder)

    def _loaded(self, clean: Path, threads: int) -> Warm:
        """A process with the modules that all commands use."""
        folder, modules = self.place / f"first_{threads}", self.place / f"modules_{threads}"
        shutil.copytree(clean, folder)
        warm = Warm(threads, COUNTING)
        for command in COMMANDS:
            self._run(command, folder, warm, modules)
        warm.load(modules)
        return warm

    def _run(self, command: str, folder: Path, warm: Warm, modules: Path | None = None) -> None:
        process, seen = Process(command, folder, warm.threads, warm, modules), {}
        for stage, (own, name) in STAGES.items():
            if own == command:
                process.wait_for(name) if name else None
                seen[stage] = time.monotonic()
        if command == "view":
            process.send(signal.SIGINT)
        self.codes[command] = process.code() or 0
        # A stage ends where the next one begins.
        ends = [*list(seen.values())[1:], time.monotonic()]
        for (stage, began), end in zip(seen.items(), ends, strict=True):
            self.lengths_s[stage] = end - began


def steps_saved(folder: Path) -> int:
    path = folder / "m.model.run/fold_0/last.safetensors"
    if not path.is_file():
        return 0
    return int(json.loads(load_tensors(path, lambda text: None)[1]["state"])["step"])


def finished_masks(folder: Path) -> Mapping[str, int]:
    """Name -> time of writing, of the masks in the journal."""
    path = folder / "masks/predictions.jsonl"
    lines = read_json_lines(path) if path.is_file() else []
    names = [name for line in lines for name in line["files"]]
    return {name: (folder / "masks" / name).stat().st_mtime_ns for name in names}


def load() -> float:
    """How many processes share a core of this machine now, at least 1."""
    return max(1.0, os.getloadavg()[0] / len(os.sched_getaffinity(0)))


def traceback_in(folder: Path) -> Iterable[str]:
    """The end of a traceback that the last process printed."""
    said = (folder / "said").read_text()
    if "Traceback" in said:
        yield f"traceback: {said[-200:]}"


def disturbed(
    kit: Kit,
    stage: str,
    number: int,
    threads: int,
    rng: random.Random,
    note: Callable[[float], None],
) -> Iterable[str]:
    """What is wrong after a signal at a random moment of a stage."""
    command, name = STAGES[stage]
    folder = kit.place / "disturbed"
    shutil.copytree(kit.before[command, threads], folder)
    warm = kit.warm[threads]
    process = Process(command, folder, threads, None if stage == "start" else warm)
    if name:
        process.wait_for(name)
    time.sleep(rng.random() * kit.lengths_s[stage])
    process.send(number)
    sent, allowed_s = time.monotonic(), LEAVES_IN_S * load()
    code = process.code(allowed_s)
    note(time.monotonic() - sent)
    usual = 0 if (command, number) == ("view", signal.SIGINT) else 128 + number
    if code is None:
        yield f"did not leave within {allowed_s:.0f} s"
    elif code not in (usual, kit.codes[command]) and (stage, code) != ("start", 128 + number):
        yield f"exit code {code}"
    if command == "train":
        begun = len((folder / "steps").read_bytes()) if (folder / "steps").exists() else 0
        if steps_saved(folder) < begun - 1:
            yield f"lost {begun - steps_saved(folder)} steps"
    if stage != "start":
        yield from traceback_in(folder)
    kept = finished_masks(folder) if command == "predict" else {}
    if command != "view":
        code = Process(command, folder, threads, warm).code(LONGEST_S * load())
        if code != kit.codes[command]:
            yield f"given again, exit code {code}"
        elif made(command, folder) != kit.wanted[command, threads]:
            yield "given again, another result"
        if any(finished_masks(folder)[name] != when for name, when in kept.items()):
            yield "a finished mask was made again"
        yield from traceback_in(folder)
    left = [p.name for p in folder.rglob("*") if TEMPORARY.fullmatch(p.name)]
    if left and command != "view":
        yield f"left {left[0]}"
    shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no round begins later")
    a = parser.parse_args()
    # `nohup` ignores SIGHUP, a shell lets its background jobs ignore SIGINT, and commands would
    # ignore them too.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    rng, place = random.Random(a.seed), Path(tempfile.mkdtemp())
    kit, rounds, faults = Kit(place), Counter[str](), Counter[str]()
    left_s: list[float] = []
    began = time.monotonic()
    for n in range(a.count):
        if time.monotonic() - began > 60 * a.minutes:
            break
        stage, threads = list(STAGES)[n % len(STAGES)], 1 + n // len(STAGES) % 2
        number, before = rng.choice(SIGNALS), len(left_s)
        found = list(disturbed(kit, stage, number, threads, rng, left_s.append))
        rounds[f"{stage}, {threads} thread{'s' * (threads > 1)}"] += 1
        faults.update(f"{stage}: {fault}" for fault in found)
        name = signal.Signals(number).name
        print(n, stage, name, threads, *left_s[before:], found or "", flush=True)
    for warm in kit.warm.values():
        warm.close()
    shutil.rmtree(place)
    keep(
        "signals",
        {
            "signals": len(left_s),
            "rounds": dict(rounds),
            "left_after_s": {"median": median(left_s), "longest": max(left_s)},
            "processes_per_core": load(),
            "faults": dict(faults),
        },
    )
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
