"""The header of one file as plain data: its planes, and what is stated about them.

elements.py  the elements, found quickly    enhanced.py  the frames of multi-frame objects
file.py      one file's planes              flat.py      2-D images, clips and runs
marks.py     what tells volumes apart       mosaic/      tiles of one image
nuclear.py   frames of nuclear medicine
"""
