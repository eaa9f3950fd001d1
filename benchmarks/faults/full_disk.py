"""A disk that is full, broken or forbidden at every operation of a training, a prediction, an
evaluation and a report.

    python benchmarks/faults/full_disk.py [--every 1] [--commands train predict] [--minutes 10]
        [--skip 400]

Each command runs again and again; the N-th of its operations that write below its folder (to open
a file for writing, to make a folder, a link or a rename, to sync) fails with ENOSPC, EIO or EACCES,
for every N. Then it runs under limits on the size of a file (RLIMIT_FSIZE), which writes of native
libraries meet too. Each time it must end with one sentence that names a file and the reason, or
without harm, with the same result. Then no kept file is partial, and the same command, given again,
ends well and leaves no temporary files.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import small
from power_cuts import again, result, unreadable

from delineate.core.errors import DelineateError
from delineate.core.inputs import read_json_if_any
from measure import keep

RECORD = Path(__file__).parents[1] / "results" / "full_disk.json"
# Error -> what the sentence must contain.
REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EIO: "Input/output error",
    errno.EACCES: "no permission",
    errno.EFBIG: "would be larger than files may be here",
}
FAILING = (errno.ENOSPC, errno.EIO, errno.EACCES)
LIMITS = (0, 10, 300, 1_000, 3_000, 10_000, 30_000, 100_000)  # bytes of a file
NO_LIMIT = -1  # no operation fails


class Disk:
    """Counts the operations that write below ``root``, and lets the one with a number fail; a
    context manager.
    """

    def __init__(self, root: Path, failing: int = NO_LIMIT, code: int = 0):
        self.root, self.failing, self.code = root, failing, code
        self.count = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Disk:
        for name in ("mkdir", "fsync"):
            self._patch(os, name, lambda path, *_, **__: path)
        for name in ("replace", "rename", "link"):
            self._patch(os, name, lambda _, target, **__: target)
        self._patch(os, "open", lambda path, flags, *_, **__: path if flags & _WRITES else None)
        self._patch(io, "open", lambda path, mode="r", *_, **__: path if _writes(mode) else None)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _patch(self, place: Any, name: str, written: Any) -> None:
        real = getattr(place, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            path = written(*arguments, **keywords)
            if path is not None and self._is_inside(path):
                self.count += 1
                if self.count == self.failing:
                    raise OSError(self.code, os.strerror(self.code), str(path))
            return real(*arguments, **keywords)

        self._stack.enter_context(mock.patch.object(place, name, call))

    def _is_inside(self, path: Any) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        return os.path.abspath(os.fspath(path)).startswith(f"{self.root}{os.sep}")


@contextlib.contextmanager
def file_size_limit(nbytes: int) -> Iterator[None]:
    """No file of this process may become larger."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


_WRITES = os.O_WRONLY | os.O_RDWR


def _writes(mode: str) -> bool:
    return bool(set(mode) & set("wxa+"))


def ends(command: str, folder: Path, code: int, wanted: object) -> Iterable[str]:
    """What is wrong with the end of a command on the failing disk."""
    try:
        failures = small.COMMANDS[command](folder, lambda text: None)
    except DelineateError as error:
        if str(folder) not in str(error):
            yield f"no file is named: {error}"
        if REASONS[code] not in str(error):
            yield f"no reason: {error}"
        return
    except Exception:
        yield f"traceback: {traceback.format_exc().splitlines()[-1]}"
        return
    if not failures and result(command, folder) != wanted:
        yield "another result without a word"


@small.empty_figures()
@small.compiled_once()
def judge(
    folder: Path,
    command: str,
    every: int = 1,
    first: int = 1,
    minutes: float = float("inf"),
    skip: int = 0,
) -> tuple[int, int, Counter[str]]:
    """The number of failing operations tried, of those to try, and the faults found.

    Args:
        folder: as the command before left it; it is left as this command leaves it.
        every, first: the operations that fail: ``first``, ``first + every`` ...
        minutes: those that are tried by then are chosen at random.
        skip: so many of that order, which an earlier call has tried.
    """
    end_s = time.monotonic() + 60 * minutes
    before = folder.with_name(f"{folder.name}_before")
    shutil.copytree(folder, before)
    with Disk(folder) as disk:
        small.COMMANDS[command](folder, lambda text: None)
    after, wanted = folder.with_name(f"{folder.name}_after"), result(command, folder)
    folder.rename(after)
    tried, found = 0, Counter[str]()
    numbers = range(first, disk.count + 1, every)
    hindered: list[tuple[int, contextlib.AbstractContextManager[object]]] = []
    hindered += [(code, Disk(folder, n, code)) for n in numbers for code in FAILING]
    hindered += [(errno.EFBIG, file_size_limit(nbytes)) for nbytes in LIMITS[:: min(every, 3)]]
    random.Random(command).shuffle(hindered)
    for code, hindrance in hindered[skip:]:
        if time.monotonic() > end_s:
            break
        with _copy_of(before, folder):
            tried += 1
            with hindrance:
                faults = list(ends(command, folder, code, wanted))
            faults += [*unreadable(folder), *again(command, folder, wanted)]
            for fault in faults:
                words = f"{errno.errorcode[code]} {fault.replace(str(folder), '')}"
                if words not in found:
                    failing = hindrance.failing if isinstance(hindrance, Disk) else "-"
                    print(f"    operation {failing}: {words}", flush=True)
                found[words] += 1
    after.rename(folder)
    shutil.rmtree(before)
    return tried, len(hindered), found


@contextlib.contextmanager
def _copy_of(source: Path, folder: Path) -> Iterator[None]:
    shutil.copytree(source, folder)
    try:
        yield
    finally:
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--every", type=int, default=1, help="try every N-th operation")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for each command")
    parser.add_argument("--skip", type=int, default=0, help="failures that were tried before")
    parser.add_argument("--commands", nargs="+", default=list(small.COMMANDS))
    a = parser.parse_args()
    place, found = Path(tempfile.mkdtemp()), {}
    folder = place / "work"
    small.write_inputs(folder)
    for command in small.COMMANDS:
        if command not in a.commands:
            small.COMMANDS[command](folder, lambda text: None)
            continue
        tried, of, faults = judge(folder, command, a.every, minutes=a.minutes, skip=a.skip)
        found[command] = {"every": a.every, "tried": tried, "of": of, "faults": dict(faults)}
        found[command] |= {"tried before": a.skip} if a.skip else {}
        print(command, found[command], flush=True)
    shutil.rmtree(place)
    # Commands that were not asked for keep their figures.
    earlier = read_json_if_any(RECORD) or {}
    keep("full_disk", {"commands": earlier.get("commands", {}) | found})
    sys.exit(any(f["faults"] for f in found.values()))


if __name__ == "__main__":
    main()
