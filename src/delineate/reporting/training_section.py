"""The report's section on training: curves of loss and Dice of every fold and view, and a warning
if the training overfitted.

It reads training logs, already parsed: a list with one dict per line of ``log.jsonl``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.labels import LabelSet
from ..core.words import decimals, duration, hex_colour, number_text
from .plots import INK, plot_svg

VALIDATION = "#d55e00"  # colour of validation curves; training curves have the text colour
FEW_VALIDATIONS = 10  # fewer make no curve
MOST_LINES = 8  # structures named in the legend; with more structures, none is named


def fold(key: str, log: list[dict[str, Any]], labels: LabelSet) -> dict[str, Any]:
    """Texts and plots of one fold (``key`` "fold_0") or of one view of a fold ("fold_0_axial")."""
    last = log[-1] if log else {}
    words = (
        f"{last.get('step', 0)} steps, {last.get('epoch', 0):.3g} epochs, "
        f"{duration(last.get('seconds', 0.0))}."
    )
    epoch_s = series(log, "epoch_s")[1]
    if epoch_s:
        words += f" An epoch took {number_text(float(np.median(epoch_s)))} s (median)."
    steps, means = series(log, "val_dice_mean")
    if means:
        best = int(np.argmax(means))
        words += (
            f" The best validation Dice, {decimals(means[best])}, was reached at step "
            f"{steps[best]:g}{_training_dice_at(log, steps[best])}."
        )
    name = key.replace("_", " ").capitalize()
    return {
        "name": name,
        "words": words,
        "overfitting": overfitting(log),
        "plots": _training_plots(log, labels),
    }


def _training_dice_at(log: list[dict[str, Any]], step: float) -> str:
    """A clause on the training Dice of the epoch that ended nearest to ``step``.

    It is "" if the log has no training Dice.
    """
    steps, values = series(log, "train_dice_mean")
    return (
        "; the training Dice was then "
        f"{decimals(values[int(np.argmin(np.abs(np.array(steps) - step)))])}"
        if values
        else ""
    )


def _training_plots(log: list[dict[str, Any]], labels: LabelSet) -> list[tuple[str, str]]:
    """(caption, SVG) of the loss, of the mean Dice, and of the Dice of each structure.

    Training and validation are in one plot, so that a gap between them is visible.
    """
    # Older logs have no epochs; their curves are drawn over steps.
    by = "epoch" if log and all(isinstance(e.get("epoch"), int | float) for e in log) else "step"
    # Few validations of whole cases are points; the curve is then that of validation patches.
    few = len(series(log, "val_dice_mean")[1]) < FEW_VALIDATIONS
    by_patch = few and bool(series(log, "patch_loss")[1])
    pairs = [
        ("training", "loss", "train_dice_mean", INK, "-"),
        ("validation", "val_loss", "val_dice_mean", VALIDATION, "o" if by_patch else "-"),
    ]
    if by_patch:
        patches = ("validation patches", "patch_loss", "patch_dice_mean", VALIDATION, "-")
        pairs.insert(1, patches)
    loss = [(name, *_smooth(*series(log, key, by)), ink, dash) for name, key, _, ink, dash in pairs]
    dice = [(name, *_smooth(*series(log, key, by)), ink, dash) for name, _, key, ink, dash in pairs]
    each = _dice_lines(log, labels, by, "patch_dice" if by_patch else "val_dice")
    loss, dice = [line for line in loss if line[1]], [line for line in dice if line[1]]
    plots = []
    if loss:
        plots.append(
            (f"Loss over {by}s, training and validation.", plot_svg(loss, "loss", x_name=by))
        )
    if any(name == "training" for name, *_ in dice):
        words = (
            f"Mean Dice over {by}s: training (augmented patches, during the training steps) and "
            "validation (whole cases)."
        )
        plots.append((words, plot_svg(dice, "mean Dice", (0.0, 1.0), by)))
    if each:
        plots.append(
            (
                f"Validation Dice over {by}s{' (patches)' * by_patch}, each structure and their "
                "mean.",
                plot_svg(each, "Dice", (0.0, 1.0), by),
            )
        )
    rate = series(log, "learning_rate", by)
    if rate[1]:
        line = ("", *_smooth(*rate), INK, "-")
        plots.append((f"Learning rate over {by}s.", plot_svg([line], "learning rate", x_name=by)))
    return plots


def overfitting(log: list[dict[str, Any]]) -> str | None:
    """A warning if the validation loss rose for long while the training loss kept falling.

    The conditions are: the validation loss was lowest in the first two thirds of the training; at
    the end it is above that minimum by at least 5 % of its range; and the training loss has fallen
    since the minimum. The minimum and the end are means of three values each, so that one noisy
    value does not decide. If a condition is not met, the result is None.
    """
    val_steps, val_loss = series(log, "val_loss")
    steps, loss = series(log, "loss")
    if len(val_loss) < 6 or not loss:
        return None
    low = int(np.argmin(val_loss))
    if val_steps[low] > val_steps[0] + (val_steps[-1] - val_steps[0]) * 2 / 3:
        return None
    # Means of three values: around the minimum, and at the end.
    around, end = float(np.mean(val_loss[max(0, low - 1) : low + 2])), float(np.mean(val_loss[-3:]))
    # The training loss since then: its last quarter is compared with its first.
    after = [v for s, v in zip(steps, loss, strict=True) if s >= val_steps[low]]
    fell = len(after) >= 4 and np.mean(after[-len(after) // 4 :]) < np.mean(
        after[: max(1, len(after) // 4)]
    )
    if not fell or end - around < 0.05 * (max(val_loss) - min(val_loss)):
        return None
    return (
        f"Overfitting: the validation loss was lowest at step {val_steps[low]:g} and then rose "
        f"(from {around:.3f} to {end:.3f}), while the training loss kept falling."
    )


def series(
    log: list[dict[str, Any]], key: str, by: str = "step"
) -> tuple[list[float], list[float]]:
    """Steps (or epochs) and values of ``key``, for the lines that have a finite number."""
    found = [
        (float(e.get(by, i)), float(e[key]))
        for i, e in enumerate(log)
        if isinstance(e.get(key), int | float) and math.isfinite(e[key])
    ]
    return [s for s, _ in found], [v for _, v in found]


def _smooth(
    steps: list[float], values: list[float], points: int = 150
) -> tuple[list[float], list[float]]:
    """The curve averaged over blocks of equal length, about ``points`` of them."""
    size = max(1, len(values) // points)
    starts = range(0, len(values), size)
    return [float(np.mean(steps[i : i + size])) for i in starts], [
        float(np.mean(values[i : i + size])) for i in starts
    ]


def _dice_lines(
    log: list[dict[str, Any]], labels: LabelSet, by: str, key: str
) -> list[tuple[str, list[float], list[float], str, str]]:
    """The validation Dice of each structure (``key`` of the log) as lines for ``plot_svg``; their
    mean is dashed.
    """
    colours = {b.name: hex_colour(b.colour) for b in labels}
    flat = [(e.get(by, i), e[key]) for i, e in enumerate(log) if isinstance(e.get(key), dict)]
    names = list(dict.fromkeys(k for _, dice in flat for k in dice))
    lines = []
    for name in names:
        at, values = series([{by: x, "dice": dice.get(name)} for x, dice in flat], "dice", by)
        lines.append(
            (name if len(names) <= MOST_LINES else "", at, values, colours.get(name, INK), "-")
        )
    mean = series(log, f"{key}_mean", by)
    if mean[1] and len(names) != 1:
        lines.append(("mean", *mean, INK, "--"))
    return [line for line in lines if line[1]]
