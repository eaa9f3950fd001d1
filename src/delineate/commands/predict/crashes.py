"""Files at which the search for scans crashed.

The search reads headers, and a registered format as a whole. A library in C that crashes there ends
the process before there is any case. So each file is noted in ``OUT/.looking.json`` before it is
opened. A call that finds the note of one that died reads that file in a process of its own first:
if this dies by a signal, the file is refused by name wherever it is opened, and
``OUT/.crashed.json`` keeps it for later calls until its bytes change. ``--again`` forgets it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core import atomic
from ...core.errors import DelineateError, FormatError
from ...core.inputs import expecting, json_text, read_json, read_json_if_any
from ...core.progress import Say
from ...execution import local as batch
from ...execution.shards import Shard
from ...formats import files
from ...formats.disk import watched
from ..options import PredictOptions

NOTE, CRASHED = ".looking.json", ".crashed.json"
FILES = "files"


@dataclass
class Crashes:
    """The known files at which a reader crashed, for the output folder ``out``.

    Args:
        out: the folder of the results; it need not exist.
        shard: has a note of its own.
        files: absolute path -> how its reader ended, and its size and time of change then.
    """

    out: Path
    shard: Shard = field(default_factory=Shard)
    files: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, out: Path, options: PredictOptions, say: Say) -> Crashes:
        """What earlier calls left in ``out``; a file at which one died is read now.

        Args:
            out: the folder of the results.
            options: ``again`` forgets it all; ``ram_bytes`` may be allocated by the process that
                reads it.
            say: receives a sentence about a file that is read, and about one that crashed.

        Raises:
            OutputError: what was found cannot be recorded.
        """
        known = cls(out, Shard.parsed(options.shard))
        if options.again:
            with contextlib.suppress(OSError):
                (out / CRASHED).unlink()
            return known
        with contextlib.suppress(DelineateError), expecting("crashes", out / CRASHED):
            found = (read_json_if_any(out / CRASHED) or {}).get(FILES, {})
            known.files = {p: one for p, one in found.items() if one["state"] == _state(p)}
        with contextlib.suppress(DelineateError), expecting("a note", known._note):
            if (died_at := str(read_json(known._note)["path"])) not in known.files:
                known._read_apart(died_at, options.ram_bytes, say)
        return known

    @property
    def _note(self) -> Path:
        return self.out / self.shard.named(NOTE)

    def _read_apart(self, path: str, ram_bytes: int | None, say: Say) -> None:
        if not Path(path).is_file():
            return
        say(
            f"{path}: an earlier call died after it had opened this file; it is read in a process "
            "of its own (--again omits this)"
        )
        outcome = batch.run_apart(_read, path, path, ram_bytes)
        if outcome.exitcode is None or outcome.exitcode >= 0 or outcome.error is None:
            return
        self.files[path] = {"why": outcome.error.message, "state": _state(path)}
        atomic.write_text(self.out / CRASHED, json_text({FILES: self.files}))

    @contextlib.contextmanager
    def refused(self) -> Iterator[None]:
        """Inside the block, the known files are refused by name."""

        def refuse(path: Path) -> None:
            if (one := self.files.get(str(path.absolute()))) is not None:
                raise FormatError(f"{one['why']} while it was read", path=path)

        with watched(refuse) if self.files else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Inside the block, the file that is opened is noted on the disk. Where nothing can be
        written nothing is noted. A folder that was made for the note is removed with it.
        """
        made = [p for p in (self.out, *self.out.parents) if not p.exists()]
        try:
            atomic.make_folder(self.out)
            note = atomic.Note(self._note)
        except DelineateError:
            yield
            return
        try:
            with note, watched(lambda path: note.put(json_text({"path": str(path.absolute())}))):
                yield
        finally:
            for folder in made:
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()


def _read(path: str) -> None:
    """Read a file as the search may do: its header, or all of it."""
    with contextlib.suppress(DelineateError):
        files.read_grid(path)
    with contextlib.suppress(DelineateError):
        files.read(path)


def _state(path: str) -> list[int]:
    """Size and time of change of a file; [] if there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


__all__ = ["CRASHED", "NOTE", "Crashes"]
