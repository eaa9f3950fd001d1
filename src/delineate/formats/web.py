"""What transfers by HTTP have in common: limits of time, which failures are worth another attempt,
and their reasons in words.
"""

from __future__ import annotations

import re

CHUNK_BYTES = 1 << 20
ATTEMPTS = 4  # requests in a row without any new byte
TIMEOUT_S = (20, 60)  # to connect; between two packets
# HTTP states after which the same request may succeed.
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


def innermost_reason(error: Exception) -> str:
    """Return the innermost reason of a failed connection, without the library's objects."""
    cause: BaseException = error
    # The exceptions are nested through their first argument or the attribute ``reason``.
    while isinstance(cause.args[0] if cause.args else None, BaseException) or getattr(
        cause, "reason", None
    ):
        inner = (
            cause.args[0]
            if cause.args and isinstance(cause.args[0], BaseException)
            else getattr(cause, "reason", None)
        )
        if not isinstance(inner, BaseException):
            break
        cause = inner
    # Remove object addresses and class names from the message.
    return (
        re.sub(r"<[^>]*>:? ?|HTTPS?Connection(Pool)?\([^)]*\):? ?", "", str(cause))
        .split("(Caused by")[0]
        .strip()
        or type(error).__name__
    )
