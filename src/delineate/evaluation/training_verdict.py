"""The verdict of a training: is the model good, usable with care, or not usable, why, and what to
do.

``judge`` sees only recorded facts (``TrainingFacts``): steps, the curves of training and
validation, the scores of held-out cases, and the findings of the data check. It reads no files and
knows no plan. The measure of a structure is its skill, the share of the error of a trivial baseline
(``evaluation.baseline``) that the model removes: (Dice - baseline) / (1 - baseline). It is 0 for a
model that needs no image and 1 for a perfect one (as forecasts are scored, Murphy 1988).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from ..core.words import decimals, joined
from ..metrics.statistics import LEVEL, interval

Level = Literal["good", "usable with care", "not usable", "unknown"]
GOOD: Level = "good"
CARE: Level = "usable with care"
NOT_USABLE: Level = "not usable"
UNKNOWN: Level = "unknown"

# The thresholds; docs/decisions/0052 has the reasons.
LEAST_SKILL = 0.1  # a model must remove this share of the baseline's error
LEAST_DICE = 0.5  # below, more than half of the voxels of both masks disagree
LEAST_STEPS = 0.5  # of the wanted steps
TRANSFER = 2 / 3  # of the skill on training cases, that on other cases must be at least this
MOST_FAILED = LEVEL  # of the structures
IMPROVING = 0.25  # of the error before, that the last third of the steps removed: not converged
EXCHANGED, PARTLY_EXCHANGED = 0.5, LEVEL  # of the voxels of a pair, those on the other side
MOST_DOUBTS = 2  # about truths that a verdict repeats
MOST_NAMED = 4  # structures that a reason names
DEPENDENT = "training and held-out cases are not independent"


@dataclass(frozen=True)
class Reason:
    """Why a verdict is not better.

    Args:
        kind: for programs, such as "steps"; also the kind of advice.
        words: a clause with the figures.
        level: the best verdict that it allows.
        unnamed: the clause without ids of cases, if ``words`` has some.
    """

    kind: str
    words: str
    level: Level = CARE
    unnamed: str = field(default="", compare=False)

    def to_json(self) -> dict[str, str]:
        """Plain data."""
        return {"kind": self.kind, "words": self.words, "level": self.level}


@dataclass(frozen=True)
class Verdict:
    """The verdict of a training.

    Args:
        level: "good", "usable with care", "not usable"; "unknown" if nothing is recorded.
        summary: a clause with the main figure.
        reasons: the most severe first.
        advice: what to do, one clause each.

    >>> verdict = Verdict("good", "test Dice 0.950 on 5 cases")
    >>> verdict.words, verdict == Verdict.from_json(verdict.to_json())
    ('good: test Dice 0.950 on 5 cases', True)
    """

    level: Level = UNKNOWN
    summary: str = ""
    reasons: tuple[Reason, ...] = ()
    advice: tuple[str, ...] = ()

    @property
    def is_usable(self) -> bool:
        """Whether nothing speaks against using the model at all."""
        return self.level != NOT_USABLE

    @property
    def words(self) -> str:
        """One sentence: level, reasons, figure and advice."""
        facts = "; ".join(filter(None, (*(reason.words for reason in self.reasons), self.summary)))
        text = f"{self.level}: {facts}" if facts else self.level
        return f"{text}. What to do: {'; or '.join(self.advice)}" if self.advice else text

    @property
    def warning(self) -> str:
        """A sentence for those who use the model; "" for a good one, and without a verdict."""
        return "" if self == Verdict() or self.level == GOOD else f"this model is {self.words}"

    @property
    def unnamed(self) -> Verdict:
        """The verdict without ids of cases, which may be names of patients: for a model, which is
        given away.
        """
        reasons = (replace(one, words=one.unnamed or one.words) for one in self.reasons)
        return replace(self, reasons=tuple(reasons))

    def to_json(self) -> dict[str, Any]:
        """Plain data, for a card."""
        return {
            "level": self.level,
            "words": self.words,
            "summary": self.summary,
            "reasons": [reason.to_json() for reason in self.reasons],
            "advice": list(self.advice),
        }

    @classmethod
    def from_json(cls, data: Any) -> Verdict:
        """The verdict in a card; "unknown" without one, as in models of earlier versions."""
        if not isinstance(data, Mapping):
            return cls()
        reasons = tuple(Reason(r["kind"], r["words"], r["level"]) for r in data.get("reasons", ()))
        return cls(
            data.get("level", UNKNOWN),
            data.get("summary", ""),
            reasons,
            tuple(data.get("advice", ())),
        )


@dataclass(frozen=True)
class NetworkFacts:
    """One network's training.

    Args:
        name: of the member, such as "fold_0".
        steps: done in all starts together.
        wanted: steps; None if unknown.
        enough: steps that are enough for most cohorts; below, more are worth trying first.
        step_s: seconds of a step, validation included; NaN if unknown.
        diverged: whether the last losses were not finite.
        training_dice, validation_dice: of the weights that were kept, on whole cases of either
            side, mean over structures; NaN if unknown.
        curve: (step, validation Dice) of every validation.
    """

    name: str
    steps: int
    wanted: float | None = None
    enough: float = 0.0
    step_s: float = math.nan
    diverged: bool = False
    training_dice: float = math.nan
    validation_dice: float = math.nan
    curve: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class StructureFacts:
    """The held-out scores of one structure.

    Args:
        name: of the structure.
        dice: of each scored case in which it is defined; ``patients`` in the same order.
        containing, found: cases whose truth contains it; those in which some of it was found.
        baseline: Dice of the trivial baseline; NaN if unknown, which counts as 0.
    """

    name: str
    dice: tuple[float, ...] = ()
    patients: tuple[str, ...] = ()
    containing: int = 0
    found: int = 0
    baseline: float = math.nan

    @property
    def mean(self) -> float:
        """Mean Dice; NaN without cases."""
        return float(np.mean(self.dice)) if self.dice else math.nan


@dataclass(frozen=True)
class TrainingFacts:
    """What a run recorded.

    Args:
        networks: of all folds and views.
        structures: of the model, with their scores.
        scored: "test", "validation" or "cross-validation"; "" if nothing was scored.
        cases: number of scored cases.
        not_scored: ids of held-out cases that could not be scored.
        exchanged: (left, right) -> of the voxels of both that were found on either side, the share
            on the wrong one.
        sides_in_labels: of the check, a sentence if left and right are exchanged in most truths.
        drawn: of the check, a sentence if most images show their own masks.
        copied: of the check, a sentence if most truths are one mask.
        doubts: of the check, a sentence for each finding about the truths or the channels of some
            cases, such as structures in another order.
        leaks: a clause for each pair of patients that is probably one, on both sides of the split.
        has_budget: whether the run can be extended.
        on_cpu: whether another device may be faster.
    """

    networks: tuple[NetworkFacts, ...] = ()
    structures: tuple[StructureFacts, ...] = ()
    scored: str = ""
    cases: int = 0
    not_scored: tuple[str, ...] = ()
    exchanged: Mapping[tuple[str, str], float] = field(default_factory=dict)
    sides_in_labels: str = ""
    drawn: str = ""
    copied: str = ""
    doubts: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    has_budget: bool = True
    on_cpu: bool = False


def skill(dice: float, baseline: float) -> float:
    """(Dice - baseline) / (1 - baseline); a baseline that is unknown counts as 0, a perfect one
    leaves nothing to remove.

    >>> skill(0.9, 0.5), skill(0.5, 0.5), skill(0.9, float("nan")), skill(1.0, 1.0)
    (0.8, 0.0, 0.9, 0.0)
    """
    known = 0.0 if math.isnan(baseline) else baseline
    return (dice - known) / (1 - known) if known < 1 else 0.0


def judge(facts: TrainingFacts) -> Verdict:
    """The verdict: the worst level that a reason demands, "good" without one."""
    reasons = [
        *_divergence(facts),
        *_sides(facts),
        *_structures(facts),
        *_independence(facts),
        *_steps(facts),
        *_overfitting(facts),
    ]
    reasons.sort(key=lambda reason: reason.level != NOT_USABLE)
    level = reasons[0].level if reasons else GOOD
    kinds = dict.fromkeys(reason.kind for reason in reasons)
    advice = dict.fromkeys(a for kind in kinds for a in _advice(kind, facts))
    return Verdict(level, _summary(facts), tuple(reasons), tuple(advice))


# ---- reasons ----


def _divergence(facts: TrainingFacts) -> list[Reason]:
    """Losses that are not finite at the end."""
    names = [n.name.replace("_", " ") for n in facts.networks if n.diverged]
    words = f"the loss of {', '.join(names)} was not finite at the end"
    return [Reason("diverged", words, NOT_USABLE)] if names else []


def _sides(facts: TrainingFacts) -> list[Reason]:
    """Left and right, or other structures, exchanged in the truths or by the model; truths that
    their images show.
    """
    reasons = []
    if facts.sides_in_labels:
        reasons.append(Reason("labels", facts.sides_in_labels, NOT_USABLE))
    if facts.drawn:
        reasons.append(Reason("drawn", facts.drawn, NOT_USABLE))
    if facts.copied:
        reasons.append(Reason("labels", facts.copied, NOT_USABLE))
    # Without their cases, several findings may be one sentence.
    doubts = [words for words in dict.fromkeys(facts.doubts) if words != facts.copied]
    reasons += [Reason("labels", words, CARE) for words in doubts[:MOST_DOUBTS]]
    for pair, share in facts.exchanged.items():
        words = f"{100 * share:.0f} % of the voxels of {' and '.join(pair)} have the wrong side"
        if share > PARTLY_EXCHANGED:
            reasons.append(Reason("sides", words, NOT_USABLE if share > EXCHANGED else CARE))
    return reasons


def _structures(facts: TrainingFacts) -> list[Reason]:
    """Structures that were not found, are no better than the baseline, or have a low Dice."""
    if not facts.scored:
        return [Reason("not scored", "no held-out case was scored")]
    never = [s for s in facts.structures if s.containing and not s.found]
    others = [s for s in facts.structures if s.dice and s not in never]
    trivial = [s for s in others if skill(s.mean, s.baseline) <= LEAST_SKILL]
    others = [s for s in others if s not in trivial]
    # What fails in one of twenty structures or more is not the model that was asked for.
    failed = len(never) + len(trivial)
    level = NOT_USABLE if failed > MOST_FAILED * len(facts.structures) else CARE
    reasons = []
    if never:
        words = f"{_named(never)} never found in the {facts.scored} cases"
        reasons.append(Reason("never found", words, level))
    if trivial:
        words = f"no better than a trivial mask: {_with_baseline(trivial)}"
        reasons.append(Reason("baseline", words, level))
    return reasons + _weak(facts, others)


def _weak(facts: TrainingFacts, found: Sequence[StructureFacts]) -> list[Reason]:
    """Structures without scores, and those with scores that prove little or are low."""
    missing = [s for s in facts.structures if not s.dice]
    unclear = [s for s in found if not skill(_low(s), s.baseline) > LEAST_SKILL]
    low = [s for s in found if s.mean < LEAST_DICE and s not in unclear]
    reasons = []
    if missing:
        words = f"{_named(missing)} in none of the {facts.scored} cases"
        reasons.append(Reason("few cases", words))
    if unclear:
        words = f"too few patients to tell {_with_baseline(unclear)} from a trivial mask"
        reasons.append(Reason("few cases", words))
    if low:
        reasons.append(Reason("low", f"low Dice: {_with_dice(low)}"))
    return reasons


def _low(structure: StructureFacts) -> float:
    """The lower limit of the 95 % interval of the mean Dice by patient; NaN for one patient."""
    return interval(np.array(structure.dice), structure.patients)[0]


def _independence(facts: TrainingFacts) -> list[Reason]:
    """Held-out cases that are not independent of the training, or could not be scored."""
    reasons = [
        Reason("leak", f"{DEPENDENT}: {words}", CARE, DEPENDENT) for words in facts.leaks[:1]
    ]
    if facts.not_scored:
        count = len(facts.not_scored)
        more = " ..." if count > MOST_NAMED else ""
        names = ", ".join(facts.not_scored[:MOST_NAMED]) + more
        words = f"{count} of {facts.cases + count} held-out cases could not be scored"
        reasons.append(Reason("not scored", f"{words} ({names})", CARE, words))
    return reasons


def _steps(facts: TrainingFacts) -> list[Reason]:
    """Fewer steps than wanted."""
    short = [n for n in facts.networks if n.wanted and n.steps < LEAST_STEPS * n.wanted]
    if not short:
        return []
    words = ", ".join(
        f"{n.steps} of {n.wanted:.0f} wanted steps"
        + (f" of {n.name.replace('_', ' ')}" if len(facts.networks) > 1 else "")
        for n in short[:MOST_NAMED]
    )
    return [Reason("steps", f"only {words}")]


def _overfitting(facts: TrainingFacts) -> list[Reason]:
    """A third or more of what was learned holds for the training cases alone."""
    baselines = [s.baseline for s in facts.structures if not math.isnan(s.baseline)]
    baseline = float(np.mean(baselines)) if baselines else math.nan
    for n in facts.networks:
        learned, kept = (skill(d, baseline) for d in (n.training_dice, n.validation_dice))
        if learned > LEAST_SKILL and kept < TRANSFER * learned:
            words = (
                f"overfitted: Dice {decimals(n.training_dice)} on training cases, "
                f"{decimals(n.validation_dice)} on validation cases"
            )
            return [Reason("overfitted", words)]
    return []


# ---- words ----


def _summary(facts: TrainingFacts) -> str:
    """The mean Dice of held-out cases next to that of the baseline."""
    means = [s.mean for s in facts.structures if s.dice]
    if not facts.scored or not means:
        return ""
    known = [s.baseline for s in facts.structures if s.dice and not math.isnan(s.baseline)]
    against = f", a trivial mask {decimals(float(np.mean(known)))}" if known else ""
    plural = "s" * (facts.cases != 1)
    dice = decimals(float(np.mean(means)))
    return f"{facts.scored} Dice {dice} on {facts.cases} case{plural}{against}"


def _named(structures: Sequence[StructureFacts]) -> str:
    """Their names, then "was" or "were"."""
    verb = "was" if len(structures) == 1 else "were"
    return f"{joined([s.name for s in structures], MOST_NAMED)} {verb}"


def _with_dice(structures: Sequence[StructureFacts]) -> str:
    return joined([f"{s.name} ({decimals(s.mean)})" for s in structures], MOST_NAMED)


def _with_baseline(structures: Sequence[StructureFacts]) -> str:
    each = [f"{s.name} ({decimals(s.mean)}, trivial {decimals(s.baseline)})" for s in structures]
    return joined(each, MOST_NAMED)


# ---- advice ----


def _advice(kind: str, facts: TrainingFacts) -> list[str]:
    """What to do about a reason of this kind."""
    labels = "look at images with labels (`delineate view`, `delineate check`) and repair them"
    more = "add cases from more patients"
    return {
        "diverged": ["lower optimiser.learning_rate (--set) and train again with --overwrite"],
        "labels": [labels],
        "drawn": ["train on the scans themselves, without drawn masks"],
        "sides": _longer(facts) or [labels],
        "never found": _longer(facts) or [labels, more],
        "baseline": _longer(facts) or [labels, more],
        "low": _longer(facts) or [more, labels],
        "few cases": [more],
        "leak": ["name the patients with --patient, and train again with --overwrite"],
        "not scored": ["repair the cases that could not be scored and evaluate them"],
        "steps": _longer(facts),
        "overfitted": [more],
    }[kind]


def _longer(facts: TrainingFacts) -> list[str]:
    """How to train longer, if the training was short or still improving at its end; else []."""
    if not any(_is_short(n) or _still_improves(n) for n in facts.networks):
        return []
    advice = []
    if facts.has_budget:
        missing_s = sum(
            max(n.wanted or 0.0, n.enough, 1.5 * n.steps) * n.step_s - n.steps * n.step_s
            for n in facts.networks
            if not math.isnan(n.step_s)
        )
        minutes = max(1, math.ceil(missing_s / 60))
        advice.append(f"train longer with the same command and --extend {minutes}m")
    else:
        advice.append("train again with more --epochs")
    return advice + (["train on a GPU (--device cuda)"] if facts.on_cpu else [])


def _is_short(network: NetworkFacts) -> bool:
    return network.steps < max(network.wanted or 0.0, network.enough)


def _still_improves(network: NetworkFacts) -> bool:
    """Whether the validation Dice still rose in the last third of the steps."""
    if len(network.curve) < 3:
        return False
    last_step, last = network.curve[-1]
    before = [dice for step, dice in network.curve if step <= 2 / 3 * last_step]
    return bool(before) and last - max(before) > IMPROVING * (1 - max(before))
