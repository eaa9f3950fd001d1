"""The compare step: differences by hand, what is left out, what is refused, and what the plots show."""

from __future__ import annotations

import csv
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.plans import small_plan

from delineate.core.bundle import Bundle, Member
from delineate.core.errors import InputError, LabelError, UsageError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet
from delineate.core.manifest import Case, Manifest, Source
from delineate.core.scores import Score, Scores
from delineate.core.volume import Volume
from delineate.formats.files import write
from delineate.steps.compare import OVERALL, bootstrap, compare, table
from delineate.steps.evaluate import evaluate

NAN = float("nan")
FIRST = {("a", "liver"): 0.9, ("b", "liver"): 0.7, ("c", "liver"): 0.8, ("a", "spleen"): 0.5, ("b", "spleen"): NAN, ("c", "spleen"): 0.6}
OTHER = {("a", "liver"): 0.95, ("b", "liver"): 0.6, ("c", "liver"): 0.8, ("a", "spleen"): 0.7, ("b", "spleen"): 0.0, ("c", "spleen"): 0.7}


def scores_json(folder: Path, values: dict[tuple[str, str], float], *, patients: dict[str, str] | None = None, unit: str = "", metric: str = "dice",
                truth: str = "hash") -> Path:  # fmt: skip
    """An evaluation's ``scores.json`` with these figures."""
    folder.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(label for _, label in values))
    labels = LabelSet.from_names(dict(enumerate(names, start=1))).to_json()
    rows = Scores(tuple(Score(case, label, metric, value, unit) for (case, label), value in values.items()))
    cases = [{"case": c, "truth": f"/data/{c}.nii.gz", "patient": (patients or {}).get(c, f"P{c}"), "truth_sha256": truth + c}
             for c in dict.fromkeys(case for case, _ in values)]  # fmt: skip
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
    assert [plain[k] for k in ("n", "mean", "median", "q1", "q3", "min", "max")] == pytest.approx([3, 0.8, 0.8, 0.75, 0.85, 0.7, 0.9])
    d = liver["differences"][0]
    assert (d["run"], d["to"], d["n"], d["better"], d["worse"], d["equal"]) == ("better", "plain", 3, 1, 1, 1)
    assert d["mean"] == pytest.approx((0.05 - 0.1 + 0) / 3)
    assert d["median"] == pytest.approx(0)
    assert d["low95"] == pytest.approx(-0.1)  # one resample of three cases in 27 draws the worst one alone
    assert d["high95"] == pytest.approx(0.05)
    # the spleen of b is not defined in the first run: it enters no figure of any run
    assert (spleen["n"], spleen["runs"]["plain"]["undefined"], spleen["runs"]["better"]["undefined"]) == (2, 1, 0)
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
    compared = compare(two, tmp_path / "out")
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").open()))
    assert len(rows) == 8
    at = {(r["case"], r["label"]): r for r in rows}
    assert (at["a", "spleen"]["plain"], at["a", "spleen"]["better"], at["a", "spleen"]["patient"]) == ("0.5", "0.7", "Pa")
    assert (at["b", "spleen"]["plain"], at["b", "spleen"]["better"]) == ("nan", "0.0")
    assert (at["d", "liver"]["plain"], at["d", "liver"]["better"]) == ("", "0.4")
    assert compared.left_out == {"d": ("plain",)}
    assert compared.results["liver"]["runs"]["better"]["n"] == 3
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["left_out"] == {"d": ["plain"]}


def test_the_interval_resamples_patients_and_not_cases():
    rng = np.random.default_rng(5)
    of_patient = rng.normal(0.0, 0.1, 12)
    differences, groups = np.repeat(of_patient, 10) + rng.normal(0, 0.001, 120), [f"P{k}" for k in range(12) for _ in range(10)]
    low, high = bootstrap(differences, groups)
    assert (low, high) == bootstrap(differences, groups)
    expected = 2 * 1.96 * of_patient.std() / np.sqrt(12)
    assert high - low == pytest.approx(expected, rel=0.1)
    alone = bootstrap(differences, [str(k) for k in range(120)])
    assert alone[1] - alone[0] < 0.5 * (high - low)  # as if 120 patients had been seen
    assert np.isnan(bootstrap(differences, ["P1"] * 120)).all()


def test_the_interval_is_that_of_every_possible_resampling():
    differences, groups = np.array([0.3, 0.1, 0.2, -0.4, 0.05, 0.0, -0.1]), ["A", "A", "A", "B", "C", "D", "E"]
    members = [np.array([d for d, g in zip(differences, groups, strict=True) if g == name]) for name in "ABCDE"]
    every = [np.concatenate(drawn).mean() for drawn in itertools.product(members, repeat=5)]  # patients with more cases weigh more
    assert bootstrap(differences, groups) == pytest.approx(np.percentile(every, (2.5, 97.5)), abs=0.01)


@pytest.mark.parametrize(
    ("metric", "better", "worse"),
    [("dice", 1, 0), ("absolute_volume_difference_ml", 0, 1), ("volume_difference_ml", 0, 1), ("volume_truth_ml", None, None)],
)
def test_what_is_better_depends_on_the_metric(tmp_path, metric, better, worse):
    unit = "ml" if metric.endswith("ml") else ""
    one = scores_json(tmp_path / "one", {("a", "liver"): 1.0}, metric=metric, unit=unit)
    two = scores_json(tmp_path / "two", {("a", "liver"): 2.0}, metric=metric, unit=unit)
    found = compare([one, two], metric=metric).results["liver"]["differences"][0]
    assert (found["better"], found["worse"], found["equal"], found["mean"]) == (better, worse, 0, 1.0)


def test_a_difference_nearer_to_zero_is_better_on_either_side(tmp_path):
    names = {"metric": "volume_difference_percent", "unit": "%"}
    one = scores_json(tmp_path / "one", {("a", "liver"): -8.0, ("b", "liver"): 3.0}, **names)
    two = scores_json(tmp_path / "two", {("a", "liver"): 4.0, ("b", "liver"): -3.0}, **names)
    found = compare([one, two], metric="volume_difference_percent").results["liver"]["differences"][0]
    assert (found["better"], found["worse"], found["equal"]) == (1, 0, 1)


# ---- what a run is ----


def test_runs_models_folders_and_files_mean_the_same(two, tmp_path):
    run = tmp_path / "m.model.run"
    two[1].rename(tmp_path / "moved")
    run.mkdir()
    (tmp_path / "moved").rename(run / "test")
    expected = compare([two[0], run]).results
    for form in (run / "test", run / "test" / "scores.json"):
        found = compare([two[0], form], names=["plain", "m"])
        assert found.results == expected
        assert found.runs[1].what == "test"
    assert compare([two[0], run]).names == ["plain", "m"]
    by_table = compare([two[0] / "scores.csv", run / "test" / "scores.csv"], names=["plain", "m"])
    assert by_table.results["liver"]["differences"] == expected["liver"]["differences"]


def test_a_bare_table_knows_no_patients_and_that_is_said(two, tmp_path):
    for folder in two:
        (folder / "scores.json").unlink()
    found = compare([folder / "scores.csv" for folder in two])
    assert any("not known" in w for w in found.warnings)
    assert found.results["liver"]["differences"][0]["mean"] == pytest.approx(-0.05 / 3)
    with pytest.raises(InputError, match=r"scores\.json"):
        compare([folder / "scores.csv" for folder in two], per="patient")


def test_a_model_leads_to_its_run_and_alone_it_is_refused(two, tmp_path):
    model = tmp_path / "m.model"
    Bundle(small_plan(), (Member("fold_0", {"w": np.zeros(3, np.float32)}, 0),), {}).save(model)
    with pytest.raises(InputError, match=r"m\.model\.run is not beside it"):
        compare([two[0], model])
    (tmp_path / "m.model.run").mkdir()
    with pytest.raises(InputError, match="no scores"):
        compare([two[0], model])
    two[1].rename(tmp_path / "m.model.run" / "test")
    assert compare([two[0], model]).names == ["plain", "m"]


def test_names_are_told_apart_by_their_folders_or_given(tmp_path):
    runs = [scores_json(tmp_path / "one" / "scores", FIRST), scores_json(tmp_path / "two" / "scores", OTHER)]
    assert compare(runs).names == ["one/scores", "two/scores"]
    assert compare(runs, names=["8 bit", "16 bit"]).names == ["8 bit", "16 bit"]
    for names in (["x"], ["x", "x"], ["x", " "]):
        with pytest.raises(UsageError, match="name"):
            compare(runs, names=names)
    with pytest.raises(UsageError, match="compared with others"):
        compare([runs[0], runs[0]])


# ---- honesty ----


def test_scores_of_cases_that_chose_the_checkpoint_are_told(two, tmp_path):
    run = tmp_path / "v.model.run"
    scores_json(run / "validation", OTHER)
    (run / "card.json").write_text(json.dumps({"scores": {"what": "cross-validation"}}))
    found = compare([two[0], run])
    assert [w for w in found.warnings if "v shows cross-validation scores" in w and "chose its checkpoint" in w]
    (run / "card.json").unlink()
    assert any("v shows validation scores" in w for w in compare([two[0], run]).warnings)
    assert compare(two).warnings == ()


def test_other_truths_are_told(two):
    scores_json(two[1], OTHER, truth="another")
    assert any("other truths than plain in 3 of 3 cases, such as a" in w for w in compare(two).warnings)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({("x", "liver"): 0.5, ("x", "spleen"): 0.5}, InputError, "no case in common: plain has a, b and c; better has x"),
        ({("a", "liver"): 0.5, ("a", "kidney"): 0.5}, LabelError, "only plain has spleen and only better has kidney"),
        ({("a", "liver"): 0.5}, LabelError, "only plain has spleen"),
    ],
)
def test_what_cannot_be_compared_is_refused(two, change, error, words):
    scores_json(two[1], change)
    with pytest.raises(error, match=words):
        compare(two)


def test_structures_can_be_chosen(two):
    scores_json(two[1], {("a", "liver"): 0.5, ("a", "kidney"): 0.5})
    assert list(compare(two, labels=["liver"]).values) == ["liver"]
    with pytest.raises(LabelError, match="better has no structure spleen; it has liver and kidney"):
        compare(two, labels=["spleen"])


def test_units_and_metrics_that_differ_are_refused(two):
    with pytest.raises(UsageError, match="no 'hd95'; it has dice"):
        compare(two, metric="hd95")
    scores_json(two[1], OTHER, unit="%")
    with pytest.raises(InputError, match="not one unit"):
        compare(two)
    with pytest.raises(UsageError, match="two runs"):
        compare(two[:1])
    with pytest.raises(UsageError, match="per 'voxel'"):
        compare(two, per="voxel")


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
    """Two evaluations of three volumes of two patients, of which the second draws one slice too many in c1."""
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
            Case(name, patient, (Source(str(tmp_path / "truth" / f"{name}.nii.gz")),), (Source(str(tmp_path / "truth" / f"{name}.nii.gz")),))
        )
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(Manifest(tuple(entries), ("MR",), LabelSet.from_names({1: "liver"})).to_jsonl())
    for run in ("half", "more"):
        evaluate(tmp_path / run, manifest, tmp_path / "scores" / run)
    return [tmp_path / "scores" / run for run in ("half", "more")]


def test_slices_pair_and_those_defined_in_one_run_alone_are_left_out(evaluated):
    found = compare(evaluated, per="slice")
    liver = found.results["liver"]
    assert (liver["n"], liver["patients"], liver["runs"]["half"]["undefined"]) == (6, 2, 1)  # c1#0003 is empty in truth and in the first run
    assert liver["differences"][0]["mean"] == pytest.approx(1 - 2 / 3)
    assert found.left_out == {}
    assert found.warnings == ()


def test_patients_pair(evaluated):
    found = compare(evaluated, per="patient")
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
    assert found["plain"][:, 1].min() < found["better"][:, 1].min()  # the first run stands on the left
    svg = (tmp_path / "out" / "boxplot.svg").read_text()
    for words in ("liver", "spleen", OVERALL, "n = 3", "n = 2", "plain", "better", "Dice"):
        assert f">{words}<" in svg
    compare(two, tmp_path / "again")
    assert (tmp_path / "again" / "boxplot.svg").read_text() == svg


def test_many_structures_fill_rows_and_many_cases_scatter(tmp_path):
    rng = np.random.default_rng(0)
    runs = []
    for name in ("one", "two"):
        values = {(f"c{k}", f"s{n}"): float(v) for n in range(30) for k, v in enumerate(rng.uniform(0.5, 1, 60))}
        runs.append(scores_json(tmp_path / name, values))
    compare(runs, tmp_path / "out")
    image = Image.open(tmp_path / "out" / "boxplot.png")
    assert image.height > 3 * 3 * 150
    assert ">s29<" in (tmp_path / "out" / "boxplot.svg").read_text()


def test_nothing_defined_anywhere_still_writes(tmp_path):
    runs = [scores_json(tmp_path / name, {("a", "liver"): NAN, ("b", "liver"): v}) for name, v in (("one", NAN), ("two", 0.5))]
    found = compare(runs, tmp_path / "out")
    assert found.results["liver"]["n"] == 0
    assert json.loads((tmp_path / "out" / "compare.json").read_text())["labels"]["liver"]["differences"][0]["mean"] is None
    assert (tmp_path / "out" / "boxplot.png").is_file()


def test_the_table_in_the_terminal(two):
    from rich.console import Console

    scores_json(two[1], OTHER | {("d", "liver"): 0.4, ("d", "spleen"): 0.3})
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(compare(two)))
    text = console.export_text()
    row = next(line for line in text.splitlines() if "better" in line and "0.783" in line)
    assert [c.strip() for c in row.split("│")[1:-1]] == ["", "better", "3", "0.783", "0.800", "0.700 to 0.875", "0.600", "0.950",
                                                          "-0.017 [-0.100, +0.050]", "1", "1", "1"]  # fmt: skip
    assert "left out, 1: d (not in plain)" in text
    assert OVERALL in text


def test_exit_codes_at_the_command_line(two, tmp_path):
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "delineate.cli", "compare", *map(str, words)], capture_output=True, text=True)

    done = run(*two, "-o", tmp_path / "out", "--names", "a,b", "--label", "liver")
    assert (done.returncode, done.stderr) == (0, "")
    assert "written" in done.stdout
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"compare.csv", "compare.json", "boxplot.png", "boxplot.svg"}
    for words in ((two[0],), (*two, "--metric", "hd95"), (*two, "--label", "heart"), (two[0], tmp_path)):
        bad = run(*words, "-o", tmp_path / "bad")
        assert bad.returncode == 2
        assert bad.stderr.startswith("error: ")
        assert len(bad.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "bad").exists()
