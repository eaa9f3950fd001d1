"""``python -m delineate.cli``."""

from . import main

main()
