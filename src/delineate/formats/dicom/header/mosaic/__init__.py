"""Mosaics: many slices of a volume as tiles of one image.

tiles.py   where each tile lies        csa.py   the private headers of Siemens
"""

from .tiles import Tile, are_slices, has_tiles, is_mosaic, tiles_of

__all__ = ["Tile", "are_slices", "has_tiles", "is_mosaic", "tiles_of"]
