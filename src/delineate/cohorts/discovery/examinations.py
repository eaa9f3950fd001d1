"""DICOM series of one examination as the channels of one scan, named by their descriptions.

A folder of a patient holds all series of an examination. The description of a series ("AX T1 POST
GAD") names it as a channel; the header adds the modality and, for T1, whether a contrast agent was
given. A description that contradicts the modality ("T2SPIR" of a CT) names nothing. The pixels are
not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...core.manifest import Case, Manifest
from ...core.terms import contradicts_modality, read
from ...formats import dicom
from ...formats.raster import COLOURS
from .tree import Tree

# Words of ImageType that tell images of one acquisition apart.
_KINDS = ("ADC", "TRACEW", "SUBTRACTION", "MIP", "MNIP", "PHASE")


@dataclass(frozen=True)
class Examination:
    """The series of one examination: a case with a source for each series, and their names."""

    case: Case
    channels: tuple[str, ...]


def examinations_of(manifest: Manifest, together: bool) -> list[Examination] | None:
    """The examinations of a cohort in which each case is one DICOM series; None for any other, and
    for colour images, which have all channels in one file.

    Args:
        manifest: the cases.
        together: whether the series of one study are one examination; else each is one of its own.
    """
    if manifest.channels == COLOURS:
        return None
    tree = Tree()
    for case in manifest:
        path = Path(case.images[0].path)
        if len(case.images) > 1 or not path.is_dir() or not tree.is_dicom(path):
            return None
    found = list(_with_series(manifest))
    groups: dict[tuple[str, str], list[tuple[Case, dicom.Series]]] = {}
    for case, series in found:
        study = series.study or case.images[0].path
        key = (series.patient_id, study) if together else (case.id, "")
        groups.setdefault(key, []).append((case, series))
    return [_examination(members) for members in groups.values()]


def _with_series(manifest: Manifest) -> Iterator[tuple[Case, dicom.Series]]:
    """Each case with its series; each folder is read once."""
    folders: dict[str, list[dicom.Series]] = {}
    for case in manifest:
        source = case.images[0]
        if source.path not in folders:
            folders[source.path] = dicom.find_series(source.path, source.fix_series)
        for series in folders[source.path]:
            if series.is_chosen_by(source.series) or (
                not source.series and not dicom.problem_of(series)
            ):
                yield case, series
                break


def _examination(members: Sequence[tuple[Case, dicom.Series]]) -> Examination:
    cases = [case for case, _ in members]
    names = [_name_of(series) for _, series in members]
    # Equal descriptions get the number of their series.
    unique = tuple(
        f"{name} (series {series.number or n + 1})" if names.count(name) > 1 else name
        for n, (name, (_, series)) in enumerate(zip(names, members, strict=True))
    )
    if len(cases) == 1:
        # A description that names no image may be of any.
        return Examination(cases[0], unique if read(unique[0]).has_evidence else ("image",))
    # All series are in the folder of the patient, or each is in a folder in it.
    folders = {Path(case.images[0].path) for case in cases}
    name = folders.pop().name if len(folders) == 1 else Path(cases[0].images[0].path).parent.name
    images = tuple(case.images[0] for case in cases)
    return Examination(replace(cases[0], id=name, images=images), unique)


def _name_of(series: dicom.Series) -> str:
    """The name of a series as a channel: its description, with what only the header states."""
    name = f"{series.description} {series.part.replace('_', ' ')}".strip()
    kinds = {word for one in series.planes[:1] for word in one.kind}
    name = " ".join([name, *(kind for kind in _KINDS if kind in kinds)]).strip()
    stated = read(name)
    # The modality is a code that the scanner writes; the text may be of another scan.
    if contradicts_modality(series.modality, name):
        return series.modality
    if series.modality in ("CT", "MR", "PT") and not stated.modality:
        name = f"{series.modality} {name}".strip()
    # The agent is often in the headers of all series of a study.
    if series.contrast_agent and stated.identity.startswith("T1") and not stated.states_contrast:
        name = f"{name} (with or without contrast)"
    return name
