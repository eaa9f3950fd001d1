"""Layouts of cardiac collections: ACDC, M&Ms, MM-WHS and the atria of 2018."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .....core.errors import LayoutError
from .....core.manifest import Case
from .....extend.findings import Draft
from .....extend.registering import layout
from ...patterns import PathMatch, matches
from ...splits import split_in, with_free_training
from ...tables import rows_of
from ...tree import Tree, source
from ..forms import Form, register

ACDC = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
MMS = {1: "left ventricle", 2: "myocardium", 3: "right ventricle"}
MM_WHS = {
    205: "myocardium",
    420: "left atrium",
    500: "left ventricle",
    550: "right atrium",
    600: "right ventricle",
    820: "ascending aorta",
    850: "pulmonary artery",
}


_CAMUS = r"[database_nifti/][{split:training|testing}/]{patient:patient\d{4}}/{patient}"


def _pathologies(draft: Draft, tree: Tree, root: Path) -> None:
    """Set the group of each case from the line "Group: DCM" of the patient's ``Info.cfg``."""
    _set_groups(draft, lambda case: "Info.cfg", "group")


def _qualities(draft: Draft, tree: Tree, root: Path) -> None:
    """Set the group of each case from the line "ImageQuality: Good" of the view's table."""
    _set_groups(draft, lambda case: f"Info_{case.id.split('_')[1]}.cfg", "ImageQuality")


def _set_groups(draft: Draft, name: Callable[[Case], str], key: str) -> None:
    """Set the group of each case from the line ``key`` of the file ``name`` next to its image."""
    groups: dict[Path, str] = {}
    for case in draft.cases:
        path = Path(case.path).parent / name(case)
        if path not in groups and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            found = re.search(rf"(?mi)^\s*{key}\s*:\s*(\S+)", text)
            groups[path] = found[1] if found else ""
            draft.settings.append(path)
    draft.cases = [
        replace(case, group=groups.get(Path(case.path).parent / name(case), ""))
        for case in draft.cases
    ]


register(
    "acdc",
    "patientNNN/patientNNN_frameNN.nii.gz, patientNNN/patientNNN_frameNN_gt.nii.gz",
    Form(
        {"MR": r"[{split:training|testing}/]{patient:patient\d+}/{patient}_frame{frame:\d+}"},
        r"[{split:training|testing}/]{patient:patient\d+}/{patient}_frame{frame:\d+}_gt",
        "{patient}_frame{frame}",
        "{patient}",
        names=ACDC,
        modality="MR",
        unused="patientNNN_4d.nii.gz is the whole cine; its frames with a label are the cases",
        complete=_pathologies,
    ),
)


_ECHO = {1: "left ventricle", 2: "myocardium", 3: "left atrium"}
register(
    "camus",
    "patientNNNN/patientNNNN_2CH_ED.nii.gz, patientNNNN_2CH_ED_gt.nii.gz, 4CH, ES",
    Form(
        {"US": rf"{_CAMUS}_{{view:[24]CH}}_{{frame:ED|ES}}"},
        rf"{_CAMUS}_{{view:[24]CH}}_{{frame:ED|ES}}_gt",
        "{patient}_{view}_{frame}",
        "{patient}",
        names=_ECHO,
        modality="US",
        unused="sequences of half a cycle were not used; their first and last frames are the cases",
        complete=_qualities,
    ),
    # Without single frames: a sequence is a volume whose third axis is time.
    Form(
        {"US": rf"{_CAMUS}_{{view:[24]CH}}_half_sequence"},
        rf"{_CAMUS}_{{view:[24]CH}}_half_sequence_gt",
        "{patient}_{view}",
        "{patient}",
        names=_ECHO,
        modality="US",
        unused="the third axis of the sequences is time: their slices are the frames",
        complete=_qualities,
    ),
)


@layout(
    "mms",
    definition="Training/Labeled/CODE/CODE_sa.nii.gz, CODE_sa_gt.nii.gz (4-D), a table with ED, ES",
    tier="challenge",
)
def mms(tree: Tree, root: Path) -> Draft | None:
    """M&Ms 2020: the frames at end diastole and end systole of each cine, whose numbers are in the
    columns ED and ES of a table; the vendor is the group.

    Raises:
        LayoutError: there is no such table.
    """
    start = "[{split:training|validation|testing}/][{labelled:labeled|unlabeled}/]"
    images = matches(tree, root, start + r"{patient:[A-Z]\d[A-Z0-9]{4}}/{patient}_sa")
    labels = matches(tree, root, start + r"{patient:[A-Z]\d[A-Z0-9]{4}}/{patient}_sa_gt")
    truth = {match.fields["patient"]: match.path for match in labels}
    if not images or not truth:
        return None
    tables = [p for p in tree.files(root) if p.name.lower().endswith(".csv")]
    every = [row for path in tables for row in rows_of(path)]
    rows = {row["external code"]: row for row in every if "external code" in row}
    if not rows:
        raise LayoutError(
            "the table of M&Ms with the columns External code, ED and ES is missing in this "
            "folder; it states which frames of the 4-D files have labels",
            path=root,
        )
    draft = Draft("mms", [], ("MR",), modality="MR", names=dict(MMS), usual=True, settings=tables)
    draft.note("unused", "only the frames at end diastole and end systole are cases")
    for match in images:
        patient = match.fields["patient"]
        _add_frames(draft, match, truth.get(patient), rows.get(patient, {}))
    draft.cases = with_free_training(draft.cases)
    return draft


def _add_frames(draft: Draft, match: PathMatch, label: Path | None, row: dict[str, str]) -> None:
    patient = match.fields["patient"]
    for name in ("ED", "ES"):
        number = row.get(name.lower(), "")
        if not number.isdigit():
            draft.problem(patient, "missing", f"the table has no frame {name} of {match.path.name}")
            continue
        draft.cases.append(
            Case(
                f"{patient}_{name}",
                patient,
                (replace(source(match.path), channel=int(number)),),
                (replace(source(label), channel=int(number)),) if label else (),
                split_in(match.fields.get("split", "")),
                group=row.get("vendor", ""),
            )
        )


for _name, _axis, _unused in (
    ("mms2", "SA", "long-axis views (_LA_) are a cohort of their own (--layout mms2-la)"),
    ("mms2-la", "LA", "short-axis views (_SA_) are a cohort of their own (--layout mms2)"),
):
    register(
        _name,
        f"NNN/NNN_{_axis}_ED.nii.gz, NNN/NNN_{_axis}_ED_gt.nii.gz",
        Form(
            {"MR": rf"[dataset/]{{patient:\d+}}/{{patient}}_{_axis}_{{frame:ED|ES}}"},
            rf"[dataset/]{{patient:\d+}}/{{patient}}_{_axis}_{{frame:ED|ES}}_gt",
            f"{{patient}}_{_axis}_{{frame}}",
            "{patient}",
            names=MMS,
            modality="MR",
            unused=f"{_unused}, and the cine (_CINE) has no labels",
        ),
        tier="challenge" if _name == "mms2" else "on request",
    )
for _modality, _name in (("CT", "ct"), ("MR", "mr")):
    register(
        f"mm-whs-{_name}",
        f"{_name}_train/{_name}_train_NNNN_image.nii.gz, ..._label.nii.gz",
        Form(
            {_modality: rf"[{_name}_{{split:train|test}}/]{{id:{_name}_(?:train|test)_\d+}}_image"},
            rf"[{_name}_{{split:train|test}}/]{{id:{_name}_(?:train|test)_\d+}}_label",
            names=MM_WHS,
            modality=_modality,
        ),
    )
register(
    "atria-2018",
    "ID/lgemri.nrrd, ID/laendo.nrrd",
    Form(
        {"LGE": "{id}/lgemri"},
        "{id}/laendo",
        names={1: "left atrium", 255: "left atrium"},
        modality="MR",
    ),
)
