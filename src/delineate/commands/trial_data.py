"""Data to try the package with: public data sets, and the phantom cohort."""

from __future__ import annotations

from pathlib import Path

from ..cohorts.phantom.cohort import make_cohort
from ..cohorts.public import download as public
from ..core.progress import Progress, Say, silent, unsaid
from .options import DownloadOptions, PhantomOptions


def download(
    name: str,
    out: str | Path,
    options: DownloadOptions = DownloadOptions(),
    *,
    say: Say = unsaid,
    progress: Progress = silent,
) -> list[Path]:
    """Download the public data set ``name`` to the folder ``out``, check it and unpack it; for the
    rest see ``cohorts.public.download.download``.

    Raises:
        UsageError: there is no such data set; similar names are suggested.
    """
    return public.download(public.find(name), out, **vars(options), say=say, progress=progress)


def phantom(
    out: str | Path,
    options: PhantomOptions = PhantomOptions(),
    *,
    progress: Progress = silent,
) -> Path:
    """Make a synthetic cohort in the folder ``out``; for the rest see
    ``cohorts.phantom.cohort.make_cohort``.
    """
    return make_cohort(out, **vars(options), progress=progress)
