"""Layouts of 2-D collections: skin, polyps, chest radiographs, ultrasound, nuclei and glands."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

from .....core.errors import InputError
from .....core.labels import LabelMapping, LabelSet, Range
from .....extend.findings import Draft
from ...tables import rows_of
from ...tree import Tree
from ..forms import Form, register


def _one(name: str) -> dict[int, str]:
    """The name of the only structure, stored as 1 or as 255."""
    return {1: name, 255: name}


# ---- skin ----

register(
    "isic",
    "*Training*/ISIC_N.jpg, *Training*GroundTruth/ISIC_N_segmentation.png",
    Form(
        {"image": r"*{split:Training|Validation|Test}*/{id:ISIC_\d+}"},
        r"*{split:Training|Validation|Test}*/{id:ISIC_\d+}_segmentation",
        names=_one("skin lesion"),
        modality="photo",
        pictures=True,
        unused="superpixels and attributes (task 2) were not used",
    ),
)
register(
    "ph2",
    "IMDn/IMDn_Dermoscopic_Image/IMDn.bmp, IMDn/IMDn_lesion/IMDn_lesion.bmp",
    Form(
        {"image": r"[PH2*/]{id:IMD\d+}/{id}_Dermoscopic_Image/{id}"},
        r"[PH2*/]{id:IMD\d+}/{id}_lesion/{id}_lesion",
        names=_one("skin lesion"),
        modality="photo",
        pictures=True,
        unused="masks of colour regions (_roi) were not used",
    ),
)

# ---- polyps ----


def _without_names(draft: Draft, tree: Tree, root: Path) -> None:
    """Remove the name of the structure if no folder is called so: other collections have the same
    names of folders.
    """
    if not re.search(r"(?i)cvc|clinic|polyp", os.path.abspath(root)):
        draft.names = {}


register(
    "cvc-clinicdb",
    "Original/N.tif, Ground Truth/N.tif",
    Form(
        {"image": r"Original/{id:\d+}"},
        (r"Ground Truth/{id:\d+}", r"GroundTruth/{id:\d+}", r"Ground_Truth/{id:\d+}"),
        names=_one("polyp"),
        modality="photo",
        pictures=True,
        complete=_without_names,
    ),
)
register(
    "etis-larib",
    "ETIS-LaribPolypDB/N.tif, Ground Truth/pN.tif",
    Form(
        {"image": r"ETIS*/{id:\d+}"},
        r"Ground*Truth/p{id:\d+}",
        names=_one("polyp"),
        modality="photo",
        pictures=True,
    ),
)
register(
    "cvc-300",
    "bbdd/N.bmp, gtpolyp/N.tif",
    Form(
        {"image": "bbdd/{id}"},
        "gtpolyp/{id}",
        names=_one("polyp"),
        modality="photo",
        pictures=True,
        unused="masks of the lumen, of specular reflections and of the border were not used",
    ),
)

# ---- chest radiographs ----

_FILM = {"0": "normal", "1": "tuberculosis"}
register(
    "montgomery",
    "CXR_png/MCUCXR_N_0.png, ManualMask/leftMask/, ManualMask/rightMask/",
    Form(
        {"image": r"CXR_png/{id:MCUCXR_\d+_(?P<group>\d)}"},
        r"ManualMask/{structure:leftMask|rightMask}/{id:MCUCXR_\d+_\d}",
        patient="{id}",
        modality="CR",
        pictures=True,
        groups=_FILM,
        structures={"leftmask": "left lung", "rightmask": "right lung"},
    ),
)
register(
    "shenzhen",
    "CXR_png/CHNCXR_N_0.png, mask/CHNCXR_N_0_mask.png",
    Form(
        {"image": r"CXR_png/{id:(?:CHN|MCU)CXR_\d+_(?P<group>\d)}"},
        (
            r"{folder:masks?}/{id:(?:CHN|MCU)CXR_\d+_\d}_mask",
            r"{folder:masks?}/{id:(?:CHN|MCU)CXR_\d+_\d}",
        ),
        patient="{id}",
        names=_one("lungs"),
        modality="CR",
        pictures=True,
        groups=_FILM,
    ),
)
register(
    "jsrt",
    "images/JPCLNnnn.png, fold1/masks/STRUCTURE/JPCLNnnn.gif",
    Form(
        {"image": r"{folder:.*}/{id:JPC[LN]N\d+}"},
        (
            r"[{place:.*}/]fold*/masks/{structure}/{id:JPC[LN]N\d+}",
            r"[{place:.*}/]masks/{structure}/{id:JPC[LN]N\d+}",
        ),
        patient="{id}",
        modality="CR",
        pictures=True,
        structures={
            "left lung": "left lung",
            "right lung": "right lung",
            "heart": "heart",
            "left clavicle": "left clavicle",
            "right clavicle": "right clavicle",
        },
    ),
)

# ---- ultrasound ----

_BUSI = r"{group:benign|malignant|normal}/{id:(?:benign|malignant|normal) \(\d+\)}"
register(
    "busi",
    "benign/benign (N).png, benign/benign (N)_mask.png, _mask_1.png",
    Form(
        {"image": _BUSI},
        _BUSI + r"_mask{part:(?:_\d+)?}",
        patient="{id}",
        modality="US",
        pictures=True,
        structures={"": "breast lesion"},
    ),
)

# ---- nuclei and glands ----

_NUCLEI = Form(
    {"image": "stage1_{split:train|test}/{id}/images/{id}"},
    "stage1_{split:train|test}/{id}/masks/{part}",
    patient="{id}",
    modality="microscopy",
    pictures=True,
    structures={"": "nucleus"},
)
register(
    "dsb2018",
    "stage1_train/ID/images/ID.png, stage1_train/ID/masks/*.png",
    _NUCLEI,
    # One of its parts.
    replace(
        _NUCLEI,
        channels={"image": "{id:[0-9a-f]{64}}/images/{id}"},
        label="{id:[0-9a-f]{64}}/masks/{part}",
    ),
)
_CELLS = (LabelSet.from_names({1: "cell"}), LabelMapping(ranges=(Range(1, 65535, 1),)))
register(
    "cell-tracking",
    "01/tNNN.tif, 01_GT/SEG/man_segNNN.tif",
    Form(
        {"image": r"{sequence:\d\d}/t{id:\d+}"},
        # Gold truth of some frames, else silver truth, which is of most.
        (r"{sequence:\d\d}_GT/SEG/man_seg{id:\d+}", r"{sequence:\d\d}_ST/SEG/man_seg{id:\d+}"),
        case="{sequence}_t{id}",
        patient="{sequence}",
        modality="microscopy",
        pictures=True,
        fixed=_CELLS,  # the values count the cells of a frame
        unused="markers of tracks (TRA) were not used",
    ),
)


def _with_grades(draft: Draft, tree: Tree, root: Path) -> None:
    """Patients and grades of GlaS from ``Grade.csv``."""
    path = next((p for p in tree.files(root) if p.name.lower() == "grade.csv"), None)
    if path is None:
        return
    try:
        rows = rows_of(path)
    except InputError:  # the cases have no grades then, and the file is not used
        return
    facts = {}
    for fields in rows:
        grade = next((v for k, v in fields.items() if k.startswith("grade (glas")), "")
        facts[fields.get("name", "")] = (fields.get("patient id", ""), grade)
    draft.settings.append(path)
    draft.cases = [
        replace(case, patient=facts[case.id][0], group=facts[case.id][1])
        if case.id in facts
        else case
        for case in draft.cases
    ]


_GLAS = r"{id:(?P<split>train|test)[AB]?_\d+}"
register(
    "glas",
    "train_N.bmp, train_N_anno.bmp, testA_N.bmp",
    Form(
        {"image": _GLAS},
        _GLAS + "_anno",
        modality="microscopy",
        pictures=True,
        # The values count the glands of a picture.
        fixed=(LabelSet.from_names({1: "gland"}), LabelMapping(ranges=(Range(1, 65535, 1),))),
        complete=_with_grades,
    ),
)
