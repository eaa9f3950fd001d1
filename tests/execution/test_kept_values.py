"""What is kept of results: the same values come back, and what could not is not kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from delineate.core.errors import InputError
from delineate.execution.kept import plain, restored
from delineate.execution.ledger import BEGUN, NAME, Ledger, Seen


@dataclass(frozen=True)
class Found:
    """A result with parts of every kind."""

    path: Path
    names: frozenset[str]
    sizes: dict[int, tuple[float, ...]]
    volume: np.ndarray


def test_values_come_back_with_their_types_and_order_in_memory():
    volume = np.asfortranarray(np.arange(24, dtype=np.int16).reshape(2, 3, 4))
    sizes = {1: (0.5, float("inf")), 2: ()}
    given = Found(Path("a/b"), frozenset({"liver", "spleen"}), sizes, volume)
    made = restored(plain([given, None, True, np.float32(0.1)]), (Found,))
    found = made[0]
    assert (found.path, found.names, found.sizes) == (given.path, given.names, sizes)
    assert found.volume.dtype == np.int16 and found.volume.flags.f_contiguous
    assert np.array_equal(found.volume, volume) and not found.volume.flags.c_contiguous
    assert made[1:3] == [None, True] and made[3] == np.float32(0.1) and made[3].dtype == np.float32


@pytest.mark.parametrize("value", [object(), Found, np.array([object()]), {"a": (1j,)}])
def test_what_could_not_come_back_is_refused(value):
    with pytest.raises(TypeError, match="is not kept"):
        plain(value)


def test_only_the_stated_classes_are_made():
    kept = plain(Found(Path(), frozenset(), {}, np.zeros(1)))
    with pytest.raises(LookupError):
        restored(kept, ())


def test_every_repeat_among_many_texts_is_found():
    """More than are held as they come: they are then sorted in runs, which are joined."""
    seen = Seen()
    texts = [f"case_{n}" for n in range(3 << 14)]
    assert not any(seen.add(text) for text in texts)
    assert all(seen.add(text) for text in texts[::500])
    assert not seen.add("another")


def test_torn_marks_are_left_out_and_a_file_of_other_lines_is_refused(tmp_path):
    (tmp_path / BEGUN).write_text('{"case": "a", "at": 1.0}\n{"case": "b"}\n{"case": "c", "a')
    found = Ledger(tmp_path)
    assert [found.begun(case) for case in "abc"] == [True, False, False]
    assert found.line("a") is None
    (tmp_path / NAME).write_text('{"case": 1}\n{"x": 2}\nwords\n')
    with pytest.raises(InputError, match="3 of its lines are no lines of a journal"):
        Ledger(tmp_path)
