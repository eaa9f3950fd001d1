"""Subjects of FreeSurfer and FastSurfer: ``SUBJECT/mri/*.mgz``, labelled with the numbers of
FreeSurfer's colour table.

The names are those of ``FreeSurferColorLUT.txt`` (https://surfer.nmr.mgh.harvard.edu), from the
file itself if it is in the folder of the subjects. Surfaces, statistics and scripts are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from .....core.manifest import Case
from .....extend.findings import Draft
from .....extend.registering import layout
from .....formats.files import stem
from ...tree import Tree, source

# The first that at least half of the subjects have is used.
IMAGES = ("T1", "orig", "nu", "norm", "brain", "brainmask")
SEGMENTATIONS = (
    "aparc+aseg",
    "aparc.DKTatlas+aseg",
    "aparc.DKTatlas+aseg.deep",
    "aparc.DKTatlas+aseg.deep.withCC",
    "aseg",
    "aseg.auto",
    "aseg.auto_noCCseg",
)
_TEMPLATE = re.compile(r"(?i)fsaverage|cvs_avg|[lr]h\.EC_average$|V1_average")
_TABLE = "FreeSurferColorLUT.txt"
# Left number, right number and name of structures on both sides.
_PAIRS = (
    (2, 41, "Cerebral-White-Matter"),
    (3, 42, "Cerebral-Cortex"),
    (4, 43, "Lateral-Ventricle"),
    (5, 44, "Inf-Lat-Vent"),
    (7, 46, "Cerebellum-White-Matter"),
    (8, 47, "Cerebellum-Cortex"),
    (10, 49, "Thalamus"),
    (11, 50, "Caudate"),
    (12, 51, "Putamen"),
    (13, 52, "Pallidum"),
    (17, 53, "Hippocampus"),
    (18, 54, "Amygdala"),
    (26, 58, "Accumbens-area"),
    (28, 60, "VentralDC"),
    (30, 62, "vessel"),
    (31, 63, "choroid-plexus"),
    (78, 79, "WM-hypointensities"),
    (81, 82, "non-WM-hypointensities"),
)
_MIDDLE = {
    14: "3rd-Ventricle",
    15: "4th-Ventricle",
    16: "Brain-Stem",
    24: "CSF",
    72: "5th-Ventricle",
    77: "WM-hypointensities",
    80: "non-WM-hypointensities",
    85: "Optic-Chiasm",
    251: "CC_Posterior",
    252: "CC_Mid_Posterior",
    253: "CC_Central",
    254: "CC_Mid_Anterior",
    255: "CC_Anterior",
}
# The cortex: 1000 and 2000 plus the position in this list, left and right.
_CORTEX = (
    "unknown bankssts caudalanteriorcingulate caudalmiddlefrontal corpuscallosum cuneus "
    "entorhinal fusiform inferiorparietal inferiortemporal isthmuscingulate lateraloccipital "
    "lateralorbitofrontal lingual medialorbitofrontal middletemporal parahippocampal "
    "paracentral parsopercularis parsorbitalis parstriangularis pericalcarine postcentral "
    "posteriorcingulate precentral precuneus rostralanteriorcingulate rostralmiddlefrontal "
    "superiorfrontal superiorparietal superiortemporal supramarginal frontalpole temporalpole "
    "transversetemporal insula "
)
NAMES = {
    **{left: f"Left-{name}" for left, _, name in _PAIRS},
    **{right: f"Right-{name}" for _, right, name in _PAIRS},
    **_MIDDLE,
    **{1000 + n: f"ctx-lh-{name}" for n, name in enumerate(_CORTEX.split())},
    **{2000 + n: f"ctx-rh-{name}" for n, name in enumerate(_CORTEX.split())},
}


@layout(
    "freesurfer",
    definition="SUBJECT/mri/T1.mgz, SUBJECT/mri/aparc+aseg.mgz",
    tier="challenge",
)
def freesurfer(tree: Tree, root: Path) -> Draft | None:
    """One image and one segmentation of each subject, the same ones for all."""
    subjects = {f: volumes for f in tree.folders(root) if (volumes := _volumes(tree, f))}
    templates = _templates([f.name for f in subjects])
    chosen = {f: volumes for f, volumes in subjects.items() if f.name not in templates}
    others = [f for f in tree.folders(root) if not _TEMPLATE.match(f.name)]
    if not chosen or 2 * len(chosen) < len([f for f in others if f.name not in templates]):
        return None
    image = _common(chosen.values(), IMAGES)
    label = _common(chosen.values(), SEGMENTATIONS)
    if image is None or label is None:
        return None
    draft = Draft("freesurfer", [], ("T1",), modality="MR", usual=True)
    draft.names = _names(root, draft)
    draft.note("unused", f"of each subject, mri/{image} is the image and mri/{label} the label")
    if templates:
        draft.note("unused", f"templates are no subjects: {', '.join(sorted(templates))}")
    patients = _patients([f.name for f in chosen])
    for folder, volumes in chosen.items():
        if image not in volumes:
            draft.problem(folder.name, "missing", f"no mri/{image} in {folder}")
            continue
        if label not in volumes:
            draft.problem(folder.name, "unpaired", f"no mri/{label} in {folder}", "warning")
        truth = (source(volumes[label]),) if label in volumes else ()
        patient = patients.get(folder.name, "")
        draft.cases.append(Case(folder.name, patient, (source(volumes[image]),), truth))
    return draft


def _volumes(tree: Tree, subject: Path) -> dict[str, Path]:
    """Name -> file of the volumes in ``mri``; {} if it has no segmentation or no such folder."""
    folder = tree.folder(subject, "mri")
    found = {stem(path): path for path in tree.images(folder)} if folder else {}
    return found if set(found) & {*IMAGES, *SEGMENTATIONS} else {}


def _common(subjects: Iterable[dict[str, Path]], names: tuple[str, ...]) -> str | None:
    """The first of ``names`` that at least half of the subjects have, else None."""
    held = list(subjects)
    return next((n for n in names if 2 * sum(n in one for one in held) >= len(held)), None)


def _longitudinal(names: list[str]) -> dict[str, tuple[str, str]]:
    """Folder -> time point and template, for folders TIMEPOINT.long.TEMPLATE."""
    cut = {name: name.split(".long.", 1) for name in names if ".long." in name}
    return {name: (parts[0], parts[1]) for name, parts in cut.items()}


def _templates(names: list[str]) -> set[str]:
    """Folders that are averages: of many subjects, or of the time points of one."""
    of_one = {template for _, template in _longitudinal(names).values()}
    return {name for name in names if _TEMPLATE.match(name) or name in of_one}


def _patients(names: list[str]) -> dict[str, str]:
    """Folder -> patient, for longitudinal time points and the same scans processed alone."""
    patients = {}
    for name, (time_point, template) in _longitudinal(names).items():
        patients[name] = patients[time_point] = template
    return patients


def _names(root: Path, draft: Draft) -> dict[int, str]:
    """Value -> name, from the colour table in the folder if there is one."""
    path = root / _TABLE
    if not path.is_file():
        return dict(NAMES)
    draft.settings.append(path)
    rows = re.findall(r"(?m)^\s*(\d+)\s+(\S+)", path.read_text(encoding="utf-8", errors="replace"))
    return {**NAMES, **{int(value): name for value, name in rows if int(value)}}
