"""The parts of a multipart answer (RFC 2046, 5.1), one after the other and never whole in
memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .archive import UnreachableError

MOST_HEADER_BYTES = 1 << 16
CUT = "the answer ends in the middle of an instance"


def parts(chunks: Iterable[bytes], boundary: str) -> Iterator[Iterator[bytes]]:
    """The content of each part as chunks; a part ends when the next one is asked for.

    Args:
        chunks: the body of the answer.
        boundary: as its Content-Type states it.

    Raises:
        UnreachableError: the body ends before its closing boundary.

    >>> body = [b"--b\\r\\nA: 1\\r\\n\\r\\nfir", b"st\\r\\n--b\\r\\n\\r\\nsecond\\r\\n--b--"]
    >>> [b"".join(part) for part in parts(body, "b")]
    [b'first', b'second']
    """
    delimiter = b"\r\n--" + boundary.encode()
    # The first boundary may have no line in front of it.
    body = _Body(chunks, b"\r\n")
    body.skip(delimiter)
    while body.peek(2) != b"--":
        body.skip(b"\r\n\r\n", MOST_HEADER_BYTES)
        part = body.until(delimiter)
        yield part
        for _ in part:
            pass


class _Body:
    """Bytes that arrive in chunks."""

    def __init__(self, chunks: Iterable[bytes], begin: bytes):
        self._chunks, self._held = iter(chunks), bytearray(begin)

    def _more(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            raise UnreachableError(CUT)
        self._held += chunk

    def peek(self, count: int) -> bytes:
        while len(self._held) < count:
            self._more()
        return bytes(self._held[:count])

    def until(self, mark: bytes) -> Iterator[bytes]:
        """The bytes up to ``mark``, which is passed."""
        while (at := self._held.find(mark)) < 0:
            # The mark may begin in this chunk and end in the next one.
            sure = len(self._held) - len(mark) + 1
            if sure > 0:
                yield bytes(self._held[:sure])
                del self._held[:sure]
            self._more()
        yield bytes(self._held[:at])
        del self._held[: at + len(mark)]

    def skip(self, mark: bytes, most: int | None = None) -> None:
        passed = 0
        for chunk in self.until(mark):
            passed += len(chunk)
            if most is not None and passed > most:
                raise UnreachableError("a part of the answer has no end of its header")
