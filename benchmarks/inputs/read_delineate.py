"""What delineate makes of an input: ``check``, and the labels through the Python interface."""

from __future__ import annotations

import re
import traceback
from collections import Counter
from pathlib import Path

import numpy as np

import delineate
from delineate.cohorts.discovery.account import FileGroup
from delineate.core.errors import DelineateError
from delineate.core.terms import channel_of

from .judge import Answer


def answer(root: Path) -> Answer:
    """Check ``root`` and count the voxels of every usable case as training reads them."""
    try:
        report = delineate.check(root, workers=1)
        cohort = delineate.Cohort.of(report.usable)
        errors = [f for f in report.findings if f.severity == "error"]
        if not len(cohort) or any(not f.case for f in errors):
            return Answer(refused="; ".join(f"{f.case}: {f.message}" for f in errors) or "no case")
        voxels: Counter[str] = Counter()
        contrasts = []
        for case in cohort:
            scan, mask = cohort.read(case)
            if mask is None:
                continue
            inside = mask.array > 0
            if inside.any():
                image = scan.array[0]
                contrasts.append(np.nanmean(image[inside]) / np.nanmean(image[~inside]))
            for label in cohort.labels:
                voxels[plain(label.name)] += int(
                    np.count_nonzero(cohort.labels.inside(mask.array, label))
                )
        return Answer(
            dict(voxels),
            tuple(sorted({f.case for f in errors})),
            cases=len(report.manifest),
            patients=len(report.manifest.patients),
            channels=tuple(channel_of(name) for name in cohort.channels),
            contrast=float(min(contrasts)) if contrasts else None,
            said="\n".join(str(FileGroup(**group)) for group in report.manifest.files),
        )
    except DelineateError as error:
        return Answer(refused=str(error))
    except Exception:
        return Answer(crashed=traceback.format_exc().strip().splitlines()[-1])


def plain(name: str) -> str:
    """The name of a structure in lower case; "label 3", which no file states, is "3"."""
    found = re.fullmatch(r"label (\d+)", name)
    return found[1] if found else name.lower()
