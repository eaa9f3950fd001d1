"""Convert: a scan or label file from one format to another.

convert.py  images, and labels of DICOM objects    structure_sets.py  masks as DICOM objects
images.py   image volumes as DICOM                 outputs.py         what an output is
deidentification.py  DICOM objects without what identifies a person
"""

from .convert import ConversionReport, convert

__all__ = ["ConversionReport", "convert"]
