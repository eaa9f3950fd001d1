"""Layouts of abdominal collections: KiTS, LiTS, BTCV, FLARE and AbdomenCT-1K, PROMISE12."""

from __future__ import annotations

from ...masks.published import LIVER_TUMOUR
from ..forms import Form, register

KITS = {1: "kidney", 2: "kidney tumour", 3: "kidney cyst"}
BTCV = {
    1: "spleen",
    2: "right kidney",
    3: "left kidney",
    4: "gallbladder",
    5: "oesophagus",
    6: "liver",
    7: "stomach",
    8: "aorta",
    9: "inferior vena cava",
    10: "portal vein and splenic vein",
    11: "pancreas",
    12: "right adrenal gland",
    13: "left adrenal gland",
}
FOUR_ORGANS = {1: "liver", 2: "kidney", 3: "spleen", 4: "pancreas"}
FLARE_2022 = {
    1: "liver",
    2: "right kidney",
    3: "spleen",
    4: "pancreas",
    5: "aorta",
    6: "inferior vena cava",
    7: "right adrenal gland",
    8: "left adrenal gland",
    9: "gallbladder",
    10: "oesophagus",
    11: "stomach",
    12: "duodenum",
    13: "left kidney",
    14: "tumour",
}

register(
    "kits",
    "case_NNNNN/imaging.nii.gz, case_NNNNN/segmentation.nii.gz",
    Form(
        {"CT": r"{id:case_\d+}/imaging"},
        # The edition of 2021 has a label for each way to unite its observers: this is the majority.
        ("{id}/segmentation", "{id}/aggregated_MAJ_seg"),
        names=KITS,
        modality="CT",
    ),
)
register(
    "lits",
    "volume-N.nii, segmentation-N.nii, optionally in batches",
    Form(
        {"CT": r"[*{group:batch.*}/]{id:(?P<split>test)-volume-\d+|volume-(?P<number>\d+)}"},
        r"[*{group:batch.*}/]segmentation-{number:\d+}",
        names=LIVER_TUMOUR,
        modality="CT",
    ),
)
register(
    "btcv",
    "Training/img/imgNNNN.nii.gz, Training/label/labelNNNN.nii.gz",
    Form(
        {"CT": r"[{split:training|testing|train|test}/]img/{id:img(?P<number>\d+)}"},
        r"[{split:training|testing|train|test}/]label/label{number:\d+}",
        names=BTCV,
        modality="CT",
    ),
)
register(
    "flare",
    "images/FLARE22_Tr_NNNN_0000.nii.gz, labels/FLARE22_Tr_NNNN.nii.gz; TrainingImg, TrainingMask",
    Form(
        {"CT": r"images*/{id:FLARE2[2-4].*}_0000"},
        "labels*/{id}",
        names=FLARE_2022,
        modality="CT",
    ),
    Form(
        {"CT": r"{split:Training|Validation|Testing}Img/{id:.*\d}_0000"},
        "{split:Training|Validation|Testing}Mask/{id}",
        names=FOUR_ORGANS,
        modality="CT",
    ),
)
register(
    "abdomenct-1k",
    "AbdomenCT-1K-ImagePartN/Case_NNNNN_0000.nii.gz, Mask/Case_NNNNN.nii.gz",
    Form(
        {"CT": r"AbdomenCT-1K-Image*/{id:Case_\d+}_0000"},
        "*Mask*/{id}",
        names=FOUR_ORGANS,
        modality="CT",
    ),
)
register(
    "promise12",
    "CaseNN.mhd, CaseNN_segmentation.mhd, optionally in parts",
    Form(
        {"T2": r"[{split:training|test|livetest}*/]{id:Case\d+}"},
        r"[{split:training|test|livetest}*/]{id:Case\d+}_segmentation",
        names={1: "prostate"},
        modality="MR",
    ),
)
_PROSTATE = r"[{split:train|valid|test}/]{id:\d+}/"
register(
    "prostate158",
    "train/NNN/t2.nii.gz, adc.nii.gz, dwi.nii.gz, t2_anatomy_reader1.nii.gz",
    Form(
        {"T2": _PROSTATE + "t2", "ADC": _PROSTATE + "adc", "DWI": _PROSTATE + "dwi"},
        _PROSTATE + "t2_anatomy_reader1",
        names={1: "central gland", 2: "peripheral zone"},
        modality="MR",
        unused="masks of tumours and those of the second reader were not used",
    ),
)
register(
    "rsna-2023-abdomen",
    "train_images/PATIENT/SERIES/*.dcm, segmentations/SERIES.nii",
    Form(
        {"CT": r"train_images/{patient:\d+}/{id:\d+}/"},
        r"segmentations/{id:\d+}",
        patient="{patient}",
        names={1: "liver", 2: "spleen", 3: "left kidney", 4: "right kidney", 5: "bowel"},
        modality="CT",
    ),
)
