"""``python -m delineate``."""

from .cli import main

main()
