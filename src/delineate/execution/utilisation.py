"""How much of its time a network computes, and for how long it waits for scans and for results.

A worker has a ``Meter``: from the moment when its networks are loaded, each of its seconds belongs
to one of three kinds. They are in the seconds of each scan (``core.prediction``), so that those of
any number of scans and workers can be summed. What computes is not known here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

COMPUTED = ("infer_and_restore", "samples")  # names among the seconds of a scan
FOR_SCAN, FOR_RESULTS = "waited_for_scan", "waited_for_results"


class Meter:
    """The time of a worker between its scans; ``begin`` and ``end`` stand around the networks.

    >>> meter = Meter()
    >>> meter.begin(scan_s=0.0)[FOR_SCAN]
    0.0
    """

    def __init__(self) -> None:
        self._free_since = time.perf_counter()

    def begin(self, scan_s: float | None = None) -> dict[str, float]:
        """Seconds since the last end, as those of a scan that begins now: how long the networks
        waited for it, and for the results of the scan before.

        Args:
            scan_s: that passed until the scan was there, at most; None is all of them.
        """
        free_s = time.perf_counter() - self._free_since
        for_scan = free_s if scan_s is None else min(scan_s, free_s)
        return {FOR_SCAN: for_scan, FOR_RESULTS: free_s - for_scan}

    def end(self) -> None:
        """The networks have done a scan."""
        self._free_since = time.perf_counter()


@dataclass(frozen=True)
class Utilisation:
    """Shares of the time of all workers together, from 0 to 1; their sum is 1."""

    computing: float
    waiting_for_scans: float
    waiting_for_results: float

    @classmethod
    def of(cls, entries: Iterable[Mapping[str, Any]]) -> Utilisation | None:
        """Of entries of ``predictions.json``; None if no waiting was measured.

        >>> Utilisation.of([{"seconds": {"infer_and_restore": 6, FOR_SCAN: 3, FOR_RESULTS: 1}}])
        Utilisation(computing=0.6, waiting_for_scans=0.3, waiting_for_results=0.1)
        """
        seconds = [one.get("seconds", {}) for one in entries]
        measured = [one for one in seconds if FOR_SCAN in one]
        sums = [
            sum(one.get(name, 0.0) for one in measured for name in names)
            for names in (COMPUTED, (FOR_SCAN,), (FOR_RESULTS,))
        ]
        whole = sum(sums)
        return cls(*(one / whole for one in sums)) if whole > 0 else None

    def sentence(self) -> str:
        """For a terminal.

        >>> Utilisation(0.62, 0.3, 0.08).sentence()
        'the networks computed for 62 % of their time, waited for scans 30 %, for results 8 %'
        """
        return (
            f"the networks computed for {self.computing:.0%} of their time, waited for scans "
            f"{self.waiting_for_scans:.0%}, for results {self.waiting_for_results:.0%}"
        ).replace("%", " %")
