"""Recipes: plans that reproduce a known system, one file each, chosen with ``train --recipe NAME``.

A recipe is an ``extend.Recipe``: a planner with the settings of the original system, and the
structures it segments. Its plan is used like any other plan. ``--budget`` reduces network and patch
to what the time allows (``scaling``); without it the settings are those of the original.
"""

from __future__ import annotations

from ...extend.registers import RECIPES
from . import brain_quicknat, brats_vnet, liver_ct_unet2d, liver_ct_unet3d, liver_mr_unet2d

for _module in (liver_ct_unet3d, brain_quicknat, liver_mr_unet2d, liver_ct_unet2d, brats_vnet):
    for _recipe in _module.RECIPES:
        RECIPES.add(_recipe.name, _recipe)
