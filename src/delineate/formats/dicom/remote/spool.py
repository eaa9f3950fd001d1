"""Instances of a series as they arrive: each has its name, its SOPInstanceUID, only when it is
whole.

What an archive sends is not trusted: an instance is kept only if it is of the series that was
asked for.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from ....core import atomic
from ....core.errors import FormatError, OutputError
from ..header.file import read_header
from .address import is_uid


class Spool:
    """The folder of one series.

    Args:
        folder: made if missing; what it has of an earlier call is used, if it is whole.
        study, series: UIDs that every instance must state.

    Raises:
        OutputError: the folder cannot be made.
    """

    def __init__(self, folder: Path, study: str, series: str):
        self.folder, self._study, self._series = atomic.make_folder(folder), study, series
        found = (path for path in self.folder.glob("*.dcm") if self._named(path) == path.stem)
        self.whole = {path.stem for path in found}
        self.refused = ""  # why the last instance was not kept

    def receive(self, chunks: Iterable[bytes]) -> bool:
        """Write one instance; whether it is kept. ``refused`` says why it is not.

        Raises:
            OutputError: it cannot be written.
        """
        temporary = self.folder / f".{secrets.token_hex(4)}.tmp.dcm"
        try:
            try:
                file = temporary.open("wb")
            except OSError as error:
                raise OutputError(atomic.reason_of(error), path=self.folder) from error
            with file:
                # Errors of the connection, which are OSErrors too, are not those of the disk.
                for chunk in chunks:
                    self._write(file.write, chunk)
            if uid := self._named(temporary):
                # After a power cut, a file of this name is whole.
                with atomic.replacing(self.folder / f"{uid}.dcm") as flushed:
                    temporary.rename(flushed)
                self.whole.add(uid)
            return bool(uid)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def keep_only(self, instances: Iterable[str]) -> None:
        """Remove what the archive does not have any more."""
        for uid in self.whole - set(instances):
            (self.folder / f"{uid}.dcm").unlink(missing_ok=True)
            self.whole.discard(uid)

    def _write(self, write: Callable[[bytes], object], chunk: bytes) -> None:
        try:
            write(chunk)
        except OSError as error:
            raise OutputError(atomic.reason_of(error), path=self.folder) from error

    def _named(self, path: Path) -> str:
        """The SOPInstanceUID of a whole instance of the series; "" for any other file."""
        try:
            header = read_header(path)
        except FormatError as error:
            self.refused = error.message
            return ""
        if header is None:
            self.refused = "no DICOM object"
            return ""
        names = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
        uid, study, series = (str(header.get(name) or "") for name in names)
        if header.damage:
            self.refused = header.damage
        elif (study, series) != (self._study, self._series):
            self.refused = "an instance of another series"
        elif not is_uid(uid):
            self.refused = "an instance without a valid SOPInstanceUID"
        else:
            return uid
        return ""
