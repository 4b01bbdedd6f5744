"""A proxy's certificate for the SDK to trust, beside the public authorities."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import certifi

from failover.storage.account import BadSettings

_BEGIN = b"-----BEGIN CERTIFICATE-----"


@contextmanager
def trusting(file: Path | None) -> Iterator[str | bool]:
    """What `connection_verify` takes so that the certificates in `file` (PEM or DER) are trusted too; None: True.

    The public authorities stay trusted, for what does not go through the proxy. Raises `BadSettings` where the file
    cannot be read or holds no certificate.
    """
    if file is None:
        yield True
        return
    pem = _as_pem(file)
    with tempfile.NamedTemporaryFile("w", suffix=".pem", encoding="ascii", delete=False) as bundle:
        bundle.write(Path(certifi.where()).read_text(encoding="ascii", errors="ignore"))
        bundle.write("\n" + pem)
    try:
        yield bundle.name
    finally:
        with suppress(OSError):
            Path(bundle.name).unlink()


def _as_pem(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise BadSettings(f"--ca-bundle {file}: {error.strerror or type(error).__name__}.") from None
    try:
        pem = data.decode("ascii") if _BEGIN in data else ssl.DER_cert_to_PEM_cert(data)
        ssl.create_default_context(cadata=pem)
    except (ssl.SSLError, ValueError):
        raise BadSettings(f"--ca-bundle {file} is neither a PEM nor a DER certificate.") from None
    return pem
