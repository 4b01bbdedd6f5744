"""A proxy's certificate for the SDK to trust, beside the public authorities."""

from __future__ import annotations

import re
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import certifi

from failover.demo.account import BadSettings

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")


@contextmanager
def trusting(file: Path | None) -> Iterator[str | bool]:
    """Give what `connection_verify` takes so that the certificates in `file` are trusted too.

    The public authorities stay trusted, for what does not go through the proxy.

    Args:
        file: Certificates, PEM or DER; None: the public authorities alone.

    Yields:
        True without a file, else the path of a temporary bundle, which is removed at the end.

    Raises:
        BadSettings: The file cannot be read or contains no certificate.
    """
    if file is None:
        yield True
        return
    pem = _as_pem(file)
    try:
        with tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="ascii", delete=False) as bundle:
            bundle.write(Path(certifi.where()).read_text(encoding="ascii", errors="ignore"))
            bundle.write("\n" + pem)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise BadSettings(f"--ca-bundle needs a temporary file, which cannot be written: {why}.") from None
    try:
        yield bundle.name
    finally:
        with suppress(OSError):
            Path(bundle.name).unlink()


def _as_pem(file: Path) -> str:
    """Return the certificates in `file` and nothing else of it: there may be a private key beside them."""
    try:
        data = file.read_bytes()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise BadSettings(f"--ca-bundle {file} cannot be read: {why}. Give the proxy's certificate.") from None
    try:
        found = [each.decode("ascii") for each in _PEM.findall(data)] or [ssl.DER_cert_to_PEM_cert(data)]
        for pem in found:
            ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise BadSettings(
            f"--ca-bundle {file} is neither a PEM nor a DER certificate. Export the proxy's root certificate again."
        ) from None
    return "\n".join(found)
