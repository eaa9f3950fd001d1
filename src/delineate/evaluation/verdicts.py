"""What a comparison says of one structure: each run's figures, differences to the first with
interval, test and effect, ranks, and a plain sentence.

A difference is told as found only where two things agree: the signed-rank test, adjusted for all
structures and runs that were looked at (Holm), is below 0.05, and the interval of the mean
difference lies on that same side of zero. Anything else is "no evidence of a difference", which is
not evidence of none. It reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.scores import LOWER, NEARER_ZERO, better_is, describe
from ..core.words import joined, number_text, spelled
from ..metrics import statistics
from ..metrics.statistics import EQUAL, LEVEL, Floats

MOST_NAMED = 4  # structures of one sentence that are told with their figures
BETTER, WORSE, NONE, TOO_FEW = (
    "better",
    "worse",
    "no evidence of a difference",
    "too few patients to tell",
)


def figures(
    values: Floats, names: Sequence[str], groups: Sequence[str], metric: str
) -> dict[str, Any]:
    """Of one structure: each run's description over the cases defined in every run, each later
    run's difference to the first, and ranks.

    Args:
        values: (R, C) of runs and cases; NaN where not defined. Infinite distances are compared:
            farther than any other, and equal among themselves.
        names: (R,) of the runs.
        groups: (C,) the patient of each case.
    """
    defined = np.flatnonzero(~np.isnan(values).any(axis=0)).tolist()
    kept, who = values[:, defined], [groups[k] for k in defined]
    runs = {
        name: describe(v) | {"undefined": int(np.isnan(row).sum())}
        for name, v, row in zip(names, kept, values, strict=True)
    }
    differences = [
        _difference(kept[0], kept[k], who, metric) | {"run": names[k], "to": names[0]}
        for k in range(1, len(kept))
    ]
    found: dict[str, Any] = {
        "n": len(defined),
        "patients": len(set(who)),
        "runs": runs,
        "differences": differences,
    }
    if better_is(metric):
        ranking = statistics.rank(statistics.by_patient(_goodness(kept, metric), who))
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
    """Give every difference of these structures its Holm-adjusted ``p_holm`` and its ``verdict``:
    together they are one family of tests.
    """
    family = [d for found in results.values() for d in found["differences"]]
    for d, p in zip(family, statistics.holm([d["p"] for d in family]), strict=True):
        d["p_holm"], d["verdict"] = p, _verdict(d, p)


def sentences(
    results: dict[str, dict[str, Any]], names: Sequence[str], metric: str, unit: str, per: str
) -> list[str]:
    """One a later run: where it is better or worse than the first and by how much, and where
    nothing was found.
    """
    out = []
    for k, name in enumerate(names[1:]):
        told = {label: found["differences"][k] for label, found in results.items() if found["n"]}
        few = [label for label, d in told.items() if d["verdict"] == TOO_FEW]
        parts = [
            _found(name, names[0], told, verdict, metric, unit, per) for verdict in (BETTER, WORSE)
        ]
        parts.append(_nothing_found(told, metric, unit))
        if few:
            parts.append(
                f"of {joined(few, MOST_NAMED)} too few differing patients were seen for any test "
                f"to tell ({_span(told, few, metric, unit)})"
            )
        kept = [p for p in parts if p]
        text = (
            "; ".join(kept) if kept else f"{name} and {names[0]} have nothing in common to compare"
        )
        begin = text if text.startswith(name) else f"{name} against {names[0]}: {text}"
        out.append(begin + ".")
    return out


# ---- figures ----


def _difference(first: Floats, other: Floats, groups: Sequence[str], metric: str) -> dict[str, Any]:
    """``other`` minus ``first``, both (n,): mean, median, interval, test and effect, and how often
    which is better (null where neither is).

    Mean and interval are of the finite differences alone; ``infinite`` counts the others. ``gain``
    is the difference turned so that more is better.
    """
    difference = _minus(other, first)
    gain = _minus(_goodness(other, metric), _goodness(first, metric))
    found, finite = describe(difference), np.isfinite(difference)
    who = [g for g, keep in zip(groups, finite, strict=True) if keep]
    low, high = statistics.interval(difference[finite], who)
    of_patients = statistics.by_patient(gain, groups)
    test, effect = statistics.signed_rank(of_patients), statistics.effect_interval(of_patients)
    judged = better_is(metric) is not None
    return {
        "n": found["n"],
        "infinite": found["infinite"],
        "mean": found["mean"],
        "median": found["median"],
        "low95": low,
        "high95": high,
        "gain": _interval(gain[finite], who),
        "better": int((gain > EQUAL).sum()) if judged else None,
        "worse": int((gain < -EQUAL).sum()) if judged else None,
        "equal": int((np.abs(gain) <= EQUAL).sum()),
        "p": test.p,
        "test": f"Wilcoxon signed-rank, {'exact' if test.exact else 'normal approximation'}, "
        f"{test.n} differing patients",
        "can_tell": test.can_tell,
        "effect": test.effect,
        "effect_low95": effect[0],
        "effect_high95": effect[1],
    }


def _interval(gain: Floats, groups: Sequence[str]) -> dict[str, float]:
    low, high = statistics.interval(gain, groups)
    return {"mean": float(gain.mean()) if len(gain) else float("nan"), "low95": low, "high95": high}


def _minus(other: Floats, first: Floats) -> Floats:
    """The difference, 0 where both are infinite."""
    with np.errstate(invalid="ignore"):
        return np.where(other == first, 0.0, other - first)


def _goodness(values: Floats, metric: str) -> Floats:
    """The values turned so that more is better; as they are where the metric judges nothing."""
    return {LOWER: -values, NEARER_ZERO: -np.abs(values)}.get(better_is(metric) or "", values)


def _verdict(d: dict[str, Any], p: float) -> str:
    if not d["can_tell"] and d["better"] != d["worse"]:
        return TOO_FEW
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
    """A difference as a person says it: a ratio in points of a hundred with a digit or two after
    the point, anything else in its unit.
    """
    text = number_text(value) if unit else f"{100 * value:.{1 if abs(value) >= 1e-3 else 2}f}"
    return f"+{text}" if sign and value > 0 else text


def unit_words(metric: str, unit: str) -> str:
    return unit or f"{spelled(metric)} points"


def _found(
    name: str,
    first: str,
    told: dict[str, dict[str, Any]],
    verdict: str,
    metric: str,
    unit: str,
    per: str,
) -> str:
    """ "B is better than A on liver by ..."; "" where it is nowhere."""
    which = {label: d for label, d in told.items() if d["verdict"] == verdict}
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


def _nothing_found(told: dict[str, dict[str, Any]], metric: str, unit: str) -> str:
    which = [label for label, d in told.items() if d["verdict"] == NONE]
    if not which:
        return ""
    return (
        f"on {joined(which, MOST_NAMED)} there is no evidence of a difference "
        f"({_span(told, which, metric, unit)})"
    )


def _span(told: dict[str, dict[str, Any]], which: list[str], metric: str, unit: str) -> str:
    """The interval of one, the range of mean differences of several."""
    if len(which) == 1:
        d = told[which[0]]
        ends = [points(d[k], metric, unit, sign=True) for k in ("mean", "low95", "high95")]
        return f"{ends[0]} {unit_words(metric, unit)}" + (
            f", {ends[1]} to {ends[2]}" if np.isfinite(d["low95"]) else ""
        )
    means = [told[label]["mean"] for label in which]
    return (
        f"mean differences {points(min(means), metric, unit, True)} to "
        f"{points(max(means), metric, unit, True)} {unit_words(metric, unit)}"
    )


def _p_words(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.2g}"
