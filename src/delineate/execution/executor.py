"""The interface of all engines: a function of one case, called for many cases.

``local`` runs it in processes of this machine, ``on_ray`` on the machines of a Ray cluster. Both
give one outcome for each case, in the order of the items, and name the case of every failure. The
function is pure: it reads and writes files whose names follow from its item, can be repeated
without harm, and may keep what is costly (a model) for its next call in the same process.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ..core.errors import UsageError
from ..core.progress import Progress, silent
from ..extras import require_extra
from . import local
from .local import Outcome, ignored
from .pool import Stages
from .shards import Shard

Item = TypeVar("Item")
Value = TypeVar("Value")
LOCAL, RAY = "local", "ray"


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

    def refuse_limit(self, seconds: float | None) -> None:
        """Refuse a time limit of a case that the engine cannot hold.

        Raises:
            UsageError: see above.
        """
        if self.name == LOCAL and seconds is not None:
            raise UsageError("--case-timeout needs --engine ray")

    def run(
        self,
        function: Callable[[Item], Value],
        items: Sequence[Item],
        *,
        names: Sequence[str],
        workers: int | None = None,
        ram_bytes: int | None = None,
        seconds: float | None = None,
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
            seconds: that one case may take; only Ray ends it.
            whole_node: whether the function uses all cores of a machine, or its share of them if
                more workers are asked for; only for Ray.
            tries: see ``local.run``; Ray has its own number.
            stages: the same function in the stages read, work and write, which workers of their
                own do on Ray where there are GPUs, or ``spool_bytes`` is given.
            spool_bytes: of what waits between stages.

        Raises:
            UsageError: a limit that the engine cannot hold.
        """
        more: dict[str, Any] = {"names": names, "workers": workers, "ram_bytes": ram_bytes}
        more |= {"progress": progress, "each": each, "meanwhile": meanwhile}
        self.refuse_limit(seconds)
        if self.name == LOCAL:
            return local.run(function, items, tries=tries, stage=stage, **more)
        from . import on_ray

        more |= {"each": local.logged(stage, each)}
        more |= {"seconds": seconds, "whole_node": whole_node, "address": self.address}
        more |= {"stage_name": stage, "stages": stages, "spool_bytes": spool_bytes}
        return on_ray.run(function, items, **more)


@dataclass(frozen=True)
class Work:
    """How a command works on its cases: where, on which of them, and for how long on each.

    >>> Work.parsed("local", "3/100").shard
    Shard(number=3, of=100)
    """

    engine: Engine = field(default_factory=Engine)
    shard: Shard = field(default_factory=Shard)
    seconds: float | None = None

    @classmethod
    def parsed(cls, engine: str, shard: str | None = None, seconds: float | None = None) -> Work:
        """Of ``--engine``, ``--shard`` and ``--case-timeout``.

        Raises:
            UsageError: an unknown engine or another form, the engine cannot hold the limit, or its
                package is missing.
        """
        found = cls(Engine.parsed(engine), Shard.parsed(shard), seconds)
        found.engine.refuse_limit(seconds)
        return found

    @property
    def is_local(self) -> bool:
        """Whether processes of this machine do all of it."""
        return self.engine.name == LOCAL

    def run(
        self,
        function: Callable[[Item], Value],
        items: Sequence[Item],
        *,
        names: Sequence[str],
        **more: Any,
    ) -> list[Outcome[Value]]:
        """``Engine.run`` of all items; which of them belong to the shard is the caller's choice."""
        return self.engine.run(function, items, names=names, seconds=self.seconds, **more)


LOCALLY = Work()  # all cases, in processes of this machine
