"""UIDs that follow from content: the same content has the same UID, other content never has.

An archive keeps the first object of a UID and accepts a second one without a word, so an object
that is written again must be the same, or have another UID.
"""

from __future__ import annotations

import hashlib
import uuid

__all__ = ["uid_of"]


def uid_of(*content: str | bytes | memoryview) -> str:
    """A UID of the form 2.25.N (PS3.5 B.2), from the SHA-256 of the content.

    Args:
        content: texts and bytes, also those of a contiguous array. Their boundaries count:
            ("ab", "c") is not ("a", "bc").

    >>> uid_of("liver") == uid_of("liver"), uid_of("ab", "c") == uid_of("a", "bc")
    (True, False)
    >>> len(uid_of("liver")) <= 64
    True
    """
    total = hashlib.sha256()
    for one in content:
        part = one.encode() if isinstance(one, str) else one
        total.update(hashlib.sha256(part).digest())
    return f"2.25.{uuid.UUID(bytes=total.digest()[:16], version=5).int}"
