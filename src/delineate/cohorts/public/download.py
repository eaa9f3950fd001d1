"""Download of a public data set: each archive is transferred (and resumed after a cut), compared
with its checksum, and unpacked.

Afterwards the folder holds the unpacked folders and ``checksums.json``. During a transfer it also
holds ``NAME.part`` and ``NAME.part.json`` (which file the bytes belong to). A file gets its final
name only when it is complete and correct. A published checksum is compared. If there is none, the
SHA-256 of the first download is recorded and every later one is compared with it; this detects a
change, but not a fault in the first download.

requests does HTTP; resuming (RFC 9110, section 14: Range and If-Range) is implemented here. This
module does not know the content of a data set; the list of data sets is in ``catalogue``.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import hashlib
import os
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ...core import atomic
from ...core.errors import FormatError, InputError, OutputError, UsageError
from ...core.inputs import read_json, read_json_if_any
from ...core.progress import Progress, Say, silent, unsaid
from ...formats.web import ATTEMPTS, CHUNK_BYTES, TIMEOUT_S, TRANSIENT, innermost_reason
from .catalogue import DATA_SETS, DataSet, Remote

RECORD = "checksums.json"


def find(name: str) -> DataSet:
    """Return the data set called ``name``.

    Raises:
        UsageError: there is none; similar names are suggested.
    """
    if name in DATA_SETS:
        return DATA_SETS[name]
    # Close names are suggested; without one, all are listed.
    near = difflib.get_close_matches(name.lower(), DATA_SETS, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"available: {', '.join(DATA_SETS)}"
    raise UsageError(f"no data set is called {name!r}; {hint}")


def listed() -> list[dict[str, Any]]:
    """The data sets as plain data."""
    return [
        {
            "name": one.name,
            "title": one.title,
            "size_mb": one.size_mb,
            "licence": one.licence,
            "home": one.home,
            "files": [remote.name for remote in one.files],
        }
        for one in DATA_SETS.values()
    ]


def table() -> Any:
    """List the data sets as a rich table: name, size, checksum, licence and title."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table("name", "MB", "checksum", "licence", "title", box=SIMPLE_HEAD, pad_edge=False)
    shown.columns[0].no_wrap = True
    shown.columns[3].min_width = len("CC BY-NC-SA 4.0")
    for one in DATA_SETS.values():
        known = sum(bool(f.checksum) for f in one.files)
        checked = (
            "published"
            if known == len(one.files)
            else f"{known} of {len(one.files)} published"
            if known
            else "none published"
        )
        shown.add_row(one.name, str(one.size_mb or "unknown"), checked, one.licence, one.title)
    return shown


def download(
    dataset: DataSet,
    folder: str | Path,
    *,
    only: Sequence[str] = (),
    mirror: str = "",
    keep_archives: bool = False,
    say: Say = unsaid,
    progress: Progress = silent,
    wait_s: float = 1.0,
) -> list[Path]:
    """Download ``dataset`` to ``folder``; existing parts are not downloaded again.

    Args:
        dataset: the data set.
        folder: the target; made if missing.
        only: words of file names between "_", "-" and "." ("disc1"): only files with one of them.
        mirror: http(s) address of a folder that holds the same files under the same names, used
            instead of the publisher's.
        keep_archives: keep the archives next to the unpacked folders.
        say: called with sentences that report each step, the licence first.
        progress: called with the MB of the file so far; the stage is the name of the file.
        wait_s: before the first new attempt after a cut; doubled each time.

    Returns:
        The unpacked folders.

    Raises:
        UsageError: ``only`` matches no file, or ``mirror`` is not an address.
        InputError: the server cannot be reached or does not have the file; the received part is
            kept for the next time.
        FormatError: a wrong checksum, or an archive that is damaged or writes outside its folder;
            the file is removed.
        OutputError: the disk is full (the part is kept) or cannot be written.
    """
    if mirror and not re.match(r"https?://[^/]+", mirror):
        raise UsageError(
            f"a mirror must be an address such as https://host/folder, found {mirror!r}"
        )
    chosen = _matching_files(dataset, only)
    # The licence is shown before anything is transferred.
    say(
        f"{dataset.title}\nlicence: {dataset.licence}\nplease cite: {dataset.citation}\nhome: "
        f"{dataset.home}"
    )
    place = _Destination(atomic.make_folder(folder), keep_archives, say, progress, wait_s)
    return [
        _download_file(
            remote, f"{mirror.rstrip('/')}/{remote.name}" if mirror else remote.url, place
        )
        for remote in chosen
    ]


def _matching_files(dataset: DataSet, only: Sequence[str]) -> list[Remote]:
    """List the files whose names contain one of the words, or all files if there are no words."""
    chosen = [
        remote
        for remote in dataset.files
        if not only or set(only) & set(re.split(r"[_.-]", remote.name))
    ]
    if not chosen:
        raise UsageError(
            f"no file of {dataset.name} matches {', '.join(only)}; available: "
            f"{', '.join(remote.name for remote in dataset.files)}"
        )
    return chosen


@dataclass(frozen=True)
class _Destination:
    """The target folder and the options of one call."""

    folder: Path
    keep_archives: bool
    say: Say
    progress: Progress
    wait_s: float

    def recorded(self) -> dict[str, dict[str, Any]]:
        """Read the facts of earlier downloads: file name -> checksum, size, unpacked folder."""
        path = self.folder / RECORD
        try:
            return dict(read_json_if_any(path) or {})
        except (InputError, ValueError, TypeError) as error:
            raise InputError(
                f"cannot be read ({error}); it records the checksums, so repair or remove it",
                path=path,
            ) from error

    def record(self, name: str, **facts: Any) -> None:
        """Add facts about one file."""
        known = self.recorded()
        known[name] = {**known.get(name, {}), **facts}
        atomic.write_json(self.folder / RECORD, dict(sorted(known.items())))


def _download_file(remote: Remote, url: str, place: _Destination) -> Path:
    """Transfer, compare, unpack and record one file; return the unpacked folder."""
    record = place.recorded().get(remote.name, {})
    # The result of an earlier call is used as it is.
    unpacked = place.folder / str(record["unpacked"]) if record.get("unpacked") else None
    if unpacked is not None and unpacked.exists():
        place.say(f"{remote.name}: already unpacked in {unpacked}")
        return unpacked
    archive = place.folder / remote.name
    # A published checksum has priority, then the recorded one.
    expected = remote.checksum or (
        "" if remote.packed_anew else f"sha256:{record['sha256']}" if record.get("sha256") else ""
    )
    _fetch(url, archive, expected, bool(remote.checksum), place)
    # Size and checksum are taken before the archive may be removed.
    size, sha256 = archive.stat().st_size, _digest(archive, "sha256")
    with _remove_if_unusable(archive):
        target = _unpack(archive, place.folder, remote.nested)
    place.record(
        remote.name,
        url=url,
        bytes=size,
        sha256=sha256,
        published=remote.checksum,
        unpacked=target.name,
    )
    if not remote.checksum:
        place.say(
            f"{remote.name}: no checksum is published"
            + (
                f"; it was compared with that of the first download, SHA-256 {sha256}"
                if expected
                else "; the server builds the archive for each download, so none can be compared"
                if remote.packed_anew
                else f"; SHA-256 {sha256} was recorded in {RECORD} and will be compared from now on"
            )
        )
    if not place.keep_archives:
        archive.unlink()
    place.say(f"{remote.name}: unpacked in {target}")
    return target


# ---- transfer ----


def _fetch(url: str, archive: Path, expected: str, published: bool, place: _Destination) -> None:
    """Transfer ``archive`` completely and compare it with ``expected``, if given. An existing
    correct archive is kept.
    """
    algorithm, _, wanted = expected.partition(":")
    if archive.exists():
        if not expected:
            place.say(f"{archive.name} is already here and is used as it is")
            return
        if _digest(archive, algorithm) == wanted:
            return
    part = archive.with_name(archive.name + ".part")
    _transfer(url, part, place)
    try:
        # Only a file with the right checksum gets its final name.
        found = _digest(part, algorithm) if expected else ""
        if found != wanted:
            part.unlink()
        else:
            os.replace(part, archive)
        _notes_path(part).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", path=archive) from error
    if found != wanted:
        origin = "is published" if published else "was recorded at the first download"
        raise FormatError(
            f"{url} has the checksum {found}, but {wanted} {origin}; the downloaded file was "
            "removed",
            path=archive,
        )


def _transfer(url: str, part: Path, place: _Destination) -> None:
    """Fill ``part`` to its end, resuming after cuts until ``ATTEMPTS`` of them in a row brought no
    new byte.
    """
    import requests

    fruitless, before = 0, -1
    while True:
        try:
            if _stream(url, part, place):
                return
            reason = "the connection was cut"
        except (
            requests.ConnectionError,
            requests.Timeout,
            requests.exceptions.ChunkedEncodingError,
        ) as error:
            reason = innermost_reason(error)
        except requests.RequestException as error:
            raise InputError(f"{url} cannot be downloaded ({innermost_reason(error)})") from error
        # Only attempts without progress count: a poor line that still gains bytes is not given up.
        here = part.stat().st_size if part.exists() else 0
        fruitless = 1 if here > before else fruitless + 1
        if fruitless >= ATTEMPTS:
            kept = (
                f"; the first {here / 1e6:.1f} MB are kept, the same command continues from there"
                if here
                else ""
            )
            raise InputError(f"{url} cannot be reached ({reason}){kept}")
        before = max(here, before)
        # The wait doubles with every attempt without progress.
        time.sleep(place.wait_s * 2 ** (fruitless - 1))


def _stream(url: str, part: Path, place: _Destination) -> bool:
    """Do one transfer, from the end of ``part`` if the server still has the same file.

    Returns:
        Whether the file is complete now.
    """
    import requests

    # Without a validator or a length nothing proves that the part belongs to the server's file.
    notes = _read_notes(part)
    have = part.stat().st_size if part.exists() and (notes.get("same") or notes.get("total")) else 0
    headers = _request_headers(have, notes)
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        # 416: nothing follows the part. It is complete, or it belongs to another file.
        if answer.status_code == 416 and have:
            whole = bool(_total_length(answer) == have == notes.get("total", have))
            if not whole:
                part.unlink()
            return whole
        _refuse_answer(answer, url)
        start = _start_of(answer, have, notes)
        # A partial answer that does not continue this part: the part is of another file.
        if answer.status_code == 206 and start == 0:
            part.unlink(missing_ok=True)
            return False
        # Content-Length is the length of this answer, not of the file.
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else 0
        if start == 0:
            _begin_part(answer, part, url, total)
        _append(answer.iter_content(CHUNK_BYTES), part, start, total, place)
    return total == 0 or part.stat().st_size == total


def _request_headers(have: int, notes: dict[str, Any]) -> dict[str, str]:
    """Make the headers that request the bytes after ``have``, if the file is unchanged."""
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | (
            {"If-Range": notes["same"]} if notes.get("same") else {}
        )
    return headers


def _refuse_answer(answer: Any, url: str) -> None:
    """Raise if the answer is not the file; ``ConnectionError`` if a new attempt may help."""
    import requests

    if answer.status_code in TRANSIENT:
        raise requests.ConnectionError(f"the server answered {answer.status_code} {answer.reason}")
    if answer.status_code not in (200, 206):
        raise InputError(
            f"{url} cannot be downloaded: the server answered {answer.status_code} {answer.reason}"
        )
    if "text/html" in answer.headers.get("Content-Type", ""):
        raise InputError(
            f"{url} answered with a web page instead of a file; it may require a login, or the "
            "file has moved"
        )


def _start_of(answer: Any, have: int, notes: dict[str, Any]) -> int:
    """Return the position of the answer's first byte: ``have`` if it continues the part, else 0."""
    return (
        have
        if answer.status_code == 206
        and _range_start(answer) == have
        and _total_length(answer) in (None, notes.get("total"))
        else 0
    )


def _begin_part(answer: Any, part: Path, url: str, total: int) -> None:
    """Check the free space and note which file the new part belongs to."""
    same = answer.headers.get("ETag", "")
    # If-Range needs a strong validator (RFC 9110, 13.1.5); a weak ETag starts with W/.
    same = answer.headers.get("Last-Modified", "") if not same or same.startswith("W/") else same
    _refuse_full_disk(part, total)
    atomic.write_json(_notes_path(part), {"url": url, "same": same, "total": total})


def _append(
    chunks: Iterator[bytes], part: Path, start: int, total: int, place: _Destination
) -> None:
    """Write the chunks into ``part`` from ``start`` on."""
    name = part.name.removesuffix(".part")
    try:
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in chunks:
                file.write(chunk)
                place.progress(name, file.tell() / 1e6, total / 1e6, "MB")
    except OSError as error:
        # requests raises subclasses of OSError too, so only a full disk is translated here.
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                "the disk is full; the received part is kept, and the same command continues from "
                "there",
                path=part,
            ) from error
        raise


def _refuse_full_disk(part: Path, total: int) -> None:
    """Raise ``OutputError`` if the file is larger than the free space."""
    free = shutil.disk_usage(part.parent).free
    if total > free:
        raise OutputError(
            f"the file has {total / 1e6:.0f} MB, but only {free / 1e6:.0f} MB are free",
            path=part.parent,
        )


def _notes_path(part: Path) -> Path:
    """The file that records which file ``part`` belongs to."""
    return part.with_name(part.name + ".json")


def _read_notes(part: Path) -> dict[str, Any]:
    """Read which file ``part`` is the beginning of; {} if that is unknown, and then the transfer
    starts from scratch.
    """
    try:
        return dict(read_json(_notes_path(part)))
    except (InputError, ValueError, TypeError):
        return {}


def _range_start(answer: Any) -> int:
    """Read the first position of Content-Range; -1 if there is none."""
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _total_length(answer: Any) -> int | None:
    """Read the length of the whole file from Content-Range; None if it is not stated."""
    found = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


# ---- unpacking ----


def _digest(path: Path, algorithm: str) -> str:
    """Checksum of a file, in hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


@contextlib.contextmanager
def _remove_if_unusable(archive: Path) -> Iterator[None]:
    """Remove an archive that cannot be unpacked, so that the next command downloads it again; it is
    kept if the disk is full.
    """
    try:
        yield
    except FormatError:
        archive.unlink(missing_ok=True)
        raise
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        archive.unlink(missing_ok=True)
        raise FormatError(
            f"the archive is damaged or of an unknown kind ({error}); it was removed, the same "
            "command downloads it again",
            path=archive,
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else f"cannot be unpacked ({error.strerror or error})"
        raise OutputError(
            f"{reason}; the archive is kept, the same command unpacks it", path=archive
        ) from error


def _unpack(archive: Path, folder: Path, nested: bool) -> Path:
    """Unpack to a temporary folder, then rename in one step: the archive's only top-level folder,
    or a folder named after the archive.

    Raises:
        FormatError: a member that would be written outside.
        OutputError: the folder already exists.
    """
    aside = folder / f".unpacking-{archive.name}"
    # A killed command may have left the folder.
    shutil.rmtree(aside, ignore_errors=True)
    try:
        _extract(archive, aside)
        if nested:
            # Inner archives are unpacked in the folder that holds them, and then removed.
            for inner in sorted(p for p in aside.rglob("*.zip") if not p.name.startswith("._")):
                _extract(inner, inner.parent)
                inner.unlink()
        # An archive with one top-level folder is unpacked as that folder.
        tops = sorted(aside.iterdir())
        alone = len(tops) == 1 and tops[0].is_dir()
        target = folder / (
            tops[0].name if alone else re.sub(r"\.(zip|tar|tgz|tar\.gz)$", "", archive.name)
        )
        if target.exists():
            raise OutputError(
                "already exists and was not unpacked by this program; move it away, or "
                f"choose another folder than {folder}",
                path=target,
            )
        os.replace(tops[0] if alone else aside, target)
        return target
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _extract(archive: Path, into: Path) -> None:
    """Extract all members except the shadow files of macOS."""
    into.mkdir(parents=True, exist_ok=True)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            members = [m for m in packed.namelist() if not _is_shadow_file(m)]
            # zipfile would silently move such members to the inside.
            for name in members:
                if (
                    PurePosixPath(name).is_absolute()
                    or ".." in PurePosixPath(name.replace("\\", "/")).parts
                ):
                    raise FormatError(
                        f"the archive holds {name!r}, which would be written outside its folder; "
                        "refused",
                        path=archive,
                    )
            packed.extractall(into, members)
        return
    if not hasattr(tarfile, "data_filter"):
        raise UsageError("safe unpacking needs Python 3.11.4 or newer")
    # The filter "data" refuses absolute paths, links that leave the folder and devices.
    with tarfile.open(archive) as tape:
        try:
            tape.extractall(
                into, members=(m for m in tape if not _is_shadow_file(m.name)), filter="data"
            )
        except tarfile.FilterError as error:
            raise FormatError(
                "the archive holds a member that would be written outside its folder or is not a "
                f"plain file ({error}); refused",
                path=archive,
            ) from error


def _is_shadow_file(name: str) -> bool:
    """Return whether the member is metadata of macOS."""
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or (bool(parts) and parts[-1].startswith("._"))
