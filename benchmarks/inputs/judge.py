"""Judge what a reader answered about an input."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .made import Right

LEAST_CONTRAST = 1.6
Outcome = Literal["right", "refused", "silently wrong", "wrong file named", "crashed"]


@dataclass(frozen=True)
class Answer:
    """What a reader made of an input.

    Args:
        voxels: structure -> number of voxels in all cases that it can use.
        bad: cases that it reported as unusable.
        refused: its message if it used nothing; "" if it used something.
        crashed: the last line of a traceback.
        cases, patients, channels: as in ``Right``; None or () if the reader has no such feature.
        said: its list of files.
        contrast: the smallest ratio of a case's mean intensity inside its structures to that
            outside. It is above 2 if the labels lie on the structures, which are bright.
    """

    voxels: dict[str, int] = field(default_factory=dict)
    bad: tuple[str, ...] = ()
    refused: str = ""
    crashed: str = ""
    cases: int | None = None
    patients: int | None = None
    channels: tuple[str, ...] = ()
    said: str = ""
    contrast: float | None = None


def judge(answer: Answer, right: Right) -> tuple[Outcome, str]:
    """The outcome, and what is wrong ("" if nothing)."""
    if answer.crashed:
        return "crashed", answer.crashed
    if answer.refused:
        if right.refused and right.refused not in answer.refused:
            return "wrong file named", answer.refused
        return ("right" if right.refused else "refused"), answer.refused
    if right.refused:
        return "silently wrong", f"should be refused, found {answer.voxels}"
    blamed = sorted(set(answer.bad) - set(right.bad))
    if blamed and set(blamed) <= set(right.odd):
        return "refused", ", ".join(blamed)
    if blamed:
        return (
            "wrong file named",
            f"{', '.join(blamed)} instead of {', '.join(right.bad) or 'none'}",
        )
    missed = sorted(set(right.bad) - set(answer.bad))
    if missed and not right.refusable:
        return "silently wrong", f"{', '.join(missed)} should be refused, found {answer.voxels}"
    wrong = [
        f"{what} {given} instead of {wanted}"
        for what, given, wanted in (
            ("voxels", answer.voxels, right.voxels),
            ("cases", answer.cases, right.cases),
            ("patients", answer.patients, right.patients),
            ("channels", answer.channels, right.channels or None),
        )
        if wanted is not None and given not in (None, ()) and given != wanted
    ]
    if answer.contrast is not None and answer.contrast < LEAST_CONTRAST:
        wrong.append(f"the labels are not on the structures (contrast {answer.contrast:.2f})")
    wrong += [f"{text} is not mentioned" for text in right.said if text not in answer.said]
    return ("silently wrong", "; ".join(wrong)) if wrong else ("right", "")
