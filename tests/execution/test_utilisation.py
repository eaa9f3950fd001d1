"""Utilisation: shares of the time of workers, from what they measure between scans."""

from __future__ import annotations

import time

import pytest

from delineate.execution.utilisation import FOR_RESULTS, FOR_SCAN, Meter, Utilisation


def test_time_between_scans_is_waiting_for_scans_and_for_results():
    meter = Meter()
    time.sleep(0.02)
    first = meter.begin()
    assert first[FOR_SCAN] >= 0.02 and first[FOR_RESULTS] == 0.0
    time.sleep(0.05)  # the networks compute
    meter.end()
    time.sleep(0.02)
    second = meter.begin(scan_s=0.015)
    assert second[FOR_SCAN] == 0.015 and second[FOR_RESULTS] >= 0.005
    # A scan that came earlier than the networks were free.
    meter.end()
    assert meter.begin(scan_s=60.0)[FOR_RESULTS] == 0.0


def test_shares_are_those_of_all_measured_scans():
    assert Utilisation.of([]) is None
    assert Utilisation.of([{"error": "damaged"}, {"seconds": {"infer_and_restore": 9.0}}]) is None
    busy = {"prepare": 50.0, "infer_and_restore": 5.0, "samples": 3.0, FOR_SCAN: 0.0}
    idle = {"infer_and_restore": 4.0, FOR_SCAN: 6.0, FOR_RESULTS: 2.0}
    found = Utilisation.of([{"seconds": busy}, {"seconds": idle}, {}])
    assert vars(found) == pytest.approx(
        {"computing": 0.6, "waiting_for_scans": 0.3, "waiting_for_results": 0.1}
    )
