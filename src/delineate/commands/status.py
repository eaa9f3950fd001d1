"""Status: the progress of the predictions into a folder, from its records, at any time.

It reads the journals, ``predictions.json`` and the claims; no scan and no mask is opened. Times are
those of the machines that wrote the lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.atomic import recording, write_text
from ..core.errors import InputError
from ..core.inputs import read_json
from ..core.prediction import RECORD
from ..core.progress import Say, unsaid
from ..core.words import duration
from ..execution.claims import CLAIM, holder_of
from ..execution.ledger import Ledger
from ..execution.metrics import HOST, PATH, Gauge, page, text_of
from ..execution.shards import WHOLE, files_of_shards
from ..execution.utilisation import Utilisation
from ..formats import stores
from .options import PredictOptions
from .predict.journal import Journal, journals_of
from .predict.stored import StoredRecords

PREFIX = "delineate_predict"  # of the names of figures
LATEST = 1000  # cases, of whose seconds the utilisation is
RECENT_S = 600.0  # the rate is that of so long before the last result


@dataclass(frozen=True)
class Status:
    """The progress of the predictions into a folder.

    Args:
        done: number of cases with results.
        failed: case -> why it has none.
        left: number of cases that were to be done by calls that work or were stopped.
        working: file of a claim -> the process that holds it, for each call that works.
        per_hour: cases per hour lately, of all calls together; None if fewer than two were done.
        utilisation: of the networks for the latest cases, at most ``LATEST``, of all workers
            together; None if it was not measured.
    """

    done: int
    failed: Mapping[str, str]
    left: int
    working: Mapping[str, str]
    per_hour: float | None
    utilisation: Utilisation | None = None

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None if it is unknown or no call works."""
        if not self.per_hour or not self.working:
            return None
        return 3600 * self.left / self.per_hour

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        shares = None if self.utilisation is None else vars(self.utilisation)
        return {**vars(self), "utilisation": shares, "seconds_left": self.seconds_left}

    def gauges(self) -> list[Gauge]:
        """For a program that watches; see ``execution.metrics``."""
        states = {"done": self.done, "failed": len(self.failed), "left": self.left}
        cases = {f'state="{name}"': float(count) for name, count in states.items()}
        known = {
            "working_calls": ("Calls that work now.", len(self.working)),
            "cases_per_hour": ("The rate lately, of all calls.", self.per_hour),
            "left_seconds": ("The time left at this rate.", self.seconds_left),
        }
        shares = {} if self.utilisation is None else vars(self.utilisation)
        about = "Share of the workers' time lately: networks compute, or wait."
        return [
            Gauge(f"{PREFIX}_cases", "Cases by state.", cases),
            *([Gauge(f"{PREFIX}_time_share", about, _by_state(shares))] if shares else []),
            *(
                Gauge(f"{PREFIX}_{name}", about, {"": value})
                for name, (about, value) in known.items()
                if value is not None
            ),
        ]

    def sentences(self) -> list[str]:
        """For a terminal."""
        words = [f"{self.done} done, {len(self.failed)} failed, {self.left} left"]
        if self.per_hour is not None:
            words.append(f"{self.per_hour:.3g} cases per hour lately")
        if self.seconds_left is not None:
            words.append(f"about {duration(self.seconds_left)} left")
        working = [f"works now: {holder} ({name})" for name, holder in self.working.items()]
        nobody = [] if working or not self.left else ["no call works here now"]
        used = [] if self.utilisation is None else [self.utilisation.sentence()]
        return ["; ".join(words), *used, *working, *nobody]


def status(out: str | Path) -> Status:
    """The progress of the predictions into ``out``, a folder or the URL of one in a store.

    Raises:
        InputError: it has no records of predictions, or they cannot be read.
    """
    if stores.is_url(out):
        with StoredRecords(str(out), WHOLE) as records:
            records.fetch()
            return status(records.folder)
    folder = Path(stores.local(out))
    path = folder / RECORD
    if not path.is_file() and not journals_of(folder):
        raise InputError("has no records of predictions (predictions.json)", path=folder)
    record = read_json(path) if path.is_file() else {}
    if "cases_in" in record:
        return _of_list(folder, record.get("listed"))
    cases: dict[str, Any] = record.get("cases", {})
    journal = Journal(folder, "", PredictOptions())
    failed = {case: str(e["error"]) for case, e in cases.items() if "error" in e}
    failed = {case: why for case, why in failed.items() if case not in journal.entries}
    failed |= journal.failures
    done = (journal.entries.keys() | cases.keys()) - failed.keys()
    left = len(set(record.get("writing", ())) - done - failed.keys())
    failed = dict(sorted(failed.items()))
    used = Utilisation.of(journal.latest(LATEST))
    return Status(len(done), failed, left, _working(folder), _per_hour(journal.times), used)


def publish(out: str | Path, to: str, say: Say = unsaid) -> None:
    """Write the progress for Prometheus to the file ``to``; or, if that is the number of a port,
    answer with it at this port of 127.0.0.1 until a signal ends the process.

    Raises:
        InputError: see ``status``. OutputError: the file cannot be written, or is of somebody else.
        UsageError: the port cannot be used.
    """
    found = status(out)
    if not to.isdecimal():
        with recording(Path(to).absolute().parent, [Path(to).absolute()]):
            write_text(to, text_of(found.gauges()))
        return
    with page(int(to), lambda: status(out).gauges()) as server:
        say(f"figures for Prometheus: http://{HOST}:{server.server_port}{PATH}")
        server.serve_forever()


def _of_list(folder: Path, listed: int | None) -> Status:
    """The progress of a work list with so many lines; without their number nothing is left."""
    ledger = Ledger(folder)
    failed = ledger.failures()
    done = ledger.done - sum(ledger.result(case) is not None for case in failed)
    left = max(0, (listed or 0) - done - len(failed))
    used = Utilisation.of(ledger.latest(LATEST))
    return Status(done, failed, left, _working(folder), _per_hour(ledger.times), used)


def _by_state(shares: Mapping[str, float]) -> dict[str, float]:
    return {f'state="{name}"': share for name, share in shares.items()}


def _working(folder: Path) -> dict[str, str]:
    claims = [folder / CLAIM, *files_of_shards(folder, CLAIM)]
    return {claim.name: holder for claim in claims if (holder := holder_of(claim))}


def _per_hour(times: list[float]) -> float | None:
    latest = max(times, default=0.0)
    recent = sorted(at for at in times if at > latest - RECENT_S)
    if len(recent) < 2 or recent[0] == recent[-1]:
        return None
    return 3600 * (len(recent) - 1) / (recent[-1] - recent[0])
