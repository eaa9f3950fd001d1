"""The words that name a sequence, a modality or a phase, as data.

``WORDS`` has one line for each meaning: the names of public collections, of BIDS and of hospitals,
in the languages in which their meaning is clear. A name may have several words; case, accents and
separators make no difference, and compounds of the words of ``HEADS`` with another word ("t2tse",
"t1gd") need no line. ``reading`` combines the meanings of a text. To add a name, write it into its
line; tests check that no name has two meanings.
"""

from __future__ import annotations

# ---- images ----

# Sources:
# BraTS 2012-2015: VSD.Brain.XX.O.MR_Flair, _T1, _T1c, _T2 (Menze 2015); 2016-2021: flair, t1, t1ce,
#   t2; from 2023, with -GLI, -MET, -PED, -SSA and -MEN: t1c, t1n, t2f, t2w.
# UCSF-PDGM: T1, T1c, T2, FLAIR, SWI, DWI, ADC. UPENN-GBM: T1, T1GD, T2, FLAIR.
# Decathlon (dataset.json): FLAIR, T1w, t1gd, T2w; T2, ADC; CT; MRI.
# BIDS 1.9: T1w, T2w, FLAIR, PDw, T2starw, inplaneT1, inplaneT2, dwi, swi; ce-, acq-, trc- entities.
# ISLES 2015-2018: SMIR.Brain.XX.O.MR_DWI, _ADC, _Flair, _rCBF, CT_4DPWI; 2022: dwi, adc, FLAIR;
#   2024: ncct, cta, cbf, cbv, mtt, tmax.
# WMH: T1, FLAIR. MSSEG: 3DFLAIR, 3DT1, 3DT1GADO, 2DT2, DP. MRBrainS: T1, T1_IR, T2_FLAIR.
# ATLAS: T1w. CHAOS: T1DUAL InPhase, OutPhase; T2SPIR. MyoPS: LGE, T2, bSSFP.
# HECKTOR: __CT, __PT. AutoPET: CT, CTres, PET, SUV. KiTS, AMOS, BTCV: CT without a name.
WORDS: dict[str, str] = {
    "T1": (
        "t1, t1w, t1wi, t1 w, t1 wi, t1 weighted, t1 gewichtet, t1gewichtet, t1 ponderee,"
        " t1 pondere, t1 ponderada, t1 pesata, t1 gewogen, st1w, et1w, st1, et1"
    ),
    "T1 post-contrast": "t1c, t1k, bravo post, cet1, cet1w, t1wc, t1kmw, t1ceg, 3dt1gado",
    "T1 native": "t1n, t1wn",
    "T2": (
        "t2, t2w, t2wi, t2 w, t2 wi, t2 weighted, t2 gewichtet, t2gewichtet, t2 ponderee,"
        " t2 pondere, t2 ponderada, t2 pesata, t2 gewogen, st2w, et2w, st2, et2"
    ),
    "FLAIR": (
        "flair, t2f, fl, sflair, eflair, dark fluid, darkfluid, darkfl,"
        " fluid attenuated inversion recovery, fluid attenuated"
    ),
    "PD": (
        "pd, pdw, pdwi, pd w, proton density, protonendichte, densite de protons,"
        " densite protonique, densidad protonica, densita protonica, dp, rho protons"
    ),
    "T2*": (
        "t2*, t2*w, t2 *, t2star, t2starw, t2 star, t2 stern, t2 etoile, t2 estrella, t2 stella,"
        " t2s w, hemo gre, t2hemo"
    ),
    "SWI": "swi, swan, swip, susceptibility weighted, susceptibility weighted imaging, venobold",
    "STIR": "stir, t2 tirm fs, short tau inversion recovery",
    "double inversion recovery": "double inversion recovery, 3d dir, dir3d",
    "PSIR": "psir",
    "DWI": (
        "dwi, dw, diff, diffusion, diffusion weighted, diffusionsgewichtet, difusion, diffusione,"
        " diffusie, trace, tracew, isodwi, resolve, zoomit diff, 弥散"
    ),
    "DTI": "dti, diffusion tensor",
    "ADC": "adc, adc map, dadc, apparent diffusion coefficient",
    "ASL": "asl, pcasl, pasl, arterial spin labeling, arterial spin labelling",
    "BOLD": "bold, fmri",
    "TOF": "tof, tof mra, mra tof, time of flight",
    "LGE": "lge, late gadolinium enhancement, late gadolinium, delayed enhancement, psir lge",
    "bSSFP": "bssfp, cine, truefisp, trufi, fiesta, ssfp",
    "QSM": "qsm",
    "CT": "ct, computed tomography, computertomographie, tdm, tac, scanner, 电脑断层",
    "CT, angiography": (
        "cta, ct angiography, ct angio, angio ct, angioct, angiotc, ctangio, angioscanner"
    ),
    "CT, without contrast": "ncct, nect, non contrast ct, noncontrast ct",
    "CT, contrast-enhanced": "cect",
    "CT, resampled": "ctres, ct resampled",
    "PET": "pet, pt, pet ac, positron emission tomography, tep",
    "PET, SUV": "suv, pet suv, suvbw",
    # Perfusion maps of MR and CT (ISLES).
    "perfusion": "pwi, 4dpwi, perfusion, perf, ctp, dsc, dce, ep2d perf",
    "CBF": "cbf",
    "rCBF": "rcbf, relcbf",
    "CBV": "cbv",
    "rCBV": "rcbv, relcbv",
    "MTT": "mtt",
    "TTP": "ttp",
    "Tmax": "tmax",
    # Other images: known, so that they are not mistaken for those above.
    "ultrasound": "ultrasound, sonography",
    "X-ray": "x ray, xray, radiograph",
}
# Techniques that imply a weighting if no other word states one.
TECHNIQUES: dict[str, str] = {
    "T1": "mprage, mp rage, bravo, fspgr, spgr, vibe, lava, thrive, tfl3d, tfl, turboflash",
    "T2": "haste, ssfse",
}
# Words that modify an image. "agent" words are evidence of contrast unless a "without" word
# precedes them.
MODIFIERS: dict[str, str] = {
    "agent": (
        "contrast, contraste, contrasto, kontrast, kontrastmittel, ce, gd, gad, gado, gadolinium,"
        " gadovist, gadobutrol, gadavist, dotarem, magnevist, prohance, multihance, primovist,"
        " eovist, clariscan, omniscan, vueway, elucirem, km, kmgabe, mdc, contrast agent,"
        " contrast medium, medio de contraste, medio di contrasto, mezzo di contrasto,"
        " produit de contraste, pdc, injection, inj, contrastmiddel, contraststof, gadolinio,"
        " gadolinum, gadoterate, 造影剂, 对比剂"
    ),
    "MR": "mr, mri, irm",
    "contrast": (
        "postcontrast, post contrast, postgad, postgado, postgd, postkm, postinj, enhanced,"
        " injecte, injectee, contrast enhanced, c +, + c, + k, c plus, contrastato, 增强, 增強"
    ),
    "post": "post, nach, apres, despues, dopo, after",
    "with": "with, mit, avec, con, met, +, w, cum",
    "without": (
        "without, ohne, sans, sin, senza, zonder, no, non, wo, pre, vor, avant, antes, prima,"
        " before"
    ),
    "native": (
        "native, nativ, nativa, natif, nativo, precontrast, pre contrast, noncontrast, noncon,"
        " non con, unenhanced, non enhanced, nonenhanced, plain, pregad, pregd, blanco, basal,"
        " 平扫, 平掃, oc"
    ),
    "fat-suppressed": (
        "fs, fatsat, fat sat, fatsup, fat suppressed, fat suppression, fatsuppressed, spair, spir,"
        " fettgesattigt, fettgesaettigt, fettsat, satfat, sat fat, fat saturated,"
        " saturation de graisse, satgraisse, chemsat, saturacion grasa, fsat, 压脂, 抑脂"
    ),
    "gradient echo": "gre, ffe, hemo, medic, eg, gradient echo, echo de gradient, gradientenecho",
    "Dixon": "dixon, mdixon, ideal, flex, dual",
    "inversion recovery": "tirm, ir, inversion recovery",
    "Dixon+water": "dixon w, mdixon w, dixon water, mdixon water",
    "Dixon+fat": "dixon f, mdixon f, dixon fat, mdixon fat",
    "Dixon+in phase": "dixon in, mdixon in, dixon ip",
    "Dixon+out of phase": "dixon opp, mdixon opp, dixon op, dixon out",
    "water": "water, wasser, eau, agua, acqua",
    "fat": "fat, fett, graisse, grasa, grasso",
    "in phase": "inphase, in phase, inph, en phase, en fase, in fase, phase in",
    "out of phase": (
        "outphase, out phase, out of phase, opp phase, opposed phase, opposed, oop, opp, oppphase,"
        " outph, opposition de phase, hors phase, fuera de fase, fuori fase, gegenphase"
    ),
    # Phases of a dynamic study, of CT unless an MR sequence is named.
    "arterial phase": (
        "arterial, art, arteriell, arterielle, arteria, arteriel, arteriosa, arterieel,"
        " arterial phase, arterielle phase, fase arterial, fase arteriosa, phase arterielle,"
        " temps arteriel, ct arterial, early arterial, late arterial, 动脉期, 動脈期"
    ),
    "portal venous phase": (
        "portal, pv, pvp, portalvenous, portal venous, portovenous, porto venous, portalvenos,"
        " portalvenoes, portal venos, portalveneux, porto veineux, portovenosa, porto venosa,"
        " venous, ven, venos, venoes, veneux, veineux, veineuse, venosa, venoso, portaal,"
        " portal phase, portal venous phase, venous phase, venose phase, temps portal,"
        " fase portal, phase portale, portale, 门脉期, 门静脉期, 静脉期, 門脈期"
    ),
    "delayed phase": (
        "delayed, delay, late, spat, spaet, tardif, tardive, tardia, tardivo, laat, delayed phase,"
        " late phase, spatphase, spaetphase, fase tardia, temps tardif, equilibrium,"
        " equilibrium phase, 延迟期, 平衡期"
    ),
    "nephrographic phase": (
        "nephrographic, nephrogenic, nephrographisch, nephrographique, nephrogenic phase,"
        " nephrographic phase, 实质期"
    ),
    "corticomedullary phase": "corticomedullary, corticomedullary phase, cortico medullary",
    "excretory phase": "excretory, urographic, excretory phase, urographic phase, 排泄期",
    # Tracers of PET.
    "FDG": "fdg, f18 fdg, 18f fdg, fdg pet",
    "PSMA": "psma, ga68 psma, f18 psma",
    "DOTATATE": "dotatate, dotatoc, dotanoc",
    "FET": "fet",
    "FLT": "flt",
    "FMISO": "fmiso",
}
PHASE = "phase, phases, fase"  # of a study if its time is named, else of the complex signal
# Images that are made from another one, or are no image of the anatomy: never a channel of its
# name, except the maps of MAPS.
DERIVED = (
    "map, maps, mapping, molli, shmolli, subtraction, subtr, subtracted, sub, subtrahiert, minus,"
    " difference, delta, ratio, rho, t1rho, t1 rho, pha, phas, imag, real, mip, minip, vrt, scout,"
    " localizer, localiser, localizador, localisateur, loc, survey, topogram, topogramm, surview,"
    " scanogram, prob, probability, synthetic, synth, mp2rage, uni, inv1, inv2, unit1, eadc,"
    " exponential, fractional anisotropy, colfa, nac, uncorrected, non ac, screenshot, dose,"
    " dose report, report, bolus, monitoring, premonitoring, smartprep, noise, bias, mag,"
    " magnitude, t1map, t2map, t2starmap, pdmap, r1map, r2map, m0scan, sbref, pdt2, molecular"
)
# Words that say nothing about the contrast of an image, but belong to its description.
NEUTRAL = (
    "ax, axial, axiale, tra, trans, transversal, transverse, transversale, ta, sag, sagittal,"
    " sagital, sagittale, cor, coronal, coro, koronar, frontal, obl, oblique, tse, fse, se, spin,"
    " echo, turbo, fast, frfse, xl, epi, ep2d, spc, space, cube, vista, blade, propeller, fl2d,"
    " fl3d, tfe, 3d, 2d, iso, isotropic, grappa, sense, cs, hr, hires, thin, thick, brain, head,"
    " kopf, cerebro, cerveau, crane, cranio, schadel, schaedel, hirn, neuro, c spine, t spine,"
    " l spine, abdomen, abd, liver, pelvis, weighted, wi, image, stack, inplane, reg, registered,"
    " brainextracted, bet, n4, norm, dis2d, dis3d, nd, rec, bh, nav, breathhold, iv, wb,"
    " whole body, protocol"
)
# Words that follow "post" or "pre" where these mean a time.
TIMES = (
    "op, operative, operativ, operativement, operation, operatoire, operatorio, operatoria,"
    " surgery, surgical, surg, treatment, tx, rt, rtx, chemo, chemotherapy, therapy, resection,"
    " biopsy, processing, processed, processor, mortem, ictal, partum, trauma, traumatic, event,"
    " transplant, stroke, radiation, radio, followup, baseline, days, weeks, months, day, week,"
    " month, scan, natal, fossa, tumor"
)
# Words between a preposition and the agent.
FILLERS = "iv, i, v, de, di, the, any, and, or, und, oder, et, ou, y, e, en, per"
# Words that are joined to another one without a separator ("t2tse").
HEADS = (
    "t1wi",
    "t1w",
    "t1",
    "t2wi",
    "t2w",
    "t2",
    "pdwi",
    "pdw",
    "pd",
    "flair",
    "mprage",
    "3d",
    "2d",
)
# Maps whose names may say so ("ADC map").
MAPS = ("ADC", "CBF", "rCBF", "CBV", "rCBV", "MTT", "TTP", "Tmax", "QSM")
# What two words together mean; every other combination of images is unknown.
TOGETHER: dict[frozenset[str], str] = {
    frozenset({"T1", "FLAIR"}): "T1",
    frozenset({"T2", "FLAIR"}): "FLAIR",
    frozenset({"T2", "T2*"}): "T2*",
    frozenset({"T2*", "SWI"}): "SWI",
    frozenset({"T2", "STIR"}): "STIR",
    frozenset({"DWI", "ADC"}): "ADC",
    frozenset({"PSIR", "LGE"}): "LGE",
}
# Phases of a dynamic study, maps of perfusion, and tracers: names in ``MODIFIERS`` and ``WORDS``.
PHASES = (
    "arterial phase",
    "portal venous phase",
    "delayed phase",
    "nephrographic phase",
    "corticomedullary phase",
    "excretory phase",
)
PERFUSION = ("CBF", "rCBF", "CBV", "rCBV", "MTT", "TTP", "Tmax", "perfusion")
NO_MODALITY = ("ultrasound", "X-ray")  # neither CT nor MR nor PET
TRACERS = ("FDG", "PSMA", "DOTATATE", "FET", "FLT", "FMISO")
# Words with other meanings in file names (a patient, a disk, a place): they name an image there
# only if they end the name and no other word names one.
WEAK = {
    "fl",
    "pt",
    "pd",
    "dp",
    "ct",
    "dw",
    "diff",
    "tac",
    "scanner",
    "art",
    "ven",
    "pv",
    "late",
    "portal",
}
# Names that mean only "an image", and names that mean only "MR".
ANY_IMAGE = {
    "image",
    "img",
    "imaging",
    "orig",
    "volume",
    "scan",
    "data",
    "raw",
    "input",
    "grey",
    "gray",
    "channel",
    "modality",
}
ANY_MR = {"mr", "mri", "magneticresonance"}
