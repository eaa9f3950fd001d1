"""Measures coverage while the tests of ``measured.txt`` run, and not while others do.

    pytest --cov --cov-report= -p tests.measured

Measuring slows all Python code, also that of other packages, and the processes that tests start.
The tests of the list cover nearly what all cover, in a small part of the time. It knows nothing
about limits, which ``tools/coverage_limits.py`` has.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("measured.txt")
# Tells processes that they are measured; coverage sets it when it starts.
FOR_PROCESSES = "COVERAGE_PROCESS_CONFIG"
# Coverage replaces it by one that saves what was measured, again at every start.
EXIT = os._exit


def listed() -> dict[str, frozenset[str]]:
    """Test file -> its measured tests, without parameters; none for all. An error names those that
    do not exist.
    """
    found: dict[str, set[str]] = {}
    missing = []
    file, text = "", ""
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            test = line.strip()
            found[file].add(test)
            if f"def {test}(" not in text:
                missing.append(f"{file}::{test}")
        elif line and not line.startswith("#"):
            file = line
            found[file] = set()
            place = LIST.parents[1] / file
            text = place.read_text(encoding="utf-8") if place.is_file() else ""
            if not text:
                missing.append(file)
    if missing:
        raise pytest.UsageError(f"{LIST}: not found: {', '.join(missing)}")
    return {name: frozenset(tests) for name, tests in found.items()}


class Measuring:
    """Pauses and resumes what pytest-cov started in this process."""

    def __init__(self, config: pytest.Config) -> None:
        plugin = config.pluginmanager.getplugin("_cov")
        if plugin is None:
            raise pytest.UsageError("-p tests.measured needs --cov")
        self.plugin = plugin
        self.tests = listed()
        # What a module defines is measured when it is imported, which is while tests are collected.
        # All workers collect the same, so that only one is measured.
        worker = getattr(config, "workerinput", {}).get("workerid")
        starts_workers = worker is None and config.getoption("dist", "no") != "no"
        self.sees_imports = worker in (None, "gw0") and not starts_workers
        # Processes that run tests start their own.
        os.environ.pop(FOR_PROCESSES, None)

    def pause(self) -> None:
        self.plugin.cov_controller.pause()
        os.environ.pop(FOR_PROCESSES, None)
        os._exit = EXIT

    def is_measured(self, item: pytest.Item) -> bool:
        file, _, test = item.nodeid.partition("::")
        test = test.partition("[")[0]  # without parameters
        return file in self.tests and (not self.tests[file] or test in self.tests[file])

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        if not self.sees_imports:
            self.pause()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        controller = self.plugin.cov_controller
        measured = self.is_measured(item)
        if measured and not controller.started:
            controller.resume()
        elif controller.started and not measured:
            self.pause()
        return (yield)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Measuring(config))
