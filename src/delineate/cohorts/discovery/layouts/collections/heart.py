"""Layouts of cardiac collections: ACDC, M&Ms, MM-WHS and the atria of 2018."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from .....extend.findings import Draft
from ...tree import Tree
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


def _pathologies(draft: Draft, tree: Tree, root: Path) -> None:
    """Set the group of each case from the line "Group: DCM" of the patient's ``Info.cfg``."""
    groups: dict[str, str] = {}
    for case in draft.cases:
        path = Path(case.path).parent / "Info.cfg"
        if case.patient not in groups and path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            found = re.search(r"(?mi)^\s*group\s*:\s*(\S+)", text)
            groups[case.patient] = found[1] if found else ""
            draft.settings.append(path)
    draft.cases = [replace(case, group=groups.get(case.patient, "")) for case in draft.cases]


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
register(
    "mms2",
    "NNN/NNN_SA_ED.nii.gz, NNN/NNN_SA_ED_gt.nii.gz",
    Form(
        {"MR": r"[dataset/]{patient:\d+}/{patient}_SA_{frame:ED|ES}"},
        r"[dataset/]{patient:\d+}/{patient}_SA_{frame:ED|ES}_gt",
        "{patient}_SA_{frame}",
        "{patient}",
        names=MMS,
        modality="MR",
        unused="long-axis views (_LA_) have another grid and the cine (_CINE) no labels",
    ),
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
