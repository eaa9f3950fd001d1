"""Layouts of brain lesions: stroke, multiple sclerosis, white matter hyperintensities, and the
tumours of BraTS until 2015.
"""

from __future__ import annotations

from ...masks.published import UNTIL_2016
from ..forms import Form, register

_ATLAS = r"[{split:training|testing}/]{group:R\d+}/{patient:sub-[^_]+}/{session:ses-[^_]+}/anat/"
_ISLES = "[rawdata/]{patient:sub-[^_]+}/{session:ses-[^_]+}/"
_MSSEG = r"[{split:training|testing}/]{group:center_?\d+}/{id:patient_?\d+}/"
_WMH = r"[{split:training|test}/][amsterdam/]{group:.*[a-z].*}/{id:\d+}/"
_VSD = "{id}/VSD.Brain*"


def _vsd(sequence: str) -> str:
    return f"[{{group:HGG?|LGG?}}/]{{id}}/VSD.Brain.*MR_{sequence}*/VSD.Brain.*MR_{sequence}*"


_ISLES_2018 = r"[{split:training|testing}/]{id:case_\d+}/SMIR.Brain.XX.O."


register(
    "atlas-2",
    "R001/sub-ID/ses-N/anat/*_T1w.nii.gz, *_label-L_desc-T1lesion_mask.nii.gz",
    Form(
        {"T1": _ATLAS + "{patient}_{session}_{space:space-[^_]+}_T1w"},
        _ATLAS + "{patient}_{session}_{space:space-[^_]+}_label-L*_desc-T1lesion_mask",
        "{patient}_{session}",
        "{patient}",
        names={1: "stroke lesion"},
        modality="MR",
    ),
)
register(
    "isles-2022",
    "sub-ID/ses-N/dwi/*_dwi.nii.gz, *_adc.nii.gz, derivatives/sub-ID/ses-N/*_msk.nii.gz",
    Form(
        {
            "DWI": _ISLES + "[dwi/]{patient}_{session}_dwi",
            "ADC": _ISLES + "[dwi/]{patient}_{session}_adc",
            # On a grid of its own; channels are resampled to the first.
            "FLAIR": _ISLES + "[anat/]{patient}_{session}_flair",
        },
        "derivatives/{patient:sub-[^_]+}/{session:ses-[^_]+}/{patient}_{session}_msk",
        "{patient}_{session}",
        "{patient}",
        names={1: "stroke lesion"},
        modality="MR",
    ),
)
register(
    "isles-2018",
    "TRAINING/case_N/SMIR.Brain.XX.O.CT_CBF.N/*.nii, SMIR.Brain.XX.O.OT.N/*.nii",
    Form(
        {
            "CT": _ISLES_2018 + "CT.*/SMIR*",
            "CBF": _ISLES_2018 + "CT_CBF.*/SMIR*",
            "CBV": _ISLES_2018 + "CT_CBV.*/SMIR*",
            "MTT": _ISLES_2018 + "CT_MTT.*/SMIR*",
            "Tmax": _ISLES_2018 + "CT_Tmax.*/SMIR*",
        },
        _ISLES_2018 + "OT.*/SMIR*",
        names={1: "stroke lesion"},
        modality="CT",
        unused="the perfusion series (4DPWI) was not used",
    ),
)
register(
    "msseg-2016",
    "Center_NN/Patient_NN/Preprocessed_Data/*_preprocessed.nii.gz, Masks/Consensus.nii.gz",
    Form(
        {
            "FLAIR": _MSSEG + "Preprocessed_Data/FLAIR_preprocessed",
            "T1": _MSSEG + "Preprocessed_Data/T1_preprocessed",
            "T1 post-contrast": _MSSEG + "Preprocessed_Data/GADO_preprocessed",
            "T2": _MSSEG + "Preprocessed_Data/T2_preprocessed",
            "PD": _MSSEG + "Preprocessed_Data/DP_preprocessed",
        },
        _MSSEG + "Masks/Consensus",
        "{group}_{id}",
        names={1: "lesion"},
        modality="MR",
        unused="the masks of single raters and the raw images; the consensus is the label",
    ),
)
register(
    "msseg-2",
    "ID/flair_time01_on_middle_space.nii.gz, flair_time02_on_middle_space.nii.gz, ground_truth",
    Form(
        {
            "FLAIR baseline": "{id}/flair_time01_on_middle_space",
            "FLAIR follow-up": "{id}/flair_time02_on_middle_space",
        },
        "{id}/ground_truth",
        names={1: "new lesion"},
        modality="MR",
        unused="the masks of single raters; ground_truth is their consensus",
    ),
)
register(
    "isbi-ms-2015",
    "trainingNN/preprocessed/trainingNN_NN_flair_pp.nii, masks/trainingNN_NN_mask1.nii",
    Form(
        {
            name: f"{{patient:(?:training|test)\\d+}}/preprocessed/{{patient}}_{{visit}}_{key}_pp"
            for name, key in (("FLAIR", "flair"), ("T1", "mprage"), ("T2", "t2"), ("PD", "pd"))
        },
        r"{patient:(?:training|test)\d+}/masks/{patient}_{visit}_mask1",
        "{patient}_{visit}",
        "{patient}",
        names={1: "lesion"},
        modality="MR",
        unused="mask2 is of a second rater; mask1 is the label",
    ),
)
register(
    "wmh-2017",
    "SITE/ID/pre/FLAIR.nii.gz, SITE/ID/pre/T1.nii.gz, SITE/ID/wmh.nii.gz",
    Form(
        {"FLAIR": _WMH + "pre/FLAIR", "T1": _WMH + "pre/T1"},
        _WMH + "wmh",
        "{group}_{id}",
        names={1: "white matter hyperintensity", 2: "other pathology"},
        modality="MR",
        unused="orig/ and 3DT1 have other grids than the label",
    ),
)
register(
    "brats-2015",
    "HGG/ID/VSD.Brain.XX.O.MR_Flair.N/*.mha, ..., HGG/ID/VSD.Brain_3more.XX.O.OT.N/*.mha",
    Form(
        {
            "FLAIR": _vsd("Flair"),
            "T1": _vsd("T1."),
            "T1 post-contrast": _vsd("T1c"),
            "T2": _vsd("T2"),
        },
        "[{group:HGG?|LGG?}/]{id}/VSD.*.OT*/VSD.*.OT*",
        "{group}_{id}",
        names=UNTIL_2016,
        modality="MR",
    ),
)
_UCSF = r"[UCSF-PDGM*/]{id:(?P<patient>UCSF-PDGM-\d+)(?:_FU\w+)?}_nifti/"
register(
    "ucsf-pdgm",
    "UCSF-PDGM-NNNN_nifti/UCSF-PDGM-NNNN_FLAIR.nii.gz, ..., UCSF-PDGM-NNNN_tumor_segmentation",
    Form(
        {
            "FLAIR": _UCSF + "{id}_FLAIR",
            "T1": _UCSF + "{id}_T1",
            "T1 post-contrast": _UCSF + "{id}_T1c",
            "T2": _UCSF + "{id}_T2",
        },
        _UCSF + "{id}_tumor_segmentation",
        patient="{patient}",
        names=UNTIL_2016,
        modality="MR",
        unused="bias-corrected copies, diffusion, perfusion and SWI, and masks of the brain; name "
        "them as channels in a description to use them",
    ),
)
_UPENN = r"{id:(?P<patient>UPENN-GBM-\d+)_\d+}"
register(
    "upenn-gbm",
    "images_structural/UPENN-GBM-NNNNN_NN/*_FLAIR.nii.gz, ..., images_segm/*_segm.nii.gz",
    Form(
        {
            name: f"[*/]images_structural/{_UPENN}/{{id}}_{key}"
            for name, key in (
                ("FLAIR", "FLAIR"),
                ("T1", "T1"),
                ("T1 post-contrast", "T1GD"),
                ("T2", "T2"),
            )
        },
        f"[*/]images_segm/{_UPENN}_segm",
        patient="{patient}",
        names=UNTIL_2016,
        modality="MR",
        unused="automatic masks (automated_segm) are no truth; cases with none other have no label",
    ),
)
_MU_PATIENT, _MU_VISIT = r"{patient:PatientID_\d+}", r"{visit:Timepoint_\d+}"
_MU_GLIOMA = f"[MU-Glioma*/]{_MU_PATIENT}/{_MU_VISIT}/{_MU_PATIENT}_{_MU_VISIT}_"
register(
    "mu-glioma-post",
    "PatientID_NNNN/Timepoint_N/*_brain_t1c.nii.gz, ..., *_tumorMask.nii.gz",
    Form(
        {
            name: f"{_MU_GLIOMA}brain_{key}"
            for name, key in (
                ("FLAIR", "t2f"),
                ("T1", "t1n"),
                ("T1 post-contrast", "t1c"),
                ("T2", "t2w"),
            )
        },
        _MU_GLIOMA + "tumorMask",
        "{patient}_{visit}",
        "{patient}",
        names={
            1: "non-enhancing tumour core",
            2: "oedema",
            3: "enhancing tumour",
            4: "resection cavity",
        },
        modality="MR",
    ),
)
_SHIFTS = r"[{site:best|ljubljana}/]{group:train|dev_in|dev_out|eval_in|eval_out}/"
register(
    "shifts-ms",
    "train/flair/N_FLAIR_isovox.nii.gz, train/gt/N_gt_isovox.nii.gz, dev_in, eval_in",
    Form(
        {"FLAIR": _SHIFTS + r"flair/{id:\d+}_FLAIR_isovox"},
        _SHIFTS + r"gt/{id:\d+}_gt_isovox",
        "{group}_{id}",
        "{group}_{id}",
        names={1: "lesion"},
        modality="MR",
        unused="masks of the brain (fg_mask) and other sequences, which only some sites have",
    ),
)
