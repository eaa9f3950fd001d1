"""Many cases on a Ray cluster: every case once, deaths and slow cases tried again elsewhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from delineate.core.errors import DelineateError, FormatError, UsageError
from delineate.execution import on_ray
from delineate.execution.executor import Engine
from delineate.execution.local import Limits
from delineate.execution.pool import Stages

pytestmark = pytest.mark.rounds


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray", reason="the extra cluster is not installed")
    with pytest.MonkeyPatch.context() as patch:
        here = str(Path(__file__).parent)  # workers import this module
        patch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield Engine("ray")
    ray.shutdown()


def work(item: tuple[str, str]) -> int:
    folder, what = item
    with open(Path(folder, what), "a") as file:
        file.write(f"{os.getpid()}\n")
    if what == "damaged":
        raise FormatError("truncated", path="x.nii.gz")
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "dies once" and len(tried(folder, what)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "unexpected":
        raise ZeroDivisionError("by zero")
    if what == "slow":
        time.sleep(600)
    return len(what)


def tried(folder: str | Path, what: str) -> list[str]:
    return Path(folder, what).read_text().split()


def test_poison_cases_are_given_up_and_all_others_done_once(cluster, tmp_path):
    good = [f"case_{n}" for n in range(40)]
    bad = ["damaged", "dies", "dies once", "unexpected", "slow"]
    names = [*good[:20], *bad, *good[20:]]
    came = []
    outcomes = cluster.run(
        work,
        [(str(tmp_path), name) for name in names],
        names=names,
        workers=2,
        limits=Limits(seconds=3),
        each=lambda outcome: came.append(outcome.name),
    )
    assert [o.name for o in outcomes] == names and sorted(came) == sorted(names)
    found = {o.name: o for o in outcomes}
    assert all(found[name].value == len(name) for name in (*good, "dies once"))
    assert all(len(tried(tmp_path, name)) == 1 for name in (*good, "damaged"))
    assert len(tried(tmp_path, "dies once")) == 2
    assert str(found["damaged"].error) == "case damaged: x.nii.gz: truncated"
    for name, why in (("dies", "ended"), ("unexpected", "by zero"), ("slow", "longer than 3 s")):
        assert len(set(tried(tmp_path, name))) == 3  # three workers
        assert why in str(found[name].error) and "given up after 3 tries" in str(found[name].error)
        assert found[name].error.case == name
    assert "in work" in found["unexpected"].log


def test_short_cases_are_sent_together_and_parted_by_a_death(cluster, tmp_path):
    names = [f"case_{n}" for n in range(300)]
    names[150:150] = ["dies", "damaged", "dies once", "unexpected"]
    items, came = [(str(tmp_path), name) for name in names], []
    outcomes = cluster.run(
        work, items, names=names, workers=2, each=lambda outcome: came.append(outcome.name)
    )
    assert [o.name for o in outcomes] == names and sorted(came) == sorted(names)
    found = {o.name: o for o in outcomes}
    failed = {o.name for o in outcomes if o.error is not None}
    assert failed == {"dies", "damaged", "unexpected"}
    assert "given up after 3 tries" in str(found["dies"].error)
    assert "given up after 3 tries" in str(found["unexpected"].error)
    assert len(tried(tmp_path, "unexpected")) == 3 and len(tried(tmp_path, "dies")) <= 4
    # Only those that were with a worker when it died were done again.
    again = sum(len(tried(tmp_path, name)) > 1 for name in names if name.startswith("case_"))
    assert again < 200


class Ahead:
    """Writes which case is read next, by which process; a case is ``work``."""

    def follow(self, item: tuple[str, str], following: tuple[str, str]) -> None:
        folder, what = item
        with open(Path(folder, "followed"), "a") as file:
            file.write(f"{os.getpid()} {what} {following[1]}\n")

    def __call__(self, item: tuple[str, str]) -> tuple[int, int]:
        time.sleep(0.1)
        return work(item), os.getpid()


def test_workers_know_their_next_case_and_lose_none_by_it(cluster, tmp_path):
    names = [*(f"case_{n}" for n in range(6)), "dies once", *(f"case_{n}" for n in range(6, 12))]
    items = [(str(tmp_path), name) for name in names]
    outcomes = cluster.run(
        Ahead(), items, names=names, workers=2, limits=Limits(seconds=60), whole_node=True
    )
    assert [o.name for o in outcomes] == names
    assert all(o.value[0] == len(o.name) for o in outcomes)
    assert all(len(tried(tmp_path, n)) == 1 + (n == "dies once") for n in names)
    by = {o.name: o.value[1] for o in outcomes}
    followed = [line.split(" ", 1) for line in (tmp_path / "followed").read_text().splitlines()]
    kept = sum(by[name] == int(pid) for pid, pair in followed for name in by if pair.endswith(name))
    assert kept >= 6  # most cases are done by the process that read them ahead
    # What ended a worker is tried alone.
    assert sum("dies once" in pair for _, pair in followed) <= 2
    limits = Limits(nbytes=1 << 30)
    (tmp_path / "followed").unlink()
    cluster.run(Ahead(), items[:4], names=names[:4], workers=1, limits=limits)
    assert not (tmp_path / "followed").exists()


def read(item: tuple[str, str]) -> np.ndarray:
    folder, what = item
    Path(folder, f"{time.time_ns()}.begun").touch()
    if what == "damaged":
        raise FormatError("truncated", path="x.nii.gz")
    return np.full(200_000, int(what) if what.isdecimal() else -1)


def infer(item: tuple[str, str], scan: np.ndarray) -> tuple[np.ndarray, int]:
    folder, what = item
    time.sleep(0.1)
    with open(Path(folder, what), "a") as file:
        file.write(f"{os.getpid()}\n")
    if what == "dies once" and len(tried(folder, what)) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return scan + 1, os.getpid()


def write(item: tuple[str, str], found: tuple[np.ndarray, int]) -> tuple[int, int, int]:
    folder, what = item
    Path(folder, f"{time.time_ns()}.ended").touch()
    if what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "slow":
        time.sleep(600)
    return int(found[0][0]), found[1], os.getpid()


def test_stages_have_workers_of_their_own_and_wait_for_each_other(cluster, tmp_path):
    names = [str(n) for n in range(12)] + ["damaged", "dies", "dies once", "slow"]
    stages = Stages((read, infer, write))
    items = [(str(tmp_path), name) for name in names]
    assert stages(items[3])[0] == 4 and (tmp_path / "3").unlink() is None
    for path in [*tmp_path.glob("*.begun"), *tmp_path.glob("*.ended")]:
        path.unlink()
    outcomes = cluster.run(
        stages,
        items,
        names=names,
        workers=1,
        whole_node=True,
        limits=Limits(seconds=8),
        stages=stages,
        spool_bytes=3 * 1_600_000 + 10_000,
    )
    assert [o.name for o in outcomes] == names
    found = {o.name: o for o in outcomes}
    assert [found[str(n)].value[0] for n in range(12)] == [n + 1 for n in range(12)]
    assert all(len(tried(tmp_path, str(n))) == 1 for n in range(12))
    assert found["dies once"].value[0] == 0 and len(tried(tmp_path, "dies once")) == 2
    # One worker with the model, which the deaths of others do not end.
    assert len({found[str(n)].value[1] for n in range(12)}) <= 2
    assert all(one.value[1] != one.value[2] for one in outcomes if one.value)
    assert str(found["damaged"].error) == "case damaged: x.nii.gz: truncated"
    assert found["damaged"].value is None
    assert "given up after 3 tries" in str(found["dies"].error)
    assert "longer than 8 s" in str(found["slow"].error)
    # No more scans are read than may wait.
    held = most = 0
    for path in sorted([*tmp_path.glob("*.begun"), *tmp_path.glob("*.ended")]):
        held += 1 if path.suffix == ".begun" else -1
        most = max(most, held)
    assert most <= 3 + 4 + 3  # with the damaged one, and those whose tries ended before writing


def test_workers_are_as_important_as_the_call():
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(on_ray.NICENESS, raising=False)
        with on_ray._equal_workers():
            assert os.environ[on_ray.NICENESS] == "0"
        assert on_ray.NICENESS not in os.environ
        patch.setenv(on_ray.NICENESS, "15")  # what a user sets stays
        with on_ray._equal_workers():
            assert os.environ[on_ray.NICENESS] == "15"


def test_no_items_and_what_an_engine_is(cluster):
    assert cluster.run(work, [], names=[]) == []
    for text in ("slurm", "ray:/x", "local://x", "ray://", "ray://head", "ray://a b:1"):
        with pytest.raises(UsageError, match="--engine must be local, ray or"):
            Engine.parsed(text)


@pytest.mark.parametrize(
    ("end", "said"), [("os._exit(1)", "Ray cluster at h:1 is gone"), ("0", "")]
)
def test_a_call_that_ray_ends_with_its_cluster_is_reported(end, said):
    code = f"import os\nfrom delineate.execution.on_ray import *\nwith last_words('h:1'): {end}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said in done.stderr and bool(said) == bool(done.stderr)


@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "127.0.0.1:1", "[::1]:1", "h:99999"])
def test_a_cluster_that_does_not_answer_is_refused_at_once(address):
    with pytest.raises(DelineateError, match="no Ray cluster at "):
        on_ray._refuse_unreachable(address)
    for other in ("", "auto", "local"):
        on_ray._refuse_unreachable(other)
