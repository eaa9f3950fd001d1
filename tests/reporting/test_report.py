"""The report: written from a run's folder with real files in it, read back as a page."""

from __future__ import annotations

import base64
import html
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delineate.commands.evaluate import evaluate, evaluate_cases
from delineate.commands.options import EvaluateOptions, ReportOptions
from delineate.commands.report import report
from delineate.core.errors import InputError
from delineate.core.grid import Grid
from delineate.core.labels import LabelSet, default_colour
from delineate.core.manifest import Case, Manifest, Source
from delineate.core.plan import Channel, Network, Plan, Schedule, Structure
from delineate.core.volume import Volume
from delineate.core.words import hex_colour
from delineate.formats.files import read, write
from delineate.metrics.statistics import interval
from delineate.reporting.colours import INK, PAPER, contrast, on_page
from delineate.reporting.training_section import overfitting
from delineate.viewer.page import run_page

LABELS = LabelSet.from_names({1: "liver", 2: "right kidney"})
RUN = "a run & more"
HITS = {"c0": 0.9, "c1": 0.6, "c2": 0.3, "c3": 1.0}


class Page(HTMLParser):
    """A page's text by section, its tables' rows, its images and whatever would be fetched or
    run.
    """

    def __init__(self, path: Path):
        super().__init__()
        self.section, self.skip, self.open_tags = "", 0, []
        self.text: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self.images: list[str] = []
        self.outside: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "section":
            self.section = given["id"]
        if tag in ("style", "svg"):
            self.skip += 1
        if tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        if tag in ("td", "th"):
            self.rows[self.section][-1].append("")
        if tag == "img":
            self.images.append(given["src"])
        fetched = [str(v) for k, v in attrs if k in ("src", "href", "xlink:href")]
        if tag in ("script", "link", "iframe") or any(
            v.startswith(("http:", "https:", "//")) for v in fetched
        ):
            self.outside.append(tag)
        if tag not in ("meta", "img", "br", "circle", "line", "link", "path", "use", "rect"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        if tag in ("style", "svg"):
            self.skip -= 1
        if tag in ("circle", "line", "path", "use", "rect"):
            return
        assert self.open_tags.pop() == tag

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_data(self, data):
        if self.skip:
            return
        self.text[self.section] = self.text.get(self.section, "") + data
        if self.open_tags and {"td", "th"} & set(self.open_tags):
            rows = self.rows[self.section]
            rows[-1][-1] += data.strip()

    def row(self, section: str, name: str) -> list[str]:
        return next(r for r in self.rows[section] if r and r[0] == name)


def a_plan() -> Plan:
    structures = tuple(Structure(**{**s, "colour": tuple(s["colour"])}) for s in LABELS.to_json())
    network = Network(
        dims=3,
        channels=1,
        classes=3,
        widths=(8, 16),
        strides=((2, 2, 2),),
        kernels=((3, 3, 3), (3, 3, 3)),
    )
    return Plan(
        channels=(Channel(name="CT"),),
        structures=structures,
        spacing_mm=(1.0, 1.0, 3.0),
        patch=(32, 32, 16),
        network=network,
        schedule=Schedule(epochs=10),
        reasons={"spacing_mm": "the median of the cohort", "patch": "fits <2 GB> of memory"},
    )


def a_log(overfit: bool) -> str:
    lines = []
    for epoch in range(20):
        lines += [
            {
                "step": epoch * 5 + k,
                "epoch": epoch,
                "seconds": epoch * 60.0,
                "loss": 1 / (epoch + 1),
                "learning_rate": 1e-3,
            }
            for k in range(5)
        ]
        val = 0.5 + 0.03 * max(0, epoch - 5) * overfit - 0.02 * min(epoch, 5 if overfit else 20)
        dice = {"liver": 0.7 + epoch * 0.01, "right kidney": 0.5}
        lines[-1] |= {"val_loss": val, "val_dice": dice, "val_dice_mean": 0.6 + epoch * 0.005}
    return "".join(json.dumps(line) + "\n" for line in lines)


@pytest.fixture
def run(scored, kept) -> Path:
    """The run, which a test may change; it is in the same place for each, because it has paths."""
    shutil.rmtree(scored)
    shutil.copytree(kept, scored)
    return scored / RUN


@pytest.fixture(scope="module")
def kept(scored, tmp_path_factory) -> Path:
    return shutil.copytree(scored, tmp_path_factory.mktemp("kept"), dirs_exist_ok=True)


@pytest.fixture(scope="module")
def scored(tmp_path_factory) -> Path:
    """The folder of a whole run of four small oblique cases, scored by the evaluate step itself."""
    root = tmp_path_factory.mktemp("scored")
    folder, shape = root / RUN, (24, 20, 12)
    (folder / "fold_0").mkdir(parents=True)
    affine = np.array([[-1.0, 0.1, 0, 30], [0.1, 1.0, 0, -20], [0, 0, 3.0, 5], [0, 0, 0, 1]])
    grid, rng = Grid(shape, affine), np.random.default_rng(0)
    for name, hit in HITS.items():
        truth = np.zeros(shape, np.uint8)
        truth[4:14, 4:16, 2:10] = 1
        truth[16:20, 4:14, 3:8] = 2 * (name != "c1")
        prediction = truth.copy()
        prediction[4 : 4 + round(10 * (1 - hit)), :, :][
            prediction[4 : 4 + round(10 * (1 - hit)), :, :] == 1
        ] = 0
        scan = (rng.normal(0, 10, shape) + 60 * (truth > 0)).astype(np.int16)
        write(Volume(scan, grid, "HU"), root / "images" / f"{name}.nii.gz")
        write(Volume(truth, grid, "label"), root / "labels" / f"{name}.nii.gz")
        write(Volume(prediction, grid, "label"), folder / "test" / "predictions" / f"{name}.nii.gz")

    def case(name: str, scan: str, split: str) -> Case:
        images, labels = (
            Source(str(root / kind / f"{scan}.nii.gz")) for kind in ("images", "labels")
        )
        return Case(name, f"P{name}", (images,), (labels,), split)

    cases = [*(case(n, n, "test") for n in HITS), case("t0", "c0", "train")]
    (folder / "manifest.jsonl").write_text(
        Manifest(tuple(cases), ("CT",), LABELS, layout="parallel folders", modality="CT").to_jsonl()
    )
    (folder / "plan.json").write_text(a_plan().to_json())
    findings = [
        {
            "case": f"c{k}",
            "kind": "range",
            "severity": "warning",
            "message": f"values to {k}000 <script>",
        }
        for k in range(3)
    ]
    (folder / "findings.json").write_text(json.dumps(findings))
    (folder / "fold_0" / "log.jsonl").write_text(a_log(overfit=True) + '{"step": 99, "unfini')
    (folder / "card.json").write_text(
        json.dumps(
            {
                "seconds": 1234.5,
                "peak_memory_mb": 812,
                "versions": {"torch": "2.13.0"},
                "data_sha256": {f"case{k}": "ab12" * 8 for k in range(12)},
            }
        )
    )
    evaluate_cases(
        folder / "test" / "predictions",
        folder / "manifest.jsonl",
        folder / "test",
        EvaluateOptions(),
    )
    return root


@pytest.fixture(scope="module")
def page(kept, tmp_path_factory) -> Path:
    """The report of the run, which no test may change."""
    return report(kept / RUN, tmp_path_factory.mktemp("page") / "out.html")


def test_a_whole_run(page, kept):
    page = Page(page)
    assert page.outside == []
    assert page.open_tags == []
    scores = json.loads((kept / RUN / "test" / "scores.json").read_text())
    assert f"{scores['means']['dice_mean_per_case']:.3f}" in page.text["summary"]
    liver = page.row("test", "liver")
    dices = [2 * h / (1 + h) for h in HITS.values()]
    low, high = interval(np.array(dices), list(HITS))
    assert liver[1:5] == [
        "4",
        f"{np.mean(dices):.3f}{low:.3f} to {high:.3f}",
        f"{np.median(dices):.3f}",
        f"{min(dices):.3f}",
    ]
    assert liver[7].startswith(f"c2 {min(dices):.3f}c1")
    assert "4 cases, none of which was used for training" in page.text["test"]
    assert page.row("test", "right kidney")[1] == "3 (+1 empty)"
    assert page.row("plan", "voxel size")[1:] == ["1 × 1 × 3 mm", "the median of the cohort"]
    assert page.row("plan", "patch size")[2] == "fits <2 GB> of memory"
    assert page.row("data", "warning")[:3] == ["warning", "range", "3"]
    assert "<script>" in page.text["data"]  # told, not run
    assert "Overfitting" in page.text["training"]
    assert page.row("provenance", "versions: torch")[1] == "2.13.0"
    # A voxel of this affine has 3.03 cubic mm.
    assert page.row("volumes", "liver")[1] == f"{10 * 12 * 8 * 3.03 / 1000:.3g}"
    assert "4 cases from the same source" in page.text["limits"]


VERDICT = {
    "level": "usable with care",
    "summary": "test Dice 0.81 on 4 cases",
    "reasons": [{"kind": "steps", "words": "only 94 of 739 wanted steps", "level": "x"}],
    "advice": ["train --extend 20m"],
}


def test_the_page_begins_with_the_verdict_and_the_scores(run):
    card = json.loads((run / "card.json").read_text())
    (run / "card.json").write_text(json.dumps(card | {"verdict": VERDICT}))
    page = Page(report(run))
    assert list(page.text)[:4] == ["", "verdict", "summary", "test"]
    words = " ".join(page.text["verdict"].split())
    assert words.startswith("Verdict: usable with care only 94 of 739 wanted steps")
    assert "What to do: train --extend 20m." in words
    assert "verdict" not in page.text["provenance"]
    # A card without a verdict, of an earlier version, has a page without one.
    (run / "card.json").write_text(json.dumps(card))
    assert list(Page(report(run)).text)[:3] == ["", "summary", "test"]


def test_a_table_of_many_metrics_is_divided_and_each_cell_knows_its_heading(page):
    text = page.read_text()
    test = text[text.index('<section id="test">') : text.index('<section id="pictures">')]
    for table in re.findall(r"<table class=.wide.*?</table>", test, re.DOTALL):
        assert table.count("<th class=") + table.count("<th>") <= 9
        headings = re.findall(r"<th(?: class=\"n\")?>(.*?)</th>", table)
        assert len(headings) <= 8
        for name in re.findall(r'data-h="(.*?)"', table):
            assert any(name.removeprefix("mean ") in heading for heading in headings)


def colours_of(page: str) -> list[dict[str, str]]:
    """The colours of the page's style by name: light, dark and print."""
    roots = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    named = [dict(re.findall(r"--(\w+): (#\w+)", root)) for root in roots]
    return [
        {k: v if len(v) == 7 else "#" + "".join(2 * c for c in v[1:]) for k, v in n.items()}
        for n in named
    ]


def test_texts_and_marks_have_enough_contrast_in_light_dark_and_print(page):
    def rgb(colour: str) -> tuple[int, ...]:
        return tuple(int(colour[k : k + 2], 16) for k in (1, 3, 5))

    light, dark, printed = colours_of(page.read_text())
    for colours in (light, dark, printed):
        for name in ("ink", "soft", "accent", "warn", "good", "bad"):
            assert contrast(rgb(colours[name]), rgb(colours["paper"])) >= 4.5, name
    assert (rgb(light["paper"]), rgb(dark["paper"])) == PAPER
    assert (rgb(light["ink"]), rgb(dark["ink"])) == INK
    for index in range(140):
        css = on_page(hex_colour(default_colour(index)))
        share = int(re.search(r" (\d+)%", css)[1]) / 100 if "mix" in css else 1.0
        own = np.array(default_colour(index))
        for ink, paper in zip(INK, PAPER, strict=True):
            mixed = (share * own + (1 - share) * np.array(ink)).round()
            assert contrast(mixed.tolist(), paper) >= 2.98


def test_pictures_are_of_the_best_median_and_worst_case_and_can_be_opened(page):
    page = Page(page)
    assert re.findall(r"(\w+) test case: (\w+), Dice", page.text["pictures"]) == [
        ("Best", "c3"),
        ("Median", "c0"),
        ("Worst", "c2"),
    ]
    assert len(page.images) == 3
    for source in page.images:
        image = Image.open(
            io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))
        )
        assert min(image.size) > 150
        assert len(np.unique(np.asarray(image.convert("L")))) > 50


@pytest.mark.parametrize(
    "gone",
    [
        "plan.json",
        "manifest.jsonl",
        "findings.json",
        "fold_0/log.jsonl",
        "test/scores.json",
        "card.json",
    ],
)
def test_what_is_absent_is_said_to_be_absent(run, gone):
    (run / gone).unlink()
    page = Page(report(run))
    section = {
        "plan.json": "plan",
        "manifest.jsonl": "data",
        "findings.json": "data",
        "fold_0/log.jsonl": "training",
        "test/scores.json": "test",
        "card.json": "provenance",
    }[gone]
    assert "The run holds no" in page.text[section]


def test_an_empty_run_still_makes_a_page(tmp_path):
    page = Page(report(tmp_path))
    assert page.text["summary"].split()[0] == "–"
    assert sum("The run holds no" in text for text in page.text.values()) >= 6


def test_lost_scans_are_named_and_the_rest_stands(run):
    (run / "test" / "montages" / "worst.png").unlink()
    page = Page(report(run))
    assert len(page.images) == 2
    assert re.search(
        r"Worst test case: c2, Dice 0\.\d+\. It cannot be shown: worst\.png is missing",
        page.text["pictures"],
    )


def test_validation_scores_are_not_called_test_scores(run):
    (run / "test").rename(run / "validation")
    page = Page(report(run))
    assert "validation Dice mean per case" in page.text["summary"]
    assert "optimistic" in page.text["summary"]
    assert "Validation scores" in page.text["test"]
    assert "Worst validation case: c2" in page.text["pictures"]
    assert "The model was not tested on held-out data." in page.text["limits"]


def test_volumes_are_compared_as_bland_and_altman_did(page, kept):
    text, page = page.read_text(), Page(page)
    scores = json.loads((kept / RUN / "test" / "scores.json").read_text())
    differences = np.array(
        [
            r["value"]
            for r in scores["rows"]
            if (r["label"], r["metric"]) == ("liver", "volume_difference_ml")
        ]
    )
    low, high = (differences.mean() + sign * 1.96 * differences.std(ddof=1) for sign in (-1, 1))
    assert page.row("volumes", "liver")[4] == f"{low:.3g} to {high:.3g}"
    section = text.split('<section id="volumes">')[1]
    section = section[: section.index("Predicted minus true volume against the mean of both")]
    assert section.count("<svg") == 2
    assert section.count(">liver<") == section.count(">right kidney<") == 1


def test_what_was_taken_for_what_is_told(run):
    """A liver of which a tenth is called right kidney."""
    for file in (run / "test" / "predictions").glob("*.nii.gz"):
        truth = read(run.parent / "labels" / file.name)
        wrong = truth.array.copy()
        wrong[4:5][wrong[4:5] == 1] = 2
        write(truth.with_array(wrong, "label"), file)
    evaluate(
        run / "test" / "predictions",
        run / "manifest.jsonl",
        run / "test",
        EvaluateOptions(report=False),
    )
    page = Page(report(run))
    assert "10.0 % of the true liver was labelled right kidney." in page.text["confusion"]
    assert page.row("confusion", "liver")[1:] == ["90.0", "10.0", "0.0"]
    assert page.row("confusion", "right kidney")[1:] == ["0.0", "100.0", "0.0"]


def test_error_stands_against_size(page):
    svg = svg_lines(page.read_text(), "Dice against the true volume")
    assert ">true volume, ml<" in svg
    assert "Spearman" not in Page(page).text["sizes"]  # four cases say nothing of a correlation


def test_time_and_memory_are_told(run):
    (run / "card.json").write_text(
        json.dumps(
            {"training_s": {"fold_0": 400, "fold_1": 200}, "seconds": 700, "peak_memory_mb": 923.7}
        )
    )
    (run / "test" / "predictions" / "predictions.json").write_text(
        json.dumps(
            {
                "device": "cpu",
                "cases": {
                    "a": {"seconds": {"total": 1.5}},
                    "b": {"seconds": {"total": 2.5}},
                    "c": {},
                },
            }
        )
    )
    page = Page(report(run))
    assert page.row("cost", "training")[1] == "10 min for 2 networks"
    assert page.row("cost", "peak memory of the run")[1] == "924 MB"
    assert page.row("cost", "prediction of a case")[1] == "2 s (median), 2.5 s maximum, on cpu"


def test_an_evaluation_has_a_page_of_its_own(run):
    page = Page(report(run / "test"))
    assert (run / "test" / "report.html").is_file()
    assert page.open_tags == page.outside == []
    assert {"test", "pictures", "volumes", "confusion", "sizes"} < set(page.text)
    assert not {"plan", "training", "data", "provenance", "limits"} & set(page.text)
    assert "The run holds no" not in "".join(page.text.values())
    assert len(page.images) == 3
    assert page.row("test", "liver")[1] == "4"


def test_probabilities_have_a_diagram_where_they_were_judged(run, tmp_path):
    assert "Calibration" not in report(run).read_text()
    for name in HITS:
        labels = read(run / "test" / "predictions" / f"{name}.nii.gz")
        shares = np.stack(
            [np.where(labels.array == value, 0.8, 0.1) for value in (0, 1, 2)]
        ).astype(np.float32)
        write(
            Volume(shares, labels.grid),
            run / "test" / "predictions" / "probabilities" / f"{name}.nii.gz",
        )
    evaluate(
        run / "test" / "predictions",
        run / "manifest.jsonl",
        run / "test",
        EvaluateOptions(report=False),
    )
    page = Page(report(run))
    svg = svg_lines((run / "report.html").read_text(), "Reliability diagram")
    assert ">most probable class<" in svg and ">liver<" in svg
    kept = json.loads((run / "test" / "scores.json").read_text())["calibration"]["structures"][
        "liver"
    ]
    assert page.row("calibration", "liver")[1:] == [f"{kept['ece']:.4f}", f"{kept['brier']:.4f}"]
    assert "within 20 mm" in page.text["calibration"]


def test_an_interactive_report_holds_the_worst_cases_in_a_frame(run, tmp_path):
    plain, whole = report(run), report(run, tmp_path / "look.html", ReportOptions(interactive=True))
    assert "<iframe" not in plain.read_text() and "<script" not in plain.read_text()
    text = whole.read_text()
    assert text.count("<iframe") == 1 and "<script" not in text[: text.index("<iframe")]
    inside = html.unescape(re.search(r'srcdoc="(.*?)"></iframe>', text, re.DOTALL)[1])
    assert inside == run_page(run)
    assert [
        c["id"] for c in json.loads(re.search(r'id="boot">(.*?)</script>', inside)[1])["cases"]
    ] == ["c2", "c1", "c0"]
    with pytest.raises(InputError):
        # An evaluation alone does not know its scans.
        report(run / "test", tmp_path / "no.html", ReportOptions(interactive=True))
    assert not (tmp_path / "no.html").exists()


def test_every_case_is_a_point_on_its_box(page):
    text = page.read_text()
    strip = text[text.index('<svg class="strip"') :]
    strip = strip[: strip.index("</svg>")]
    dices = sorted(2 * h / (1 + h) for h in HITS.values())
    assert [float(x) for x in re.findall(r'circle cx="([\d.]+)"', strip)] == pytest.approx(
        [4 + 168 * d for d in dices], abs=0.06
    )
    q1, _, q3 = np.percentile(dices, (25, 50, 75))
    at, width = re.search(r'class="box" x="([\d.]+)" y="3.5" width="([\d.]+)"', strip).groups()
    assert (float(at), float(width)) == pytest.approx((4 + 168 * q1, 168 * (q3 - q1)), abs=0.06)


def svg_lines(page_text: str, caption: str) -> str:
    """The SVG above ``caption``."""
    before = page_text[: page_text.index(caption)]
    return before[before.rindex("<svg") :]


def with_training_dice(run: Path) -> None:
    log = run / "fold_0" / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()[:-1]]
    text = [
        json.dumps(e | {"train_dice_mean": 0.5 + e["epoch"] / 50, "epoch_s": 12.5}) for e in lines
    ]
    log.write_text("\n".join(text) + "\n")


def test_training_and_validation_stand_in_one_plot_over_epochs(run):
    with_training_dice(run)
    html = report(run).read_text()
    text = Page(run / "report.html").text["training"]
    for caption in (
        "Loss over epochs, training and validation.",
        "Mean Dice over epochs: training",
    ):
        svg = svg_lines(html, caption)
        assert ">training<" in svg
        assert ">validation<" in svg
        assert ">epoch<" in svg
        assert "#d55e00" in svg
    assert "An epoch took 12.5 s" in text
    assert "reached at step 99; the training Dice was then 0.880" in text


def test_logs_without_training_dice_or_epochs_are_drawn_with_what_they_have(run):
    log = run / "fold_0" / "log.jsonl"
    lines = [
        {k: v for k, v in json.loads(line).items() if k not in ("epoch", "val_loss")}
        for line in log.read_text().splitlines()[:-1]
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    html = report(run).read_text()
    assert ">step<" in svg_lines(html, "Loss over steps")
    assert ">validation<" not in svg_lines(html, "Loss over steps")
    assert "Mean Dice" not in html
    assert "Validation Dice over steps" in html


def test_every_view_of_a_fold_has_its_curves(run):
    for view in ("axial", "sagittal"):
        (run / "fold_0" / view).mkdir()
        (run / "fold_0" / view / "log.jsonl").write_text(a_log(overfit=False))
    (run / "fold_0" / "log.jsonl").unlink()
    page = Page(report(run))
    assert "Fold 0 axial" in page.text["training"]
    assert "Fold 0 sagittal" in page.text["training"]
    assert (run / "report.html").read_text().count("Loss over epochs") == 2


def test_damaged_files_and_missing_folders_are_refused(run, tmp_path):
    with pytest.raises(InputError, match="folder"):
        report(tmp_path / "nowhere")
    (run / "plan.json").write_text("{")
    with pytest.raises(InputError, match=r"plan\.json"):
        report(run)


def test_overfitting_is_told_only_where_it_is():
    def parsed(overfit: bool) -> list[dict]:
        return [json.loads(line) for line in a_log(overfit).splitlines()]

    assert "lowest at step 29" in str(overfitting(parsed(True)))
    assert overfitting(parsed(False)) is None
    assert overfitting([]) is None
    noisy = parsed(False)
    noisy[-1]["val_loss"] += (
        0.2  # one bad value at the end is no trend, as the lowest lies close before it
    )
    assert overfitting(noisy) is None


def test_flags_and_the_dice_of_all_sides_come_from_the_record_of_the_predictions(run, tmp_path):
    """``predict`` writes them, ``evaluate`` keeps them in its scores, and the report shows both."""
    predictions = run / "test" / "predictions"
    words = "left kidney: up to 40 mm on the wrong side"
    entries = {
        name: {
            "file": f"{name}.nii.gz",
            "flags": [{"kind": "side", "words": words}] * (name == "c1"),
        }
        for name in HITS
    }
    learned = {"training": {"liver": 0.987}, "validation": {"liver": 0.912}}
    record = {"labels": LABELS.to_json(), "cases": entries, "learned_dice": learned}
    (predictions / "predictions.json").write_text(json.dumps(record))
    out = tmp_path / "scores"
    evaluate_cases(predictions, run / "manifest.jsonl", out, EvaluateOptions())
    page = Page(report(out))
    assert page.row("flags", "c1") == ["c1", "side", words]
    assert f"1 of {len(HITS)} predictions is flagged" in page.text["flags"]
    assert f"1 of {len(HITS)} predictions is flagged" in page.text["summary"]
    sides = next(r for r in page.rows["test"] if r[:3] == ["liver", "0.987", "0.912"])
    assert 0 < float(sides[3]) < 1
    # Without a record there is neither.
    assert "flags" not in Page(report(run, tmp_path / "plain.html")).text


def test_few_validations_are_points_next_to_the_curve_of_patches(run):
    log = [json.loads(line) for line in a_log(overfit=False).splitlines()]
    few = [{k: v for k, v in line.items() if not k.startswith("val")} for line in log]
    for n, line in enumerate(few[:: len(few) // 10]):
        line |= {"patch_loss": 1 / (n + 1), "patch_dice_mean": n / 10, "patch_dice": {"liver": 0.5}}
    few[-1] |= {key: value for key, value in log[-1].items() if key.startswith("val")}
    text = "".join(json.dumps(line) + "\n" for line in few)
    (run / "fold_0" / "log.jsonl").write_text(text)
    page = Page(report(run))
    assert "(patches)" in page.text["training"]
    (run / "fold_0" / "log.jsonl").write_text(a_log(overfit=False))
    assert "(patches)" not in Page(report(run)).text["training"]
