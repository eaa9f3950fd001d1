"""Layouts of thoracic and head and neck collections: LUNA16, SegTHOR, HECKTOR."""

from __future__ import annotations

from ..forms import Form, register

register(
    "luna16",
    "subsetN/UID.mhd, seg-lungs-LUNA16/UID.mhd",
    Form(
        {"CT": r"{group:subset\d}/{id:[\d.]+}"},
        r"seg-lungs-LUNA16/{id:[\d.]+}",
        # The two lungs have 3 and 4; the challenge states no sides.
        names={3: "lung (3)", 4: "lung (4)", 5: "trachea"},
        modality="CT",
    ),
)
register(
    "segthor",
    "Patient_NN/Patient_NN.nii.gz, Patient_NN/GT.nii.gz",
    Form(
        {"CT": r"[{split:train|test}/]{id:Patient_\d+}/{id}"},
        "[{split:train|test}/]{id}/GT",
        names={1: "oesophagus", 2: "heart", 3: "trachea", 4: "aorta"},
        modality="CT",
    ),
    Form(
        {"CT": r"{split:train|test}/{id:Patient_\d+}"},
        r"{split:train|test}/{id:Patient_\d+}_GT",
        names={1: "oesophagus", 2: "heart", 3: "trachea", 4: "aorta"},
        modality="CT",
    ),
)
register(
    "hecktor",
    "imagesTr/ID__CT.nii.gz, imagesTr/ID__PT.nii.gz, labelsTr/ID.nii.gz; ID_ct, ID_pt, ID_gtvt",
    Form(
        {
            "CT": r"images{split:Tr|Ts}/{id:(?P<group>[A-Za-z]+)-\d+}__CT",
            "PET": r"images{split:Tr|Ts}/{id:(?P<group>[A-Za-z]+)-\d+}__PT",
        },
        "labels{split:Tr|Ts}/{id}",
        names={1: "primary tumour", 2: "lymph nodes"},
    ),
    Form(
        {
            "CT": r"[{folder:.*}/]{id:CH[A-Z]{2}\d+}_ct",
            "PET": r"[{folder:.*}/]{id:CH[A-Z]{2}\d+}_pt",
        },
        r"[{folder:.*}/]{id:CH[A-Z]{2}\d+}_gtvt",
        names={1: "primary tumour"},
    ),
)
