"""Measures coverage while the test files of ``measured.txt`` run, and not while others do.

    pytest --cov --cov-report= -p tests.measured

Measuring slows all Python code, also that of other packages, and the processes that tests start.
The files of the list cover nearly what all cover, in a small part of the time. It knows nothing
about limits, which ``tools/coverage_limits.py`` has.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest

LIST = Path(__file__).with_name("measured.txt")
# Tells processes that they are measured; coverage sets it when it starts.
FOR_PROCESSES = "COVERAGE_PROCESS_CONFIG"
# Coverage replaces it by one that saves what was measured, again at every start.
EXIT = os._exit


def listed() -> frozenset[str]:
    """The paths of the measured test files; an error names those that do not exist."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    names = [line for line in lines if line and not line.startswith("#")]
    missing = [name for name in names if not (LIST.parents[1] / name).is_file()]
    if missing:
        raise pytest.UsageError(f"{LIST}: no such file: {', '.join(missing)}")
    return frozenset(names)


class Measuring:
    """Pauses and resumes what pytest-cov started in this process."""

    def __init__(self, config: pytest.Config) -> None:
        plugin = config.pluginmanager.getplugin("_cov")
        if plugin is None:
            raise pytest.UsageError("-p tests.measured needs --cov")
        self.plugin = plugin
        self.root = config.rootpath
        self.files = listed()
        self.is_worker = hasattr(config, "workerinput")
        # Processes that run tests start their own.
        os.environ.pop(FOR_PROCESSES, None)

    def pause(self) -> None:
        self.plugin.cov_controller.pause()
        os.environ.pop(FOR_PROCESSES, None)
        os._exit = EXIT

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self) -> None:
        if not self.is_worker:
            # What a module defines is measured when it is imported, which is once.
            import_all("delineate")
        self.pause()

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        measured = item.path.relative_to(self.root).as_posix() in self.files
        controller = self.plugin.cov_controller
        if measured and not controller.started:
            controller.resume()
        elif controller.started and not measured:
            self.pause()
        return (yield)


def import_all(package: str) -> None:
    """Import the modules of a package, except those whose own needs are not installed."""
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                if (error.name or "").startswith(package):
                    raise


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Measuring(config))
