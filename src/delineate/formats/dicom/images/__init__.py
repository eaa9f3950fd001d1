"""Image volumes as DICOM: a series of single slices, or one multi-frame object.

stored.py   intensities as pixels and a rescale    modules.py  what each class of image must state
write.py    the objects, their identity and proof
"""

from .write import WrittenImages, write_images

__all__ = ["WrittenImages", "write_images"]
