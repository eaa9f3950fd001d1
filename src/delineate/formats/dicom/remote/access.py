"""Credentials and certificates for archives, from environment variables: they are in no address,
option, log or record.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field

from ....core.errors import UsageError

TOKEN = "DELINEATE_DICOMWEB_TOKEN"
USER, PASSWORD = "DELINEATE_DICOMWEB_USER", "DELINEATE_DICOMWEB_PASSWORD"
CA_FILE = "DELINEATE_CA_FILE"
CERT_FILE, KEY_FILE = "DELINEATE_CERT_FILE", "DELINEATE_KEY_FILE"
DIMSE_TLS = "DELINEATE_DIMSE_TLS"


@dataclass(frozen=True)
class Access:
    """How this program identifies itself to archives, and whom it trusts.

    Args:
        token: for DICOMweb, sent as "Authorization: Bearer TOKEN".
        user, password: for DICOMweb, for basic authentication.
        ca_file: certificates of the authorities to trust (PEM); "" trusts those of the system.
        cert_file, key_file: this program's own certificate and key (PEM).
        dimse_tls: whether DIMSE is encrypted.
    """

    token: str = field(default="", repr=False)
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = field(default="", repr=False)
    dimse_tls: bool = False

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Access:
        """Read the variables; a variable that is empty counts as missing.

        Raises:
            UsageError: a token with characters that HTTP does not allow, a file that does not
                exist, or both kinds of credentials.
        """
        token = environment.get(TOKEN, "").strip()
        if not (token.isascii() and token.isprintable()) or " " in token:
            raise UsageError(f"{TOKEN} has characters that a token cannot have")
        if token and environment.get(USER):
            raise UsageError(f"give {TOKEN}, or {USER} and {PASSWORD}, not both")
        for name in (CA_FILE, CERT_FILE, KEY_FILE):
            if (path := environment.get(name, "")) and not os.path.isfile(path):
                raise UsageError(f"{name} names a file that does not exist: {path}")
        return cls(
            token,
            environment.get(USER, ""),
            environment.get(PASSWORD, ""),
            environment.get(CA_FILE, ""),
            environment.get(CERT_FILE, ""),
            environment.get(KEY_FILE, ""),
            environment.get(DIMSE_TLS, "").lower() not in ("", "0", "off", "no", "false"),
        )

    def tls(self, serves: bool = False) -> ssl.SSLContext:
        """The settings of an encrypted DIMSE connection.

        Args:
            serves: for connections that the archive opens; it must then have a certificate of a
                trusted authority.

        Raises:
            UsageError: a file is no certificate or key.
        """
        purpose = ssl.Purpose.CLIENT_AUTH if serves else ssl.Purpose.SERVER_AUTH
        try:
            context = ssl.create_default_context(purpose, cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(
                f"{CA_FILE}, {CERT_FILE} and {KEY_FILE} must name certificates and a key in PEM "
                f"({getattr(error, 'reason', None) or error.strerror})"
            ) from None
        if serves:
            context.verify_mode = ssl.CERT_REQUIRED
        return context
