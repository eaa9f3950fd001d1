"""One part of every kind that delineate can be extended with."""
