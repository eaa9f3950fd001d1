"""Layouts of pictures of the fundus: vessels, optic disc and cup, lesions."""

from __future__ import annotations

from pathlib import Path

from .....core.labels import LabelMapping, LabelSet
from .....extend.findings import Draft
from ...tree import Tree
from ..forms import Form, register

_VESSELS = {1: "vessels", 255: "vessels"}
_SECOND = "masks of the field of view and of the second observer were not used"

# Of masks of arteries and veins (RITE, LES-AV); where both cross, the colour is green.
_VESSEL_COLOURS = {
    0xFF0000: "arteries",
    0x0000FF: "veins",
    0x00FF00: "crossings",
    0xFFFFFF: "unclear vessels",
}


def _vessel_colours(draft: Draft, tree: Tree, root: Path) -> None:
    draft.colours = dict(_VESSEL_COLOURS)


register(
    "drive",
    "training/images/N_training.tif, training/1st_manual/N_manual1.gif",
    Form(
        {"image": r"{split:training|test}/images/{id:\d+}_{split}"},
        r"{split:training|test}/1st_manual/{id:\d+}_manual1",
        patient="{id}",
        names=_VESSELS,
        modality="photo",
        pictures=True,
        unused=_SECOND,
    ),
)
register(
    "chase-db1",
    "Image_NL.jpg, Image_NL_1stHO.png, Image_NL_2ndHO.png",
    Form(
        # Both eyes of a child have one number.
        {"image": r"[{folder:images?}/]{id:Image_(?P<patient>\d+)[LR]}"},
        r"[{place:.*}/]{id:Image_(?P<patient>\d+)[LR]}_1stHO",
        patient="{patient}",
        names=_VESSELS,
        modality="photo",
        pictures=True,
        unused=_SECOND,
    ),
)
register(
    "stare",
    "stare-images/imN.ppm, labels-ah/imN.ah.ppm, labels-vk/imN.vk.ppm",
    Form(
        {"image": r"{folder:stare.*|images}/{id:im\d+}"},
        (r"labels-ah/{id:im\d+}.ah", r"labels-vk/{id:im\d+}.vk"),
        names=_VESSELS,
        modality="photo",
        pictures=True,
        unused=_SECOND,
    ),
)
register(
    "hrf",
    "images/N_dr.JPG, manual1/N_dr.tif, mask/N_dr_mask.tif",
    Form(
        {"image": r"images/{id:\d+_(?P<group>dr|g|h)}"},
        r"manual1/{id:\d+_(?:dr|g|h)}",
        patient="{id}",
        names=_VESSELS,
        modality="photo",
        pictures=True,
        groups={"dr": "diabetic retinopathy", "g": "glaucoma", "h": "healthy"},
        unused=_SECOND,
    ),
)
register(
    "refuge",
    "Training400/Glaucoma/gN.jpg, Disc_Cup_Masks/Glaucoma/gN.bmp",
    Form(
        {"image": r"[*/]Training400/{group:Glaucoma|Non-Glaucoma}/{id:[gn]\d+}"},
        r"[*/]Disc_Cup_Masks/{group:Glaucoma|Non-Glaucoma}/{id:[gn]\d+}",
        patient="{id}",
        modality="photo",
        pictures=True,
        # In these masks 0 is the cup and 255 the background.
        fixed=(
            LabelSet.from_names({1: "optic disc", 2: "optic cup"}),
            LabelMapping(values=((128, 1), (0, 2), (255, 0))),
        ),
    ),
)
_RIM = "[RIM-ONE*/]RIM-ONE_DL_images/partitioned_{by}/{{split:training|test}}_set/"
_RIM_GROUP = "{group:glaucoma|normal}/"


def _rim_one(by: str) -> Form:
    """RIM-ONE DL in one of its two partitions."""
    return Form(
        {"image": _RIM.format(by=by) + _RIM_GROUP + r"{id:r\d_Im\d+}"},
        r"[RIM-ONE*/]RIM-ONE_DL_reference_segmentations/"
        + _RIM_GROUP
        + r"{id:r\d_Im\d+}-1-{structure:Disc|Cup}-T",
        patient="{id}",
        modality="photo",
        pictures=True,
        structures={"disc": "optic disc", "cup": "optic cup"},
        unused="the same images in the other partition and the pictures of outlines",
    )


register(
    "rim-one-dl",
    "RIM-ONE_DL_images/partitioned_randomly/training_set/, RIM-ONE_DL_reference_segmentations/",
    _rim_one("randomly"),
    _rim_one("by_hospital"),
)
register(
    "les-av",
    "images/N.png, arteries-and-veins/N.png, vessel-segmentations/N.png, masks/N_mask.png",
    Form(
        {"image": r"[LES-AV/]images/{id:\d+}"},
        r"[LES-AV/]arteries-and-veins/{id:\d+}",
        patient="{id}",
        modality="photo",
        pictures=True,
        unused="masks of the field of view and of all vessels were not used",
        complete=_vessel_colours,
    ),
)
register(
    "idrid",
    "1. Original Images/a. Training Set/IDRiD_N.jpg, 2. All Segmentation Groundtruths/",
    Form(
        {"image": r"1. Original Images/*{split:Training|Testing} Set/{id:IDRiD_\d+}"},
        r"2. All*/*{split:Training|Testing} Set/*/{id:IDRiD_\d+}_{structure:MA|HE|EX|SE|OD}",
        patient="{id}",
        modality="photo",
        pictures=True,
        structures={
            "od": "optic disc",
            "ex": "hard exudates",
            "se": "soft exudates",
            "he": "haemorrhages",
            "ma": "microaneurysms",
        },
    ),
)
