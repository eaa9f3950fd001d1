"""Many cases on a Ray cluster: every case once, deaths and slow cases tried again elsewhere."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from delineate.core.errors import FormatError, UsageError
from delineate.execution.executor import Engine

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
        seconds=3,
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


def test_no_items_and_what_an_engine_is(cluster):
    assert cluster.run(work, [], names=[]) == []
    for text in ("slurm", "ray:/x", "local://x", "ray://"):
        with pytest.raises(UsageError, match="--engine must be local, ray or"):
            Engine.parsed(text)
