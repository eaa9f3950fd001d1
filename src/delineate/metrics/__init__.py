"""Metrics of a segmentation against a truth: plain arrays and voxel sizes in, numbers out. It reads
no files.
"""
