"""The one door for many cases: order, names, deaths, limits."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import tempfile
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from delineate.core.errors import DelineateError, FormatError
from delineate.execution import local as batch


def double(n: int) -> int:
    if n == 3:
        raise FormatError("truncated", path="x.nii.gz")
    if n == 4:
        return 1 // 0
    return 2 * n


def slow_first(n: int) -> int:
    time.sleep(0.3 if n == 0 else 0.0)
    return os.getpid()


def dies(n: int) -> int:
    if n in (1, 5):
        os.kill(os.getpid(), signal.SIGKILL)
    return n


def ends_itself(n: int) -> int:
    if n == 1:
        os._exit(3)
    return n


def sleeps_unless_first(n: int) -> None:
    time.sleep(60 * n)


def takes_memory(n: int) -> int:
    return int(np.ones(n, np.uint8).sum())


def gives_the_unpicklable(n: int):
    return (lambda: n) if n == 1 else n


def names(count: int) -> list[str]:
    return [f"case_{n}" for n in range(count)]


@pytest.mark.parametrize("workers", [1, 2])
def test_order_and_errors_with_names(workers):
    told = []
    outcomes = batch.run(
        double,
        list(range(6)),
        names=names(6),
        workers=workers,
        progress=lambda *at: told.append(at),
    )
    assert [o.name for o in outcomes] == names(6)
    assert [o.value for o in outcomes] == [0, 2, 4, None, None, 10]
    assert isinstance(outcomes[3].error, FormatError)
    assert str(outcomes[3].error) == "case case_3: x.nii.gz: truncated"
    assert "ZeroDivisionError" in str(outcomes[4].error)
    assert "case case_4" in str(outcomes[4].error)
    assert "in double" in outcomes[4].log
    assert sorted(told) == [
        ("cases", done, 6, note) for done, note in sorted(at[1::2] for at in told)
    ]
    assert [at[1] for at in told] == [1, 2, 3, 4, 5, 6]


def test_results_keep_the_order_of_items_and_come_from_several_processes():
    outcomes = batch.run(slow_first, list(range(6)), names=names(6), workers=2)
    pids = [o.value for o in outcomes]
    assert [o.name for o in outcomes] == names(6)
    assert len(set(pids)) == 2
    assert os.getpid() not in pids
    assert outcomes[0].seconds > 0.25 > outcomes[3].seconds


def test_a_killed_process_is_told_by_its_case_and_the_others_complete():
    outcomes = batch.run(dies, list(range(7)), names=names(7), workers=2)
    assert [o.value for o in outcomes] == [0, None, 2, 3, 4, None, 6]
    for n in (1, 5):
        assert outcomes[n].error.case == f"case_{n}"
        assert "signal 9" in str(outcomes[n].error)


def test_a_process_that_ends_itself_is_told_by_its_code():
    outcomes = batch.run(ends_itself, [0, 1], names=names(2), workers=2)
    assert outcomes[0].value == 0
    assert "ended without a result (exit code 3)" in str(outcomes[1].error)


def test_a_stop_ends_the_other_processes():
    def stop(*_):
        raise KeyboardInterrupt

    before = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        batch.run(sleeps_unless_first, [0, 1], names=names(2), workers=2, progress=stop)
    assert time.monotonic() - before < 50 and not multiprocessing.active_children()


def test_a_result_that_cannot_be_sent_names_its_case():
    outcomes = batch.run(gives_the_unpicklable, [0, 1, 2], names=names(3), workers=2)
    assert [o.value for o in outcomes] == [0, None, 2]
    assert outcomes[1].error.case == "case_1"


def test_memory_is_limited_where_the_system_can():
    resource = pytest.importorskip("resource")
    if resource.getrlimit(resource.RLIMIT_AS)[1] != resource.RLIM_INFINITY:
        pytest.skip("the address space is limited already")
    outcomes = batch.run(
        takes_memory,
        [1 << 20, 3 << 30, 1 << 20],
        names=names(3),
        workers=2,
        limits=batch.Limits(nbytes=1 << 30),
    )
    assert [o.value for o in outcomes] == [1 << 20, None, 1 << 20]
    assert "memory" in str(outcomes[1].error)
    assert str(outcomes[1].error).endswith("(given up after 3 tries)")


class Poison:
    """Cases by name; each try leaves its process and its folder for temporary files."""

    def __init__(self, folder: Path):
        self.folder = folder

    def begin(self) -> None:
        self.begun = time.sleep(0.4) or True  # longer than a case may take

    def follow(self, what: str, following: str) -> None:
        with open(self.folder / "followed", "a") as file:
            file.write(f"{following} after {what}\n")

    def __call__(self, what: str) -> int:
        Path(tempfile.gettempdir(), "scan").touch()
        tried = self.tried(what)
        with open(self.folder / what, "a") as file:
            file.write(f"{os.getpid()} {tempfile.gettempdir()}\n")
        if what == "slow":
            time.sleep(600)
        if what == "dies" or (what == "dies once" and not tried):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "damaged":
            raise FormatError("truncated", path="x.nii.gz")
        assert what != "unexpected"
        return os.getpid() if self.begun else 0

    def tried(self, what: str) -> list[list[str]]:
        if not (self.folder / what).exists():
            return []
        return [line.split() for line in (self.folder / what).read_text().splitlines()]


def test_poison_cases_end_with_their_process_and_the_others_are_done_once(tmp_path):
    poison = Poison(tmp_path)
    cases = ["slow", "good", "dies once"]
    came: list[str] = []
    outcomes = batch.run(
        poison,
        cases,
        names=cases,
        workers=1,
        limits=batch.Limits(seconds=0.3),
        each=lambda outcome: came.append(outcome.name),
    )
    assert [o.name for o in outcomes] == cases and came == ["good", "dies once", "slow"]
    slow, good, once = outcomes
    assert len(poison.tried("good")) == good.tries == 1 and good.value not in (None, os.getpid())
    assert once.value and len(poison.tried("dies once")) == once.tries == 2
    assert str(slow.error) == "case slow: took longer than 0.3 s (given up after 3 tries)"
    assert len({pid for pid, _ in poison.tried("slow")}) == slow.tries == 3
    # What may be read ahead: nothing that ended a worker, and nothing with it.
    followed = (tmp_path / "followed").read_text().splitlines()
    assert followed == ["good after slow", "dies once after good"]
    # They leave nothing.
    assert not any(Path(folder).exists() for name in cases for _, folder in poison.tried(name))
    assert not multiprocessing.active_children()


@pytest.mark.rounds
@pytest.mark.parametrize("workers", [1, 2])
def test_each_kind_of_failure_under_a_limit(workers, tmp_path):
    cases = ["dies", "damaged", "unexpected", "good"]
    limits = batch.Limits(seconds=60.0)
    found = batch.run(Poison(tmp_path), cases, names=cases, workers=workers, limits=limits)
    dies, damaged, unexpected, good = found
    assert str(damaged.error) == "case damaged: x.nii.gz: truncated" and damaged.tries == 1
    assert "signal 9" in str(dies.error) and dies.tries == 3 and good.value
    assert str(unexpected.error).endswith("AssertionError:  (given up after 3 tries)")


def test_a_process_that_does_not_end_is_left(caplog, monkeypatch):
    class Hung:
        """A process that waits for a network drive."""

        pid, exitcode = 7, None

        def kill(self) -> None:
            pass

        def join(self, seconds: float) -> None:
            assert seconds == batch.ENDED_S

    hung = Hung()
    monkeypatch.setattr(batch.process, "_children", {hung})
    batch._bury(batch._Job(hung, ""))
    assert "process 7 does not end" in caplog.text and not batch.process._children


def test_few_items_start_no_process_and_none_give_none():
    assert batch.run(slow_first, [1, 2], names=names(2))[0].value == os.getpid()
    assert batch.run(double, [], names=[]) == []
    with pytest.raises(ValueError, match="names"):
        batch.run(double, [1], names=[])


def test_workers_pay_only_for_long_work():
    assert batch.workers_for(0.5, 1000) == 1
    assert batch.workers_for(1e6, 1000) == batch.cores()
    assert batch.workers_for(1e6, 1) == 1


def test_an_error_keeps_its_own_case():
    outcome = batch.attempt(
        lambda _: (_ for _ in ()).throw(DelineateError("bad", case="other")), None, "mine"
    )
    assert outcome.error.case == "other"


def test_an_error_keeps_no_data_of_its_case_alive():
    kept: list[weakref.ref[np.ndarray]] = []

    def fail(n: int) -> None:
        array = np.zeros(n)
        kept.append(weakref.ref(array))
        try:
            array[n]
        except IndexError as error:
            raise FormatError("is short") from error

    outcome = batch.attempt(fail, 3, "a")
    gc.collect()
    assert str(outcome.error) == "case a: is short" and kept[0]() is None


def threads_here(_: int) -> str:
    return os.environ.get("OMP_NUM_THREADS", "")


def test_processes_share_the_cores(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = {
        outcome.value for outcome in batch.run(threads_here, [1, 2], names=["a", "b"], workers=2)
    }
    assert found == {str(max(1, batch.cores() // 2))} and "OMP_NUM_THREADS" not in os.environ
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert {
        outcome.value for outcome in batch.run(threads_here, [1, 2], names=["a", "b"], workers=2)
    } == {"7"}
    assert os.environ["OMP_NUM_THREADS"] == "7"
