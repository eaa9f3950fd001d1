"""The pictures of an evaluation.

Each case is drawn with source, truth and prediction side by side, in ``pictures/CASE.png``. The
best, the median and the worst case are also drawn as three planes with both outlines, in
``montages/WHAT.png``.

The module finds the scan of each case: the one of the cohort, the one with the case's name in a
folder of images, or the one whose geometry a stack of slices uses. It reads truth and prediction
again and draws them, one case at a time in each process. Nothing that fails here is raised, because
the scores are already complete: a case that cannot be drawn is reported in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import DelineateError, InputError, LayoutError
from ..core.labels import LabelSet
from ..core.manifest import Source
from ..core.prediction import MAPS
from ..core.progress import Progress, silent
from ..core.scores import finite_mean
from ..core.words import decimals
from ..evaluation.masks import Reading, read_masks
from ..evaluation.pairing import Pair, Pairing, match_names
from ..execution.local import Outcome, run, workers_for

if TYPE_CHECKING:
    from ..evaluation.scoring import EvaluationResult

SECONDS_A_PICTURE = 0.7  # typical time of a picture, which decides the number of processes
BEST, MEDIAN, WORST = "best", "median", "worst"
MOST_NAMED = 4  # structures whose Dice is in a title


@dataclass(frozen=True)
class ComparisonPicture:
    """One case to draw; without an ``image``, the masks alone are drawn."""

    pair: Pair
    image: Source | None
    labels: LabelSet
    reading: Reading | None
    title: str
    path: str
    planes: bool = False  # three planes with both outlines, instead of slices side by side


def draw_cases(
    pairing: Pairing,
    evaluated: EvaluationResult,
    reading: Reading | None,
    folder: Path,
    most: int | None,
    images: str | Path | None,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Draw cases of an evaluation.

    Args:
        pairing, evaluated, reading: the scored pairs, their scores, and how masks of one structure
            were read.
        folder: where the pictures are written.
        most: the number of cases, spread evenly from the worst Dice to the best; None draws all.
        images: see ``commands.evaluate.evaluate``.
        workers: number of processes; None derives it from the number of cases.
        progress: called after each picture.

    Returns:
        The files written, and a sentence for each picture that is missing.
    """
    dices = _dices(evaluated)
    chosen = _chosen(dices, most)
    pairs = [p for p in pairing.pairs if p.case in chosen]
    try:
        known = _images(pairs, images)
    except DelineateError as error:
        return (), (f"no pictures: {error}",)
    jobs = [
        ComparisonPicture(
            p,
            known.get(p.case),
            evaluated.labels,
            reading,
            _title(p.case, dices[p.case]),
            str(folder / f"{p.case}.png"),
        )
        for p in pairs
    ]
    outcomes = _drawn(jobs, [p.case for p in pairs], workers, progress)
    gaps = [f"no picture: {o.error}" for o in outcomes if o.error is not None]
    bare = [job.pair.case for job in jobs if job.image is None]
    if bare:
        gaps.append(
            "no image is known for "
            f"{', '.join(bare[:5])}{' ...' if len(bare) > 5 else ''}: only the masks are drawn "
            "(specify images)"
        )
    return tuple(str(o.value) for o in outcomes if o.value is not None), tuple(gaps)


def draw_montages(
    pairing: Pairing,
    evaluated: EvaluationResult,
    reading: Reading | None,
    folder: Path,
    images: str | Path | None,
    *,
    workers: int | None = None,
    progress: Progress = silent,
) -> tuple[dict[str, Any], ...]:
    """Draw the best, the median and the worst case by mean Dice.

    With one case, only the worst is drawn; with two cases, there is no median.

    Returns:
        A dict for each picture: "what" ("best", "median" or "worst"), "case", "dice", "file"
            (relative to ``folder``'s parent; None if it could not be drawn), and "why" (the reason
            for that, or None).
    """
    dices = _dices(evaluated)
    chosen = _extremes(dices)
    if not chosen:
        return ()
    pairs = {p.case: p for p in pairing.pairs}
    # If the scans cannot be found, the masks are drawn alone and the reason is kept.
    try:
        known, lost = _images([pairs[case] for case in chosen.values()], images), None
    except DelineateError as error:
        known, lost = {}, str(error)
    jobs = [
        ComparisonPicture(
            pairs[case],
            known.get(case),
            evaluated.labels,
            reading,
            _title(case, dices[case]),
            str(folder / f"{what}.png"),
            planes=True,
        )
        for what, case in chosen.items()
    ]
    outcomes = _drawn(jobs, list(chosen.values()), workers, progress)
    return tuple(
        {
            "what": what,
            "case": case,
            "dice": _mean(dices[case]),
            "file": None if done.error else f"{folder.name}/{what}.png",
            "why": str(done.error) if done.error else lost,
        }
        for (what, case), done in zip(chosen.items(), outcomes, strict=True)
    )


def _extremes(dices: dict[str, dict[str, float]]) -> dict[str, str]:
    """BEST, MEDIAN and WORST -> the case, by mean Dice; {} if no case has one."""
    ranked = sorted(
        (case for case in dices if np.isfinite(_mean(dices[case]))),
        key=lambda case: (_mean(dices[case]), case),
    )
    if not ranked:
        return {}
    # Rank -> what the case is. Reversed, so that the best case comes first.
    places = (
        {0: WORST}
        | ({len(ranked) // 2: MEDIAN} if len(ranked) > 2 else {})
        | ({len(ranked) - 1: BEST} if len(ranked) > 1 else {})
    )
    return {what: ranked[k] for k, what in sorted(places.items(), reverse=True)}


def _drawn(
    jobs: list[ComparisonPicture], names: list[str], workers: int | None, progress: Progress
) -> list[Outcome[str]]:
    """Draw all ``jobs`` in several processes; a failed job has an error instead of a file."""
    count = workers_for(SECONDS_A_PICTURE * len(jobs), len(jobs)) if workers is None else workers
    return run(draw, jobs, names=names, workers=count, stage="pictures", progress=progress)


def draw(job: ComparisonPicture) -> str:
    """Read one case, draw it and return the file written.

    Raises:
        DelineateError: a file cannot be read, image and masks have different geometry, or the
            picture cannot be written.
    """
    from ..formats.files import read
    from .pictures import Heat, montage, side_by_side

    masks = (
        read_masks(job.pair, job.labels.values)
        if job.reading is None
        else read_masks(job.pair, None).read_as(job.reading)
    )
    image = None if job.image is None else read(job.image)
    if job.planes:
        return str(
            montage(
                image,
                {"truth": masks.truth, "prediction": masks.prediction},
                job.labels,
                job.path,
                title=job.title,
            )
        )
    name, found = _map_of(job.pair)
    heat = None if found is None else Heat(name, read(found), MAPS[name])
    return str(
        side_by_side(
            image,
            masks.truth,
            masks.prediction,
            job.labels,
            job.path,
            title=job.title,
            heat=heat,
        )
    )


def _map_of(pair: Pair) -> tuple[str, Path | None]:
    """The name and the file of the first map that ``predict --maps`` wrote of a case, if any."""
    if pair.stacked or not isinstance(pair.prediction, Source):
        return "", None
    path = Path(pair.prediction.path)
    files = ((name, path.parent / name / f"{pair.case}.nii.gz") for name in MAPS)
    return next(((name, file) for name, file in files if file.is_file()), ("", None))


def _dices(evaluated: EvaluationResult) -> dict[str, dict[str, float]]:
    """Case -> structure -> Dice."""
    found: dict[str, dict[str, float]] = {c.case: {} for c in evaluated.cases}
    for row in evaluated.scores:
        if row.metric == "dice":
            found[row.case][row.label] = row.value
    return found


def _chosen(dices: dict[str, dict[str, float]], most: int | None) -> set[str]:
    """The cases to draw: all, or ``most`` of them spread evenly over the ranking by Dice.

    Cases without a Dice rank below the worst.
    """
    ranked = sorted(dices, key=lambda case: (np.nan_to_num(_mean(dices[case]), nan=-1.0), case))
    if most is None or most >= len(ranked):
        return set(ranked)
    return {ranked[int(i)] for i in np.linspace(0, len(ranked) - 1, max(0, most)).round()}


def _mean(dice: dict[str, float]) -> float:
    return finite_mean(dice.values())


def _title(case: str, dice: dict[str, float]) -> str:
    """The case and its mean Dice; with few structures, also the Dice of each."""
    defined = sum(np.isfinite(v) for v in dice.values())
    words = (
        f"Dice {decimals(_mean(dice))}"
        if defined
        else "Dice undefined (truth and prediction are empty)"
    )
    if len(dice) > 1 and defined:
        each = ", ".join(f"{name} {decimals(v)}" for name, v in dice.items())
        words = f"mean {words} " + (
            f"({each})" if len(dice) <= MOST_NAMED else f"of {defined} structures"
        )
    return f"{case} · {words}"


# ---- the scan of each case ----


def _images(pairs: list[Pair], images: str | Path | None) -> dict[str, Source]:
    """Case -> its scan, for cases whose scan is known.

    If each channel has its own file, it is the file of the first channel.

    Raises:
        InputError: ``images`` does not exist.
        LayoutError: ``images`` holds no image of any case.
    """
    if images is not None:
        return _named(pairs, Path(images))
    found = {p.case: p.cohort.cases[0].images[0] for p in pairs if p.cohort is not None}
    return found | {
        p.case: Source(p.prediction.like)
        for p in pairs
        if isinstance(p.prediction, Source) and p.prediction.like and p.case not in found
    }


def _named(pairs: list[Pair], path: Path) -> dict[str, Source]:
    """Case -> the image at ``path`` (a file or a folder) that has the case's name."""
    from ..formats.files import is_image, stem

    if not path.exists():
        raise InputError("does not exist", path=path)
    if path.is_file():
        entries = [path]
    else:
        entries = [
            p
            for p in sorted(path.iterdir())
            if not p.name.startswith(".") and (p.is_dir() or is_image(p))
        ]
    files = {stem(p) if p.is_file() else p.name: p for p in entries}
    match = match_names([p.case for p in pairs], list(files))
    if match:
        return {case: Source(str(files[name])) for case, name in match.items()}
    if len(pairs) == 1:
        # For a single case the name does not matter; ``path`` is a file or a DICOM series.
        return {pairs[0].case: Source(str(path))}
    raise LayoutError(
        f"no image has the name of a case: the images are {', '.join(list(files)[:3]) or 'none'}, "
        f"the cases {', '.join(p.case for p in pairs[:3])} ...",
        path=path,
    )
