"""The Python interface: typed classes and functions, which ``delineate`` gives by name.

volume.py  prediction.py  model.py      scans, masks and models
cohort.py  patches.py  check_report.py  the cases of a data set, and its patches for PyTorch
run.py                                  a training run
functions.py  keywords.py               reading, writing, and every command
"""
