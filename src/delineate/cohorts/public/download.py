"""Bringing a public data set: each archive transferred (and gone on with after a cut), compared
with its checksum, unpacked.

In the folder stand afterwards the unpacked folders and ``checksums.json``; while a transfer is
under way ``NAME.part`` and ``NAME.part.json`` (whose bytes these are). A file gets its own name
only when it is whole and right. Where a checksum is published it is compared; where none is, the
SHA-256 of the first download is recorded and every later one compared with it, which tells a change
but not a fault at first.

pooch compares and moves files, requests speaks HTTP; going on with a part (RFC 9110, section 14:
Range and If-Range) is here, as pooch cannot. The module does not know what a data set means; which
there are is in ``public_data.py``.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import json
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
from ...core.progress import Progress, Say, silent, unsaid
from .catalogue import DATA_SETS, DataSet, Remote

# Name, bytes here, bytes in all (0: not told by the server)
RECORD = "checksums.json"
CHUNK_BYTES = 1 << 20
ATTEMPTS = 4  # transfers in a row that bring nothing new
TIMEOUT_S = (20, 60)  # to connect; between two packets
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


def find(name: str) -> DataSet:
    """The data set called ``name``.

    Raises:
        UsageError: there is none; near names are told.
    """
    if name in DATA_SETS:
        return DATA_SETS[name]
    near = difflib.get_close_matches(name.lower(), DATA_SETS, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(DATA_SETS)}"
    raise UsageError(f"no data set is called {name!r}; {hint}")


def table() -> Any:
    """The data sets for a person to read, as a rich table: name, size, checksum, licence and
    title.
    """
    from rich.table import Table

    shown = Table("name", "MB", "checksum", "licence", "title")
    for one in DATA_SETS.values():
        known = sum(bool(f.checksum) for f in one.files)
        checked = (
            "published"
            if known == len(one.files)
            else f"{known} of {len(one.files)} published"
            if known
            else "none published"
        )
        shown.add_row(one.name, str(one.size_mb or "not told"), checked, one.licence, one.title)
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
    """Bring ``dataset`` to ``folder``; what is there already is not brought again.

    Args:
        dataset: which.
        folder: where; made if missing.
        only: words of file names between "_", "-" and "." ("disc1"): those files alone.
        mirror: http(s) address of a folder that holds the same files under the same names, instead
            of the publisher's.
        keep_archives: leave the archives beside what was unpacked from them.
        say: told in sentences what is done, the licence first.
        progress: gets the MB of a file that are there; its stage is the file's name.
        wait_s: before the first new attempt after a cut; doubled each time.

    Returns:
        The unpacked folders.

    Raises:
        UsageError: ``only`` fits no file, or ``mirror`` is no address.
        InputError: the server cannot be reached or has no such file; the part that came stays for
            the next time.
        FormatError: a wrong checksum, or an archive that is damaged or writes outside its folder;
            the file is removed.
        OutputError: the disk is full (the part stays) or cannot be written.
    """
    if mirror and not re.match(r"https?://[^/]+", mirror):
        raise UsageError(f"a mirror is an address such as https://host/folder, found {mirror!r}")
    chosen = [
        remote
        for remote in dataset.files
        if not only or set(only) & set(re.split(r"[_.-]", remote.name))
    ]
    if not chosen:
        raise UsageError(
            f"no file of {dataset.name} fits {', '.join(only)}; there are "
            f"{', '.join(remote.name for remote in dataset.files)}"
        )
    say(
        f"{dataset.title}\nlicence: {dataset.licence}\nplease cite: {dataset.citation}\nhome: "
        f"{dataset.home}"
    )
    place = _Destination(atomic.make_folder(folder), keep_archives, say, progress, wait_s)
    return [
        _bring(remote, f"{mirror.rstrip('/')}/{remote.name}" if mirror else remote.url, place)
        for remote in chosen
    ]


@dataclass(frozen=True)
class _Destination:
    """The folder, and how to go about it."""

    folder: Path
    keep_archives: bool
    say: Say
    progress: Progress
    wait_s: float

    def recorded(self) -> dict[str, dict[str, Any]]:
        path = self.folder / RECORD
        try:
            return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise InputError(
                f"cannot be read ({error}); it tells which files are right, so mend or remove it",
                path=path,
            ) from error

    def record(self, name: str, **facts: Any) -> None:
        known = self.recorded()
        known[name] = {**known.get(name, {}), **facts}
        atomic.write_text(self.folder / RECORD, json.dumps(known, indent=1, sort_keys=True) + "\n")


def _bring(remote: Remote, url: str, place: _Destination) -> Path:
    """Transfer, compare, unpack and record one file."""
    record = place.recorded().get(remote.name, {})
    unpacked = place.folder / str(record["unpacked"]) if record.get("unpacked") else None
    if unpacked is not None and unpacked.exists():
        place.say(f"{remote.name}: unpacked already in {unpacked}")
        return unpacked
    archive = place.folder / remote.name
    expected = remote.checksum or (
        "" if remote.packed_anew else f"sha256:{record['sha256']}" if record.get("sha256") else ""
    )
    _fetch(url, archive, expected, bool(remote.checksum), place)
    size, sha256 = archive.stat().st_size, _sha256(archive)
    with _removed_where_unusable(archive):
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
                f"; it was compared with the one of the first download, SHA-256 {sha256}"
                if expected
                else "; the server packs it anew each time, so none can be compared"
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
    """``archive`` whole and, where ``expected`` says what it is, right. An archive that stands
    there and is right is kept.
    """
    import pooch

    def bring(source: str, output_file: str, _: Any) -> None:
        part = archive.with_name(archive.name + ".part")
        _transfer(source, part, place)
        os.replace(part, output_file)
        _notes_of(part).unlink(missing_ok=True)

    pooch.get_logger().setLevel("ERROR")
    if archive.exists() and not expected:
        place.say(f"{archive.name} stands here already and is taken as it is")
    try:
        pooch.retrieve(
            url, expected or None, fname=archive.name, path=archive.parent, downloader=bring
        )
    except ValueError as error:
        found = re.search(r"but got ([0-9a-f]+)", str(error))
        origin = "is published" if published else "was recorded at the first download"
        raise FormatError(
            f"{url} has the checksum {found[1] if found else 'of another file'}, but "
            f"{expected.split(':')[1]} {origin}; what came was removed",
            path=archive,
        ) from error
    except OSError as error:
        raise OutputError(f"cannot be written ({error.strerror or error})", path=archive) from error


def _transfer(url: str, part: Path, place: _Destination) -> None:
    """Fill ``part`` to its end, going on after cuts until ``ATTEMPTS`` of them in a row brought
    nothing.
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
            reason = _plain(error)
        except requests.RequestException as error:
            raise InputError(f"{url} cannot be fetched ({_plain(error)})") from error
        here = part.stat().st_size if part.exists() else 0
        fruitless = 1 if here > before else fruitless + 1
        if fruitless >= ATTEMPTS:
            kept = (
                f"; {here / 1e6:.1f} MB are here and kept, the same command goes on from there"
                if here
                else ""
            )
            raise InputError(f"{url} cannot be reached ({reason}){kept}")
        before = max(here, before)
        time.sleep(place.wait_s * 2 ** (fruitless - 1))


def _stream(url: str, part: Path, place: _Destination) -> bool:
    """One transfer, from where ``part`` ends where the server still has the same file. Whether the
    file is whole now.
    """
    import requests

    notes = _read_notes(part)
    have = part.stat().st_size if part.exists() and (notes.get("same") or notes.get("total")) else 0
    head = {"Accept-Encoding": "identity"}
    if have:
        head |= {"Range": f"bytes={have}-"} | (
            {"If-Range": notes["same"]} if notes.get("same") else {}
        )
    with requests.get(url, headers=head, stream=True, timeout=TIMEOUT_S) as answer:
        # Nothing after what is here: whole, or of another file.
        if answer.status_code == 416 and have:
            whole = bool(_after_slash(answer) == have == notes.get("total", have))
            if not whole:
                part.unlink()
            return whole
        if answer.status_code in TRANSIENT:
            raise requests.ConnectionError(
                f"the server answered {answer.status_code} {answer.reason}"
            )
        if answer.status_code not in (200, 206):
            raise InputError(
                f"{url} cannot be fetched: the server answered {answer.status_code} {answer.reason}"
            )
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise InputError(
                f"{url} answered with a web page instead of a file; it may ask for a login, or "
                "the file has moved"
            )
        start = (
            have
            if answer.status_code == 206
            and _begins(answer) == have
            and _after_slash(answer) in (None, notes.get("total"))
            else 0
        )
        if answer.status_code == 206 and start == 0:
            part.unlink(missing_ok=True)  # a piece of something else
            return False
        length = answer.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else 0
        if start == 0:
            same = answer.headers.get("ETag", "")
            # If-Range wants a strong one.
            same = (
                answer.headers.get("Last-Modified", "")
                if not same or same.startswith("W/")
                else same
            )
            _refuse_full_disk(part, total)
            atomic.write_text(
                _notes_of(part), json.dumps({"url": url, "same": same, "total": total})
            )
        _append(answer.iter_content(CHUNK_BYTES), part, start, total, place)
    return total == 0 or part.stat().st_size == total


def _append(
    chunks: Iterator[bytes], part: Path, start: int, total: int, place: _Destination
) -> None:
    name = part.name.removesuffix(".part")
    try:
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            for chunk in chunks:
                file.write(chunk)
                place.progress(name, file.tell() / 1e6, total / 1e6, "MB")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                "the disk is full; what came so far is kept, and the same command goes on from "
                "there",
                path=part,
            ) from error
        raise


def _refuse_full_disk(part: Path, total: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if total > free:
        raise OutputError(
            f"{total / 1e6:.0f} MB are to come and only {free / 1e6:.0f} MB are free",
            path=part.parent,
        )


def _notes_of(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_notes(part: Path) -> dict[str, Any]:
    """What is known of the file that ``part`` is the beginning of; {} where nothing is, and then it
    is begun anew.
    """
    try:
        return dict(json.loads(_notes_of(part).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _begins(answer: Any) -> int:
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def _after_slash(answer: Any) -> int | None:
    """The whole file's length as Content-Range tells it, or None."""
    found = re.search(r"/(\d+)$", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else None


def _plain(error: Exception) -> str:
    """The innermost reason of a failed connection, without the library's objects."""
    cause: BaseException = error
    while isinstance(cause.args[0] if cause.args else None, BaseException) or getattr(
        cause, "reason", None
    ):
        inner = (
            cause.args[0]
            if cause.args and isinstance(cause.args[0], BaseException)
            else getattr(cause, "reason", None)
        )
        if not isinstance(inner, BaseException):
            break
        cause = inner
    return (
        re.sub(r"<[^>]*>:? ?|HTTPS?Connection(Pool)?\([^)]*\):? ?", "", str(cause))
        .split("(Caused by")[0]
        .strip()
        or type(error).__name__
    )


# ---- unpacking ----


def _sha256(path: Path) -> str:
    import pooch

    return str(pooch.file_hash(str(path), alg="sha256"))


@contextlib.contextmanager
def _removed_where_unusable(archive: Path) -> Iterator[None]:
    """An archive that cannot be unpacked is removed, so that the next command brings it again; a
    full disk leaves it.
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
            "command brings it again",
            path=archive,
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full" if full else f"cannot be unpacked ({error.strerror or error})"
        raise OutputError(
            f"{reason}; the archive is kept, the same command unpacks it", path=archive
        ) from error


def _unpack(archive: Path, folder: Path, nested: bool) -> Path:
    """Unpack in a folder aside, then rename in one step: the archive's own single folder, or one
    called like the archive.

    Raises:
        FormatError: a member that would stand outside.
        OutputError: the folder stands there already.
    """
    aside = folder / f".unpacking-{archive.name}"
    shutil.rmtree(aside, ignore_errors=True)  # left by a killed command
    try:
        _extract(archive, aside)
        if nested:
            for inner in sorted(p for p in aside.rglob("*.zip") if not p.name.startswith("._")):
                _extract(inner, inner.parent)
                inner.unlink()
        tops = sorted(aside.iterdir())
        alone = len(tops) == 1 and tops[0].is_dir()
        target = folder / (
            tops[0].name if alone else re.sub(r"\.(zip|tar|tgz|tar\.gz)$", "", archive.name)
        )
        if target.exists():
            raise OutputError(
                "stands here already and was not unpacked by this program; move it away, or "
                f"choose another folder than {folder}",
                path=target,
            )
        os.replace(tops[0] if alone else aside, target)
        return target
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _extract(archive: Path, into: Path) -> None:
    """All members but the shadow files of macOS. pooch's own unpackers are not used: on Python 3.11
    they follow paths out of the folder.
    """
    into.mkdir(parents=True, exist_ok=True)
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            members = [m for m in packed.namelist() if not _shadow(m)]
            for name in members:  # zipfile would bend these to inside without a word
                if (
                    PurePosixPath(name).is_absolute()
                    or ".." in PurePosixPath(name.replace("\\", "/")).parts
                ):
                    raise FormatError(
                        f"the archive holds {name!r}, which would stand outside its folder; "
                        "refused",
                        path=archive,
                    )
            packed.extractall(into, members)
        return
    if not hasattr(tarfile, "data_filter"):
        raise UsageError("unpacking safely needs Python 3.11.4 or newer")
    with tarfile.open(archive) as tape:
        try:
            tape.extractall(into, members=(m for m in tape if not _shadow(m.name)), filter="data")
        except tarfile.FilterError as error:
            raise FormatError(
                "the archive holds a member that would stand outside its folder or is no plain "
                f"file ({error}); refused",
                path=archive,
            ) from error


def _shadow(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or (bool(parts) and parts[-1].startswith("._"))
