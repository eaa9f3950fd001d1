"""The engine of a Ray cluster: Ray places and starts workers, here cases are given to them.

A worker is an actor that keeps the function, and with it what the function keeps (a compiled
model). How cases are given to workers, and tried again, is in ``pool``.

A function in stages (``Stages``: read, work, write) has workers of its own for each stage where
the model has a GPU, which must not wait for files: others, with a core each, read and write. On
machines without, one worker does all stages of a case with all cores, and moves no scan between
processes.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..core.errors import DelineateError, UsageError
from ..core.progress import Progress, silent
from ..formats.apart import UNTRUSTED, is_untrusted
from .local import NO_LIMITS, Limits, Outcome, attempt, ignored, look_ahead, warm_up
from .pool import TOGETHER_S, Pool, Stage, Stages
from .stopping import STOPPING

SPOOL_BYTES = 8 << 30  # of what waits between stages, by default
REACHED_S = 20.0  # for an answer of the cluster
NICENESS = "RAY_worker_niceness"  # of the environment, a setting of Ray
READERS = 4  # and as many writers, at most, for each worker with a model
log = logging.getLogger(__name__)


def run(
    function: Callable[[Any], Any],
    items: Sequence[Any],
    *,
    names: Sequence[str],
    address: str = "",
    workers: int | None = None,
    limits: Limits = NO_LIMITS,
    whole_node: bool = False,
    stage_name: str = "cases",
    progress: Progress = silent,
    each: Callable[[Outcome[Any]], Any] = ignored,
    meanwhile: Callable[[], object] | None = None,
    stages: Stages | None = None,
    spool_bytes: int | None = None,
) -> list[Outcome[Any]]:
    """Call ``function`` on every item; see ``executor.Engine.run``. A cluster that this process is
    connected to already is used and stays.

    Raises:
        DelineateError: no worker can start.
        UsageError: no machine has the memory that a case may need.
    """
    if len(names) != len(items):
        raise ValueError(f"{len(items)} items but {len(names)} names")
    if not items:
        return []
    with connected(address) as ray:
        _refuse_small(ray, limits.nbytes)
        cpus, gpus, most = _share(ray, whole_node, workers)
        count = min(most if workers is None else workers, len(items))
        is_staged = stages is not None and (gpus or spool_bytes is not None)
        steps = stages.steps if stages is not None and is_staged else (function,)
        needs = _stages(cpus, gpus, count, _cores(ray)) if is_staged else [(cpus, gpus, count)]
        more = (limits, is_untrusted(), os.getcwd())

        def stage(step: Callable[..., Any], cpus: float, gpus: float, count: int) -> Stage:
            options = {"num_cpus": cpus, "num_gpus": gpus, "max_restarts": 0}
            options |= {} if limits.nbytes is None else {"memory": limits.nbytes}
            start = ray.remote(_Worker).options(**options).remote
            return Stage(partial(start, ray.put(step), *more), min(count, len(items)))

        pool = Pool(
            ray,
            [stage(step, *need) for step, need in zip(steps, needs, strict=True)],
            items,
            names,
            limits.seconds,
            partial(progress, stage_name),
            each,
            meanwhile,
            spool_bytes or SPOOL_BYTES,
            hasattr(function, "follow") and not is_staged and limits.nbytes is None,
        )
        return pool.run()


def _stages(cpus: float, gpus: float, count: int, cores: int) -> list[tuple[float, float, int]]:
    """Cores, GPUs and number of the workers that read, have the model, and write: the model needs
    one core next to its GPU, or its share of them without one; the others share the rest.
    """
    own = 1.0 if gpus else max(1.0, cpus - 2)
    rest = cores - own * count
    each = 1.0 if rest >= 2 else 0.0
    readers = max(1, min(READERS * count, int(rest * 0.6)))
    writers = max(1, min(READERS * count, int(rest) - readers))
    return [(each, 0.0, readers), (own, gpus, count), (each, 0.0, writers)]


def _refuse_small(ray: Any, nbytes: int | None) -> None:
    """Refuse a limit above the memory of every machine: Ray would wait for a larger one.

    Raises:
        UsageError: see above.
    """
    nodes = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    most = max((int(one.get("memory", 0)) for one in nodes), default=0)
    if nbytes is not None and nbytes > most:
        raise UsageError(
            f"--case-memory is {nbytes / 2**30:.3g} GB, and the largest machine of the cluster has "
            f"{most / 2**30:.3g} GB for its workers"
        )


def _cores(ray: Any) -> int:
    return int(sum(one["Resources"].get("CPU", 0) for one in ray.nodes() if one["Alive"]))


class _Worker:
    """An actor. ``ready`` returns when it has started."""

    def __init__(
        self,
        function: Callable[..., Any],
        limits: Limits,
        untrusted: bool,
        folder: str,
    ):
        try:
            os.chdir(folder)  # relative paths mean the same files here
        except OSError as error:
            raise UsageError(
                f"the folder {folder} of the call is not on the machine {platform.node()}; call "
                "the command in a folder that all machines see"
            ) from error
        self.function = function
        if untrusted:
            os.environ[UNTRUSTED] = "1"
        limits.apply()

    def ready(self) -> None:
        """Loads what the function keeps."""
        warm_up(self.function)

    def call(self, item: Any, name: str, *given: Any) -> Outcome[Any]:
        """The outcome of the last stage; ``given`` is the value of the one before."""
        return attempt(lambda one: self.function(one, *given), item, name)

    def call_each(self, items: Sequence[Any], names: Sequence[str]) -> list[Outcome[Any]]:
        """The outcomes of the only stage, until one is unexpected or the time is over."""
        outcomes: list[Outcome[Any]] = []
        begun = time.perf_counter()
        for item, name in zip(items, names, strict=True):
            outcomes.append(self.call(item, name))
            if outcomes[-1].log or time.perf_counter() - begun > TOGETHER_S:
                break
        return outcomes

    def call_ahead(self, item: Any, name: str, following: Any) -> Outcome[Any]:
        """The outcome of the only stage; meanwhile ``following`` is read, most likely the next."""
        look_ahead(self.function, item, [following])
        return self.call(item, name)

    def pass_on(self, item: Any, name: str, *given: Any) -> tuple[Outcome[int], Any]:
        """The outcome of another stage with the bytes of its value, and the value."""
        outcome = self.call(item, name, *given)
        return replace(outcome, value=_nbytes(outcome.value)), outcome.value


def _nbytes(value: Any) -> int:
    """The bytes that a value needs where it waits; arrays are not copied to count them."""
    from ray import cloudpickle

    buffers: list[Any] = []
    head = len(cloudpickle.dumps(value, 5, buffer_callback=buffers.append))
    return int(head + sum(buffer.raw().nbytes for buffer in buffers))


@contextlib.contextmanager
def connected(address: str) -> Iterator[Any]:
    """The module of Ray, connected to a cluster; to that of a block around this one, if there is
    any. Signals stay with this program.
    """
    import ray

    if ray.is_initialized():
        yield ray
        return
    _refuse_unreachable(address or os.environ.get("RAY_ADDRESS", ""))
    kept = {one: signal.getsignal(one) for name in STOPPING if (one := getattr(signal, name, None))}
    try:
        with warnings.catch_warnings(), _equal_workers():
            warnings.simplefilter("ignore")  # what Ray warns of is in its errors
            found = ray.init(
                address=address or None,
                include_dashboard=None if address else False,
                configure_logging=False,
                log_to_driver=False,
            )
        if place := getattr(found, "dashboard_url", ""):
            log.info("Ray's dashboard: http://%s", place)
    except (ConnectionError, TimeoutError, RuntimeError) as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise DelineateError(f"no Ray cluster at {address or 'this machine'}: {said[0]}") from error
    try:
        for number, handler in kept.items():
            with contextlib.suppress(ValueError):  # not the main thread
                signal.signal(number, handler)
        with last_words(address):
            yield ray
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _equal_workers() -> Iterator[None]:
    """Workers of a cluster that is started in the block are as important to the system as this
    process, as those of ``local`` are; Ray would give them 15 less, and any other program the CPU.
    """
    if NICENESS in os.environ:
        yield
        return
    os.environ[NICENESS] = "0"
    try:
        yield
    finally:
        del os.environ[NICENESS]


def _refuse_unreachable(address: str) -> None:
    """Check that somebody answers at HOST:PORT; Ray itself tries for minutes.

    Raises:
        DelineateError: nobody does.
    """
    found = re.fullmatch(r"(?:ray://)?(\[[^]]+\]|[^:/\s]+):([0-9]{1,5})", address)
    if found is None:  # "auto", or no address
        return
    try:
        socket.create_connection((found[1].strip("[]"), int(found[2])), REACHED_S).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise DelineateError(f"no Ray cluster at {address}: {why}") from error


@contextlib.contextmanager
def last_words(address: str) -> Iterator[None]:
    """A block in which a small process waits, to report why this one ended: if the cluster is gone
    Ray ends its callers at once, with exit code 1 and no error that could be caught.
    """
    words = (
        f"error: the Ray cluster{f' at {address}' if address else ''} is gone, or this process was "
        "killed; what is finished is kept, and the same command does the rest\n"
    )
    code = "import sys; sys.stdin.read() or sys.stderr.write(sys.argv[1])"
    command = [sys.executable, "-I", "-S", "-c", code, words]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as reporter:
        assert reporter.stdin is not None
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                reporter.stdin.write(b"ended by itself")


def _share(ray: Any, whole_node: bool, wanted: int | None = None) -> tuple[float, float, int]:
    """Cores and GPUs of one worker, and how many workers there are at most. A worker with a GPU has
    one, and its share of the cores of the machine; so has one of more than there are machines.
    """
    nodes = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    cores = [int(one.get("CPU", 0)) for one in nodes]
    if not whole_node:
        return 1, 0, max(1, sum(cores))
    if with_gpu := [one for one in nodes if one.get("GPU", 0) >= 1]:
        cpus = min(int(one.get("CPU", 0) // one["GPU"]) for one in with_gpu)
        return cpus, 1, sum(int(one["GPU"]) for one in with_gpu)
    cpus = max(1, min((count for count in cores if count), default=1))
    if wanted and wanted > len(cores):
        cpus = max(1, min(cpus, sum(cores) // wanted))
    return cpus, 0, max(1, sum(count // cpus for count in cores))
