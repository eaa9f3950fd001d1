"""Scores: the round trip, the summary recomputed from the rows, and NaN counted apart."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from delineate.core.errors import InputError
from delineate.core.scores import (
    HIGHER,
    LOWER,
    NEARER_ZERO,
    NO_JUDGEMENT,
    Score,
    Scores,
    better_is,
    describe,
    judged,
    without_nan,
)

NAN = float("nan")
ROWS = (
    Score("a", "liver", "dice", 0.1 + 0.2),
    Score("a", "liver", "volume_ml", 1500.25, "ml"),
    Score("a", 'left, "outer" part', "dice", NAN),
    Score("b", "liver", "dice", 0.9),
    Score("b", "liver", "volume_ml", 1e-17, "ml"),
    Score("b", 'left, "outer" part', "dice", 0.5),
    Score("c", "liver", "dice", NAN),
)


def same(a: Score, b: Score) -> bool:
    both_nan = np.isnan(a.value) and np.isnan(b.value)
    return (a.case, a.label, a.metric, a.unit) == (b.case, b.label, b.metric, b.unit) and bool(
        a.value == b.value or both_nan
    )


def there_and_back(scores: Scores, folder: Path) -> Scores:
    (folder / "scores.csv").write_text(scores.to_csv())
    return Scores.from_csv(folder / "scores.csv")


def test_csv_round_trip_keeps_every_bit(tmp_path):
    back = there_and_back(Scores(ROWS), tmp_path)
    assert len(back.rows) == len(ROWS)
    assert all(same(a, b) for a, b in zip(back, ROWS, strict=True))
    assert there_and_back(Scores(()), tmp_path).rows == ()


def test_the_summary_can_be_recomputed_from_the_csv(tmp_path):
    scores = Scores(ROWS)
    again = there_and_back(scores, tmp_path)
    assert without_nan(again.summary()) == without_nan(scores.summary())
    liver = next(s for s in again.summary() if s["label"] == "liver" and s["metric"] == "dice")
    kept = [0.1 + 0.2, 0.9]
    assert (liver["n"], liver["undefined"]) == (2, 1)
    assert liver["mean"] == pytest.approx(sum(kept) / 2)
    assert liver["std"] == pytest.approx(np.std(kept, ddof=1))
    assert (liver["min"], liver["max"], liver["median"]) == (
        min(kept),
        max(kept),
        pytest.approx(0.6),
    )
    assert next(s["unit"] for s in again.summary() if s["metric"] == "volume_ml") == "ml"


def test_nan_is_counted_and_never_averaged():
    assert describe(np.array([NAN, NAN])) | {} == pytest.approx(
        {
            "n": 0,
            "undefined": 2,
            "infinite": 0,
            **dict.fromkeys(("mean", "std", "median", "q1", "q3", "min", "max"), NAN),
        },
        nan_ok=True,
    )
    assert describe(np.array([0.4, NAN]))["mean"] == 0.4
    assert describe(np.array([0.4, NAN]))["std"] == 0.0
    assert describe(np.array([]))["n"] == 0


def test_the_mean_is_over_structures_each_averaged_over_cases():
    assert Scores(ROWS).mean("dice") == pytest.approx((0.6 + 0.5) / 2)
    assert np.isnan(Scores(ROWS).mean("hd95"))


def test_json_is_strict_and_holds_rows_and_summary():
    data = json.loads(
        Scores(ROWS).to_json(note="x"), parse_constant=lambda c: pytest.fail(f"{c} is not JSON")
    )
    assert data["note"] == "x"
    assert data["rows"][2]["value"] is None
    assert len(data["rows"]) == len(ROWS)


def test_rows_are_unique_and_other_tables_refused(tmp_path):
    with pytest.raises(InputError, match="same case"):
        Scores((ROWS[0], ROWS[0]))
    file, head = tmp_path / "s.csv", "case,label,metric,value,unit\n"
    for text, why in (
        ("a,b\n1,2\n", "columns case, label, metric, value, unit, found a, b"),
        (head + "a,liver,dice,0.5,\na,liver,dice,much,\n", "line 3 is not a score"),
        (head + "a,liver,dice\n", "line 2 is not a score"),
        (head + 2 * "a,liver,dice,0.5,\n", "same case"),
        ("\0", "scores"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=why) as error:
            Scores.from_csv(file)
        assert "s.csv" in str(error.value)
    with pytest.raises(InputError, match="cannot be read as scores"):
        Scores.from_csv(tmp_path / "none.csv")


def test_a_frame_has_a_row_for_every_score():
    pytest.importorskip("pandas")
    frame = Scores(ROWS).to_frame()
    assert list(frame.columns) == ["case", "label", "metric", "value", "unit"]
    assert len(frame) == len(ROWS) and np.array_equal(
        frame["value"], [row.value for row in ROWS], equal_nan=True
    )
    assert list(Scores(()).to_frame().columns) == list(frame.columns)


def test_an_infinite_distance_has_its_rank_and_no_part_in_the_mean():
    found = describe(np.array([1.0, 3.0, np.inf, NAN]))
    assert (
        found["n"],
        found["undefined"],
        found["infinite"],
        found["mean"],
        found["median"],
        found["max"],
    ) == (3, 1, 1, 2.0, 3.0, np.inf)
    assert (
        describe(np.array([np.inf, np.inf, np.inf]))["median"]
        == describe(np.array([np.inf]))["mean"]
        == np.inf
    )


@pytest.mark.parametrize(
    ("metric", "direction"),
    [
        ("dice", HIGHER),
        ("dice_mean_per_case", HIGHER),
        ("surface_dice_0.5mm_of_voxels", HIGHER),
        ("hd95", LOWER),
        ("hd95_pooled_of_inner_voxels_mm", LOWER),
        ("absolute_volume_difference_percent", LOWER),
        ("volume_difference_percent", NEARER_ZERO),
        ("volume_truth_ml", None),
    ],
)
def test_which_way_is_better_goes_by_the_words_with_which_a_name_begins(metric, direction):
    assert better_is(metric) == direction
    judged([metric])


@pytest.mark.parametrize(
    "metric",
    ["dicey", "volume", "volume_ml", "volume_differences", "hd950_mm", "lesion", "_dice", "di", ""],
)
def test_a_name_that_only_looks_like_a_metrics_is_unknown(metric):
    assert better_is(metric) is None
    with pytest.raises(TypeError, match=f"missing: {metric}$"):
        judged(["dice", metric])


def test_the_longest_entry_counts(monkeypatch):
    directions = {"a": HIGHER, "a_b": NO_JUDGEMENT, "a_b_c": LOWER}
    monkeypatch.setattr("delineate.core.scores.DIRECTIONS", directions)
    found = [better_is(metric) for metric in ("a_c", "a_b", "a_b_d", "a_b_c_d", "b")]
    assert found == [HIGHER, None, None, LOWER, None]


def test_only_what_has_a_nan_is_copied():
    sound, bad = {"a": [1.5, {"b": 2}]}, {"a": [np.inf, np.float32(1)]}
    assert without_nan(sound) is sound
    found = without_nan({"sound": sound, "bad": bad})
    assert found == {"sound": sound, "bad": {"a": [None, 1.0]}} and found["sound"] is sound
    assert bad == {"a": [np.inf, np.float32(1)]}
