"""Layouts of published collections of volumes, a module for each region of the body."""

from . import abdomen, brains, chaos, freesurfer, heart, lesions, spine, teeth, thorax

__all__ = [
    "abdomen",
    "brains",
    "chaos",
    "freesurfer",
    "heart",
    "lesions",
    "spine",
    "teeth",
    "thorax",
]
