from __future__ import annotations

import numpy as np
import pytest

from delineate.core.errors import GeometryError, LabelError
from delineate.trust import uncertainty
from delineate.trust.uncertainty import agreement


def samples(shape=(14, 7, 5), values=(1, 3, 4)) -> list[np.ndarray]:
    """Blobs of each value that move a little from sample to sample; value 9 is in none."""
    rng = np.random.default_rng(0)
    out = []
    for _ in range(5):
        one = np.zeros(shape, np.uint8)
        for n, value in enumerate(values):
            i, j, k = rng.integers(0, 2, 3)
            one[i + 4 * n : i + 4 * n + 4, j : j + 5, k : k + 3] = value
        out.append(one)
    out[2][out[2] == 4] = 0  # one sample lacks a structure altogether
    return out


@pytest.mark.parametrize("chunk", [1 << 18, 7])
def test_it_equals_set_operations(monkeypatch, chunk):
    monkeypatch.setattr(uncertainty, "CHUNK_VOXELS", chunk)
    given = samples()
    rows = agreement(given, (1, 3, 4, 9), 0.25)
    for row in rows:
        sets = [{tuple(v) for v in np.argwhere(s == row.value)} for s in given]
        volumes = np.array([len(s) for s in sets]) * 0.25
        together, anywhere = set.intersection(*sets), set.union(*sets)
        assert row.samples_ml == tuple(volumes) and row.found_in == sum(bool(s) for s in sets)
        assert row.mean_ml == pytest.approx(volumes.mean()) and row.std_ml == pytest.approx(
            volumes.std(ddof=1)
        )
        if anywhere:
            assert row.iou == len(together) / len(anywhere)
            assert row.cv == pytest.approx(volumes.std(ddof=1) / volumes.mean())
        else:
            assert np.isnan(row.iou) and np.isnan(row.cv)
    assert [row.found_in for row in rows] == [5, 5, 4, 0] and rows[2].iou == 0
    assert 0 < rows[0].iou < 1


def test_equal_samples_agree_in_full():
    one = samples()[0].astype(np.uint16)
    for row in agreement([one, one, one], (1, 3, 4)):
        assert (row.iou, row.cv, row.found_in) == (1.0, 0.0, 3)


def test_without_a_voxel_size_the_ratios_stand():
    known, unknown = agreement(samples(), (1, 3, 4), 2.0)[0], agreement(samples(), (1, 3, 4))[0]
    assert np.isnan(unknown.mean_ml) and (unknown.cv, unknown.iou) == (known.cv, known.iou)


def test_what_is_refused():
    with pytest.raises(ValueError, match="two"):
        agreement(samples()[:1], (1, 3, 4))
    with pytest.raises(GeometryError, match="shape"):
        agreement([np.zeros((2, 3, 4), np.uint8), np.zeros((3, 2, 4), np.uint8)], (1,))
    with pytest.raises(LabelError, match="4"):
        agreement(samples(), (1, 3))
    with pytest.raises(LabelError):
        agreement([np.full((2, 3, 4), 0.5)] * 2, (1,))
