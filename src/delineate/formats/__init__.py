"""Disk to ``Volume`` and back; the only place where DICOM's and ITK's LPS becomes RAS+. ``files``
is the door.
"""
