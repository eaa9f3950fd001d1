"""Processes that have loaded the program already, so that a round of a hundred of them is short.

``Warm`` is a process that has imported every module that the commands of its first copy used.
Each command runs in a copy of it (``fork``), with its own group of processes, its own folder and
its output in a file, and ends as a process does: with an exit code, or by a signal. What happens
while Python itself starts cannot be seen here.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# A request and its answers are one line each: the command, the id of its process, its exit status.
# A copy gives the names of its modules to the file of $MODULES.
SERVER = """
import importlib, json, os, signal, sys, time, warnings

def run(folder, words, said, before):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.setsid()
    os.chdir(folder)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), number)
    sys.argv = ["delineate", *words]
    code = 1
    try:
        exec(before, {})
        import atexit
        if os.environ.get("MODULES"):
            atexit.register(lambda: open(os.environ["MODULES"], "a").write("\\n".join(sys.modules)))
        from delineate.cli import main
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1 if end.code else 0
    finally:
        os._exit(code)

for line in sys.stdin:
    asked = json.loads(line)
    if "load" in asked:
        warnings.simplefilter("ignore")
        for name in asked["load"]:
            try:
                importlib.import_module(name)
            except Exception:
                pass  # a module that cannot be imported alone
        warnings.resetwarnings()
        print("loaded", flush=True)
        continue
    os.environ.update(asked["environment"])
    process = os.fork()
    if process == 0:
        run(asked["folder"], asked["words"], asked["said"], asked["before"])
    while os.getpgid(process) != process:
        time.sleep(0.001)
    print(process, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


@dataclass
class Warm:
    """Starts commands in copies of a process, one after another.

    Args:
        threads: of OpenMP.
        before: Python code that each copy runs first.
    """

    threads: int = 1
    before: str = ""

    def __post_init__(self) -> None:
        # Compiled modules are kept, or every process compiles them again.
        own = {"OMP_NUM_THREADS": str(self.threads), "PYTHONDONTWRITEBYTECODE": ""}
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            env={**os.environ, **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def start(
        self,
        words: Sequence[str],
        folder: Path,
        said: Path,
        environment: Mapping[str, str] | None = None,
        modules: Path | None = None,
    ) -> Command:
        """Start ``delineate WORDS`` in a folder; its output is added to the file ``said``, and the
        names of its modules to ``modules``.
        """
        names = {"MODULES": "" if modules is None else str(modules)}
        asked = {
            "words": list(map(str, words)),
            "folder": str(folder.absolute()),
            "said": str(said.absolute()),
            "before": self.before,
            "environment": {**(environment or {}), **names},
        }
        self._ask(asked)
        return Command(int(self.line() or 0), self)

    def load(self, modules: Path) -> None:
        """Import the modules that copies have named in a file, for all later copies."""
        self._ask({"load": list(dict.fromkeys(modules.read_text().split()))})
        self.line()

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def _ask(self, asked: dict[str, object]) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(asked).encode() + b"\n")
        self._server.stdin.flush()

    def line(self, timeout_s: float | None = None) -> str | None:
        """The next answer; None if there is none within ``timeout_s``."""
        assert self._server.stdout is not None
        if not select.select([self._server.stdout], [], [], timeout_s)[0]:
            return None
        # Unbuffered: what ``select`` sees is all that there is.
        found = b""
        while not found.endswith(b"\n"):
            if not (byte := os.read(self._server.stdout.fileno(), 1)):
                raise RuntimeError("the process that starts commands has ended")
            found += byte
        return found.decode().strip()


@dataclass
class Command:
    """A command that was started by a ``Warm``: what ``subprocess.Popen`` offers of it."""

    pid: int
    warm: Warm
    returncode: int | None = None

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit code, -n for a signal n.

        Raises:
            subprocess.TimeoutExpired: it still runs after ``timeout_s``.
        """
        if (code := self._ended(timeout_s)) is None:
            raise subprocess.TimeoutExpired("delineate", timeout_s or 0)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(9)

    def _ended(self, timeout_s: float | None) -> int | None:
        if self.returncode is None and (line := self.warm.line(timeout_s)) is not None:
            self.returncode = int(line)
        return self.returncode
