"""Series with uneven gaps that are made even on request, and volumes joined to one of 4-D."""

from __future__ import annotations

import numpy as np
import pytest
from objects import ct, write

from delineate.commands.convert import convert
from delineate.commands.options import ConvertOptions
from delineate.core.errors import FormatError
from delineate.formats import files


def slices(*places, value=0, **fields):
    """CT slices at multiples of 2.5 mm, each with its place as value."""
    return [ct(np.full((3, 4), value + 10 * k, np.int16), k, **fields) for k in places]


def converted(tmp_path, **options):
    found = convert([tmp_path / "in"], tmp_path / "out", ConvertOptions(**options))
    return {p.name: files.read(p) for p in found.written}, found.notes


def values(volume):
    turned = volume.reorient("LPS")
    return turned.array[0, 0].tolist(), [
        round(float(turned.grid.to_mm((0, 0, k))[2]), 3) for k in range(turned.grid.shape[2])
    ]


def test_uneven_gaps_are_refused_unless_asked_for(tmp_path):
    write(tmp_path / "in", *slices(0, 1, 2, 5, 6))
    with pytest.raises(FormatError, match=r"uneven gaps: 1 of 4 differ from 2.50 mm: 7.50 mm"):
        converted(tmp_path)
    found, notes = converted(tmp_path, fix_series="run")
    assert values(found["ct.nii.gz"]) == ([0, 10, 20], [0, 2.5, 5])
    assert notes == ("series 1.2.3: fixed by run: 3 of 5 slices, an even run",)


def test_every_even_run_or_a_filled_volume(tmp_path):
    write(tmp_path / "in", *slices(0, 1, 2, 5, 6))
    found, _ = converted(tmp_path, fix_series="split")
    assert {name: values(v) for name, v in found.items()} == {
        "ct_run1.nii.gz": ([0, 10, 20], [0, 2.5, 5]),
        "ct_run2.nii.gz": ([50, 60], [12.5, 15]),
    }
    found, notes = converted(tmp_path, fix_series="fill")
    assert values(found["ct.nii.gz"])[0] == [0, 10, 20, 30, 40, 50, 60]
    assert notes == (
        "series 1.2.3: fixed by fill: the slices at 7.50, 10.00 mm along the normal are "
        "interpolated",
    )


def test_gaps_that_are_no_multiples_are_not_filled(tmp_path):
    write(tmp_path / "in", *slices(0, 1, 2, 3.4, 4.4))
    with pytest.raises(FormatError, match=r"cannot be filled: its gaps are no multiples of 2\.50"):
        converted(tmp_path, fix_series="fill")


def test_echoes_become_one_volume_of_4_d(tmp_path):
    write(tmp_path / "in", *slices(0, 1, EchoNumbers=1), *slices(0, 1, value=5, EchoNumbers=2))
    found, _ = converted(tmp_path, joined=True)
    assert found["ct.nii.gz"].array[:, 0, 0].tolist() == [[0, 10], [5, 15]]
