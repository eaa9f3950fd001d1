"""Stores of objects: whole objects only, whatever the network does; and no credentials in words."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path

import pytest
from tests.unreliable import unreliable

from delineate.core.errors import InputError, OutputError, UsageError
from delineate.formats import stores

pytest.importorskip("fsspec", reason="fsspec is not installed")
CONTENT = bytes(range(256)) * 64


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(stores, "WAIT_S", 0.001)
    monkeypatch.setattr(stores, "TIMEOUT_S", (2, 0.2))
    stores._systems.cache_clear()
    yield
    stores._systems.cache_clear()


def test_objects_are_fetched_whole_through_faults(quick, tmp_path):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    (tmp_path / "a.bin").write_bytes(CONTENT)
    handler = functools.partial(Quiet, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    faults = iter(["503", "short", "late"])
    target = tmp_path / "fetched"
    with unreliable(
        server.server_address, lambda m, *_: next(faults, "") if m == "GET" else "", 0.6
    ) as (url, seen):
        stores.fetch(f"{url}/a.bin?signature=secret", target)
        assert target.read_bytes() == CONTENT
        assert seen["503"] == seen["short"] == seen["late"] == 1
        # Too large, absent, or never whole: one sentence, nothing left, and no signature.
        with pytest.raises(InputError, match="more than"):
            stores.fetch(f"{url}/a.bin", target, most_bytes=1000)
        assert not target.exists()
        with pytest.raises(InputError, match=r"/b\.bin: does not exist") as absent:
            stores.fetch(f"{url}/b.bin?signature=secret", target)
        assert "secret" not in str(absent.value)
    # An error of the server is no absence, which fsspec reports for all errors of HTTP.
    faults = iter(["503", "503"])
    with unreliable(server.server_address, lambda *_: next(faults, "")) as (url, seen):
        assert stores.exists(f"{url}/a.bin") and not stores.exists(f"{url}/b.bin")
        assert seen["503"] == 2
    with pytest.raises(InputError, match="failed 4 times: Cannot connect"):
        stores.exists("http://127.0.0.1:9/a.bin")
    always = unreliable(server.server_address, lambda m, *_: "short" if m == "GET" else "")
    with always as (url, seen), pytest.raises(InputError, match="failed 4 times") as cut:
        stores.fetch(f"{url}/a.bin?signature=secret", target)
    assert not target.exists() and "secret" not in str(cut.value)
    server.shutdown()
    server.server_close()


def test_objects_are_put_found_and_removed(quick, tmp_path):
    source = tmp_path / "a.bin"
    source.write_bytes(CONTENT)
    for name in ("p/a.bin", "p/b.bin"):
        stores.put(source, f"memory://store/{name}")
    assert stores.found("memory://store/p/*.bin") == [
        "memory:///store/p/a.bin",
        "memory:///store/p/b.bin",
    ]
    assert stores.below("memory://store/p") == stores.found("memory://store/p/*")
    assert stores.state_of("memory://store/p/a.bin").nbytes == len(CONTENT)
    stores.remove("memory://store/p/a.bin")
    stores.remove("memory://store/p/a.bin")
    assert not stores.exists("memory://store/p/a.bin") and stores.exists("memory://store/p/b.bin")
    with pytest.raises(UsageError, match="no kind of place"):
        stores.require("nowhere://a/b")
    with pytest.raises(OutputError):
        stores.put(source, "http://127.0.0.1:9/a.bin")


def test_places_are_distinguished_and_shown_without_secrets():
    assert not stores.is_url(Path("C:/scans/a.nii")) and not stores.is_url("dicomweb:https://h/x")
    assert stores.joined("s3://b/lists", "ct/a.nii") == "s3://b/lists/ct/a.nii"
    assert stores.joined("s3://b/lists", "gs://c/a.nii") == "gs://c/a.nii"
    assert stores.shown("s3://key:secret@b/a.nii?token=1") == "s3://b/a.nii"


class Unsized(Quiet):
    """A server that does not state how long its one object is."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(CONTENT)


def test_an_object_of_unknown_length_is_copied_up_to_the_limit(quick, tmp_path):
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Unsized)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url, target = f"http://127.0.0.1:{server.server_port}/a.bin", tmp_path / "fetched"
    stores.fetch(url, target)
    assert target.read_bytes() == CONTENT
    with pytest.raises(InputError, match="more than"):
        stores.fetch(url, target, most_bytes=1000)
    assert not target.exists()
    server.shutdown()
    server.server_close()


def test_places_of_an_unknown_kind_are_refused(quick, tmp_path):
    with pytest.raises(UsageError, match=r"gopher:// is no kind of place that can be read"):
        stores.fetch("gopher://host/a.bin", tmp_path / "a.bin")
    (tmp_path / "b.bin").write_bytes(CONTENT)
    with pytest.raises(UsageError, match=r"gopher:// is no kind of place"):
        stores.put(tmp_path / "b.bin", "gopher://host/b.bin")
