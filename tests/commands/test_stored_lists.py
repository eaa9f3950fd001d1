"""Scans from a store and results to it: by S3 with faults, and the records of calls that ended."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest
from tests.commands.test_predict import model
from tests.scans import scan
from tests.unreliable import unreliable

from delineate.cohorts.work_list import Row
from delineate.commands.options import PredictOptions
from delineate.commands.predict import ListReport, predict, stored
from delineate.core.errors import InputError, UsageError
from delineate.core.manifest import Case, Source
from delineate.formats import stores

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
OPTIONS = PredictOptions(device="cpu")
CASES = [f"c{n}" for n in range(12)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    for seed, name in enumerate(CASES):
        scan(folder / "scans" / f"{name}.nii.gz", seed=seed)
    model(folder / "m.model", ("MR",))
    return folder


def listed(archive: Path, cases: list[str], store: str) -> str:
    """The lines of a list, each with the SHA-256 of its scan."""
    lines = []
    for name in cases:
        digest = hashlib.sha256((archive / "scans" / f"{name}.nii.gz").read_bytes()).hexdigest()
        lines.append({"id": name, "image": f"{store}/{name}.nii.gz", "sha256": digest})
    return "".join(json.dumps(line) + "\n" for line in lines)


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.nii.gz")}


def test_a_list_in_a_store_is_resumed_there(archive, tmp_path, monkeypatch):
    memory, cases = fsspec.filesystem("memory"), CASES[:2]
    for name in cases:
        memory.put_file(str(archive / "scans" / f"{name}.nii.gz"), f"/ct/{name}.nii.gz")
    wrong = json.dumps({"id": "w", "image": "memory://ct/c0.nii.gz", "sha256": "0" * 64})
    text = listed(archive, cases, "memory://ct") + wrong + "\n"
    memory.pipe("/lists/all.jsonl", text.encode())
    given = (archive / "m.model", ["memory://lists/all.jsonl"], "memory://masks", OPTIONS)
    # A call that is killed after its first part: the next one does the rest.
    monkeypatch.setattr(stored, "PART_LINES", 1)
    fetched, threads = stored._fetched, []
    with monkeypatch.context() as patch:
        patch.setattr(
            stored,
            "_fetched",
            lambda *given: threads.append(threading.current_thread().name) or fetched(*given),
        )
        patch.setattr(stored.StoredRecords, "finish", lambda self: None)
        predict(*given)
    parts = memory.glob("/masks/predictions.jsonl.part-*")
    # Each scan is fetched while the one before is segmented.
    assert threads == ["MainThread", "ahead", "ahead"]
    assert len(parts) == 3 and not memory.exists("/masks/predictions.jsonl")
    memory.rm_file(parts[1])
    found = predict(*given)
    assert isinstance(found, ListReport) and (found.done, found.kept, found.failed) == (1, 1, 1)
    assert "the list states 0000" in str(found.failures[0].error)
    assert sorted(memory.ls("/masks", detail=False)) == [
        *(f"/masks/{name}.nii.gz" for name in cases),
        *(f"/masks/predictions.json{end}" for end in ("", "l")),
    ]
    line = json.loads(memory.cat("/masks/predictions.jsonl").splitlines()[0])
    assert line["entry"]["input"] == "memory://ct/c0.nii.gz"
    with pytest.raises(UsageError, match="only from a work list"):
        predict(archive / "m.model", [archive / "scans"], "memory://masks", OPTIONS)


def test_no_object_is_written_outside_of_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "exists", lambda url: False)
    monkeypatch.setattr(stores, "below", lambda url: [f"{url}/../../evil.dcm"])
    monkeypatch.setattr(stores, "fetch", lambda url, target, most: target.write_bytes(b"x"))
    row = Row(Case("c", "c", (Source("s3://scans/c"),)))
    with pytest.raises(InputError, match=r"\.\. in its name"):
        stored._fetched(row, 0, tmp_path / "a" / "b", {})
    assert not list(tmp_path.rglob("*.dcm"))


@pytest.mark.rounds
def test_masks_through_a_faulty_s3_are_those_of_this_machine(archive, tmp_path, monkeypatch):
    server = pytest.importorskip("moto.server", reason="moto[server] is not installed")
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
    predict(archive / "m.model", [archive / "scans"], tmp_path / "here", OPTIONS)
    for name, value in (("ACCESS_KEY_ID", "k"), ("SECRET_ACCESS_KEY", "hush"), ("REGION", "a")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(stores, "WAIT_S", 0.01)
    monkeypatch.setattr(stores, "TIMEOUT_S", (2, 1))
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    behind = moto.get_host_and_port()
    direct = s3fs.S3FileSystem(
        endpoint_url=f"http://{behind[0]}:{behind[1]}", skip_instance_cache=True
    )
    direct.mkdir("scans-ct")
    for name in CASES:
        direct.put_file(str(archive / "scans" / f"{name}.nii.gz"), f"scans-ct/{name}.nii.gz")
    direct.pipe("scans-ct/list.jsonl", listed(archive, CASES, "s3://scans-ct").encode())
    kinds = {0: "503", 3: "short", 6: "late"}

    def fault(method: str, path: str, number: int) -> str:
        what = kinds.get(number % 9, "")
        return "503" if what == "short" and method != "GET" else what

    try:
        with unreliable(behind, fault, late_s=1.5) as (url, seen):
            monkeypatch.setenv("AWS_ENDPOINT_URL", url)
            stores._systems.cache_clear()
            done = predict(
                archive / "m.model", ["s3://scans-ct/list.jsonl"], "s3://scans-ct/masks", OPTIONS
            )
            assert isinstance(done, ListReport) and (done.done, done.failed) == (len(CASES), 0)
            assert all(seen[kind] for kind in kinds.values()), seen
            again = predict(
                archive / "m.model", ["s3://scans-ct/list.jsonl"], "s3://scans-ct/masks", OPTIONS
            )
            assert isinstance(again, ListReport) and again.kept == len(CASES)
        (tmp_path / "there").mkdir()
        for path in direct.glob("scans-ct/masks/*.nii.gz"):
            direct.get_file(path, str(tmp_path / "there" / Path(path).name))
        assert hashes(tmp_path / "there") == hashes(tmp_path / "here")
        records = b"".join(direct.cat(p) for p in direct.glob("scans-ct/masks/predictions*"))
        assert b"hush" not in records and url.encode() not in records
    finally:
        stores._systems.cache_clear()
        moto.stop()
