"""Claims: one process at a time, however the one before it ended."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time

import pytest

from delineate.core.errors import OutputError
from delineate.execution import claims
from delineate.execution.claims import claimed, holder_of
from delineate.execution.shards import WHOLE, Shard, claimed_by

KILLED = (
    "import os, sys\nfrom delineate.execution.claims import claimed\n"
    "with claimed(sys.argv[1]):\n    os.kill(os.getpid(), 9)"
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "running.json"


def of_another_machine(path, age_s: float) -> None:
    path.write_text(json.dumps({"token": "x", "host": "elsewhere", "space": "", "pid": 1}))
    os.utime(path, (time.time() - age_s,) * 2)


def test_a_claim_is_held_for_its_block(path):
    with claimed(path) as claim:
        assert claim.is_held() and f"process {os.getpid()}" in holder_of(path)
        with pytest.raises(OutputError, match=f"process {os.getpid()} on .* works here now"):
            claimed(path).__enter__()
        claim.confirm()
    assert not path.exists() and not holder_of(path)


def test_a_killed_process_holds_nothing(path):
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert path.exists() and not holder_of(path)
    with claimed(path) as claim:
        assert claim.is_held()
    assert not list(path.parent.iterdir())


def test_a_process_of_which_only_the_exit_code_is_left_holds_nothing(path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    assert path.exists() and holder_of(path) == ""
    process.wait()


def test_claims_that_a_signal_left_are_released(path):
    left = claimed(path)
    left.__enter__()
    claims.release_left()
    assert not path.exists()


def test_a_process_with_the_number_of_the_killed_one_is_not_it(path):
    with claimed(path):
        content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"started": content["started"] - 100}))
    assert not holder_of(path)


def test_a_claim_of_another_machine_counts_while_it_is_renewed(path):
    of_another_machine(path, age_s=30)
    assert holder_of(path) == "process 1 on elsewhere"
    with pytest.raises(OutputError, match="process 1 on elsewhere"):
        claimed(path).__enter__()
    of_another_machine(path, age_s=90)
    with claimed(path):
        assert "elsewhere" not in path.read_text()


def test_who_replaces_a_killed_machine_waits_until_its_claim_is_stale(path, monkeypatch):
    monkeypatch.setattr(claims, "STALE_AFTER_S", 0.5)
    monkeypatch.setattr(claims, "ASKED_EVERY_S", 0.002)
    of_another_machine(path, age_s=0.2)
    began = time.monotonic()
    with claimed_by(path.parent, WHOLE):
        assert time.monotonic() - began > 0.2 and "elsewhere" not in path.read_text()
    # One that is renewed is that of a living process, which is refused without further waiting.
    monkeypatch.setattr(claims, "STALE_AFTER_S", 60.0)
    of_another_machine(path, age_s=30)
    renewal = threading.Timer(0.1, os.utime, (path,))
    renewal.start()
    with pytest.raises(OutputError, match="process 1 on elsewhere works here now"):
        claimed_by(path.parent, WHOLE).__enter__()
    renewal.join()


def test_a_claim_that_is_being_written_counts(path):
    path.write_text("")
    assert holder_of(path)


def test_a_claim_is_renewed(path, monkeypatch):
    monkeypatch.setattr(claims, "RENEWED_EVERY_S", 0.02)
    with claimed(path):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_a_claim_that_another_process_has_is_not_renewed(path, monkeypatch):
    monkeypatch.setattr(claims, "RENEWED_EVERY_S", 0.01)
    threads = threading.active_count()
    with claimed(path):
        of_another_machine(path, age_s=1000)
        deadline = time.monotonic() + 10
        while threading.active_count() > threads and time.monotonic() < deadline:
            time.sleep(0.01)
        assert time.time() - path.stat().st_mtime > 500


def test_a_disk_without_hard_links_has_claims_too(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(claims.os, "link", refuse)
    with claimed(path) as claim:
        assert claim.is_held()
        with pytest.raises(OutputError, match="works here now"):
            claimed(path).__enter__()
    assert not list(path.parent.iterdir())


def test_a_claim_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"nowhere/running\.json"):
        claimed(tmp_path / "nowhere" / "running.json").__enter__()


def test_a_claim_made_while_a_stale_one_is_removed_is_put_back(path, monkeypatch):
    """Another process has removed the stale claim and made its own between two calls."""
    of_another_machine(path, age_s=90)
    replace = os.replace

    def late(source, target):
        path.write_text(json.dumps({"token": "y", "host": "third", "space": "", "pid": 2}))
        monkeypatch.undo()
        replace(source, target)

    monkeypatch.setattr(claims.os, "replace", late)
    with pytest.raises(OutputError, match="process 2 on third works here now"):
        claimed(path).__enter__()
    assert json.loads(path.read_text())["token"] == "y" and len(list(path.parent.iterdir())) == 1


def test_a_stale_claim_that_stays_is_refused(path, monkeypatch):
    of_another_machine(path, age_s=90)
    monkeypatch.setattr(claims, "_remove_stale", lambda path: None)
    with pytest.raises(OutputError, match="another process works here now"):
        claimed(path).__enter__()


def test_without_a_place_for_a_file_the_age_is_by_the_own_clock(path, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(claims.tempfile, "NamedTemporaryFile", refuse)
    of_another_machine(path, age_s=30)
    assert holder_of(path) == "process 1 on elsewhere"
    of_another_machine(path, age_s=90)
    assert not holder_of(path)


@pytest.mark.parametrize("text", ["[]", '{"pid": "x"}', "{"])
def test_a_damaged_claim_counts_until_it_is_old(path, text):
    path.write_text(text)
    assert holder_of(path).startswith("process ")
    os.utime(path, (time.time() - 90,) * 2)
    assert not holder_of(path)


def test_a_process_that_slept_too_long_notices(path):
    with claimed(path) as claim:
        of_another_machine(path, age_s=0)
        assert not claim.is_held()
        with pytest.raises(OutputError, match="another process has taken over"):
            claim.confirm()
    assert "elsewhere" in path.read_text()  # the other's claim is left alone


def _contend(path, started, holders, most) -> None:
    started.wait()
    try:
        with claimed(path):
            with holders.get_lock():
                holders.value += 1
                most.value = max(most.value, holders.value)
            time.sleep(0.05)
            with holders.get_lock():
                holders.value -= 1
    except OutputError:
        pass


def test_of_many_that_start_at_once_one_works(path):
    of_another_machine(path, age_s=90)  # all find a stale claim first
    context = multiprocessing.get_context("spawn")
    started, holders, most = context.Event(), context.Value("i", 0), context.Value("i", 0)
    processes = [
        context.Process(target=_contend, args=(path, started, holders, most)) for _ in range(4)
    ]
    for process in processes:
        process.start()
    started.set()
    for process in processes:
        process.join()
    assert most.value == 1


@pytest.mark.parametrize("shard", [WHOLE, Shard(1, 2)])
def test_what_killed_workers_leave_is_removed_at_the_end(tmp_path, shard):
    left = tmp_path / "masks" / ".0123abcd.tmp.a.nii.gz"
    left.parent.mkdir()
    with claimed_by(tmp_path, shard):
        left.write_bytes(b"part of a mask")
    # Other shards may still write.
    assert left.exists() is not shard.is_whole
    with claimed_by(tmp_path, WHOLE):
        assert not left.exists()
