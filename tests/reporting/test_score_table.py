"""The table of an evaluation: its width, its names, its columns."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from typer.testing import CliRunner

from delineate.cli import app
from delineate.core.errors import UsageError
from delineate.metrics.selection import NOTHING, MetricSelection
from delineate.metrics.surface import SurfaceSettings
from delineate.reporting.score_table import chosen_columns

FURTHER = ("lesions", "centreline", "boundary")
ALL = MetricSelection.of(SurfaceSettings(), FURTHER)
LONG = "left anterior part of the hippocampus with a long name"


@pytest.fixture
def called(tmp_path):
    """Evaluates two cases of two structures with these options; gives the standard output."""
    for folder, shift in (("p", 1), ("t", 0)):
        for name in "ab":
            mask = np.zeros((14, 12, 8), np.uint8)
            mask[2 + shift : 5 + shift, 2:8, 2:5] = 1
            mask[8:12, 3:8, 3:6] = 2
            path = tmp_path / folder / f"{name}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(mask, np.diag([1, 1, 2, 1.0])), path)
    (tmp_path / "names.yaml").write_text(f"labels: {{1: {LONG}, 2: spleen}}")

    def call(*words: str | Path) -> str:
        given = ("evaluate", tmp_path / "p", tmp_path / "t", "--labels", tmp_path / "names.yaml")
        done = CliRunner().invoke(app, [str(word) for word in (*given, *words)])
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return call


def fits(text: str) -> bool:
    return max(map(len, text.splitlines())) <= 100 and "…" not in text


def test_the_table_fits_100_columns_with_full_names(called):
    text = called(*(word for group in FURTHER for word in ("--also", group)))
    assert fits(text)
    for word in ("precision", "recall", "HD95", "surface", "lesion", "clDice", "boundary"):
        assert word in text, word
    first, second = "left anterior part of the", "hippocampus with a long name"
    assert first in text and second in text and "mean of structures" in text
    # all metrics need several blocks
    text = called(
        "--columns", ",".join(chosen_columns((), NOTHING)) + ",specificity,volume,hd95,assd"
    )
    assert fits(text) and "specificity" in text and "predicted" in text


def test_columns_are_chosen_by_name(called):
    text = called("--columns", "pooled,hd95,iou")
    assert all(word in text for word in ("pooled", "HD95", "IoU"))
    assert "precision" not in text and "95 %" not in text
    with pytest.raises(UsageError, match="no column hd59; the nearest is hd95_mm, allowed are n"):
        called("--columns", "hd59")
    with pytest.raises(UsageError, match="no column cl_dice"):
        called("--columns", "cl_dice")  # only measured with --also centreline


def test_usual_columns():
    assert chosen_columns((), NOTHING) == ["n", "empty", "dice", "min", "precision", "recall"]
    assert {"hd95_mm", "lesion_f1", "cl_dice"} <= set(chosen_columns((), ALL))
    assert chosen_columns(("hd95", "dice"), ALL) == ["hd95_mm", "dice"]
