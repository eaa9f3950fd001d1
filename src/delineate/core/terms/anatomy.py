"""The names of structures, as data.

One line for each structure: its identity, and other names of it, in the languages in which they are
clear. The side is no part of a name ("left kidney" is "kidney" with a side), nor are case, accents,
separators, the order of words, plurals, and British or American spelling. To add a name, write it
into its line; tests check that no name has two meanings.
"""

from __future__ import annotations

# Sources: TotalSegmentator (class names), BTCV and AMOS (dataset.json, with their misspellings),
# CHAOS, KiTS, the Decathlon (dataset.json), 3D-IRCADb.
ORGANS: dict[str, str] = {
    "liver": "leber, foie, higado, fegato, lever, 肝, 肝脏, 肝臓",
    "spleen": "milz, rate, bazo, milza, milt, 脾, 脾脏, 脾臓",
    "kidney": "niere, nieren, rein, rinon, rene, nier, 肾, 肾脏, 腎臓",
    "pancreas": "pankreas, bauchspeicheldruse, alvleesklier, 胰腺",
    "stomach": "magen, estomac, estomago, stomaco, maag, 胃",
    "gallbladder": "gall bladder, gallenblase, vesicule biliaire, vesicula biliar, cistifellea,"
    " colecisti, galblaas, 胆囊",
    "esophagus": "speiserohre, osophagus, esofago, slokdarm, 食管",
    "duodenum": "zwolffingerdarm, duodeno, 十二指肠",
    "small bowel": "small intestine, smallbowel, dunndarm, intestin grele, intestino delgado",
    "colon": "large bowel, large intestine, dickdarm",
    "rectum": "rektum, recto",
    "urinary bladder": "bladder, harnblase, vessie, vejiga, vescica, blaas, urinarybladder, 膀胱",
    "prostate": "prostata, 前列腺",
    "prostate or uterus": "prostate uterus, prostate and uterus",
    "uterus": "gebarmutter",
    "adrenal gland": "adrenal, adrenals, suprarenal gland, nebenniere, glande surrenale, 肾上腺",
    "aorta": "arota, aorte, 主动脉",
    "inferior vena cava": "ivc, postcava, vena cava inferior, vci",
    "superior vena cava": "svc, vena cava superior, vcs",
    "portal vein": "pfortader, veine porte, vena porta, portalvein",
    "portal vein and splenic vein": "portal vein and spleen vein, veins, portal and splenic vein",
    "hepatic vessel": "liver vessel, hepatic vessels",
    "lung": "lunge, lungen, poumon, pulmon, polmone, 肺",
    "lung upper lobe": "upper lobe of lung",
    "lung middle lobe": "middle lobe of lung",
    "lung lower lobe": "lower lobe of lung",
    "trachea": "windpipe, luftrohre",
    "heart": "herz, coeur, corazon, cuore, hart, 心脏",
    "thyroid gland": "thyroid, schilddruse",
    "spinal cord": "myelon, ruckenmark, moelle epiniere",
    "vertebra": "vertebrae, vertebral body, wirbel",
    "rib": "rippe",
    "femur": "thigh bone, femoral head and shaft",
    "hip": "hip bone, hipbone",
    "clavicle": "clavicula",
    "scapula": "shoulder blade",
    "sternum": "breast bone",
    "peripheral zone": "pz",
    "transition zone": "tz, transitional zone, central gland",
}
# ACDC, M&Ms, MM-WHS, TotalSegmentator.
HEART: dict[str, str] = {
    "ventricle": "heart ventricle, ventricle blood cavity, ventricle cavity",
    "atrium": "heart atrium, atrium blood cavity, atrial cavity",
    "myocardium": "myo, heart myocardium",
    "pulmonary artery": "arteria pulmonalis",
    "pulmonary vein": "vena pulmonalis",
}
# FreeSurfer (FreeSurferColorLUT.txt, without the side), MALC, MRBrainS, SPM and FSL.
BRAIN: dict[str, str] = {
    "brain": "gehirn, hirn, cerveau, cerebro, cervello, hersenen, 脑",
    "gray matter": "gm, graue substanz, substance grise, sustancia gris",
    "white matter": "wm, weisse substanz, substance blanche, sustancia blanca",
    "cerebrospinal fluid": "csf, liquor, lcr",
    "cerebral white matter": "cerebrum white matter",
    "cerebral cortex": "cerebral gray matter",
    "cerebellar white matter": "cerebellum white matter",
    "cerebellar cortex": "cerebellum cortex, cerebellum gray matter",
    "brainstem": "brain stem, hirnstamm, tronc cerebral",
    "thalamus": "thalamus proper",
    "hippocampus": "hippocampal formation, hippokampus",
    "caudate": "caudate nucleus, nucleus caudatus",
    "pallidum": "globus pallidus",
    "amygdala": "amygdaloid body",
    "accumbens": "accumbens area, nucleus accumbens",
    "ventral diencephalon": "ventral dc, ventraldc",
    "inferior lateral ventricle": "inf lat vent, inferior horn of the lateral ventricle",
    "third ventricle": "3rd ventricle, ventricle 3",
    "fourth ventricle": "4th ventricle, ventricle 4",
    "white matter hyperintensity": "wmh, white matter hypointensities, wm hypointensities,"
    " white matter lesion, wm lesion",
}
# BraTS 2012-2025, UCSF-PDGM, UPENN-GBM, the Decathlon, KiTS.
LESIONS: dict[str, str] = {
    "edema": "ed, peritumoral edema, vasogenic edema, snfh, surrounding non enhancing flair"
    " hyperintensity, surrounding nonenhancing flair hyperintensity, odem, edeme",
    "enhancing tumor": "et, enhancing, gd enhancing tumor, gadolinium enhancing tumor,"
    " active tumor, contrast enhancing tumor",
    "necrosis": "ncr, necrotic core, necrotic tumor core, necrotic, nekrose, necrose",
    "nonenhancing tumor": "net, netc, non enhancing, non enhancing tumor, non enhancing tumor core,"
    " nonenhancing tumor core",
    "necrotic and nonenhancing tumor core": "ncr net, ncr and net, necrotic and non enhancing tumor"
    " core, necrotic and non enhancing tumor, necrotic non enhancing tumor core, non enhancing and"
    " necrotic tumor",
    "tumor core": "tc, core of the tumor",
    "whole tumor": "wt, complete tumor, entire tumor",
    "resection cavity": "rc, postoperative cavity",
    "tumor": "cancer, neoplasm, tumeur, tumore, 肿瘤",
    "gross tumor volume of the primary": "gtvp, gtv p, gtv t, gtvt",
    "gross tumor volume of the nodes": "gtvn, gtv n",
    "cyst": "zyste, kyste, quiste, cisti, 囊肿",
}
TABLES = (ORGANS, HEART, BRAIN, LESIONS)
# Words whose plural or spelling follows no rule.
IRREGULAR = {"vertebrae": "vertebra", "grey": "gray"}
# Short names that include their side.
ABBREVIATIONS: dict[str, str] = {
    "lv": "left ventricle",
    "rv": "right ventricle",
    "la": "left atrium",
    "ra": "right atrium",
    "lvcavity": "left ventricle",
    "rvcavity": "right ventricle",
    "lk": "left kidney",
    "rk": "right kidney",
    "lkidney": "left kidney",
    "rkidney": "right kidney",
    "lvmyo": "myocardium",
    "lvmyocardium": "myocardium",
    "leftventriclemyocardium": "myocardium",
    "leftventricularmyocardium": "myocardium",
    "myocardiumoftheleftventricle": "myocardium",
}
# SNOMED CT (DICOM PS3.16, CID 7192 and others) -> name; the codes of sided structures are those of
# both sides together, except these two.
CODES: dict[str, str] = {
    "10200004": "liver",
    "78961009": "spleen",
    "64033007": "kidney",
    "18639004": "left kidney",
    "9846003": "right kidney",
    "15776009": "pancreas",
    "69695003": "stomach",
    "28231008": "gallbladder",
    "32849002": "esophagus",
    "38848004": "duodenum",
    "89837001": "urinary bladder",
    "41216001": "prostate",
    "35039007": "uterus",
    "23451007": "adrenal gland",
    "15825003": "aorta",
    "64131007": "inferior vena cava",
    "32764006": "portal vein",
    "39607008": "lung",
    "44029006": "left lung",
    "3341006": "right lung",
    "80891009": "heart",
    "12738006": "brain",
    "79654002": "edema",
    "6574001": "necrosis",
    "108369006": "tumor",
}
# Numbers of FreeSurfer (FreeSurferColorLUT.txt), as "freesurfer 17".
FREESURFER: dict[int, str] = {
    2: "left cerebral white matter",
    3: "left cerebral cortex",
    4: "left lateral ventricle",
    5: "left inferior lateral ventricle",
    7: "left cerebellar white matter",
    8: "left cerebellar cortex",
    10: "left thalamus",
    11: "left caudate",
    12: "left putamen",
    13: "left pallidum",
    14: "third ventricle",
    15: "fourth ventricle",
    16: "brainstem",
    17: "left hippocampus",
    18: "left amygdala",
    24: "cerebrospinal fluid",
    26: "left accumbens",
    28: "left ventral diencephalon",
    41: "right cerebral white matter",
    42: "right cerebral cortex",
    43: "right lateral ventricle",
    44: "right inferior lateral ventricle",
    46: "right cerebellar white matter",
    47: "right cerebellar cortex",
    49: "right thalamus",
    50: "right caudate",
    51: "right putamen",
    52: "right pallidum",
    53: "right hippocampus",
    54: "right amygdala",
    58: "right accumbens",
    60: "right ventral diencephalon",
}
