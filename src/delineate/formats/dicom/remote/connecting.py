"""The client of an archive, by the protocol of its address."""

from __future__ import annotations

from ....extras import require_extra
from .access import Access
from .address import Address
from .archive import Archive

OWN_TITLE = "DELINEATE"


def connect(
    address: Address, access: Access, title: str = OWN_TITLE, receive_port: int | None = None
) -> Archive:
    """A client of the archive of ``address``. Nothing is sent before its first request.

    Args:
        title: AE title of this program, for DIMSE.
        receive_port: receive by C-MOVE on this port, instead of by C-GET.

    Raises:
        UsageError: the packages of the extra dicom are missing.
    """
    require_extra("dicom", address.archive)
    if address.is_dicomweb:
        from .dicomweb import DicomWeb

        return DicomWeb(address, access)
    from .dimse import Dimse

    return Dimse(address, access, title, receive_port)
