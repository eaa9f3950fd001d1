"""Single-bit flips and truncations of every kind of file that is kept: each must be refused, or
repaired and reported, or change nothing.

    python benchmarks/faults/bit_flips.py [--each 100]

A small training, prediction and evaluation are made. Then a copy of each file is damaged, and read
by the function with which commands read it. An outcome is

    refused    one sentence that names the file
    repaired   the same content as before, with a sentence about the damage
    same       the same content: the bit has no meaning, such as the date in a zip file
    again      the result is known to be damaged, and is made again
    silent     other content without a word; a traceback counts as its own kind

Results for people (pages, pictures, tables in CSV) are not read again and are not among the kinds.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import small

from delineate.commands.options import PredictOptions
from delineate.commands.predict.journal import Journal
from delineate.core import bundle
from delineate.core.bundle import Bundle
from delineate.core.errors import DelineateError
from delineate.core.inputs import read_json
from delineate.core.manifest import Case, Manifest, Source
from delineate.core.outputs import own_files
from delineate.core.plan import Plan
from delineate.core.store import Store
from delineate.inference import graph_cache
from delineate.reporting.reported_run import ReportedRun
from measure import keep

AGAIN = "made again"
Read = Callable[[Path, list[str]], Any]  # the content of the damaged file, and sentences about it


@dataclass(frozen=True)
class Kind:
    """A kind of file: where it lies in the folder of ``small``, and how it is read."""

    name: str
    path: str
    read: Read


def stored(path: Path, said: list[str]) -> Any:
    store = Store(path.parents[1])
    case = store.open(path.parent.name)
    return (
        case.image[:].tobytes(),
        case.label[:].tobytes(),
        {n: points.tobytes() for n, points in case.points.items()},
        case.spacing_mm,
        case.step,
        store.notes(path.parent.name),
    )


def tensors(path: Path, said: list[str]) -> Any:
    found = dict(bundle.load_weights(path, said.append))
    metadata = bundle.load_tensors(path, said.append)[1]
    return {k: v.tobytes() for k, v in found.items()}, metadata.get("state")


def model(path: Path, said: list[str]) -> Any:
    found = Bundle.load(path)
    return found.id, found.card


def graph(path: Path, said: list[str]) -> Any:
    found = graph_cache.read(path)
    return AGAIN if found is None else found


def report(path: Path, said: list[str]) -> Any:
    found = ReportedRun.load(path.parents[1])
    said += found.damage
    return found.logs


def journal(path: Path, said: list[str]) -> Any:
    """Entries, without those that will be made again."""
    folder = path.parent
    bundle_id = read_json(folder / "predictions.json")["bundle"]
    kept = Journal(folder, bundle_id, PredictOptions(device="cpu"))
    scans = sorted((folder.parent / "scans").iterdir())
    cases = [Case(p.name[:-7], p.name, (Source(str(p)),)) for p in scans]
    found = {case.id: kept.finished(case) for case in cases}
    return AGAIN if None in found.values() else found


KINDS = (
    Kind("prepared image", "m.model.run/store/c0/image.b2nd", stored),
    Kind("prepared label", "m.model.run/store/c0/label.b2nd", stored),
    Kind("prepared case", "m.model.run/store/c0/case.npz", stored),
    Kind("checkpoint", "m.model.run/fold_0/last.safetensors", tensors),
    Kind("best weights", "m.model.run/fold_0/best.safetensors", tensors),
    Kind("model", "m.model", model),
    Kind("compiled graph", "m.model.graphs/*.graph", graph),
    Kind("plan of a run", "m.model.run/plan.json", lambda path, said: Plan.load(path)),
    Kind("cases of a run", "m.model.run/manifest.jsonl", lambda path, said: Manifest.load(path)),
    Kind("log", "m.model.run/fold_0/log.jsonl", report),
    Kind("request", "m.model.run/request.json", lambda path, said: read_json(path)),
    Kind("clock", "m.model.run/clock.json", lambda path, said: read_json(path)),
    Kind("card", "m.model.run/card.json", lambda path, said: read_json(path)),
    Kind("findings", "m.model.run/findings.json", lambda path, said: read_json(path)),
    Kind("baseline", "m.model.run/baseline.json", lambda path, said: read_json(path)),
    Kind("journal", "masks/predictions.jsonl", journal),
    Kind("mask", "masks/c0.nii.gz", journal),
    Kind("predictions", "masks/predictions.json", lambda path, said: read_json(path)),
    Kind("scores", "scores/scores.json", lambda path, said: read_json(path)),
    Kind("outputs", "scores/.delineate.json", lambda path, said: own_files(path.parent)),
)


def damaged(data: bytes, each: int, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    """``each`` single-bit flips and ``each`` truncations."""
    for _ in range(each):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        yield "flip", bytes(flipped)
        yield "cut", data[: rng.randrange(len(data))]


def outcome(kind: Kind, path: Path, clean: Any) -> str:
    said: list[str] = []
    try:
        found = kind.read(path, said)
    except DelineateError as error:
        named = path.name in str(error) or path.parent.name in str(error)
        return "refused" if named else "nameless"
    except Exception as error:
        return f"traceback {type(error).__name__}"
    if found == AGAIN:
        return "again"
    if said:
        return "repaired"
    return "same" if found == clean else "silent"


def judge(folder: Path, each: int, seed: int = 0) -> dict[str, Counter[str]]:
    """Kind -> outcome -> number; ``folder`` is that of finished commands."""
    found = {}
    for kind in KINDS:
        (path,) = folder.glob(kind.path)
        data, clean = path.read_bytes(), kind.read(path, [])
        before = bundle.before_of(path)
        kept = before.read_bytes() if before.is_file() else None
        counts: Counter[str] = Counter()
        for how, changed in damaged(data, each, random.Random(f"{seed} {kind.name}")):
            path.write_bytes(changed)
            counts[f"{how}: {outcome(kind, path, clean)}"] += 1
            if kept is not None:
                before.write_bytes(kept)
        path.write_bytes(data)
        found[kind.name] = counts
    return found


def faults(found: dict[str, Counter[str]]) -> int:
    """The number of outcomes that must not be."""
    bad = ("silent", "traceback", "nameless")
    counted = (pair for counts in found.values() for pair in counts.items())
    return sum(n for kind, n in counted if any(word in kind for word in bad))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--each", type=int, default=100)
    a = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    small.write_inputs(folder)
    for command in small.COMMANDS.values():
        command(folder, lambda text: None)
    found = judge(folder, a.each)
    shutil.rmtree(folder)
    for name, counts in found.items():
        print(f"{name:18s}", ", ".join(f"{n} {k}" for k, n in sorted(counts.items())))
    keep("bit_flips", {"each": a.each, "kinds": {k: dict(v) for k, v in found.items()}})
    sys.exit(faults(found) > 0)


if __name__ == "__main__":
    main()
