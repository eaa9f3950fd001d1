"""Slices of volumes as 2-D files, with all that is needed to rebuild the volumes exactly.

``pixels``: intensities and label values as pixels and back; ``record``: the tree of files, its
record and its index; ``cases``: writing the slices of one case, and reading them as a volume.
"""
