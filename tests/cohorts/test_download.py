"""Bringing public data: cuts, changed files, wrong checksums, hostile archives, a full disk. A real
server on this machine, no network.
"""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.calls import call

from delineate.cohorts.public import download as module
from delineate.cohorts.public.catalogue import DATA_SETS, DataSet, Remote
from delineate.cohorts.public.download import download, find
from delineate.core.errors import FormatError, InputError, OutputError, UsageError


class Server(http.server.ThreadingHTTPServer):
    """Serves ``files``; every request is logged as (path, Range, status)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []  # after how many bytes the next answers are cut
        self.refusals: list[int] = []  # status of the next answers
        self.ranges = True
        self.validators = True
        self.kind = "application/octet-stream"
        self.log: list[tuple[str, str, int]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what these tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *words: object) -> None:
        pass

    def do_GET(self) -> None:
        server, name = self.server, self.path.rsplit("/", 1)[-1]
        wanted = self.headers.get("Range", "")
        if server.refusals or name not in server.files:
            return self.answer(server.refusals.pop(0) if server.refusals else 404, b"", wanted)
        data = server.files[name]
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        head = {"ETag": tag} if server.validators else {}
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted and server.ranges else 0
        if start and self.headers.get("If-Range", tag) != tag:
            start = 0  # RFC 9110: another file, so the whole of it
        if start >= len(data) > 0 and wanted:
            return self.answer(416, b"", wanted, {"Content-Range": f"bytes */{len(data)}"})
        if start:
            head["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self.answer(206 if start else 200, data[start:], wanted, head)

    def answer(
        self, status: int, body: bytes, wanted: str, head: dict[str, str] | None = None
    ) -> None:
        self.server.log.append((self.path, wanted, status))
        self.send_response(status)
        for key, value in {
            "Content-Length": str(len(body)),
            "Content-Type": self.server.kind,
            **(head or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        cut = self.server.cuts.pop(0) if self.server.cuts and status in (200, 206) else len(body)
        self.wfile.write(body[:cut])
        if cut < len(body):
            self.wfile.flush()
            self.connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=one.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield one
    one.shutdown()
    one.server_close()


def tape(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as out:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)
    return buffer.getvalue()


NOISE = np.random.default_rng(0).bytes(5_000_000)  # does not shrink, so that cuts fall inside
TREE = {
    "disc1/OAS1_0001_MR1/a.img": NOISE,
    "disc1/notes.txt": b"hello",
    "disc1/._notes.txt": b"shadow",
    "._disc1": b"shadow",
}


def dataset(
    server: Server, name: str, data: bytes, checksum: str | None = None, **more: bool
) -> DataSet:
    server.files[name] = data
    known = f"md5:{hashlib.md5(data).hexdigest()}" if checksum is None else checksum
    return DataSet(
        "set",
        "a set of scans",
        "CC BY 4.0",
        "https://example.org",
        "Nobody 2024",
        (Remote(f"{server.url}/far/{name}", known, **more),),
    )


def contents(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def quick(one: DataSet, folder: Path, **more: object) -> list[Path]:
    return download(one, folder, wait_s=0.01, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "data"),
    [("disc1.tar.gz", tape(TREE)), ("disc1.tar", tape(TREE, "w")), ("disc1.zip", packed(TREE))],
)
def test_an_archive_is_brought_compared_and_unpacked(tmp_path, server, name, data):
    told: list[str] = []
    steps: list[tuple[str, float, float, str]] = []
    one = dataset(server, name, data)
    assert quick(
        one, tmp_path / "d", say=told.append, progress=lambda *step: steps.append(step)
    ) == [tmp_path / "d/disc1"]
    assert contents(tmp_path / "d") == [
        "checksums.json",
        "disc1/OAS1_0001_MR1/a.img",
        "disc1/notes.txt",
    ]
    assert (tmp_path / "d/disc1/OAS1_0001_MR1/a.img").read_bytes() == NOISE
    assert "licence: CC BY 4.0" in told[0] and "Nobody 2024" in told[0]
    assert steps[-1] == (name, len(data) / 1e6, len(data) / 1e6, "MB") and len(steps) > 3
    record = json.loads((tmp_path / "d/checksums.json").read_text())[name]
    assert (
        record["sha256"] == hashlib.sha256(data).hexdigest()
        and record["bytes"] == len(data)
        and record["unpacked"] == "disc1"
    )
    quick(one, tmp_path / "d")
    assert len(server.log) == 1, "what is there is not brought again"


def test_a_cut_transfer_goes_on_where_it_stopped(tmp_path, server):
    data = tape(TREE)
    server.cuts = [1_500_000, 2_000_000]
    quick(dataset(server, "disc1.tar.gz", data), tmp_path)
    assert [status for _, _, status in server.log] == [200, 206, 206]
    starts = [int(wanted[6:-1]) for _, wanted, _ in server.log if wanted]
    assert 0 < starts[0] <= 1_500_000 and starts[0] < starts[1] <= starts[0] + 2_000_000
    assert (tmp_path / "disc1/OAS1_0001_MR1/a.img").read_bytes() == NOISE
    assert not list(tmp_path.glob("*.part*"))


def test_the_next_command_goes_on_with_the_part(tmp_path, server):
    data = tape(TREE)
    one = dataset(server, "disc1.tar.gz", data)
    server.cuts = [2_500_000] + [0] * 10
    with pytest.raises(
        InputError,
        match=r"cannot be reached .*MB are kept, the same command continues from there",
    ):
        quick(one, tmp_path)
    here = (tmp_path / "disc1.tar.gz.part").stat().st_size
    assert 0 < here <= 2_500_000 and not (tmp_path / "disc1.tar.gz").exists()
    server.cuts, server.log = [], []
    quick(one, tmp_path)
    assert server.log == [("/far/disc1.tar.gz", f"bytes={here}-", 206)]
    assert (tmp_path / "disc1/OAS1_0001_MR1/a.img").read_bytes() == NOISE


@pytest.mark.parametrize("validators", [True, False])
def test_a_file_that_changed_in_between_is_begun_anew(tmp_path, server, validators):
    """Without a published checksum a glued file would be taken for right ever after."""
    server.validators = validators
    one = dataset(server, "disc1.tar.gz", tape(TREE), checksum="")
    server.cuts = [2_500_000] + [0] * 10
    with pytest.raises(InputError):
        quick(one, tmp_path)
    other = {
        **TREE,
        "disc1/notes.txt": b"another version of the file",
        "disc1/OAS1_0001_MR1/a.img": NOISE[::-1] + b"more",
    }
    server.files["disc1.tar.gz"], server.cuts = tape(other), []
    quick(one, tmp_path)
    assert (tmp_path / "disc1/OAS1_0001_MR1/a.img").read_bytes() == NOISE[::-1] + b"more"


def test_a_server_without_ranges_begins_anew(tmp_path, server):
    server.ranges, server.cuts = False, [1_000_000]
    quick(dataset(server, "disc1.tar.gz", tape(TREE)), tmp_path)
    assert [status for _, _, status in server.log] == [200, 200]
    assert (tmp_path / "disc1/OAS1_0001_MR1/a.img").read_bytes() == NOISE


def test_a_part_that_is_whole_already_is_taken(tmp_path, server):
    data = tape(TREE)
    one = dataset(server, "disc1.tar.gz", data)
    (tmp_path / "disc1.tar.gz.part").write_bytes(data)
    (tmp_path / "disc1.tar.gz.part.json").write_text(
        json.dumps({"same": f'"{hashlib.md5(data).hexdigest()}"', "total": len(data)})
    )
    quick(one, tmp_path)
    assert [status for _, _, status in server.log] == [416]
    assert (tmp_path / "disc1/notes.txt").read_bytes() == b"hello"


def test_a_part_of_unknown_origin_is_not_trusted(tmp_path, server):
    (tmp_path / "disc1.tar.gz.part").write_bytes(b"x" * 1000)
    quick(dataset(server, "disc1.tar.gz", tape(TREE), checksum=""), tmp_path)
    assert server.log == [("/far/disc1.tar.gz", "", 200)]


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_a_wrong_checksum_leaves_nothing_under_the_final_name(tmp_path, server, algorithm):
    wrong = hashlib.new(algorithm, b"something else").hexdigest()
    data = tape(TREE)
    with pytest.raises(FormatError) as error:
        quick(dataset(server, "disc1.tar.gz", data, f"{algorithm}:{wrong}"), tmp_path)
    assert (
        hashlib.new(algorithm, data).hexdigest() in str(error.value)
        and wrong in str(error.value)
        and "is published" in str(error.value)
    )
    assert contents(tmp_path) == [] and list(tmp_path.iterdir()) == []


def test_without_a_published_checksum_the_first_one_is_recorded_and_compared(tmp_path, server):
    told: list[str] = []
    data = tape(TREE)
    one = dataset(server, "disc1.tar.gz", data, checksum="")
    quick(one, tmp_path, say=told.append)
    assert any(
        "no checksum is published" in text and hashlib.sha256(data).hexdigest() in text
        for text in told
    )
    (tmp_path / "disc1").rename(tmp_path / "moved")
    quick(one, tmp_path, say=told.append)
    assert any("compared with that of the first download" in text for text in told)
    (tmp_path / "disc1").rename(tmp_path / "moved again")
    server.files["disc1.tar.gz"] = tape({**TREE, "disc1/notes.txt": b"changed"})
    with pytest.raises(FormatError, match="was recorded at the first download"):
        quick(one, tmp_path)
    assert not (tmp_path / "disc1").exists()


def test_what_the_server_packs_anew_is_not_compared(tmp_path, server):
    inner = {
        "3Dircadb1.1/PATIENT_DICOM.zip": packed({"PATIENT_DICOM/image_0": b"ct"}),
        "3Dircadb1.1/MASKS_DICOM.zip": packed({"MASKS_DICOM/liver/image_0": b"m"}),
    }
    told: list[str] = []
    one = dataset(
        server,
        "3Dircadb1.zip",
        packed({f"3Dircadb1/{k}": v for k, v in inner.items()}),
        "",
        nested=True,
        packed_anew=True,
    )
    quick(one, tmp_path, say=told.append)
    tree = [
        "3Dircadb1/3Dircadb1.1/MASKS_DICOM/liver/image_0",
        "3Dircadb1/3Dircadb1.1/PATIENT_DICOM/image_0",
    ]
    assert contents(tmp_path) == [*tree, "checksums.json"]
    assert any("builds the archive for each download" in text for text in told)
    (tmp_path / "3Dircadb1").rename(tmp_path / "old")
    server.files["3Dircadb1.zip"] = packed(
        {f"3Dircadb1/{k}": v for k, v in reversed(inner.items())}
    )
    quick(one, tmp_path)
    assert (tmp_path / tree[0]).read_bytes() == b"m"


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/delineate-evil.txt", "disc1/../../evil.txt"])
@pytest.mark.parametrize("kind", ["tar.gz", "zip"])
def test_an_archive_that_writes_outside_is_refused(tmp_path, server, name, kind):
    members = {"disc1/fine.txt": b"fine", name: b"evil"}
    data = tape(members) if kind == "tar.gz" else packed(members)
    folder = tmp_path / "in" / "here"
    # Tar's own filter makes an absolute name a relative one.
    if kind == "tar.gz" and name.startswith("/"):
        quick(dataset(server, f"disc1.{kind}", data), folder)
        assert not Path(name).exists()
        return
    with pytest.raises(FormatError, match="outside its folder"):
        quick(dataset(server, f"disc1.{kind}", data), folder)
    assert contents(tmp_path) == [] and not Path("/tmp/delineate-evil.txt").exists()


def test_a_link_out_of_the_folder_is_refused(tmp_path, server):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        link = tarfile.TarInfo("disc1/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../../etc"
        out.addfile(link)
    with pytest.raises(FormatError, match="outside its folder"):
        quick(dataset(server, "disc1.tar", buffer.getvalue()), tmp_path / "d")
    assert contents(tmp_path) == []


@pytest.mark.parametrize(
    "data",
    [
        tape(TREE)[:-2000],
        packed(TREE)[:-30],
        b"not an archive at all",
        gzip.compress(b"no tape", mtime=0),
    ],
    ids=range(4),
)
def test_a_damaged_archive_is_removed_and_not_recorded(tmp_path, server, data):
    with pytest.raises(FormatError, match="archive is damaged or of an unknown kind"):
        quick(dataset(server, "disc1.tar.gz", data, checksum=""), tmp_path)
    assert contents(tmp_path) == [] and list(tmp_path.iterdir()) == []


def test_a_folder_that_was_there_before_is_left_alone(tmp_path, server):
    (tmp_path / "disc1").mkdir()
    (tmp_path / "disc1/mine.txt").write_text("mine")
    one = dataset(server, "disc1.tar.gz", tape(TREE))
    with pytest.raises(OutputError, match="already exists"):
        quick(one, tmp_path)
    assert contents(tmp_path) == ["disc1.tar.gz", "disc1/mine.txt"]
    (tmp_path / "disc1").rename(tmp_path / "aside")
    quick(one, tmp_path, keep_archives=True)
    assert len(server.log) == 1, "the archive was kept and is right"
    assert (
        contents(tmp_path / "disc1") == ["OAS1_0001_MR1/a.img", "notes.txt"]
        and (tmp_path / "disc1.tar.gz").exists()
    )


def test_an_archive_brought_by_hand_is_taken(tmp_path, server):
    told: list[str] = []
    one = dataset(server, "disc1.tar.gz", tape(TREE), checksum="")
    (tmp_path / "disc1.tar.gz").write_bytes(tape({"disc1/x": b"by hand"}))
    quick(one, tmp_path, say=told.append)
    assert server.log == [] and (tmp_path / "disc1/x").read_bytes() == b"by hand"
    assert any("used as it is" in text for text in told)


def test_several_top_folders_stand_in_one_called_like_the_archive(tmp_path, server):
    assert quick(
        dataset(server, "Some_Sets.tar.gz", tape({"a/x": b"1", "b/y": b"2"})), tmp_path
    ) == [tmp_path / "Some_Sets"]
    assert contents(tmp_path / "Some_Sets") == ["a/x", "b/y"]


def test_what_a_killed_unpacking_left_is_cleared(tmp_path, server):
    (tmp_path / ".unpacking-disc1.tar.gz").mkdir()
    (tmp_path / ".unpacking-disc1.tar.gz/half").write_text("half")
    quick(dataset(server, "disc1.tar.gz", tape(TREE)), tmp_path)
    assert contents(tmp_path) == ["checksums.json", "disc1/OAS1_0001_MR1/a.img", "disc1/notes.txt"]


def test_a_passing_fault_is_tried_again_and_a_missing_file_is_not(tmp_path, server):
    one = dataset(server, "disc1.tar.gz", tape(TREE))
    server.refusals = [503, 429]
    quick(one, tmp_path / "a")
    assert [status for _, _, status in server.log] == [503, 429, 200]
    server.files.clear()
    with pytest.raises(InputError, match="the server answered 404 Not Found"):
        quick(one, tmp_path / "b")
    assert len(server.log) == 4
    server.refusals = [503] * 10
    with pytest.raises(InputError, match=r"cannot be reached .*503"):
        quick(one, tmp_path / "c")
    server.refusals, server.kind, server.files["disc1.tar.gz"] = (
        [],
        "text/html; charset=utf-8",
        b"<html>please log in</html>",
    )
    with pytest.raises(InputError, match="answered with a web page"):
        quick(one, tmp_path / "d")


def test_no_server_at_all_is_one_sentence(tmp_path, server):
    one = dataset(server, "disc1.tar.gz", b"")
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError, match="cannot be reached") as error:
        quick(one, tmp_path)
    assert (
        "object at 0x" not in str(error.value)
        and "\n" not in str(error.value)
        and "efused" in str(error.value)
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is always full")
def test_a_full_disk_is_told_and_the_part_stays(tmp_path, server):
    (tmp_path / "disc1.tar.gz.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="the disk is full; the received part is kept"):
        quick(dataset(server, "disc1.tar.gz", tape(TREE)), tmp_path)
    assert (tmp_path / "disc1.tar.gz.part").is_symlink() and not (
        tmp_path / "disc1.tar.gz"
    ).exists()


def test_a_file_larger_than_the_disk_is_refused_before_it_comes(tmp_path, server, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: shutil_usage(free=1_000_000))
    with pytest.raises(OutputError, match=r"the file has 5 MB, but only 1 MB are free"):
        quick(dataset(server, "disc1.tar.gz", tape(TREE)), tmp_path)


def shutil_usage(free: int) -> object:
    from collections import namedtuple

    return namedtuple("usage", "total used free")(0, 0, free)


def test_parts_of_a_set_and_a_mirror(tmp_path, server):
    files = {
        f"oasis_cross-sectional_disc{n}.tar.gz": tape({f"disc{n}/x": b"%d" % n}) for n in (1, 2, 10)
    }
    server.files = dict(files)
    one = DataSet(
        "set",
        "t",
        "l",
        "h",
        "c",
        tuple(Remote(f"https://publisher.invalid/data/{name}") for name in files),
    )
    made = quick(one, tmp_path, only=["disc1", "disc10"], mirror=f"{server.url}/copies/")
    assert [p.name for p in made] == ["disc1", "disc10"]
    assert [path for path, _, _ in server.log] == [
        "/copies/oasis_cross-sectional_disc1.tar.gz",
        "/copies/oasis_cross-sectional_disc10.tar.gz",
    ]
    with pytest.raises(
        UsageError,
        match=r"no file of set matches disc3; available: oasis_cross-sectional_disc1.tar.gz",
    ):
        quick(one, tmp_path, only=["disc3"])
    with pytest.raises(UsageError, match="a mirror must be an address"):
        quick(one, tmp_path, mirror="/mnt/mirror")


def test_the_table_is_whole():
    assert {f"decathlon-{n}" for n in ("liver", "hippocampus", "colon")} | {
        "oasis-1",
        "chaos",
        "3d-ircadb-01",
    } <= set(DATA_SETS)
    assert len(DATA_SETS) == 13 and len(DATA_SETS["oasis-1"].files) == 12
    for one in DATA_SETS.values():
        assert one.licence and one.citation and one.home.startswith("http")
        for remote in one.files:
            assert remote.url.startswith("https://") and re.search(
                r"\.(tar|tar\.gz|zip)$", remote.name
            )
            assert re.fullmatch(r"(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})?", remote.checksum)
    assert find("chaos").size_mb == 891
    with pytest.raises(UsageError, match="did you mean decathlon-hippocampus"):
        find("hippocampus")


def test_the_command_lists_brings_and_fails_in_one_sentence(tmp_path, server):
    listed = call("download", "--list")
    assert listed.returncode == 0 and all(
        name in listed.stdout for name in ("oasis-1", "CC BY-SA 4.0", "CC BY-NC-ND")
    )
    server.files["CHAOS_Train_Sets.zip"] = packed({"Train_Sets/MR/1/x": b"not the real thing"})
    wrong = call("download", "chaos", "-o", tmp_path / "c", "--from", server.url)
    assert wrong.returncode == 2 and "df21053002a1cc86df918a87da3b2c19 is published" in wrong.stderr
    assert "licence: CC BY-NC-SA 4.0" in wrong.stderr
    server.files["oasis_cross-sectional_disc2.tar.gz"] = tape({"disc2/x": b"2"})
    where = ("-o", tmp_path / "o", "--only", "disc2", "--from", server.url)
    done = call("download", "oasis-1", *where)
    assert (
        done.returncode == 0
        and "was recorded in checksums.json" in done.stderr
        and (tmp_path / "o/disc2/x").exists()
    )
    assert call("download", "chaos").returncode == 2
