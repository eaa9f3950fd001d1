"""The report step: a run's folder as one page that needs nothing else, to read, print and file away.

It reads what the other steps left on disk (``plan.json``, ``manifest.jsonl``, ``findings.json``, ``fold_K/log.jsonl``,
scores and predictions under ``test`` or else ``validation``, ``card.json``) and computes no score of its own. Whatever is absent is said
to be absent. The page has inline style and pictures and no script; it follows the reader's dark or light setting.
"""

from __future__ import annotations

import base64
import json
import math
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core.atomic import write_text
from ..core.errors import DelineateError, InputError
from ..core.labels import LabelSet
from ..core.manifest import Manifest
from .pictures import INK, plot_svg
from .words import decimals, duration, flattened, hex_colour, joined, mean_distance, number_text, spelled, value_text

SECTIONS = (("data", "Data"), ("plan", "Plan"), ("training", "Training"), ("test", "Scores"), ("pictures", "Cases"),
            ("volumes", "Volumes"), ("provenance", "Provenance"), ("limits", "Limits of use"))  # fmt: skip
OPTIMISTIC = "No test scores stand in this run: figures of validation data are optimistic, as they chose the checkpoint."
VALIDATION = "#d55e00"  # its colour beside the training's, which has the page's own
DISTANCES = ("hd95", "assd", "surface_dice")  # what the names of metrics of surfaces begin with
MOST_LINES = 8  # in one plot; more structures are drawn without names
CHOICES = ("orientation", "spacing_mm", "crop", "patch", "batch", "network", "loss", "optimiser", "schedule", "seed")  # shown without a reason too
SEVERITIES = ("error", "warning", "note")


@dataclass(frozen=True)
class Run:
    """What a run's folder holds; None or empty where a file is absent.

    ``scored`` is "test", or "validation" where only those cases, which chose the checkpoint, were scored.
    """

    folder: Path
    plan: dict[str, Any] | None = None
    manifest: Manifest | None = None
    findings: list[dict[str, Any]] | None = None
    logs: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    scores: dict[str, Any] | None = None
    card: dict[str, Any] | None = None
    scored: str = "test"

    @classmethod
    def load(cls, folder: Path) -> Run:
        """Read the folder.

        Raises:
            InputError: no such folder, or a file in it is damaged.
        """
        if not folder.is_dir():
            raise InputError("a run is a folder, found none here", path=folder)
        manifest = folder / "manifest.jsonl"
        logs = sorted([*folder.glob("fold_*/log.jsonl"), *folder.glob("fold_*/*/log.jsonl")])  # the latter where the plan has views
        scored = "test" if (folder / "test" / "scores.json").is_file() or not (folder / "validation" / "scores.json").is_file() else "validation"
        return cls(folder, _json(folder / "plan.json"),
                   Manifest.load(manifest) if manifest.is_file() else None, _listed(_json(folder / "findings.json")),
                   {"_".join(p.parent.relative_to(folder).parts): _lines(p) for p in logs},
                   _json(folder / scored / "scores.json"), _json(folder / "card.json"), scored)  # fmt: skip

    @property
    def labels(self) -> LabelSet:
        """The structures, from the scores, the plan or the manifest, whichever is there first."""
        if self.scores and self.scores.get("labels"):
            return LabelSet.from_json(self.scores["labels"])
        if self.plan and self.plan.get("structures"):
            return LabelSet.from_json(self.plan["structures"])
        return self.manifest.labels if self.manifest else LabelSet(())


def report(run: str | Path, out: str | Path | None = None) -> Path:
    """Write the report of ``run``.

    Args:
        run: the folder of a training run; any of its files may be absent.
        out: the HTML file; None is ``report.html`` in the run's folder.

    Returns:
        The file written.

    Raises:
        InputError: no such folder, or a file in it is damaged.
        OutputError: the page cannot be written.
    """
    from jinja2 import Environment, FileSystemLoader

    found = Run.load(Path(run))
    target = Path(out) if out is not None else found.folder / "report.html"
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    write_text(target, environment.get_template("report.html.jinja").render(**_page(found)))
    return target


def _page(run: Run) -> dict[str, Any]:
    from .. import __version__

    montages, gaps = _montages(run)
    card, details = _card(run.card or {})
    name = run.folder.resolve().name
    return {
        "title": f"Segmentation of {joined(run.labels.names, 4)}" if len(run.labels) else name, "subtitle": _subtitle(run, name),
        "sections": SECTIONS,
        "headline": _headline(run), "key_figures": _key_figures(run), "summary_lines": _summary_lines(run),
        "data": _data(run), "findings": _findings(run.findings), "findings_words": _findings_words(run.findings),
        "plan": _plan(run.plan), "folds": [_fold(key, log, run.labels) for key, log in run.logs.items()], "test": _test(run),
        "montages": montages, "montage_gaps": gaps, "volumes": _volumes(run), "card": card, "card_details": details,
        "limits": _limits(run), "version": __version__, "run": name,
    }  # fmt: skip


# ---- reading ----


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read as JSON ({error})", path=path) from error


def _listed(findings: Any) -> Any:
    """The list in ``findings.json``, which keeps it under "findings" beside counts."""
    return findings.get("findings", []) if isinstance(findings, dict) else findings


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last line that a killed run left unfinished is dropped."""
    lines = [line for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    out = []
    for number, line in enumerate(lines, start=1):
        try:
            out.append(json.loads(line))
        except ValueError as error:
            if number < len(lines):
                raise InputError(f"line {number} is not JSON", path=path) from error
    return out


# ---- summary ----


def _subtitle(run: Run, name: str) -> str:
    parts = [name]
    if run.manifest:
        parts.append(f"{len(run.manifest)} cases of {len(run.manifest.patients)} patients")
        parts.append(", ".join(run.manifest.channels))
    if run.plan and run.plan.get("network"):
        parts.append(f"{run.plan['network'].get('dims', '?')}-D {run.plan['network'].get('kind', 'network')}")
    return " · ".join(p for p in parts if p)


def _headline(run: Run) -> dict[str, str]:
    means = (run.scores or {}).get("means", {})
    keys = ("dice_mean_per_case", "dice_pooled_over_all_slices")
    for key in keys if not (run.scores or {}).get("planar") else keys[::-1]:  # of slices the pooled value is the one that papers give
        if means.get(key) is not None:
            return {"value": decimals(means[key]), "name": f"{run.scored} {spelled(key)}, mean of structures"}
    best = [max(v) for v in (_series(log, "val_dice_mean")[1] for log in run.logs.values()) if v]
    if best:
        return {"value": decimals(float(np.mean(best))), "name": "best validation Dice, mean of folds (the run was not tested)"}
    return {"value": "–", "name": "not yet scored"}


def _key_figures(run: Run) -> list[tuple[str, str]]:
    out = []
    means = (run.scores or {}).get("means", {})
    out += [(spelled(k), decimals(v)) for k, v in means.items() if k.startswith("dice") and k != "dice_mean_per_case" and v is not None][:3]
    seconds = sum(log[-1].get("seconds", 0.0) for log in run.logs.values() if log)
    if seconds:
        out.append(("training time", duration(seconds)))
    if run.scores:
        out.append((f"{run.scored} {'slices' if run.scores.get('planar') else 'cases'}", str(len(run.scores.get("cases", [])))))
    return out


def _summary_lines(run: Run) -> list[str]:
    if not run.scores:
        return [OPTIMISTIC] if run.logs else []
    dice = [s for s in run.scores["summary"] if s["metric"] == "dice" and s["mean"] is not None]
    lines = [] if run.scored == "test" else [OPTIMISTIC]
    if len(dice) > 1:
        low, high = min(dice, key=lambda s: s["mean"]), max(dice, key=lambda s: s["mean"])
        lines.append(f"Best segmented is {high['label']} (mean Dice {decimals(high['mean'])}), worst {low['label']} ({decimals(low['mean'])}).")
    empty = sum(s["undefined"] for s in run.scores["summary"] if s["metric"] == "dice")
    if empty:
        lines.append(f"{empty} time(s) a structure was absent from truth and prediction; its Dice is undefined there and counts as neither 0 nor 1.")
    return lines


# ---- data, plan ----


def _data(run: Run) -> list[tuple[str, str]]:
    manifest = run.manifest
    if manifest is None:
        return []
    splits: dict[str, list[str]] = {}
    for case in manifest:
        side = case.split or (f"fold {case.fold}" if case.fold is not None else "not assigned")
        splits.setdefault(side, []).append(case.patient)
    return [(name, value) for name, value in [
        ("layout", manifest.layout), ("folder", manifest.root), ("modality", manifest.modality), ("channels", ", ".join(manifest.channels)),
        ("structures", ", ".join(f"{b.value} {b.name}" for b in manifest.labels)),
        ("cases", str(len(manifest))), ("patients", str(len(manifest.patients))),
        ("split", "; ".join(f"{side}: {len(who)} cases of {len(set(who))} patients" for side, who in sorted(splits.items()))),
    ] if value]  # fmt: skip


def _findings(findings: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    """One row a kind and severity, gravest first, with the cases it names."""
    if findings is None:
        return None
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for f in findings:
        key = (f.get("severity", "note"), f.get("kind", ""))
        row = rows.setdefault(key, {"severity": key[0], "kind": key[1], "message": f.get("message", ""), "cases": []})
        if f.get("case"):
            row["cases"].append(f["case"])
    return sorted(rows.values(), key=lambda r: (SEVERITIES.index(r["severity"]) if r["severity"] in SEVERITIES else 0, -len(r["cases"])))


def _findings_words(findings: list[dict[str, Any]] | None) -> str:
    counts = Counter(f.get("severity", "note") for f in findings or [])
    cases = {f.get("case") for f in findings or [] if f.get("case")}
    return f"{', '.join(f'{n} of severity {s}' for s, n in counts.items())}, in {len(cases)} cases. Of each kind the first message is shown."


def _plan(plan: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Choice, value, reason: first what has a reason, then the rest of the plan's choices."""
    if not plan:
        return []
    reasons = dict(plan.get("reasons") or {})
    flat = {k: v for k, v in flattened(plan).items() if not k.startswith(("reasons", "structures", "low_resolution", "delineate_plan"))}
    rows = []
    for name, reason in reasons.items():
        inside = [k for k in flat if k == name or k.startswith(f"{name}.")]
        value = value_text(flat[name]) if name in flat else "; ".join(f"{spelled(k.removeprefix(name + '.'))} {value_text(flat[k])}" for k in inside)
        rows.append((spelled(name), value, reason))
        for k in inside:
            del flat[k]
    chosen = [k for k in flat if k.split(".")[0] in CHOICES]
    groups: dict[str, list[str]] = {}
    for k in chosen:
        if flat[k] is not None:
            groups.setdefault(k.split(".")[0], []).append(k)
    for name, keys in groups.items():
        value = "; ".join(f"{spelled(k.partition('.')[2])} {value_text(flat[k])}".strip() for k in keys)
        rows.append((spelled(name), value, ""))
    return rows


# ---- training ----


def _fold(key: str, log: list[dict[str, Any]], labels: LabelSet) -> dict[str, Any]:
    last = log[-1] if log else {}
    words = f"{last.get('step', 0)} steps, {last.get('epoch', 0):.3g} epochs, {duration(last.get('seconds', 0.0))}."
    epoch_s = _series(log, "epoch_s")[1]
    if epoch_s:
        words += f" An epoch took {number_text(float(np.median(epoch_s)))} s (median)."
    steps, means = _series(log, "val_dice_mean")
    if means:
        best = int(np.argmax(means))
        words += f" The best validation Dice, {decimals(means[best])}, was reached at step {steps[best]:g}{_training_dice_at(log, steps[best])}."
    name = key.replace("_", " ").capitalize()
    return {"name": name, "words": words, "overfitting": overfitting(log), "plots": _training_plots(log, labels)}


def _training_dice_at(log: list[dict[str, Any]], step: float) -> str:
    """The training Dice of the epoch that ended nearest to ``step``, in words; "" where none is logged."""
    steps, values = _series(log, "train_dice_mean")
    return f"; the training Dice was {decimals(values[int(np.argmin(np.abs(np.array(steps) - step)))])} then" if values else ""


def _training_plots(log: list[dict[str, Any]], labels: LabelSet) -> list[tuple[str, str]]:
    """(caption, SVG) of the loss, of the mean Dice and of each structure's; training and validation in one plot, so that a gap shows."""
    by = "epoch" if log and all(isinstance(e.get("epoch"), int | float) for e in log) else "step"
    pairs = [("training", "loss", "train_dice_mean", INK), ("validation", "val_loss", "val_dice_mean", VALIDATION)]
    loss = [(name, *_smooth(*_series(log, key, by)), colour, "-") for name, key, _, colour in pairs]
    dice = [(name, *_smooth(*_series(log, key, by)), colour, "-") for name, _, key, colour in pairs]
    each = _dice_lines(log, labels, by)
    loss, dice = [line for line in loss if line[1]], [line for line in dice if line[1]]
    plots = []
    if loss:
        plots.append((f"Loss over {by}s, training and validation.", plot_svg(loss, "loss", x_name=by)))
    if any(name == "training" for name, *_ in dice):
        words = f"Mean Dice over {by}s: training, of augmented patches while they were learnt from, and validation, of whole cases."
        plots.append((words, plot_svg(dice, "mean Dice", (0.0, 1.0), by)))
    if each:
        plots.append((f"Validation Dice over {by}s, each structure and their mean.", plot_svg(each, "Dice", (0.0, 1.0), by)))
    return plots


def overfitting(log: list[dict[str, Any]]) -> str | None:
    """A sentence where the validation loss has long been rising while the training loss went on falling, else None.

    "Long" is a third of the training, with the validation loss at its end at least 5 % of its range above its lowest point
    (means of the last three and of the three around the lowest, so that one noisy value says nothing).
    """
    val_steps, val_loss = _series(log, "val_loss")
    steps, loss = _series(log, "loss")
    if len(val_loss) < 6 or not loss:
        return None
    low = int(np.argmin(val_loss))
    if val_steps[low] > val_steps[0] + (val_steps[-1] - val_steps[0]) * 2 / 3:
        return None
    around, end = float(np.mean(val_loss[max(0, low - 1) : low + 2])), float(np.mean(val_loss[-3:]))
    after = [v for s, v in zip(steps, loss, strict=True) if s >= val_steps[low]]
    fell = len(after) >= 4 and np.mean(after[-len(after) // 4 :]) < np.mean(after[: max(1, len(after) // 4)])
    if not fell or end - around < 0.05 * (max(val_loss) - min(val_loss)):
        return None
    return (f"Overfitting: the validation loss was lowest at step {val_steps[low]:g} and has risen since (from {around:.3f} to {end:.3f}), "
            "while the training loss kept falling.")  # fmt: skip


def _series(log: list[dict[str, Any]], key: str, by: str = "step") -> tuple[list[float], list[float]]:
    """Steps (or epochs) and values of ``key`` where it is a finite number."""
    found = [(float(e.get(by, i)), float(e[key])) for i, e in enumerate(log) if isinstance(e.get(key), int | float) and math.isfinite(e[key])]
    return [s for s, _ in found], [v for _, v in found]


def _smooth(steps: list[float], values: list[float], points: int = 150) -> tuple[list[float], list[float]]:
    """Means of equal stretches, at most ``points`` of them."""
    size = max(1, len(values) // points)
    starts = range(0, len(values), size)
    return [float(np.mean(steps[i : i + size])) for i in starts], [float(np.mean(values[i : i + size])) for i in starts]


def _dice_lines(log: list[dict[str, Any]], labels: LabelSet, by: str) -> list[tuple[str, list[float], list[float], str, str]]:
    colours = {b.name: hex_colour(b.colour) for b in labels}
    flat = [(e.get(by, i), e["val_dice"]) for i, e in enumerate(log) if isinstance(e.get("val_dice"), dict)]
    names = list(dict.fromkeys(k for _, dice in flat for k in dice))
    lines = []
    for name in names:
        at, values = _series([{by: x, "dice": dice.get(name)} for x, dice in flat], "dice", by)
        lines.append((name if len(names) <= MOST_LINES else "", at, values, colours.get(name, INK), "-"))
    mean = _series(log, "val_dice_mean", by)
    if mean[1] and len(names) != 1:
        lines.append(("mean", *mean, INK, "--"))
    return [line for line in lines if line[1]]


# ---- test ----


def _test(run: Run) -> dict[str, Any] | None:
    scores = run.scores
    if not scores:
        return None
    unit = "slice" if scores.get("planar") else "case"
    summary = {(s["label"], s["metric"]): s for s in scores["summary"]}
    colours = {b.name: hex_colour(b.colour) for b in run.labels}
    names = list(dict.fromkeys(s["label"] for s in scores["summary"]))
    rows = [_test_row(name, summary[name, "dice"], scores, colours.get(name, "#888888")) for name in names]
    means = scores.get("means", {})
    pooled = next((v for k, v in means.items() if k.startswith("dice_pooled")), None)
    total = {"mean": decimals(means.get(f"dice_mean_per_{unit}")), "pooled": decimals(pooled)}
    others = ["iou", "precision", "recall", *(m for m in dict.fromkeys(m for _, m in summary) if m.startswith(DISTANCES))]
    sets = "; ".join(f"{spelled(k)} {decimals(v)}" for k, v in means.items() if k.startswith("dice") and not (unit == "slice" and k.endswith("case")))
    return {
        "unit": unit, "rows": rows, "total": total if len(rows) > 1 else None, "set": run.scored,
        "words": f"Over {len(scores.get('cases', []))} {unit}s, {_unseen(run)}on the original grids. Mean of structures: {sets}.",
        "other_names": [spelled(m) for m in others], "others": [(n, [mean_distance(summary[n, m]) for m in others]) for n in names],
        "remarks": [f"{name}: {why}" for name, why in (scores.get("failures") or {}).items()] + list(scores.get("notes") or []),
        "definitions": [(spelled(k), v) for k, v in (scores.get("definitions") or {}).items()],
    }  # fmt: skip


def _unseen(run: Run) -> str:
    """What the manifest proves of the scored cases: that they are the split's test cases, or that some are not."""
    if run.scored != "test":
        return "which chose the checkpoint, "
    splits = {c.id: c.split for c in run.manifest} if run.manifest else {}
    scored = [splits.get(c["case"]) for c in (run.scores or {}).get("cases", [])]
    if scored and all(s == "test" for s in scored):
        return "none of which the training saw, "
    return f"of which {sum(s != 'test' for s in scored)} are not marked as test cases, " if splits else ""


def _test_row(name: str, dice: dict[str, Any], scores: dict[str, Any], colour: str) -> dict[str, Any]:
    rows = [r for r in scores["rows"] if r["label"] == name and r["metric"] == "dice" and r["value"] is not None]
    points = sorted((r["value"], r["case"]) for r in rows)
    empty = f" (+{dice['undefined']} empty)" if dice["undefined"] else ""
    pooled = ((scores.get("pooled") or {}).get(name) or {}).get("dice")
    return {"name": name, "colour": colour, "n": f"{dice['n']}{empty}", **{k: decimals(dice[k]) for k in ("mean", "median", "std", "min")},
            "pooled": decimals(pooled), "points": points, "at": dice["mean"],
            "worst": ", ".join(f"{case} {value:.3f}" for value, case in points[:3])}  # fmt: skip


def _volumes(run: Run) -> dict[str, Any] | None:
    scores = run.scores
    summary = {(s["label"], s["metric"]): s for s in (scores or {}).get("summary", [])}
    names = [label for label, metric in summary if metric == "volume_truth_ml" and summary[label, metric]["mean"] is not None]
    if not scores or not names:
        return None
    columns = (("volume_truth_ml", "mean"), ("volume_predicted_ml", "mean"), ("volume_difference_ml", "mean"), ("volume_difference_ml", "std"),
               ("absolute_volume_difference_ml", "mean"), ("absolute_volume_difference_percent", "mean"))  # fmt: skip
    rows = [(name, [number_text(summary[name, metric][key]) for metric, key in columns]) for name in names]
    value = {(r["case"], r["label"], r["metric"]): r["value"] for r in scores["rows"]}
    colours = {b.name: hex_colour(b.colour) for b in run.labels}
    dots = []
    for name in names:
        both = [(value[c, name, "volume_truth_ml"], v) for (c, n, m), v in value.items() if n == name and m == "volume_predicted_ml"]
        kept = [(t, p) for t, p in both if t is not None and p is not None]
        dots.append((name if len(names) <= MOST_LINES else "", [t for t, _ in kept], [p - t for t, p in kept], colours.get(name, INK), "o"))
    plot = plot_svg(dots, "difference, ml", x_name="true volume, ml", zero=True)
    return {"words": "A positive difference means that too much was drawn.", "rows": rows,
            "plots": [("Predicted minus true volume against the true volume, each scored case.", plot)]}  # fmt: skip


def _montages(run: Run) -> tuple[list[dict[str, str]], list[str]]:
    """Pictures of the best, the median and the worst scored case, and why any is missing."""
    if not run.scores:
        return [], ["No case can be shown: the run holds no test scores."]
    ranked = _ranked(run.scores)
    if not ranked or run.manifest is None:
        return [], ["No case can be shown: the run holds no manifest, or no case has a defined Dice."]
    order = {"Best": len(ranked) - 1, "Median": len(ranked) // 2, "Worst": 0}
    chosen = {index: word for word, index in reversed(order.items())}  # of few cases one may be two of them: it is shown once
    out, gaps = [], []
    for index, word in sorted(chosen.items(), reverse=True):
        case, dice = ranked[index]
        try:
            png = _montage(run, case)
            out.append({"words": f"{word} {run.scored} case: {case}, Dice {decimals(dice)}", "png": base64.b64encode(png).decode("ascii")})
        except DelineateError as error:
            gaps.append(f"{word} {run.scored} case {case} cannot be shown: {error}")
    return out, gaps


def _ranked(scores: dict[str, Any]) -> list[tuple[str, float]]:
    """Cases with their Dice averaged over structures, worst first."""
    values: dict[str, list[float]] = {}
    for row in scores["rows"]:
        if row["metric"] == "dice" and row["value"] is not None:
            values.setdefault(row["case"], []).append(row["value"])
    return sorted(((case, float(np.mean(v))) for case, v in values.items()), key=lambda pair: pair[1])


def _montage(run: Run, case_id: str) -> bytes:
    from ..cohort.cases import read_image, read_label
    from ..formats.files import read
    from .pictures import montage

    assert run.manifest is not None  # the caller looked
    case = run.manifest.named(case_id)
    predictions = sorted((run.folder / run.scored / "predictions").glob(f"{case_id}.*"))
    if not predictions:
        raise InputError("its prediction is not in the run", case=case_id)
    with tempfile.TemporaryDirectory() as folder:
        masks = {"truth": read_label(case, run.manifest), "prediction": read(predictions[0])}
        return montage(read_image(case, run.manifest), masks, run.labels, Path(folder) / "montage.png", title=case_id).read_bytes()


# ---- provenance, limits ----


def _card(card: dict[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, list[tuple[str, str]]]]]:
    """The card's facts, and apart from them the long lists (hashes of many files)."""
    short, long = [], []
    for name, value in card.items():
        rows = [(k, value_text(v)) for k, v in flattened(value).items()] if isinstance(value, dict) else []
        if len(rows) > 8:
            long.append((spelled(name), rows))
        elif rows:
            short += [(f"{spelled(name)}: {spelled(k)}", v) for k, v in rows]
        elif value not in (None, "", [], {}):
            short.append((spelled(name), value_text(value)))
    return short, long


def _limits(run: Run) -> list[str]:
    lines = ["For research. It is not a medical device, and no result may guide care without a qualified reader's check."]
    if run.manifest:
        trained = [c for c in run.manifest if c.split != "test"]
        what = f"{run.manifest.modality or 'modality not stated'}, {', '.join(run.manifest.channels)}"
        lines.append(f"Learned from {len(trained)} cases of {len({c.patient for c in trained})} patients ({what}) of one source; "
                     "other scanners, protocols and diseases are untested.")  # fmt: skip
    if run.scores and run.scored == "test":
        n = len(run.scores.get("cases", []))
        lines.append(f"The test set has {n} {'slices' if run.scores.get('planar') else 'cases'} of that same source"
                     + ("; so few cannot tell how rare failures are." if n < 30 else "."))  # fmt: skip
    else:
        lines.append("It was not tested on data held back.")
    if len(run.labels):
        lines.append(f"It knows {joined(run.labels.names, 12)}; all else is background, and it does not tell when a scan shows something else.")
    grave = sum(f.get("severity") in ("error", "warning") for f in run.findings or [])
    if grave:
        lines.append(f"{grave} findings of the data check (errors and warnings) stand above; scores are no better than that data.")
    return lines
