"""The interface of all engines: a function of one case, called for many cases.

``local`` runs it in processes of this machine, ``on_ray`` on the machines of a Ray cluster. Both
give one outcome for each case, in the order of the items, and name the case of every failure. The
function is pure: it reads and writes files whose names follow from its item, can be repeated
without harm, and may keep what is costly (a model) for its next call in the same process.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..extras import require_extra
from . import local
from .local import NO_LIMITS, Limits, Outcome, ignored
from .pool import Stages
from .shards import Shard

Item = TypeVar("Item")
Value = TypeVar("Value")
LOCAL, RAY = "local", "ray"
LEAST_BYTES = 256 << 20  # of memory for a case: Python with the libraries of arrays


@dataclass(frozen=True)
class Engine:
    """Where cases are computed.

    Args:
        name: "local" or "ray".
        address: of a Ray cluster; "" is the one that Ray finds, else one on this machine.

    >>> Engine.parsed("local")
    Engine(name='local', address='')
    """

    name: str = LOCAL
    address: str = ""

    @classmethod
    def parsed(cls, text: str) -> Engine:
        """The engine of ``--engine``.

        Raises:
            UsageError: an unknown engine, or its package is missing.
        """
        name, separator, _ = text.partition("://")
        is_place = name == RAY and re.fullmatch(r"ray://(\[[\w:.]+\]|[\w.-]+):[0-9]+", text)
        if name not in (LOCAL, RAY) or (separator and not is_place):
            raise UsageError(f"--engine must be local, ray or ray://HOST:PORT, found {text!r}")
        if name == RAY:
            require_extra("cluster", "--engine ray", only=("ray",))
        return cls(name, text if separator else "")

    @property
    def text(self) -> str:
        """As ``--engine`` writes it."""
        return self.address or self.name

    @contextlib.contextmanager
    def connected(self) -> Iterator[None]:
        """Inside the block all calls use one cluster, also if this process has to start it."""
        if self.name == LOCAL:
            yield
            return
        from . import on_ray

        with on_ray.connected(self.address):
            yield

    def run(
        self,
        function: Callable[[Item], Value],
        items: Sequence[Item],
        *,
        names: Sequence[str],
        workers: int | None = None,
        limits: Limits = NO_LIMITS,
        whole_node: bool = False,
        stage: str = "cases",
        progress: Progress = silent,
        each: Callable[[Outcome[Value]], Any] = ignored,
        tries: int = 1,
        meanwhile: Callable[[], object] | None = None,
        stages: Stages | None = None,
        spool_bytes: int | None = None,
    ) -> list[Outcome[Value]]:
        """Call ``function`` on every item; arguments as for ``local.run``.

        Args:
            whole_node: whether the function uses all cores of a machine, or its share of them if
                more workers are asked for; only for Ray.
            tries: see ``local.run``; Ray has its own number.
            stages: the same function in the stages read, work and write, which workers of their
                own do on Ray where there are GPUs, or ``spool_bytes`` is given.
            spool_bytes: of what waits between stages.
        """
        more: dict[str, Any] = {"names": names, "workers": workers, "limits": limits}
        more |= {"progress": progress, "each": each, "meanwhile": meanwhile}
        if self.name == LOCAL:
            return local.run(function, items, tries=tries, stage=stage, **more)
        from . import on_ray

        more |= {"each": local.logged(stage, each)}
        more |= {"whole_node": whole_node, "address": self.address}
        more |= {"stage_name": stage, "stages": stages, "spool_bytes": spool_bytes}
        return on_ray.run(function, items, **more)


@dataclass(frozen=True)
class Work:
    """How a command works on its cases: where, on which of them, and what each may need.

    >>> Work.parsed("local", "3/100").shard
    Shard(number=3, of=100)
    """

    engine: Engine = field(default_factory=Engine)
    shard: Shard = field(default_factory=Shard)
    limits: Limits = NO_LIMITS

    @classmethod
    def parsed(cls, engine: str, shard: str | None = None, limits: Limits = NO_LIMITS) -> Work:
        """Of ``--engine`` and ``--shard``.

        Raises:
            UsageError: an unknown engine or another form, a limit that no case can hold, or the
                package of the engine is missing.
        """
        if limits.seconds is not None and not limits.seconds > 0:
            raise UsageError("--case-timeout must be more than 0 s")
        if limits.nbytes is not None and limits.nbytes < LEAST_BYTES:
            raise UsageError(
                f"--case-memory must be {LEAST_BYTES >> 20} MB or more: a worker needs it before "
                "it reads anything"
            )
        return cls(Engine.parsed(engine), Shard.parsed(shard), limits)

    @property
    def is_local(self) -> bool:
        """Whether processes of this machine do all of it."""
        return self.engine.name == LOCAL

    @property
    def is_here(self) -> bool:
        """Whether this process may do it itself: one whose case has limits may have to end."""
        return self.is_local and not self.limits

    def without_limits(self) -> Work:
        """The same for work that is not on cases."""
        return replace(self, limits=NO_LIMITS)

    def run(
        self,
        function: Callable[[Item], Value],
        items: Sequence[Item],
        *,
        names: Sequence[str],
        **more: Any,
    ) -> list[Outcome[Value]]:
        """``Engine.run`` of all items; which of them belong to the shard is the caller's choice."""
        return self.engine.run(function, items, names=names, limits=self.limits, **more)


LOCALLY = Work()  # all cases, in processes of this machine
