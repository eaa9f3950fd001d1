"""How a segmentation is encoded: its type (PS3.3 C.8.20.2.3) and transfer syntax (PS3.5 A)."""

from __future__ import annotations

from dataclasses import dataclass

from ....core.errors import UsageError
from ....core.labels import LabelSet
from .header import KINDS

# The names of options -> UID; explicit is little-endian, without compression.
SYNTAXES = {
    "explicit": "1.2.840.10008.1.2.1",
    "deflated": "1.2.840.10008.1.2.1.99",
    "rle": "1.2.840.10008.1.2.5",
}
MOST = 255  # MaximumFractionalValue


@dataclass(frozen=True)
class SegEncoding:
    """A type of ``KINDS`` and a transfer syntax of ``SYNTAXES``.

    Raises:
        UsageError: an unknown one, or bits in RLE, which encodes whole bytes (PS3.5 G).
    """

    kind: str = "BINARY"
    syntax: str = "explicit"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"--seg-type is one of {', '.join(KINDS)}, found {self.kind!r}")
        if self.syntax not in SYNTAXES:
            raise UsageError(f"--seg-syntax is one of {', '.join(SYNTAXES)}, found {self.syntax!r}")
        if self.kind == "BINARY" and self.syntax == "rle":
            raise UsageError(
                "a BINARY segmentation has one bit for each pixel, and RLE encodes bytes; give "
                "--seg-syntax deflated, or --seg-type LABELMAP or FRACTIONAL"
            )

    def refuse_unfit(self, labels: LabelSet) -> None:
        """Raise UsageError if structures overlap and the type cannot hold that."""
        if self.kind == "LABELMAP" and labels.overlapping:
            raise UsageError(
                "a LABELMAP has one structure in each pixel, and these structures may overlap; "
                "give --seg-type BINARY or FRACTIONAL"
            )


BINARY = SegEncoding()
