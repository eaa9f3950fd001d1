"""Many cases, one after another from a source of any length: what is not done yet is done.

Cases come one by one, and at most ``PORTION`` of them are in memory; on a cluster, whose workers
begin again with each portion, ``LARGE_PORTION``. What a case is, how it is done and where its
results are, the ``Job`` knows; that each is done once, the ``Ledger``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from ..core.errors import DelineateError, InputError
from ..core.progress import Progress, silent
from .ledger import Ledger, Seen
from .shards import WHOLE, Shard

PORTION, LARGE_PORTION = 1000, 20_000  # cases that are done together
LOOKED_AT = 256  # cases whose results are looked at together
SHOWN = 100  # failures that a tally names; the ledger has all


class Job(Protocol):
    """What is done with each case. A case (``row``) has the attributes ``name``, its id, and
    ``line``, where it comes from.
    """

    def states(self, rows: Sequence[Any]) -> list[int]:
        """What the result of each case is made of, as ``ledger.hashed``."""

    def complete(self, found: Sequence[tuple[Any, int]]) -> list[bool]:
        """Whether the files of each case are there and have so many bytes together."""

    def refuse(self, row: Any) -> None:
        """Raises DelineateError: its results would replace files of others."""

    def run(self, rows: Sequence[tuple[Any, int]]) -> Iterable[tuple[str, DelineateError | None]]:
        """Do cases, each with what its result is made of, and add their lines to the ledger; gives
        the name and, if it failed, the error of each.
        """


@dataclass
class Tally:
    """How many cases were done now, were done before, and failed, with the first failures."""

    done: int = 0
    kept: int = 0
    failed: int = 0
    first: list[tuple[str, DelineateError]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.done + self.kept + self.failed

    def fail(self, name: str, error: DelineateError) -> None:
        self.failed += 1
        if len(self.first) < SHOWN:
            self.first.append((name, error))


def run(
    rows: Iterable[Any],
    job: Job,
    ledger: Ledger,
    shard: Shard = WHOLE,
    *,
    again: bool = False,
    total: int | None = None,
    portion: int = PORTION,
    progress: Progress = silent,
) -> Tally:
    """Do all cases of ``rows`` that belong to ``shard`` and are not done.

    Args:
        rows: cases, and with an attribute ``error`` lines that are none.
        job: see there.
        ledger: has been entered, so that lines can be added.
        shard: only its cases are looked at; all must be read to know them.
        again: do also those that are done.
        total: number of rows, if it is known.
        portion: cases that are done together.
        progress: receives the number of cases done, failed or kept.

    Raises:
        OutputError: the ledger cannot be written.
    """
    tally, seen = Tally(), Seen()
    share = max(1, (total or 0) // shard.of)
    mine = _usable(rows, ledger, shard, seen, tally)
    waiting: list[tuple[Any, int]] = []

    def work() -> None:
        for name, error in job.run(waiting):
            if error is None:
                tally.done += 1
            else:
                tally.fail(name, error)
        waiting.clear()

    while window := list(islice(mine, LOOKED_AT)):
        for row, state in _left(window, job, ledger, again, tally):
            waiting.append((row, state))
            if len(waiting) == portion:
                work()
        progress("cases", tally.count, max(share, tally.count), window[-1].name)
    if waiting:
        work()
    return tally


def _usable(
    rows: Iterable[Any], ledger: Ledger, shard: Shard, seen: Seen, tally: Tally
) -> Iterator[Any]:
    """The cases of the shard; lines that are none, or repeat an id, are failures."""
    for row in rows:
        if not shard.has(row.name):
            continue
        error = getattr(row, "error", None)
        name = row.name
        if error is None and seen.add(name):
            name = row.line
            error = InputError(f"the id {row.name!r} is in the list already", path=name)
        if error is None:
            yield row
            continue
        ledger.fail(name, str(error), of_list=True)
        tally.fail(name, error)


def _left(
    window: Sequence[Any], job: Job, ledger: Ledger, again: bool, tally: Tally
) -> Iterator[tuple[Any, int]]:
    """The cases that are to be done, each with what its result is made of."""
    states = job.states(window)
    known = [None if again else ledger.result(row.name) for row in window]
    same = [(n, one[1]) for n, one in enumerate(known) if one is not None and one[0] == states[n]]
    whole = job.complete([(window[n], nbytes) for n, nbytes in same])
    done = {n for (n, _), is_whole in zip(same, whole, strict=True) if is_whole}
    tally.kept += len(done)
    for n, row in enumerate(window):
        if n in done:
            continue
        try:
            job.refuse(row)
        except DelineateError as error:
            ledger.fail(row.name, str(error.of_case(row.name)))
            tally.fail(row.name, error)
        else:
            yield row, states[n]
