"""Verdicts of a comparison for one structure: the figures of each run, differences to the first run
with interval, test and effect, ranks, and a plain sentence.

A difference is reported as found only if two results agree: the p value of the signed-rank test,
adjusted for all tested structures and runs (Holm), is below 0.05, and the interval of the mean
difference is on the same side of zero. Everything else is "no evidence of a difference", which is
not evidence that there is none. The module reads and writes no files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.scores import LOWER, NEARER_ZERO, better_is, describe
from ..core.words import joined, number_text, spelled
from ..metrics import statistics
from ..metrics.statistics import EQUAL, LEVEL, Floats

MOST_NAMED = 4  # structures that one sentence reports with their figures
BETTER, WORSE, NONE, TOO_FEW = (
    "better",
    "worse",
    "no evidence of a difference",
    "too few patients to tell",
)


def figures(
    values: Floats, names: Sequence[str], groups: Sequence[str], metric: str
) -> dict[str, Any]:
    """The figures of one structure: summary statistics of each run over the cases defined in every
    run, the difference of each later run to the first, and ranks.

    Args:
        values: (R, C) for runs and cases; NaN where not defined. Infinite distances are compared:
            they are larger than all others and equal to each other.
        names: (R,) of the runs.
        groups: (C,) the patient of each case.
        metric: decides which direction is better.

    Returns:
        Plain data for ``compare.json``; ``adjust`` adds the adjusted p values and verdicts.
    """
    # Only cases that are defined in every run can be compared.
    defined = np.flatnonzero(~np.isnan(values).any(axis=0)).tolist()
    kept, patients = values[:, defined], [groups[k] for k in defined]
    runs = {
        name: describe(v) | {"undefined": int(np.isnan(row).sum())}
        for name, v, row in zip(names, kept, values, strict=True)
    }
    differences = [
        _difference(kept[0], kept[k], patients, metric) | {"run": names[k], "to": names[0]}
        for k in range(1, len(kept))
    ]
    found: dict[str, Any] = {
        "n": len(defined),
        "patients": len(set(patients)),
        "runs": runs,
        "differences": differences,
    }
    # A metric without a better direction, such as a volume, has no ranks.
    if better_is(metric):
        ranking = statistics.rank(statistics.by_patient(_goodness(kept, metric), patients))
        rows = zip(
            names,
            ranking.mean_rank.tolist(),
            ranking.place.tolist(),
            ranking.chance.tolist(),
            strict=True,
        )
        found["ranks"] = {
            name: {"mean_rank": mean, "place": place, "chance_of_place": chance}
            for name, mean, place, chance in rows
        }
    return found


def adjust(results: dict[str, dict[str, Any]]) -> None:
    """Add the Holm-adjusted ``p_holm`` and the ``verdict`` to every difference, in place. The
    differences of all these structures are one family of tests.
    """
    family = [d for found in results.values() for d in found["differences"]]
    for d, p in zip(family, statistics.holm([d["p"] for d in family]), strict=True):
        d["p_holm"], d["verdict"] = p, _verdict(d, p)


def sentences(
    results: dict[str, dict[str, Any]], names: Sequence[str], metric: str, unit: str, per: str
) -> list[str]:
    """One sentence per run after the first: the structures on which it is better or worse than the
    first and by how much, and those without a difference.
    """
    out = []
    for k, name in enumerate(names[1:]):
        compared = {
            label: found["differences"][k] for label, found in results.items() if found["n"]
        }
        few = [label for label, d in compared.items() if d["verdict"] == TOO_FEW]
        parts = [
            _difference_words(name, names[0], compared, verdict, metric, unit, per)
            for verdict in (BETTER, WORSE)
        ]
        parts.append(_no_difference_words(compared, metric, unit))
        if few:
            parts.append(
                f"on {joined(few, MOST_NAMED)} too few patients differ for a significance test "
                f"({_span(compared, few, metric, unit)})"
            )
        kept = [p for p in parts if p]
        text = "; ".join(kept) if kept else f"{name} and {names[0]} have no common defined case"
        begin = text if text.startswith(name) else f"{name} against {names[0]}: {text}"
        out.append(begin + ".")
    return out


# ---- figures ----


def _difference(first: Floats, other: Floats, groups: Sequence[str], metric: str) -> dict[str, Any]:
    """``other`` minus ``first``, both (n,): mean, median, interval, test and effect, and in how
    many cases each is better (None if the metric has no better direction).

    Mean and interval use the finite differences only; ``infinite`` counts the others. ``gain`` is
    the difference with the sign for which more is better.
    """
    difference = _minus(other, first)
    gain = _minus(_goodness(other, metric), _goodness(first, metric))
    found, finite = describe(difference), np.isfinite(difference)
    finite_groups = [g for g, keep in zip(groups, finite, strict=True) if keep]
    # The interval is over cases, resampled by patient; the test is over the patients' mean gains.
    low, high = statistics.interval(difference[finite], finite_groups)
    of_patients = statistics.by_patient(gain, groups)
    test, effect = statistics.signed_rank(of_patients), statistics.effect_interval(of_patients)
    has_direction = better_is(metric) is not None
    return {
        "n": found["n"],
        "infinite": found["infinite"],
        "mean": found["mean"],
        "median": found["median"],
        "low95": low,
        "high95": high,
        "gain": _interval(gain[finite], finite_groups),
        "better": int((gain > EQUAL).sum()) if has_direction else None,
        "worse": int((gain < -EQUAL).sum()) if has_direction else None,
        "equal": int((np.abs(gain) <= EQUAL).sum()),
        "p": test.p,
        "test": "Wilcoxon signed-rank test, "
        f"{'exact' if test.exact else 'normal approximation'}, "
        f"{test.n} patients with a difference",
        "can_tell": test.can_tell,
        "effect": test.effect,
        "effect_low95": effect[0],
        "effect_high95": effect[1],
    }


def _interval(gain: Floats, groups: Sequence[str]) -> dict[str, float]:
    """Mean and 95 % interval by patient; NaN without values."""
    low, high = statistics.interval(gain, groups)
    return {"mean": float(gain.mean()) if len(gain) else float("nan"), "low95": low, "high95": high}


def _minus(other: Floats, first: Floats) -> Floats:
    """The difference ``other`` - ``first``; 0 if both are infinite."""
    with np.errstate(invalid="ignore"):
        return np.where(other == first, 0.0, other - first)


def _goodness(values: Floats, metric: str) -> Floats:
    """The values with the sign for which more is better; unchanged if the metric has no better
    direction.
    """
    return {LOWER: -values, NEARER_ZERO: -np.abs(values)}.get(better_is(metric) or "", values)


def _verdict(d: dict[str, Any], p: float) -> str:
    """The verdict on a difference with the adjusted p value ``p``: interval and effect must agree
    with the test.
    """
    # With as many better as worse cases there is no difference to find, even in few patients.
    if not d["can_tell"] and d["better"] != d["worse"]:
        return TOO_FEW
    # Significant, the interval excludes zero, and interval and effect have the same sign.
    low, high = d["gain"]["low95"], d["gain"]["high95"]
    if (
        p < LEVEL
        and d["better"] is not None
        and (low > 0 or high < 0)
        and (low > 0) == (d["effect"] > 0)
    ):
        return BETTER if low > 0 else WORSE
    return NONE


# ---- words ----


def points(value: float, metric: str, unit: str, sign: bool = False) -> str:
    """A difference as text: a ratio in percentage points with one or two decimals, anything else in
    its unit. ``sign`` adds a plus sign to positive values.
    """
    text = number_text(value) if unit else f"{100 * value:.{1 if abs(value) >= 1e-3 else 2}f}"
    return f"+{text}" if sign and value > 0 else text


def unit_words(metric: str, unit: str) -> str:
    """The unit of a difference; "Dice points" for a ratio such as Dice."""
    return unit or f"{spelled(metric)} points"


def _difference_words(
    name: str,
    first: str,
    compared: dict[str, dict[str, Any]],
    verdict: str,
    metric: str,
    unit: str,
    per: str,
) -> str:
    """ "B is better than A on liver by ..."; "" if no structure has this verdict."""
    # The sentence gives the size of a gain or a loss as a positive number.
    which = {label: d for label, d in compared.items() if d["verdict"] == verdict}
    sign = 1 if verdict == BETTER else -1
    words = []
    for label, d in list(which.items())[:MOST_NAMED]:
        low, high = sorted((sign * d["gain"]["low95"], sign * d["gain"]["high95"]))
        count = f"{verdict} in {d['better' if verdict == BETTER else 'worse']} of {d['n']} {per}s"
        words.append(
            f"on {label} by {points(sign * d['gain']['mean'], metric, unit)} "
            f"{unit_words(metric, unit)} (95 % interval "
            f"{points(low, metric, unit)} to {points(high, metric, unit)}, {count}, p "
            f"{_p_words(d['p_holm'])})"
        )
    if len(which) > MOST_NAMED:
        words.append(f"on {len(which) - MOST_NAMED} more structures")
    return f"{name} is {verdict} than {first} {joined(words, MOST_NAMED + 1)}" if words else ""


def _no_difference_words(compared: dict[str, dict[str, Any]], metric: str, unit: str) -> str:
    """The structures without evidence of a difference; "" if there are none."""
    which = [label for label, d in compared.items() if d["verdict"] == NONE]
    if not which:
        return ""
    return (
        f"on {joined(which, MOST_NAMED)} there is no evidence of a difference "
        f"({_span(compared, which, metric, unit)})"
    )


def _span(compared: dict[str, dict[str, Any]], which: list[str], metric: str, unit: str) -> str:
    """For one structure its mean difference and interval, for several the range of their mean
    differences.
    """
    if len(which) == 1:
        d = compared[which[0]]
        ends = [points(d[k], metric, unit, sign=True) for k in ("mean", "low95", "high95")]
        return f"{ends[0]} {unit_words(metric, unit)}" + (
            f", {ends[1]} to {ends[2]}" if np.isfinite(d["low95"]) else ""
        )
    means = [compared[label]["mean"] for label in which]
    return (
        f"mean differences {points(min(means), metric, unit, True)} to "
        f"{points(max(means), metric, unit, True)} {unit_words(metric, unit)}"
    )


def _p_words(p: float) -> str:
    """A p value after "p"."""
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
