"""Claims: which process works on a folder, as a file in it, so that no two do the same work.

A claim names its process and is renewed every ``RENEWED_EVERY_S``. It ends with its block. One that
a killed process left counts no more: at once if the process ran on this machine, else
``STALE_AFTER_S`` after it was renewed last (``settle`` waits for one or the other). Times are those
of the disk, because the clocks of machines differ; no lock of a network drive is used.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core import atomic
from ..core.errors import DelineateError, OutputError
from ..core.inputs import read_json

CLAIM = "running.json"  # the claim in the folder of a run or of results
RENEWED_EVERY_S = 10.0
STALE_AFTER_S = 60.0
ASKED_EVERY_S = 0.05
SAME_START_S = 2.0  # start times of one process may differ by rounding
log = logging.getLogger(__name__)
# Token -> claim of this process, and the event that ends its renewal.
_OWN: dict[str, tuple[Claim, threading.Event]] = {}


@dataclass(frozen=True)
class Claim:
    """A claim of this process on the folder of ``path``."""

    path: Path
    token: str

    def is_held(self) -> bool:
        """Whether it is still ours. It is not if this process slept for so long (a suspended
        machine) that another took over, or if somebody removed the file.
        """
        return _content(self.path).get("token") == self.token

    def confirm(self) -> None:
        """Raise an error if the claim was lost, before this process writes more.

        Raises:
            OutputError: another process has taken over, or the folder is another one now.
        """
        if not self.path.is_file():
            raise OutputError(
                f"was removed or moved while this process worked in it, or its {self.path.name} "
                "was; nothing more is written here",
                path=self.path.parent,
            )
        if not self.is_held():
            raise OutputError(
                "another process has taken over this folder, because this one did not answer for "
                f"{STALE_AFTER_S:.0f} s; nothing more is written here",
                path=self.path.parent,
            )


@contextlib.contextmanager
def claimed(path: str | Path, patience_s: float = 0.0) -> Iterator[Claim]:
    """Claim the folder of ``path``, an existing one, for the block; ``path`` is the claim's file.

    Args:
        path: of the claim's file.
        patience_s: for so long another process may hold it first.

    Raises:
        OutputError: a process that is alive holds it (named in the message), or the file cannot be
            written.
    """
    until, done = time.monotonic() + patience_s, threading.Event()
    while (claim := _take(Path(path), done, is_last=time.monotonic() >= until)) is None:
        time.sleep(ASKED_EVERY_S)
    renewing = threading.Thread(target=_renew, args=(claim, done), daemon=True)
    renewing.start()
    try:
        yield claim
    finally:
        done.set()
        renewing.join()
        _release(claim.token)


def release_left() -> None:
    """Release claims whose blocks a signal has ended before they could do so; for a process that
    goes on, outside of all blocks.
    """
    for token in tuple(_OWN):
        _release(token)


def _release(token: str) -> None:
    claim, done = _OWN.pop(token, (None, None))
    if claim is None or done is None:
        return
    done.set()
    if claim.is_held():
        claim.path.unlink(missing_ok=True)


def holder_of(path: str | Path) -> str:
    """The process that holds the claim at ``path``, in words; "" if none does that is alive."""
    path = Path(path)
    if not path.is_file():
        return ""
    content = _content(path)
    words = (
        f"process {content.get('pid', 'unknown')} on {content.get('host', 'an unknown machine')}"
    )
    if not _is_of_another_machine(path):
        return words if _lives(content) else ""
    return words if _age_s(path) < STALE_AFTER_S else ""


def settle(path: str | Path) -> None:
    """Wait until it is known whether the process of another machine that holds the claim at
    ``path`` is alive: it renews the claim, or the claim is too old. So what starts in place of a
    process that was killed with its machine (a pod, a job that is queued again) is not refused.
    """
    path, seen, is_noted = Path(path), _state(path), False
    while seen is not None and _state(path) == seen and _is_of_another_machine(path):
        if not (holder := holder_of(path)):
            return
        if not is_noted:
            is_noted = True
            log.warning(
                "%s: %s works here or was killed; this shows within %.0f s",
                path.parent,
                holder,
                STALE_AFTER_S,
            )
        time.sleep(ASKED_EVERY_S * 10)


def _state(path: Path) -> tuple[str, float] | None:
    """Whose claim it is, and when it was renewed; None without one."""
    with contextlib.suppress(OSError):
        return str(_content(path).get("token", "")), path.stat().st_mtime
    return None


def _is_of_another_machine(path: Path) -> bool:
    content = _content(path)
    return _machine() != {key: content.get(key) for key in _machine()}


def _take(path: Path, done: threading.Event, is_last: bool) -> Claim | None:
    """Make the claim's file, which fails if there is one; a stale one is moved away first. None if
    another process holds it and this is not the last try.
    """
    token = secrets.token_hex(8)
    _OWN[token] = Claim(path, token), done
    content = json.dumps({"token": token, **_machine(), **_process()})
    for _ in range(3):
        try:
            _make(path, content)
            return _OWN[token][0]
        except FileExistsError:
            if holder := holder_of(path):
                break
            _remove_stale(path)
        except OSError as error:
            del _OWN[token]
            raise OutputError(atomic.reason_of(error), path=path) from error
    else:
        holder = holder_of(path) or "another process"
    del _OWN[token]
    if not is_last:
        return None
    raise OutputError(
        f"{holder} works here now; wait for its end, or stop it first", path=path.parent
    )


def _make(path: Path, content: str) -> None:
    """Make the claim's file in one step, so that it is complete after a power cut too.

    Raises:
        FileExistsError: there is one.
    """
    temporary = _beside(path)
    try:
        _write_new(temporary, content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # the disk has no hard links
            _write_new(path, content)
    finally:
        temporary.unlink(missing_ok=True)


def _write_new(path: Path, content: str) -> None:
    with open(path, "x", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _beside(path: Path) -> Path:
    """A temporary name, as ``core.atomic`` removes them."""
    return path.with_name(f".{secrets.token_hex(4)}.tmp.{path.name}")


def _remove_stale(path: Path) -> None:
    """Remove a claim without a living holder. Of two processes that do this at the same time, the
    second may move away the new claim of the first; it then puts it back.
    """
    seen = _content(path)
    aside = _beside(path)
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, aside)
        if _content(aside) != seen:
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _renew(claim: Claim, done: threading.Event) -> None:
    while not done.wait(RENEWED_EVERY_S):
        if not claim.is_held():
            return
        with contextlib.suppress(OSError):  # a network drive that is away for a moment
            os.utime(claim.path)


def _content(path: Path) -> dict[str, Any]:
    """What a claim says; {} while it is being written, or if it is damaged."""
    try:
        found = read_json(path)
    except DelineateError:
        return {}
    return found if isinstance(found, dict) else {}


def _age_s(path: Path) -> float:
    """Seconds since the claim was renewed, by the clock of its disk."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp") as now:
            return os.fstat(now.fileno()).st_mtime - path.stat().st_mtime
    except OSError:  # removed meanwhile, or a folder that can only be read
        return time.time() - path.stat().st_mtime if path.exists() else STALE_AFTER_S


def _machine() -> dict[str, str]:
    """What distinguishes the processes of this machine from all others; containers of one machine
    number their processes apart.
    """
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return {"host": platform.node(), "space": space}


def _process() -> dict[str, Any]:
    import psutil

    return {"pid": os.getpid(), "started": psutil.Process().create_time()}


def _lives(content: dict[str, Any]) -> bool:
    """Whether the process exists and runs; another one may have got its number."""
    import psutil

    try:
        found = psutil.Process(int(content["pid"]))
        is_same = abs(found.create_time() - float(content["started"])) < SAME_START_S
        # One that has ended is a zombie until the process that started it asks for its exit code.
        return bool(is_same and found.status() != psutil.STATUS_ZOMBIE)
    except (ValueError, KeyError, TypeError, psutil.Error):
        return False
