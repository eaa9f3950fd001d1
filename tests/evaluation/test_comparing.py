"""The compare step: differences by hand, what is left out, what is refused, and what the plots
show.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.calls import call
from tests.plans import small_plan

from delineate.commands.compare import compare
from delineate.commands.evaluate import evaluate
from delineate.commands.options import CompareOptions, EvaluateOptions
from delineate.core.bundle import Bundle, Member
from delineate.core.errors import InputError, LabelError, UsageError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.manifest import Case, Manifest, Source
from delineate.core.scores import Score, Scores
from delineate.core.volume import Volume
from delineate.evaluation.comparing import OVERALL
from delineate.formats.files import write
from delineate.metrics.statistics import interval
from delineate.reporting.compare_table import table

NAN = float("nan")
FIRST = {
    ("a", "liver"): 0.9,
    ("b", "liver"): 0.7,
    ("c", "liver"): 0.8,
    ("a", "spleen"): 0.5,
    ("b", "spleen"): NAN,
    ("c", "spleen"): 0.6,
}
OTHER = {
    ("a", "liver"): 0.95,
    ("b", "liver"): 0.6,
    ("c", "liver"): 0.8,
    ("a", "spleen"): 0.7,
    ("b", "spleen"): 0.0,
    ("c", "spleen"): 0.7,
}


def scores_json(
    folder: Path,
    values: dict[tuple[str, str], float],
    *,
    patients: dict[str, str] | None = None,
    unit: str = "",
    metric: str = "dice",
    truth: str = "hash",
) -> Path:
    """An evaluation's ``scores.json`` with these figures."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(label for _, label in values))
    labels = LabelSet.from_names(dict(enumerate(names, start=1))).to_json()
    rows = Scores(
        tuple(Score(case, label, metric, value, unit) for (case, label), value in values.items())
    )
    cases = [
        {
            "case": c,
            "truth": f"/data/{c}.nii.gz",
            "patient": (patients or {}).get(c, f"P{c}"),
            "truth_sha256": truth + c,
        }
        for c in dict.fromkeys(case for case, _ in values)
    ]
    (folder / "scores.json").write_text(rows.to_json(labels=labels, cases=cases, planar=False))
    (folder / "scores.csv").write_text(rows.to_csv())
    return folder


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    return scores_json(tmp_path / "plain", FIRST), scores_json(tmp_path / "better", OTHER)


def test_paired_differences_by_hand(two, tmp_path):
    compare(two, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    liver, spleen = found["labels"]["liver"], found["labels"]["spleen"]
    assert (liver["n"], liver["patients"]) == (3, 3)
    plain = liver["runs"]["plain"]
    assert [plain[k] for k in ("n", "mean", "median", "q1", "q3", "min", "max")] == pytest.approx(
        [3, 0.8, 0.8, 0.75, 0.85, 0.7, 0.9]
    )
    d = liver["differences"][0]
    assert (d["run"], d["to"], d["n"], d["better"], d["worse"], d["equal"]) == (
        "better",
        "plain",
        3,
        1,
        1,
        1,
    )
    assert d["mean"] == pytest.approx((0.05 - 0.1 + 0) / 3)
    assert d["median"] == pytest.approx(0)
    # One resample of three cases in 27 draws the worst one alone.
    assert d["low95"] == pytest.approx(-0.1)
    assert d["high95"] == pytest.approx(0.05)
    # the spleen of b is not defined in the first run: it enters no figure of any run
    assert (
        spleen["n"],
        spleen["runs"]["plain"]["undefined"],
        spleen["runs"]["better"]["undefined"],
    ) == (2, 1, 0)
    assert spleen["runs"]["better"]["min"] == 0.7
    assert spleen["differences"][0]["mean"] == pytest.approx(0.15)
    assert compare(two[::-1]).results["spleen"]["n"] == 2  # whichever run stands first
    overall = found["overall"]  # a: mean of both, b: the liver alone, c: mean of both
    assert overall["runs"]["plain"]["mean"] == pytest.approx((0.7 + 0.7 + 0.7) / 3)
    assert overall["differences"][0]["mean"] == pytest.approx((0.125 - 0.1 + 0.05) / 3)
    assert (found["bootstrap"]["resamples"], found["bootstrap"]["seed"]) == (10000, 0)
    assert found["better_is"] == "higher"


def test_the_table_on_disk_has_a_row_a_case_and_structure_and_a_column_a_run(two, tmp_path):
    scores_json(two[1], OTHER | {("d", "liver"): 0.4, ("d", "spleen"): 0.3})
    with pytest.raises(
        InputError,
        match=r"not every run has every case: d \(not in plain\); .* the 3 that all runs have "
        r"\(--common\)",
    ):
        compare(two, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    compared = compare(two, tmp_path / "out", CompareOptions(common=True))
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").open()))
    assert len(rows) == 8
    at = {(r["case"], r["label"]): r for r in rows}
    assert (
        at["a", "spleen"]["plain"],
        at["a", "spleen"]["better"],
        at["a", "spleen"]["patient"],
    ) == ("0.5", "0.7", "Pa")
    assert (at["b", "spleen"]["plain"], at["b", "spleen"]["better"]) == ("nan", "0.0")
    assert (at["d", "liver"]["plain"], at["d", "liver"]["better"]) == ("", "0.4")
    assert compared.left_out == {"d": ("plain",)}
    assert compared.results["liver"]["runs"]["better"]["n"] == 3
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["left_out"] == {
        "d": ["plain"]
    }


def test_the_interval_resamples_patients_and_not_cases():
    rng = np.random.default_rng(5)
    of_patient = rng.normal(0.0, 0.1, 12)
    differences, groups = (
        np.repeat(of_patient, 10) + rng.normal(0, 0.001, 120),
        [f"P{k}" for k in range(12) for _ in range(10)],
    )
    low, high = interval(differences, groups)
    assert (low, high) == interval(differences, groups)
    expected = 2 * 1.96 * of_patient.std() / np.sqrt(12)
    assert high - low == pytest.approx(expected, rel=0.1)
    alone = interval(differences, [str(k) for k in range(120)])
    assert alone[1] - alone[0] < 0.5 * (high - low)  # as if 120 patients had been seen
    assert np.isnan(interval(differences, ["P1"] * 120)).all()


def test_the_interval_is_that_of_every_possible_resampling():
    differences, groups = (
        np.array([0.3, 0.1, 0.2, -0.4, 0.05, 0.0, -0.1]),
        ["A", "A", "A", "B", "C", "D", "E"],
    )
    members = [
        np.array([d for d, g in zip(differences, groups, strict=True) if g == name])
        for name in "ABCDE"
    ]
    # Patients with more cases weigh more.
    every = [np.concatenate(drawn).mean() for drawn in itertools.product(members, repeat=5)]
    assert interval(differences, groups) == pytest.approx(
        np.percentile(every, (2.5, 97.5)), abs=0.01
    )


@pytest.mark.parametrize(
    ("metric", "better", "worse"),
    [
        ("dice", 1, 0),
        ("absolute_volume_difference_ml", 0, 1),
        ("volume_difference_ml", 0, 1),
        ("volume_truth_ml", None, None),
    ],
)
def test_what_is_better_depends_on_the_metric(tmp_path, metric, better, worse):
    unit = "ml" if metric.endswith("ml") else ""
    one = scores_json(tmp_path / "one", {("a", "liver"): 1.0}, metric=metric, unit=unit)
    two = scores_json(tmp_path / "two", {("a", "liver"): 2.0}, metric=metric, unit=unit)
    found = compare([one, two], options=CompareOptions(metric=metric)).results["liver"][
        "differences"
    ][0]
    assert (found["better"], found["worse"], found["equal"], found["mean"]) == (
        better,
        worse,
        0,
        1.0,
    )


def test_a_difference_nearer_to_zero_is_better_on_either_side(tmp_path):
    names = {"metric": "volume_difference_percent", "unit": "%"}
    one = scores_json(tmp_path / "one", {("a", "liver"): -8.0, ("b", "liver"): 3.0}, **names)
    two = scores_json(tmp_path / "two", {("a", "liver"): 4.0, ("b", "liver"): -3.0}, **names)
    found = compare([one, two], options=CompareOptions(metric="volume_difference_percent")).results[
        "liver"
    ]["differences"][0]
    assert (found["better"], found["worse"], found["equal"]) == (1, 0, 1)


# ---- what it is worth ----


def forty(
    tmp_path: Path, gains: dict[str, np.ndarray], metric: str = "dice", unit: str = ""
) -> list[Path]:
    """Two runs of forty cases whose values differ by ``gains``."""
    rng = np.random.default_rng(7)
    first = {
        (f"c{k}", label): float(v)
        for label, g in gains.items()
        for k, v in enumerate(rng.uniform(0.7, 0.8, len(g)))
    }
    other = {
        (case, label): v + float(gains[label][int(case[1:])]) for (case, label), v in first.items()
    }
    return [
        scores_json(tmp_path / name, values, metric=metric, unit=unit)
        for name, values in (("A", first), ("B", other))
    ]


def test_a_plain_sentence_says_where_it_is_better_and_where_nothing_was_found(tmp_path):
    rng = np.random.default_rng(1)
    liver, spleen, kidney = (
        rng.normal(0.008, 0.01, 40),
        rng.normal(0, 0.01, 40) - 0.0005,
        rng.normal(-0.02, 0.01, 40),
    )
    found = compare(
        forty(tmp_path, {"liver": liver, "spleen": spleen, "kidney": kidney}), tmp_path / "out"
    )
    (said,) = found.sentences
    d = found.results["liver"]["differences"][0]
    assert said.startswith(
        f"B is better than A on liver by {100 * liver.mean():.1f} Dice points (95 % interval "
        f"{100 * d['low95']:.1f} to {100 * d['high95']:.1f}, better in {int((liver > 0).sum())} "
        "of 40 cases, p "
    )
    assert f"; B is worse than A on kidney by {-100 * kidney.mean():.1f} Dice points" in said
    assert "; on spleen there is no evidence of a difference (" in said
    assert [
        found.results[s]["differences"][0]["verdict"] for s in ("liver", "spleen", "kidney")
    ] == [
        "better",
        "no evidence of a difference",
        "worse",
    ]
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["sentences"] == [said]
    lower = compare(
        forty(tmp_path / "mm", {"liver": -rng.uniform(1, 2, 40)}, "hd95_mm", "mm"),
        options=CompareOptions(metric="hd95_mm"),
    )
    assert lower.sentences[0].startswith("B is better than A on liver by 1.")
    assert " mm (95 % interval 1." in lower.sentences[0]


def test_many_structures_are_one_family(tmp_path):
    rng = np.random.default_rng(2)
    gains = {f"s{n}": rng.normal(0.004, 0.01, 40) for n in range(20)}
    found = compare(forty(tmp_path, gains)).results
    each = [found[name]["differences"][0] for name in gains]
    assert all(d["p_holm"] >= d["p"] for d in each)
    assert min(d["p_holm"] for d in each) == pytest.approx(20 * min(d["p"] for d in each))
    # Not all of these would be found again.
    assert sum(d["p"] < 0.05 for d in each) > sum(d["verdict"] == "better" for d in each)


def test_of_few_patients_it_is_said_that_no_test_can_tell(two, tmp_path):
    assert (
        "; on spleen too few patients differ for a significance test" in compare(two).sentences[0]
    )
    many_cases = [
        scores_json(
            tmp_path / n,
            {(f"c{k}", "liver"): 0.5 + v for k in range(30)},
            patients={f"c{k}": f"P{k % 3}" for k in range(30)},
        )
        for n, v in (("x", 0.0), ("y", 0.1))
    ]
    d = compare(many_cases).results["liver"]["differences"][0]
    # Thirty cases of three patients are three.
    assert (d["n"], d["better"], d["can_tell"]) == (
        30,
        30,
        False,
    )
    same = [
        scores_json(tmp_path / n, {(f"c{k}", "liver"): 0.5 for k in range(30)}) for n in ("u", "v")
    ]
    assert "no evidence of a difference" in compare(same).sentences[0]


def test_infinite_distances_are_compared_and_counted(tmp_path):
    inf = float("inf")
    one = scores_json(
        tmp_path / "one",
        {("a", "liver"): inf, ("b", "liver"): inf, ("c", "liver"): 3.0, ("d", "liver"): 4.0},
        metric="hd95_mm",
        unit="mm",
    )
    two = scores_json(
        tmp_path / "two",
        {("a", "liver"): 5.0, ("b", "liver"): inf, ("c", "liver"): 2.0, ("d", "liver"): inf},
        metric="hd95_mm",
        unit="mm",
    )
    found = compare([one, two], tmp_path / "out", CompareOptions(metric="hd95_mm")).results["liver"]
    d = found["differences"][0]
    assert (found["n"], d["infinite"], d["better"], d["worse"], d["equal"]) == (4, 2, 2, 1, 1)
    assert d["mean"] == pytest.approx(-0.5)  # of the two finite ones: 0 and -1
    assert found["runs"]["one"]["infinite"] == 2
    assert found["ranks"]["one"]["mean_rank"] == pytest.approx((2 + 1.5 + 2 + 1) / 4)


def test_three_runs_are_ranked_and_the_ranks_stability_told(tmp_path):
    rng = np.random.default_rng(3)
    base = rng.uniform(0.6, 0.9, 30)
    runs = [
        scores_json(
            tmp_path / name,
            {
                (f"c{k}", "liver"): float(v)
                for k, v in enumerate(base + shift + rng.normal(0, 0.005, 30))
            },
        )
        for name, shift in (("low", 0.0), ("high", 0.05), ("middle", 0.02))
    ]
    compared = compare(runs, tmp_path / "out")
    ranks = compared.results["liver"]["ranks"]
    assert [ranks[n]["place"] for n in ("low", "high", "middle")] == [3, 1, 2]
    assert ranks["high"]["chance_of_place"] == pytest.approx([1, 0, 0], abs=0.01)
    assert len(compared.sentences) == 2
    for words in (
        "liver",
        "high",
        "middle",
        "Dice: difference to low, each case, mean and 95 % interval",
    ):
        assert f">{words}<" in (tmp_path / "out" / "differences.svg").read_text()


# ---- what a run is ----


def test_runs_models_folders_and_files_mean_the_same(two, tmp_path):
    run = tmp_path / "m.model.run"
    two[1].rename(tmp_path / "moved")
    run.mkdir()
    (tmp_path / "moved").rename(run / "test")
    expected = compare([two[0], run]).results
    for form in (run / "test", run / "test" / "scores.json"):
        found = compare([two[0], form], options=CompareOptions(names=("plain", "m")))
        assert found.results == expected
        assert found.runs[1].what == "test"
    assert compare([two[0], run]).names == ["plain", "m"]
    by_table = compare(
        [two[0] / "scores.csv", run / "test" / "scores.csv"],
        options=CompareOptions(names=("plain", "m")),
    )
    assert by_table.results["liver"]["differences"] == expected["liver"]["differences"]


def test_a_bare_table_knows_no_patients_and_that_is_said(two, tmp_path):
    for folder in two:
        (folder / "scores.json").unlink()
    found = compare([folder / "scores.csv" for folder in two])
    assert any("not known" in w for w in found.warnings)
    assert found.results["liver"]["differences"][0]["mean"] == pytest.approx(-0.05 / 3)
    with pytest.raises(InputError, match=r"scores\.json"):
        compare([folder / "scores.csv" for folder in two], options=CompareOptions(per="patient"))


def test_a_model_leads_to_its_run_and_alone_it_is_refused(two, tmp_path):
    model = tmp_path / "m.model"
    Bundle(small_plan(), (Member("fold_0", {"w": np.zeros(3, np.float32)}, 0),), {}).save(model)
    with pytest.raises(InputError, match=r"m\.model\.run is not next to it"):
        compare([two[0], model])
    (tmp_path / "m.model.run").mkdir()
    with pytest.raises(InputError, match="no scores"):
        compare([two[0], model])
    two[1].rename(tmp_path / "m.model.run" / "test")
    assert compare([two[0], model]).names == ["plain", "m"]


def test_names_are_told_apart_by_their_folders_or_given(tmp_path):
    runs = [
        scores_json(tmp_path / "one" / "scores", FIRST),
        scores_json(tmp_path / "two" / "scores", OTHER),
    ]
    assert compare(runs).names == ["one/scores", "two/scores"]
    assert compare(runs, options=CompareOptions(names=("8 bit", "16 bit"))).names == [
        "8 bit",
        "16 bit",
    ]
    for names in (["x"], ["x", "x"], ["x", " "]):
        with pytest.raises(UsageError, match="name"):
            compare(runs, options=CompareOptions(names=names))
    with pytest.raises(UsageError, match="every run needs a different name"):
        compare([runs[0], runs[0]])


# ---- honesty ----


def test_scores_of_cases_that_chose_the_checkpoint_are_told(two, tmp_path):
    run = tmp_path / "v.model.run"
    scores_json(run / "validation", OTHER)
    (run / "card.json").write_text(json.dumps({"scores": {"what": "cross-validation"}}))
    found = compare([two[0], run])
    assert [
        w
        for w in found.warnings
        if "the scores of v are cross-validation scores" in w
        and "its checkpoint was chosen on these cases" in w
    ]
    (run / "card.json").unlink()
    assert any("of v are validation scores" in w for w in compare([two[0], run]).warnings)
    assert compare(two).warnings == ()


def test_other_truths_are_told(two):
    scores_json(two[1], OTHER, truth="another")
    assert any(
        "better and plain were scored against different truths in 3 of 3 cases, such as a" in w
        for w in compare(two).warnings
    )


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (
            {("x", "liver"): 0.5, ("x", "spleen"): 0.5},
            InputError,
            "no case in common: plain has a, b and c; better has x",
        ),
        (
            {("a", "liver"): 0.5, ("a", "kidney"): 0.5},
            LabelError,
            "only plain has spleen and only better has kidney",
        ),
        ({("a", "liver"): 0.5}, LabelError, "only plain has spleen"),
    ],
)
def test_what_cannot_be_compared_is_refused(two, change, error, words):
    scores_json(two[1], change)
    with pytest.raises(error, match=words):
        compare(two)


def test_structures_can_be_chosen(two):
    scores_json(two[1], {("a", "liver"): 0.5, ("a", "kidney"): 0.5})
    assert list(compare(two, options=CompareOptions(labels=("liver",), common=True)).values) == [
        "liver"
    ]
    with pytest.raises(LabelError, match="better has no structure spleen; it has liver and kidney"):
        compare(two, options=CompareOptions(labels=("spleen",)))


def test_units_and_metrics_that_differ_are_refused(two):
    with pytest.raises(UsageError, match="no 'hd95'; it has dice"):
        compare(two, options=CompareOptions(metric="hd95"))
    scores_json(two[1], OTHER, unit="%")
    with pytest.raises(InputError, match="the unit of dice differs between runs"):
        compare(two)
    with pytest.raises(UsageError, match="two runs"):
        compare(two[:1])
    with pytest.raises(UsageError, match="per 'voxel'"):
        compare(two, options=CompareOptions(per="voxel"))


def test_damaged_files_are_refused(two, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        compare([two[0], tmp_path / "nowhere"])
    (two[1] / "scores.json").write_text("{")
    with pytest.raises(InputError, match="JSON"):
        compare(two)
    (two[1] / "scores.json").write_text('{"rows": []}')
    with pytest.raises(InputError, match=r"not the scores\.json"):
        compare(two)
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="columns"):
        compare([two[0], tmp_path / "x.csv"])


# ---- slices and patients, from real evaluations ----


@pytest.fixture
def evaluated(tmp_path) -> list[Path]:
    """Two evaluations of three volumes of two patients, of which the second draws one slice too
    many in c1.
    """
    grid = Grid.from_spacing((8, 6, 5), (1.0, 1.5, 3.0))
    entries = []
    for name, patient in (("c0", "P1"), ("c1", "P1"), ("c2", "P2")):
        truth = np.zeros(grid.shape, np.uint8)
        truth[2:6, 1:5, 1:3] = 1
        more = truth.copy()
        more[2:6, 1:5, 3] = name == "c1"
        half = truth.copy()
        half[4:] = 0
        for folder, mask in (("truth", truth), ("half", half), ("more", more)):
            write(Volume(mask, grid, "label"), tmp_path / folder / f"{name}.nii.gz")
        entries.append(
            Case(
                name,
                patient,
                (Source(str(tmp_path / "truth" / f"{name}.nii.gz")),),
                (Source(str(tmp_path / "truth" / f"{name}.nii.gz")),),
            )
        )
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(
        Manifest(tuple(entries), ("MR",), LabelSet.from_names({1: "liver"})).to_jsonl()
    )
    for run in ("half", "more"):
        evaluate(tmp_path / run, manifest, tmp_path / "scores" / run, EvaluateOptions(report=False))
    return [tmp_path / "scores" / run for run in ("half", "more")]


def test_slices_pair_and_those_defined_in_one_run_alone_are_left_out(evaluated):
    found = compare(evaluated, options=CompareOptions(per="slice"))
    liver = found.results["liver"]
    # C1#0003 is empty in truth and in the first run.
    assert (liver["n"], liver["patients"], liver["runs"]["half"]["undefined"]) == (
        6,
        2,
        1,
    )
    assert liver["differences"][0]["mean"] == pytest.approx(1 - 2 / 3)
    assert found.left_out == {}
    assert found.warnings == ()


def test_patients_pair(evaluated):
    found = compare(evaluated, options=CompareOptions(per="patient"))
    assert found.cases == ("P1", "P2")
    more = 2 * 64 / (64 + 64 + 16)  # both volumes of P1 pooled: 32 voxels each, 16 too many in one
    assert found.values["liver"] == pytest.approx(np.array([[2 / 3, 2 / 3], [more, 1.0]]))


# ---- what is shown ----


def test_plots_have_boxes_and_points_in_the_runs_colours(two, tmp_path):
    compare(two, tmp_path / "out")
    pixels = np.asarray(Image.open(tmp_path / "out" / "boxplot.png").convert("RGB")).astype(int)
    found = {}
    for name, colour in (("plain", (0, 0x72, 0xB2)), ("better", (0xE6, 0x9F, 0))):
        places = np.argwhere(np.abs(pixels - np.array(colour)).sum(axis=-1) < 40)
        found[name] = places[places[:, 0] > 0.25 * pixels.shape[0]]  # without the legend
        assert len(found[name]) > 100
    # The first run stands on the left.
    assert found["plain"][:, 1].min() < found["better"][:, 1].min()
    svg = (tmp_path / "out" / "boxplot.svg").read_text()
    for words in ("liver", "spleen", OVERALL, "n = 3", "n = 2", "plain", "better", "Dice"):
        assert f">{words}<" in svg
    compare(two, tmp_path / "again")
    assert (tmp_path / "again" / "boxplot.svg").read_text() == svg


def test_many_structures_fill_rows_and_many_cases_scatter(tmp_path):
    rng = np.random.default_rng(0)
    runs = []
    for name in ("one", "two"):
        values = {
            (f"c{k}", f"s{n}"): float(v)
            for n in range(30)
            for k, v in enumerate(rng.uniform(0.5, 1, 60))
        }
        runs.append(scores_json(tmp_path / name, values))
    compare(runs, tmp_path / "out")
    image = Image.open(tmp_path / "out" / "boxplot.png")
    assert image.height > 3 * 3 * 150
    assert ">s29<" in (tmp_path / "out" / "boxplot.svg").read_text()


def test_nothing_defined_anywhere_still_writes(tmp_path):
    runs = [
        scores_json(tmp_path / name, {("a", "liver"): NAN, ("b", "liver"): v})
        for name, v in (("one", NAN), ("two", 0.5))
    ]
    found = compare(runs, tmp_path / "out")
    assert found.results["liver"]["n"] == 0
    assert (
        json.loads((tmp_path / "out" / "compare.json").read_text())["labels"]["liver"][
            "differences"
        ][0]["mean"]
        is None
    )
    assert (tmp_path / "out" / "boxplot.png").is_file()


def test_the_table_in_the_terminal(two):
    scores_json(two[1], OTHER | {("d", "liver"): 0.4, ("d", "spleen"): 0.3})
    compared = compare(two, options=CompareOptions(common=True))
    text = table(compared, width=260)
    row = next(line for line in text.splitlines() if "better" in line and "0.783" in line)
    assert re.split(r"  +", row.strip()) == [
        "better",
        "3",
        "0.783",
        "0.800",
        "0.700 to 0.875",
        "0.600",
        "0.950",
        "-0.017 [-0.100, +0.050]",
        "1 / 1 / 1",
        "too few",
        "-0.33",
        "1.50 (63 %)",
    ]
    assert "left out, 1: d (not in plain)" in text
    assert OVERALL in text
    # 100 columns are enough for everything, in several blocks
    narrow = table(compared)
    assert max(map(len, narrow.splitlines())) <= 100 and "…" not in narrow
    assert all(cell in narrow for cell in re.split(r"  +", row.strip()))


def test_exit_codes_at_the_command_line(two, tmp_path):
    done = call("compare", *two, "-o", tmp_path / "out", "--names", "a,b", "--label", "liver")
    assert done.returncode == 0 and "mean" in done.stdout
    assert done.stderr.startswith("written: compare.csv") and done.stderr.count("\n") == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "compare.csv",
        "compare.json",
        ".delineate.json",
        "boxplot.png",
        "boxplot.svg",
        "differences.png",
        "differences.svg",
    }
    for words in (
        (two[0],),
        (*two, "--metric", "hd95"),
        (*two, "--label", "heart"),
        (two[0], tmp_path),
    ):
        bad = call("compare", *words, "-o", tmp_path / "bad")
        assert bad.returncode == 2
        assert bad.stderr.startswith("error: ")
        assert len(bad.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "bad").exists()
