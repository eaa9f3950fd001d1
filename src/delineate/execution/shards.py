"""Shards: the part of the cases that one of several independent calls does.

A case belongs to a shard by a hash of its id alone. So the calls need not know of each other, may
start days apart, and agree on every case while other scans come and go; a place in a sorted list
would move with each new scan. Shards are about equal in size: of n cases each, nearly all have
n ± 2√n. Shards may have one folder of results: each has records of its own there (``named``), and
those of all are changed in turn.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Self

from ..core.atomic import remove_temporaries
from ..core.errors import OutputError, UsageError
from .claims import CLAIM, Claim, claimed, holder_of, settle

TURN = "turn.json"  # the claim while a file of all shards is changed
PATIENCE_S = 600.0


@dataclass(frozen=True)
class Shard:
    """Number ``number`` of ``of`` shards, counted from 1.

    >>> Shard.parsed("3/100"), Shard.parsed(None).is_whole
    (Shard(number=3, of=100), True)
    >>> [n for n in (1, 2, 3) if Shard(n, 3).has("liver_07")]
    [1]
    """

    number: int = 1
    of: int = 1

    @classmethod
    def parsed(cls, text: str | None) -> Self:
        """The shard of ``--shard 3/100``; None is the only one of one.

        Raises:
            UsageError: another form.
        """
        if text is None:
            return cls()
        found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text, re.ASCII)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise UsageError(
                f"--shard is written like 3/100, a number from 1 to the number of shards, found "
                f"{text!r}"
            )
        return cls(int(found[1]), int(found[2]))

    @property
    def is_whole(self) -> bool:
        """Whether there is only this shard."""
        return self.of == 1

    def has(self, name: str) -> bool:
        """Whether the case with this id belongs to it."""
        if self.is_whole:
            return True
        digest = sha256(name.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1

    def named(self, name: str) -> str:
        """The name of a file that every shard has for itself.

        >>> Shard(3, 100).named("predictions.jsonl"), Shard().named("predictions.jsonl")
        ('predictions.3-of-100.jsonl', 'predictions.jsonl')
        """
        if self.is_whole:
            return name
        stem, dot, ending = name.rpartition(".")
        return f"{stem}.{self.number}-of-{self.of}{dot}{ending}"

    def __str__(self) -> str:
        return f"shard {self.number} of {self.of}"


WHOLE = Shard()


def files_of_shards(folder: str | Path, name: str) -> list[Path]:
    """The files in ``folder`` that shards, of any number of them, have by this name."""
    stem, _, ending = name.rpartition(".")
    pattern = re.compile(rf"{re.escape(stem)}\.[0-9]+-of-[0-9]+\.{re.escape(ending)}")
    place = Path(folder)
    found = place.iterdir() if place.is_dir() else ()
    return sorted(path for path in found if pattern.fullmatch(path.name))


@contextlib.contextmanager
def turn(folder: str | Path, shard: Shard) -> Iterator[None]:
    """A block in which no other shard changes the files that all of them have in ``folder``, an
    existing one; it waits for its turn.

    Raises:
        OutputError: another one does for longer than ``PATIENCE_S``.
    """
    if shard.is_whole:  # nobody else is there
        yield
        return
    with claimed(Path(folder) / TURN, PATIENCE_S):
        yield


@contextlib.contextmanager
def claimed_by(folder: str | Path, shard: Shard) -> Iterator[Claim]:
    """Claim ``folder`` for the block: all of it, or next to other shards. What killed processes
    left incomplete is removed if nobody else works there, and what killed workers of this block
    left too, unless it is one of several shards.

    Raises:
        OutputError: the same shard, or all cases at once, is worked on by a process that is alive.
    """
    place = Path(folder)
    for left in {place / shard.named(CLAIM), place / CLAIM, *_theirs(place, shard)}:
        settle(left)
    with contextlib.ExitStack() as stack:
        with turn(place, shard):
            claim = stack.enter_context(claimed(place / shard.named(CLAIM)))
            # Each claims before it looks for others, so of two at least one sees the other.
            others = {place / CLAIM, *files_of_shards(place, CLAIM)} - {claim.path}
            holders = {path.name: holder for path in others if (holder := holder_of(path))}
            if holders and (shard.is_whole or CLAIM in holders):
                name, holder = min(holders.items())
                raise OutputError(
                    f"{holder} works here now ({name}); wait for its end, or stop it first",
                    path=place,
                )
            if not holders:
                remove_temporaries(place)
        yield claim
        if shard.is_whole and claim.is_held():
            remove_temporaries(place)


def _theirs(place: Path, shard: Shard) -> list[Path]:
    """The claims of shards, if ``shard`` cannot work next to them."""
    return files_of_shards(place, CLAIM) if shard.is_whole else []
