"""Power cuts at every moment of a training, a prediction, an evaluation and a report.

    python benchmarks/faults/power_cuts.py [--whole 20] [--rounds 6] [--commands train predict]

``recording.py`` records each command once and rebuilds every state that a power cut could leave.
In each state it is checked that

    - no file under a final name is partial (the last line of a log may be);
    - nothing is lost that the program had reported as saved;
    - every kept file is read: the cases of the store, checkpoints, model, plan, journal, records.

In every ``--whole``-th state the same command is then given again: it must end without failures,
leave no temporary files, and give the same result as without the cut. The commands run in this
process; with ``--cli`` those that are given again run through the command line.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import traceback
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import small
from bit_flips import KINDS
from recording import FOLDER, Recording, Tree, states, write

from delineate.commands.predict.crashes import NOTE
from delineate.core.atomic import TEMPORARY
from delineate.core.bundle import load_weights
from delineate.core.errors import DelineateError
from delineate.execution.claims import CLAIM
from measure import keep

RESULTS = ("m.model", "m.model.run", "m.model.graphs", "masks", "scores")


@dataclass
class Tally:
    """What was found for one command."""

    states: int = 0
    repeated: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, fault: str) -> None:
        self.faults[fault] += 1


@dataclass(frozen=True)
class Promise:
    """What a recorded command wrote and reported until each moment."""

    whole: dict[str, set[bytes]]  # path -> each complete content
    recording: Recording

    @classmethod
    def of(cls, recording: Recording) -> Promise:
        whole: dict[str, set[bytes]] = defaultdict(set)
        for path, file in recording.start.items():
            if file != FOLDER:
                whole[path].add(recording.start_data[file])
        for op in recording.operations:
            if op.what == "saved":
                whole[op.path].add(op.data)
        return cls(whole, recording)

    def broken(self, moment: int, tree: Tree) -> Iterable[str]:
        """What is partial, and what is lost although it was saved."""
        for path, content in tree.items():
            if content is None or _is_free(path):
                continue
            # A file that was replaced is kept under another name.
            known = self.whole.get(path, set()) | self.whole.get(
                path.replace("_before.", "."), set()
            )
            if content not in known and not _is_appended(path):
                yield f"partial: {path}"
        # Of several saves the last counts, unless the file was removed or replaced since.
        saved: dict[str, bytes] = {}
        for op in self.recording.operations[:moment]:
            if op.what == "saved":
                saved[op.path] = op.data
            elif op.what in ("unlink", "rmdir", "rename", "create", "data"):
                for path in [p for p in saved if _touches(op.path, op.to, p)]:
                    del saved[path]
        for path, content in saved.items():
            left = tree.get(path) or b""
            if not (left.startswith(content) if _is_appended(path) else left == content):
                yield f"lost: {path}"


def _touches(path: str, to: str, saved: str) -> bool:
    """Whether an operation on ``path`` changes the saved file."""
    return any(one and (saved == one or saved.startswith(one + "/")) for one in (path, to))


def _is_appended(path: str) -> bool:
    """Whether lines are added to the file, of which the last one may be cut off."""
    return Path(path).name in ("log.jsonl", "predictions.jsonl", ".begun.jsonl")


def _is_free(path: str) -> bool:
    """Temporary names, claims, which nobody reads after a power cut, and notes, which may be torn:
    they help after a crash of the process alone.
    """
    parts = Path(path).parts
    return path.endswith(".tmp") or any(
        TEMPORARY.fullmatch(part) or part in (CLAIM, NOTE) for part in parts
    )


def unreadable(folder: Path) -> Iterable[str]:
    """The kept files that are there and cannot be read."""
    for kind in KINDS:
        if kind.name in ("journal", "mask", "log"):  # the commands read them again in any state
            continue
        for path in folder.glob(kind.path):
            said: list[str] = []
            try:
                kind.read(path, said)
            except Exception as error:
                yield f"unreadable {kind.name}: {error}"
            if said:
                yield f"damaged {kind.name}: {said[0]}"


def result(command: str, folder: Path) -> object:
    """What a command made, without times."""
    if command == "train":
        best = load_weights(folder / "m.model.run/fold_0/best.safetensors", lambda text: None)
        weights = {name: array.tobytes() for name, array in best.items()}
        return weights, (folder / "m.model.run/report.html").is_file()
    if command == "predict":
        return {p.name: p.read_bytes() for p in (folder / "masks").glob("*.nii.gz")}
    if command == "evaluate":
        return (folder / "scores/scores.csv").read_bytes()
    return (folder / "m.model.run/report.html").is_file()


def again(command: str, folder: Path, wanted: object, by_cli: bool = False) -> Iterable[str]:
    """Give the command again; what is wrong with its end."""
    try:
        if by_cli:
            failures = small.by_command_line(command, folder)
        else:
            failures = small.COMMANDS[command](folder, lambda text: None)
    except DelineateError as error:
        yield f"refused: {error}"
        return
    except Exception:
        yield f"traceback: {traceback.format_exc().splitlines()[-1]}"
        return
    if failures:
        yield "ended with failures"
    if result(command, folder) != wanted:
        yield "another result"
    for path in folder.rglob("*"):
        if TEMPORARY.fullmatch(path.name):
            yield f"left: {path.name.split('.tmp.')[-1]} in {path.parent.name}"


def judge(
    folder: Path,
    command: str,
    whole: int,
    rounds: int = 1,
    sample: float = 1.0,
    by_cli: bool = False,
) -> Tally:
    """Record ``command`` in ``folder``, and check the states that power cuts leave.

    Args:
        whole: the command is given again in every ``whole``-th state.
        rounds: see ``recording.states``.
        sample: share of the states that are checked.
        by_cli: whether it is given again through the command line.
    """
    with Recording(folder) as recording:
        small.COMMANDS[command](folder, lambda text: None)
    wanted, promise = result(command, folder), Promise.of(recording)
    found, rng = Tally(), random.Random(command)
    for moment, tree in states(recording, rng, rounds):
        if rng.random() > sample:
            continue
        found.states += 1
        for fault in promise.broken(moment, tree):
            found.add(fault)
        write(_of_dead_process(tree), folder)
        for fault in unreadable(folder):
            found.add(fault)
        if found.states % whole == 0:
            found.repeated += 1
            for fault in again(command, folder, wanted, by_cli):
                found.add(fault)
    # The next command begins where this one ended.
    write(_end(recording), folder)
    return found


def _of_dead_process(tree: Tree) -> Tree:
    """The same files with claims of a process that has ended, as after a power cut."""
    own = f'"pid": {os.getpid()}'.encode()
    return {
        path: content.replace(own, b'"pid": 0') if content and own in content else content
        for path, content in tree.items()
    }


def _end(recording: Recording) -> Tree:
    data = dict(recording.start_data)
    for op in recording.operations:
        if op.what == "data":
            data[op.file] = op.data
    return {p: None if f == FOLDER else data[f] for p, f in recording.files.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whole", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--cli", action="store_true", help="give them again as a user does")
    parser.add_argument("--commands", nargs="+", default=list(small.COMMANDS))
    a = parser.parse_args()
    folder, found = Path(tempfile.mkdtemp()), {}
    small.write_inputs(folder)
    for command in small.COMMANDS:
        if command not in a.commands:
            small.COMMANDS[command](folder, lambda text: None)
            continue
        tally = judge(folder, command, a.whole, a.rounds, by_cli=a.cli)
        found[command] = {
            "states": tally.states,
            "repeated": tally.repeated,
            "faults": dict(tally.faults),
        }
        print(command, found[command], flush=True)
    shutil.rmtree(folder)
    keep("power_cuts", {"commands": found, "states": sum(f["states"] for f in found.values())})
    sys.exit(any(f["faults"] for f in found.values()))


if __name__ == "__main__":
    main()
