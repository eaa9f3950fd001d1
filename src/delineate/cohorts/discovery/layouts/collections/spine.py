"""Layouts of spines and other bones: VerSe 2019 and 2020."""

from __future__ import annotations

from ..forms import Form, register

VERTEBRAE = {
    **{n: f"vertebra C{n}" for n in range(1, 8)},
    **{n + 7: f"vertebra T{n}" for n in range(1, 13)},
    **{n + 19: f"vertebra L{n}" for n in range(1, 7)},
    26: "sacrum",
    27: "coccyx",
    28: "vertebra T13",
}
register(
    "verse",
    "rawdata/sub-ID/sub-ID_ct.nii.gz, derivatives/sub-ID/sub-ID_seg-vert_msk.nii.gz",
    Form(
        {"CT": "rawdata/{patient:sub-[^_]+}/{id:sub-.+}_ct"},
        "derivatives/{patient:sub-[^_]+}/{id:sub-.+}_seg-vert_msk",
        patient="{patient}",
        names=VERTEBRAE,
        modality="CT",
        unused="_ctd.json has the centres of the vertebrae and _snp.png a preview",
    ),
    Form(
        {"CT": r"{id:(?:GL|verse)\d+(?:_CT_\w+?)?}"},
        r"{id:(?:GL|verse)\d+(?:_CT_\w+?)?}_seg",
        names=VERTEBRAE,
        modality="CT",
        unused="_ctd.json has the centres of the vertebrae",
    ),
)
register(
    "rsna-2022-spine",
    "train_images/UID/*.dcm, segmentations/UID.nii",
    Form(
        {"CT": r"train_images/{id:\d[\d.]{20,}}/"},
        r"segmentations/{id:\d[\d.]{20,}}",
        names={n: VERTEBRAE[n] for n in range(1, 20)},
        modality="CT",
    ),
)
