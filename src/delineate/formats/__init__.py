"""Reading and writing of image files: disk to ``Volume`` and back. Callers use ``files``. Only this
package converts the LPS coordinates of DICOM and ITK to RAS+.
"""
