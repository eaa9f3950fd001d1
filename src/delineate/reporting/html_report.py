"""The HTML report of a run or an evaluation: one self-contained page to read, print and archive.

The page begins with the verdict and the scores. The report reads files that other steps left on
disk: ``plan.json``, ``manifest.jsonl``, ``findings.json``, ``fold_K/log.jsonl``, ``card.json``, and
the scores, pictures and predictions in ``test`` (or in ``validation`` if there is no ``test``). It
computes no score of its own. The folder of an evaluation has only scores and pictures, so its page
has only those sections. On the page of a run, a section whose file is missing states this. Style
and pictures are inline, the page needs no script, and it follows the reader's dark or light
setting. On request, the worst cases are added as volumes to look through (``viewer``); only that
part has a script.
"""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ..core.inputs import expecting
from ..core.words import decimals, duration, flattened, joined, number_text, spelled, value_text
from ..evaluation.pairing import prediction_record
from ..evaluation.training_verdict import CARE, GOOD, NOT_USABLE, Verdict
from ..extend.findings import SEVERITIES
from .plan_names import field_value
from .plan_section import plan_rows
from .reported_run import RUN, ReportedRun
from .score_section import calibration, confusions, scores, sizes, volumes
from .training_section import fold, series

SECTIONS = {
    "test": "Scores",
    "pictures": "Cases",
    "flags": "Flags",
    "volumes": "Volumes",
    "confusion": "Confusion",
    "sizes": "Error and size",
    "calibration": "Calibration",
    "training": "Training",
    "data": "Data",
    "plan": "Plan",
    "cost": "Time and memory",
    "provenance": "Provenance",
    "limits": "Limits of use",
}
OF_AN_EVALUATION = ("test", "pictures", "flags", "volumes", "confusion", "sizes", "calibration")
OPTIMISTIC = (
    "This run has no test scores. Validation scores are optimistic, because the checkpoint "
    "was chosen on the same cases."
)
# Of a card, what other sections show, and what says nothing to a reader.
APART = (
    "verdict",
    "plausibility",
    "failed",  # may have names of patients; a report is passed on
    "log_lines",
    "scores",
    "training",
    "validation",
    "training_s",
    "seconds",
    "peak_memory_mb",
)
# Level of the verdict -> class of the page's style.
TONES = {GOOD: "good", CARE: "care", NOT_USABLE: "bad"}


def render(run: ReportedRun, viewer: str | None = None) -> str:
    """The page of ``run`` as self-contained HTML.

    Args:
        run: the contents of its folder; any file may be absent.
        viewer: an HTML page that shows the worst cases as volumes, put into a frame of its own;
            None leaves it out.

    Raises:
        InputError: the contents of a file have another form.
    """
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Each file is of the right form by itself; what it holds is only read here.
    with expecting(RUN, run.folder):
        return environment.get_template("report.html.jinja").render(**_page(run), viewer=viewer)


def _page(run: ReportedRun) -> dict[str, Any]:
    """The template's variables, a part for each section."""
    from .. import __version__

    montages, gaps = _montages(run)
    card, details = _card({k: v for k, v in (run.card or {}).items() if k not in APART})
    name = run.folder.resolve().name
    judged = calibration(run)
    flags = _flags(run)
    # Few runs have saved probabilities, and few evaluations flags: their section is left out then.
    absent = {id for id, found in (("calibration", judged), ("flags", flags)) if not found}
    listed = OF_AN_EVALUATION if run.scored == "evaluation" else SECTIONS
    return {
        "title": f"Segmentation of {joined(run.labels.names, 4)}" if len(run.labels) else name,
        "subtitle": _subtitle(run, name),
        "sections": {id: SECTIONS[id] for id in listed if id not in absent},
        "verdict": Verdict.from_json((run.card or {}).get("verdict")),
        "tones": TONES,
        "headline": _headline(run),
        "key_figures": _key_figures(run),
        "summary_lines": _summary_lines(run),
        "data": _data(run),
        "findings": _findings(run.findings),
        "findings_words": _findings_words(run.findings),
        "plan": plan_rows(run.plan),
        "folds": [fold(key, log, run.labels) for key, log in run.logs.items()],
        "test": scores(run),
        "montages": montages,
        "montage_gaps": gaps,
        "flags": flags,
        "volumes": volumes(run),
        "confusion": confusions(run),
        "sizes": sizes(run),
        "calibration": judged,
        "cost": _cost(run),
        "card": card,
        "card_details": details,
        "limits": _limits(run),
        "version": __version__,
        "run": name,
    }


# ---- summary ----


def _subtitle(run: ReportedRun, name: str) -> str:
    """The run's name, its cohort and its network, as far as they are known."""
    parts = [name]
    if run.manifest:
        parts.append(f"{len(run.manifest)} cases of {len(run.manifest.patients)} patients")
        parts.append(", ".join(run.manifest.channels))
    if run.plan and run.plan.get("network"):
        parts.append(
            f"{run.plan['network'].get('dims', '?')}-D "
            + field_value("network.kind", run.plan["network"].get("kind", "network"))
        )
    return " · ".join(p for p in parts if p)


def _headline(run: ReportedRun) -> dict[str, str]:
    """The figure at the top of the page, and its name."""
    means = (run.scores or {}).get("means", {})
    keys = ("dice_mean_per_case", "dice_pooled_over_all_slices")
    # For single slices, papers report the pooled value.
    for key in keys if not (run.scores or {}).get("planar") else keys[::-1]:
        if means.get(key) is not None:
            return {
                "value": decimals(means[key]),
                "name": f"{run.which}{spelled(key)}, mean over structures",
            }
    # Without scores, the best validation Dice of the training log is shown.
    best = [max(v) for v in (series(log, "val_dice_mean")[1] for log in run.logs.values()) if v]
    if best:
        return {
            "value": decimals(float(np.mean(best))),
            "name": "best validation Dice, mean over folds (the run was not tested)",
        }
    return {"value": "–", "name": "not yet scored"}


def _key_figures(run: ReportedRun) -> list[tuple[str, str]]:
    """The figures next to the headline: other means of Dice, training time, number of cases."""
    out = []
    means = (run.scores or {}).get("means", {})
    out += [
        (spelled(k), decimals(v))
        for k, v in means.items()
        if k.startswith("dice") and k != "dice_mean_per_case" and v is not None
    ][:3]
    seconds = sum(log[-1].get("seconds", 0.0) for log in run.logs.values() if log)
    if seconds:
        out.append(("training time", duration(seconds)))
    if run.scores:
        out.append(
            (
                f"{run.which}{'slices' if run.scores.get('planar') else 'cases'}",
                str(len(run.scores.get("cases", []))),
            )
        )
    return out


def _summary_lines(run: ReportedRun) -> list[str]:
    """Sentences on the best and worst structure, and on what limits the scores."""
    damage = [f"Damaged file: {words}." for words in run.damage]
    if not run.scores:
        return damage + ([OPTIMISTIC] if run.logs else [])
    dice = [s for s in run.scores["summary"] if s["metric"] == "dice" and s["mean"] is not None]
    lines = damage + ([OPTIMISTIC] if run.scored == "validation" else [])
    if len(dice) > 1:
        low, high = min(dice, key=lambda s: s["mean"]), max(dice, key=lambda s: s["mean"])
        lines.append(
            f"Best structure: {high['label']} (mean Dice {decimals(high['mean'])}); worst: "
            f"{low['label']} ({decimals(low['mean'])})."
        )
    if (flags := _flags(run)) and flags["rows"]:
        lines.append(flags["words"])
    empty = sum(s["undefined"] for s in run.scores["summary"] if s["metric"] == "dice")
    if empty:
        lines.append(
            f"{empty} time(s) a structure was absent from both truth and prediction. Its Dice is "
            "then undefined and is left out of the mean."
        )
    return lines


def _flags(run: ReportedRun) -> dict[str, Any] | None:
    """The flags of the scored cases: a sentence, and rows of case, kind and words; None if nothing
    records flags.
    """
    recorded = {
        case["case"]: case["flags"]
        for case in (run.scores or {}).get("cases", ())
        if case.get("flags") is not None
    }
    if not recorded:
        return None
    flagged = sum(map(bool, recorded.values()))
    verb = "is" if flagged == 1 else "are"
    return {
        "words": f"{flagged or 'None'} of {len(recorded)} predictions {verb} flagged as "
        "implausible, or as unlike the training cases.",
        "rows": [(case, f["kind"], f["words"]) for case, flags in recorded.items() for f in flags],
    }


# ---- data, plan ----


def _data(run: ReportedRun) -> list[tuple[str, str]]:
    """Name and value of each fact that the manifest holds; entries without a value are left out."""
    manifest = run.manifest
    if manifest is None:
        return []
    splits: dict[str, list[str]] = {}
    for case in manifest:
        side = case.split or (f"fold {case.fold}" if case.fold is not None else "not assigned")
        splits.setdefault(side, []).append(case.patient)
    return [
        (name, value)
        for name, value in [
            ("layout", manifest.layout),
            ("folder", manifest.root),
            ("modality", manifest.modality),
            ("channels", ", ".join(manifest.channels)),
            ("structures", ", ".join(f"{b.value} {b.name}" for b in manifest.labels)),
            ("cases", str(len(manifest))),
            ("patients", str(len(manifest.patients))),
            (
                "split",
                "; ".join(
                    f"{side}: {len(who)} cases of {len(set(who))} patients"
                    for side, who in sorted(splits.items())
                ),
            ),
        ]
        if value
    ]


def _findings(findings: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """One row per kind and severity, most severe first, with the cases concerned.

    Only the first message of a kind is kept.
    """
    if findings is None:
        return None
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for f in findings:
        key = (f.get("severity", "note"), f.get("kind", ""))
        row = rows.setdefault(
            key, {"severity": key[0], "kind": key[1], "message": f.get("message", ""), "cases": []}
        )
        if f.get("case"):
            row["cases"].append(f["case"])
    return sorted(
        rows.values(),
        key=lambda r: (
            SEVERITIES.index(r["severity"]) if r["severity"] in SEVERITIES else 0,
            -len(r["cases"]),
        ),
    )


def _findings_words(findings: list[dict[str, Any]] | None) -> str:
    """How many findings of each severity there are, and in how many cases."""
    if not findings:
        return ""
    counts = Counter(f.get("severity", "note") for f in findings)
    cases = {f.get("case") for f in findings if f.get("case")}
    counted = joined([f"{n} {s}{'s' * (n != 1)}" for s, n in counts.items()], len(counts))
    where = f" in {len(cases)} case{'s' * (len(cases) != 1)}" if cases else ""
    return f"{counted}{where}. For each kind, the first message is shown."


# ---- cases ----


def _montages(run: ReportedRun) -> tuple[list[dict[str, str]], list[str]]:
    """The pictures that the evaluation drew, and a sentence for each that is missing."""
    if not run.scores:
        return [], ["No case can be shown: the run holds no scores."]
    drawn = run.scores.get("montages")
    if drawn is None:
        return [], [
            "No case can be shown: these scores were written without pictures. Run `evaluate` to "
            "draw them."
        ]
    out, gaps = [], []
    for entry in drawn:
        words, file = (
            f"{entry['what'].capitalize()} {run.which}case: {entry['case']}, Dice "
            f"{decimals(entry['dice'])}",
            run.where / str(entry["file"]),
        )
        if entry["file"] and file.is_file():
            out.append({"words": words, "png": base64.b64encode(file.read_bytes()).decode("ascii")})
        else:
            gaps.append(
                f"{words}. It cannot be shown: {entry.get('why') or f'{file.name} is missing'}"
            )
    return out, gaps


# ---- time, provenance, limits ----


def _cost(run: ReportedRun) -> list[tuple[str, str]]:
    """Time and memory of training and prediction, as far as they were recorded."""
    card, rows = run.card or {}, []
    trained = card.get("training_s")
    if isinstance(trained, dict) and trained:
        rows.append(
            (
                "training",
                duration(sum(trained.values()))
                + (f" for {len(trained)} networks" if len(trained) > 1 else ""),
            )
        )
    if isinstance(card.get("seconds"), int | float):
        rows.append(
            ("whole run, including checks, preprocessing and scoring", duration(card["seconds"]))
        )
    if isinstance(card.get("peak_memory_mb"), int | float):
        rows.append(("peak memory of the run", f"{card['peak_memory_mb']:.0f} MB"))
    predicted = prediction_record(run.where / "predictions")
    seconds = [
        c["seconds"]["total"]
        for c in (predicted.get("cases") or {}).values()
        if (c.get("seconds") or {}).get("total") is not None
    ]
    if seconds:
        rows.append(
            (
                "prediction of a case",
                f"{number_text(float(np.median(seconds)))} s (median), "
                f"{number_text(max(seconds))} s maximum, on {predicted.get('device', '?')}",
            )
        )
    if card.get("machine"):
        rows.append(("machine", str(card["machine"])))
    return rows


def _card(
    card: dict[str, Any],
) -> tuple[list[tuple[str, str]], list[tuple[str, list[tuple[str, str]]]]]:
    """The facts of the model card, and separately its long lists (such as file hashes)."""
    short, long = [], []
    for name, value in card.items():
        rows = (
            [(k, value_text(v)) for k, v in flattened(value).items()]
            if isinstance(value, dict)
            else []
        )
        if len(rows) > 8:
            long.append((spelled(name), rows))
        elif rows:
            short += [(f"{spelled(name)}: {spelled(k)}", v) for k, v in rows]
        elif value not in (None, "", [], {}):
            short.append((spelled(name), value_text(value)))
    return short, long


def _limits(run: ReportedRun) -> list[str]:
    """Sentences on what the model may be used for and what was not tested."""
    lines = [
        "For research only. This is not a medical device. No result may guide patient care unless "
        "a qualified reader has checked it."
    ]
    if run.manifest:
        trained = [c for c in run.manifest if c.split != "test"]
        what = (
            f"{run.manifest.modality or 'modality not stated'}, {', '.join(run.manifest.channels)}"
        )
        lines.append(
            f"Trained on {len(trained)} cases of {len({c.patient for c in trained})} patients "
            f"({what}) from one source. Other scanners, protocols and diseases are untested."
        )
    if run.scores and run.scored == "test":
        n = len(run.scores.get("cases", []))
        lines.append(
            f"The test set has {n} {'slices' if run.scores.get('planar') else 'cases'} from the "
            "same source"
            + ("; this is too few to estimate how often rare failures occur." if n < 30 else ".")
        )
    else:
        lines.append("The model was not tested on held-out data.")
    if len(run.labels):
        lines.append(
            f"The model segments {joined(run.labels.names, 12)}. Everything else is background. "
            "Flags point out scans and masks unlike those of the training, but not an abnormality "
            "that the training cases did not have."
        )
    grave = sum(f.get("severity") in ("error", "warning") for f in run.findings or [])
    if grave:
        lines.append(
            f"The data check has {grave} errors and warnings, listed above. Scores are only as "
            "good as the data."
        )
    return lines
