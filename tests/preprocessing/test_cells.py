"""The comparison of many classes cell by cell: the labels of the matrix product, in all cases."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from delineate.core.grid import Grid
from delineate.preprocessing import prepare
from delineate.preprocessing.cells import largest
from delineate.preprocessing.resample import axis_weights, scale_positions


def field(classes: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Smooth logits in which every class is the largest somewhere."""
    low = torch.randn(1, classes, *(n // 3 for n in shape), generator=torch.manual_seed(classes))
    return torch.nn.functional.interpolate(3 * low, size=shape, mode="trilinear")[0]


def weights(n_in: int, n_out: int, kernel: str = "linear") -> torch.Tensor | None:
    if n_in == n_out:
        return None
    positions = np.clip(scale_positions(n_in, n_out), 0, n_in - 1)
    return torch.from_numpy(axis_weights(positions, n_in, kernel))


@pytest.mark.parametrize("kernel", ["linear", "nearest"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(14, 31, 29), (9, 17, 12), (5, 12, 29), (1, 8, 40)])
def test_the_largest_class_is_that_of_all_interpolated_scores(shape, dtype, kernel):
    """Finer, coarser and equal grids, thick slices, and planes that come in two parts."""
    scores = field(23, (9, 17, 12)).to(dtype)
    along = [weights(9, shape[0], kernel), *map(weights, (17, 12), shape[1:])]
    dense = [torch.eye(n) if w is None else w for w, n in zip(along, scores.shape[1:], strict=True)]
    expected = torch.einsum("lkab,xk,ya,zb->lxyz", scores.double(), *(w.double() for w in dense))
    found = largest([scores[:, :4], scores[:, 4:]], along, 1e-6)
    assert found.dtype == torch.uint8 and found.shape == shape
    # Halves at the same place can be equal: then the first class is expected, as for argmax.
    assert np.array_equal(found, expected.argmax(0))


def test_a_third_class_wins_between_two_others_and_equal_scores_go_to_the_first():
    ends = torch.tensor([[9.0, 0.0], [0.0, 9.0], [6.0, 6.0], [6.0, 6.0]])
    along = weights(2, 8)
    found = largest([ends[:, :, None, None]], [along, None, None], 1e-6)
    assert found.ravel().tolist() == [0, 0, 0, 2, 2, 1, 1, 1]


def test_halves_that_are_infinite_negative_or_tiny():
    values = torch.tensor([[-np.inf, -1.0, 0.0], [3e-7, -2.0, -6e-8], [1.0, -0.5, 60000.0]]).half()
    assert largest([values[:, None, None]], [None] * 3, 0.0).ravel().tolist() == [2, 2, 2]
    assert largest([values[:2, None, None]], [None] * 3, 0.0).ravel().tolist() == [1, 0, 0]


def test_more_than_256_classes():
    found = largest([field(300, (6, 9, 7))], [None] * 3, 1e-6)
    assert found.dtype == torch.int16 and found.max() > 256
    assert np.array_equal(found, field(300, (6, 9, 7)).argmax(0))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("logits", [False, True])
def test_restore_gives_the_same_labels_by_cells(axis, logits, monkeypatch):
    grid = Grid.from_spacing((40, 54, 46), (0.8, 0.8, 1.0))
    oriented, axes = grid.reorient("LPS")
    record = prepare.PreprocessingRecord(
        grid, oriented, axes, (0, 2, 0), (40, 54, 45), oriented.respace((1.5, 1.5, 1.5))
    )
    scores = field(20, record.prepared.shape)
    scores = (scores if logits else scores.softmax(0).half()).movedim(1 + axis, 1)
    values = np.array([0, *range(101, 120)], np.uint8)
    results = []
    for limit in (0, 10**9):
        monkeypatch.setattr(prepare, "CELLS_FROM", limit)
        slabs = torch.split(scores, 5, dim=1)
        results.append(prepare.restore(slabs, record, axis, values, sum_to_one=not logits))
    assert np.array_equal(*results) and len(np.unique(results[0])) == 20
