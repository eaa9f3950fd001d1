"""Archives on the network (PACS): series are found and fetched, and objects are sent back.

address.py   how an archive, a study or a series is named
access.py    credentials and certificates, from the environment
archive.py   what both protocols do, and what is tried again
dicomweb.py  by HTTP: QIDO-RS, WADO-RS, STOW-RS (PS3.18)
multipart.py the parts of an answer, without holding one in memory
dimse.py     by DIMSE: C-FIND, C-GET or C-MOVE, C-STORE (PS3.4)
spool.py     received instances as files

pynetdicom and dicomweb-client are imported when an archive is connected.
"""

from .access import Access
from .address import Address, is_remote
from .archive import DONE, Archive, RemoteSeries, fetch, find, identity_of, send
from .connecting import connect

__all__ = [
    "Access",
    "Address",
    "Archive",
    "DONE",
    "RemoteSeries",
    "connect",
    "fetch",
    "find",
    "identity_of",
    "is_remote",
    "send",
]
