"""A work list of very many cases whose function does nothing: what a case costs besides its work.

    python benchmarks/many_cases.py [--cases 1000000] [--engine local] [--folder FOLDER]

The list has one line for each case, all with the same small scan. Four processes, in turn:

    half      begins and kills itself (SIGKILL) after half of the cases
    resumed   the same call again, which does the other half
    kept      the same call again, which finds everything done: lists and resumes all cases
    fresh     all cases in one call, into another folder

Each prints its seconds, those for each of its cases, its peak resident memory, and the numbers of
cases that were done, kept and failed; the parent adds the size of the journal, and checks that
each case is in it once. Each case looks at the size and time of its scan and of its result, and
has a line of the journal like that of a real scan.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from delineate.cohorts import work_list
from delineate.commands.predict.results import peak_memory_mb
from delineate.commands.predict.work_lists import state_of
from delineate.core.errors import DelineateError
from delineate.execution import many
from delineate.execution.executor import Work
from delineate.execution.ledger import NAME, Ledger, hashed
from delineate.execution.local import Outcome
from measure import keep

STRUCTURES = ("liver", "spleen", "left kidney", "right kidney", "pancreas", "aorta")
ENTRY = {
    "volumes_ml": dict.fromkeys(STRUCTURES, 123.456),
    "bundle": "f93892d516543e4f",
    "seconds": {"prepare": 1.019, "infer_and_restore": 12.071, "total": 13.09},
    "flags": [{"kind": "volume", "words": "liver: 123 ml, of training cases 900 to 2400 ml"}],
    "peak_memory_mb": 1175.5,
}


def nothing(row: Any) -> dict[str, Any]:
    """The function of a case."""
    return {"file": f"{row.name}.nii.gz", "input": row.case.path, **ENTRY}


class NoWork:
    """The job (``execution.many.Job``)."""

    def __init__(self, ledger: Ledger, work: Work, result: Path, stop_after: int):
        self._ledger, self._work = ledger, work
        self._result, self._left = result, stop_after

    def states(self, rows: Sequence[Any]) -> list[int]:
        return [hashed(json.dumps([row.name, state_of(row.case.images[0])])) for row in rows]

    def complete(self, found: Sequence[tuple[Any, int]]) -> list[bool]:
        return [self._result.stat().st_size == nbytes for _, nbytes in found]

    def refuse(self, row: Any) -> None:
        pass

    def run(self, rows: Sequence[tuple[Any, int]]) -> list[tuple[str, DelineateError | None]]:
        state = {row.name: state for row, state in rows}
        nbytes = self._result.stat().st_size

        def record(outcome: Outcome[dict[str, Any]]) -> None:
            assert outcome.value is not None, outcome.error
            files = {f"{outcome.name}.nii.gz": "0" * 64}
            self._ledger.put(outcome.name, state[outcome.name], outcome.value, files, nbytes)
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)

        self._ledger.begin(state, sent=True)
        workers = 1 if self._work.is_local else None
        done = self._work.run(
            nothing, [row for row, _ in rows], names=[*state], workers=workers, each=record
        )
        return [(outcome.name, outcome.error) for outcome in done]


def child(listed: Path, out: Path, engine: str, stop_after: int) -> None:
    """One call: prints its figures as JSON."""
    start = time.perf_counter()
    ledger = Ledger(out)
    loaded_s = time.perf_counter() - start
    work = Work.parsed(engine)
    portion = many.PORTION if work.is_local else many.LARGE_PORTION
    with ledger, work.engine.connected():
        job = NoWork(ledger, work, listed, stop_after)
        tally = many.run(work_list.rows(listed, ["CT"]), job, ledger, portion=portion)
    ledger.compact()
    seconds = time.perf_counter() - start
    figures = {"seconds": seconds, "loaded_s": loaded_s, "ms_a_case": 1000 * seconds / tally.count}
    figures |= {"done": tally.done, "kept": tally.kept, "failed": tally.failed}
    print(json.dumps(figures | {"peak_memory_mb": peak_memory_mb()}))


def call(listed: Path, out: Path, engine: str, stop_after: int = 0) -> dict[str, Any]:
    out.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--child", str(listed), str(out), engine, str(stop_after)]
    start = time.perf_counter()
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if stop_after:
        assert found.returncode == -signal.SIGKILL, found.returncode
        return {"seconds": time.perf_counter() - start}
    assert found.returncode == 0, found.returncode
    return dict(json.loads(found.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1_000_000)
    parser.add_argument("--engine", default="local")
    parser.add_argument(
        "--folder", help="for the list and the journals; a temporary one by default"
    )
    parser.add_argument("--child", nargs=4)
    given = parser.parse_args()
    if given.child:
        child(Path(given.child[0]), Path(given.child[1]), given.child[2], int(given.child[3]))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        place = Path(folder)
        (place / "scan.nii.gz").write_bytes(b"a scan")
        with (place / "list.jsonl").open("w") as file:
            for n in range(given.cases):
                line = {"id": f"case_{n:08d}", "image": "scan.nii.gz", "year": 2000 + n % 25}
                file.write(json.dumps(line) + "\n")
        listed, half = place / "list.jsonl", given.cases // 2
        figures: dict[str, Any] = {"cases": given.cases, "engine": given.engine}
        figures["half"] = call(listed, place / "out", given.engine, half)
        figures["resumed"] = call(listed, place / "out", given.engine)
        figures["kept"] = call(listed, place / "out", given.engine)
        figures["fresh"] = call(listed, place / "fresh", given.engine)
        figures["journal_mb"] = (place / "out" / NAME).stat().st_size / 1e6
        names = [json.loads(line)["case"] for line in (place / "out" / NAME).open()]
        assert len(names) == len(set(names)) == given.cases, "a case is missing or twice there"
        assert figures["kept"]["kept"] == given.cases
        print(json.dumps(figures, indent=1))
        keep("many_cases", figures)


if __name__ == "__main__":
    main()
