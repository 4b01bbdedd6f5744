"""The account that the settings describe: its endpoints and credential, checked before anything is sent."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

from failover.standin import StandIn

CONNECTION_STRING: Final = "AZURE_STORAGE_CONNECTION_STRING"
ACCOUNT: Final = "AZURE_STORAGE_ACCOUNT"
KEY: Final = "AZURE_STORAGE_KEY"
SAS_TOKEN: Final = "AZURE_STORAGE_SAS_TOKEN"  # noqa: S105 (a setting's name)
AUTH_MODE: Final = "AZURE_STORAGE_AUTH_MODE"
SERVICE_ENDPOINT: Final = "AZURE_STORAGE_SERVICE_ENDPOINT"
SETTINGS: Final = (CONNECTION_STRING, ACCOUNT, KEY, SAS_TOKEN, AUTH_MODE, SERVICE_ENDPOINT)

# The emulator's account, the same on every machine: https://learn.microsoft.com/azure/storage/common/storage-use-azurite
_EMULATOR_ACCOUNT: Final = "devstoreaccount1"
_EMULATOR_KEY: Final = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
_EMULATOR: Final = f"http://127.0.0.1:10000/{_EMULATOR_ACCOUNT}"

_FEATURES: Final = ("-ipv6", "-dualstack")  # may follow the account's name in a host name; "-secondary" goes before


class BadSettings(Exception):  # noqa: N818 (it names what is bad)
    """What is wrong with the settings and what to do about it, in one line without any secret."""


@dataclass(frozen=True)
class Account:
    """An account whose settings make sense. Nothing has been sent to it yet.

    Attributes:
        name: The account's name.
        primary: URL of the primary endpoint, without a slash at the end.
        secondary: URL of the secondary endpoint, without a slash at the end.
        credential: What the SDK's clients take as `credential`.
        login: Whether the credential is one of Microsoft Entra ID.
        stand_in: Whether it is the stand-in account on this machine.
        joined: Whether another process has started that.
    """

    name: str
    primary: str
    secondary: str
    credential: Any = field(repr=False)
    login: bool = False
    stand_in: bool = False
    joined: bool = False

    def __str__(self) -> str:
        if self.joined:
            return "stand-in account on 127.0.0.1, shared with another process"
        if self.stand_in:
            return "stand-in account on 127.0.0.1 (no Azure account is set)"
        return f"account {self.name} at {urlsplit(self.primary).netloc}"


def find_account(settings: Mapping[str, str | None]) -> Account | None:
    """Return the account that `settings` describe, or None where none of the names in `SETTINGS` is set.

    Raises:
        BadSettings: The settings are malformed or incomplete, or contradict each other.
    """
    given = {name: value for name in SETTINGS if (value := (settings.get(name) or "").strip())}
    if given.get(AUTH_MODE, "login").lower() not in ("key", "login"):
        raise BadSettings(f"{AUTH_MODE} must be login or key.")
    if CONNECTION_STRING in given:
        return _from_connection_string(given)
    if not given:
        return None
    return _from_parts(given)


def start_stand_in(replication_lag: float) -> StandIn:
    """Start the stand-in account, whose secondary is `replication_lag` seconds behind.

    Raises:
        BadSettings: No port of this machine is free.
    """
    try:
        return StandIn(replication_lag)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise BadSettings(f"The stand-in account cannot open a port on 127.0.0.1: {why}.") from None


def stand_in_account(connection_string: str, *, joined: bool = False) -> Account:
    """Return a stand-in as an account to connect to."""
    account = _from_connection_string({CONNECTION_STRING: connection_string})
    return replace(account, stand_in=True, joined=joined)


def _from_parts(given: Mapping[str, str]) -> Account:
    endpoint = given.get(SERVICE_ENDPOINT)
    if endpoint is None and ACCOUNT not in given:
        raise BadSettings(f"{next(iter(given))} is set but {ACCOUNT} is not: set both or neither.")
    if endpoint is None:
        name = _checked_name(ACCOUNT, given[ACCOUNT])
        primary = _public_url(ACCOUNT, name)
    else:
        primary = _checked_url(SERVICE_ENDPOINT, endpoint)
        name = _checked_name(ACCOUNT, given[ACCOUNT]) if ACCOUNT in given else _name_in(primary)
    mode = given.get(AUTH_MODE, "").lower()
    if mode == "login":
        return Account(name, primary, secondary_of(primary), _sign_in(primary), login=True)
    if KEY in given and SAS_TOKEN in given:
        raise BadSettings(f"{KEY} and {SAS_TOKEN} are both set: unset one of them.")
    if KEY in given:
        credential: Any = AzureNamedKeyCredential(name, _checked_key(KEY, given[KEY]))
    elif mode == "key":
        raise BadSettings(f"{AUTH_MODE} is key but {KEY} is not set.")
    elif SAS_TOKEN in given:
        credential = AzureSasCredential(_checked_sas(SAS_TOKEN, given[SAS_TOKEN]))
    else:
        raise BadSettings(
            f"The account {name} is set but not how to sign in: set {KEY}, {SAS_TOKEN} or {AUTH_MODE}=login."
        )
    return Account(name, primary, secondary_of(primary), credential)


def _from_connection_string(given: Mapping[str, str]) -> Account:
    parts = _parse(given[CONNECTION_STRING])
    if parts.get("usedevelopmentstorage", "").lower() == "true":
        parts = {"accountname": _EMULATOR_ACCOUNT, "accountkey": _EMULATOR_KEY, "blobendpoint": _EMULATOR, **parts}
    endpoint, name = parts.get("blobendpoint"), parts.get("accountname")
    if name:
        name = _checked_name(f"AccountName in {CONNECTION_STRING}", name)
    if endpoint:
        primary = _checked_url(f"BlobEndpoint in {CONNECTION_STRING}", endpoint)
    elif name:
        scheme, suffix = parts.get("defaultendpointsprotocol", "https"), parts.get("endpointsuffix", "core.windows.net")
        primary = _public_url(CONNECTION_STRING, name, scheme, suffix)
    else:
        raise BadSettings(f"{CONNECTION_STRING} is malformed: it has neither AccountName nor BlobEndpoint.")
    name = name or _name_in(primary)
    key, sas = parts.get("accountkey"), parts.get("sharedaccesssignature")
    for setting, here in ((ACCOUNT, name), (KEY, key), (SAS_TOKEN, sas), (SERVICE_ENDPOINT, primary)):
        there = given.get(setting)
        if there is not None and there.lstrip("?").rstrip("/") != (here or "").lstrip("?").rstrip("/"):
            raise BadSettings(f"{CONNECTION_STRING} and {setting} are both set and disagree: unset one of them.")
    if given.get(AUTH_MODE, "").lower() == "login":
        raise BadSettings(f"{CONNECTION_STRING} and {AUTH_MODE}=login disagree on how to sign in: unset one of them.")
    if key:
        credential: Any = AzureNamedKeyCredential(name, _checked_key(f"AccountKey in {CONNECTION_STRING}", key))
    elif sas:
        credential = AzureSasCredential(_checked_sas(f"SharedAccessSignature in {CONNECTION_STRING}", sas))
    else:
        raise BadSettings(f"{CONNECTION_STRING} is malformed: it has neither AccountKey nor SharedAccessSignature.")
    second = parts.get("blobsecondaryendpoint")
    secondary = (
        _checked_url(f"BlobSecondaryEndpoint in {CONNECTION_STRING}", second) if second else secondary_of(primary)
    )
    return Account(name, primary, secondary, credential)


def _parse(text: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in filter(None, (each.strip() for each in text.strip().strip('"').split(";"))):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise BadSettings(
                f"{CONNECTION_STRING} is malformed: it must be Name=value pairs with semicolons between them. "
                "Copy it whole from the portal (Security + networking > Access keys)."
            )
        parts[name.strip().lower()] = value.strip()
    return parts


def secondary_of(primary: str) -> str:
    """Return the secondary endpoint of a primary one: `-secondary` follows the account's name."""
    parts = urlsplit(primary)
    if parts.path.strip("/"):
        return primary + "-secondary"
    host, colon, port = parts.netloc.partition(":")
    label, dot, rest = host.partition(".")
    feature = next((each for each in _FEATURES if label.endswith(each)), "")
    return f"{parts.scheme}://{label.removesuffix(feature)}-secondary{feature}{dot}{rest}{colon}{port}"


def _public_url(setting: str, name: str, scheme: str = "https", suffix: str = "core.windows.net") -> str:
    return _checked_url(setting, f"{scheme}://{name}.blob.{suffix}")


def _checked_name(setting: str, name: str) -> str:
    # The name itself is not shown: a key that was put into the wrong setting would be.
    if not re.fullmatch(r"[a-z0-9]{3,24}", name):
        raise BadSettings(f"{setting} is no account name: those have 3 to 24 lower-case letters and digits.")
    return name


def _checked_url(setting: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        good = parts.scheme in ("http", "https") and (parts.port is None or parts.port > 0) and _is_host(host)
    except ValueError:
        good = False
    else:
        # Of a path no more than accounts' names need: endpoints are shown, and where a semicolon is forgotten in a
        # connection string, the account's key follows.
        good = (
            good
            and "@" not in url
            and re.fullmatch(r"[A-Za-z]+://[^/?#\\]+(/[\w.~-]{0,63})*", url, re.ASCII) is not None
        )
    if not good:
        raise BadSettings(
            f"{setting} holds no usable endpoint: it must look like https://ACCOUNT.blob.core.windows.net."
        )
    if _is_address(host) and not parts.path.strip("/"):
        raise BadSettings(f"{setting} must end in the account's name, as in http://127.0.0.1:10000/devstoreaccount1.")
    return url.rstrip("/")


def _is_host(host: str) -> bool:
    # A label holds 63 characters at most, and the first gets "-secondary" behind it.
    named = re.fullmatch(r"[A-Za-z0-9_-]{1,50}(\.[A-Za-z0-9_-]{1,63})*\.?", host)
    return _is_address(host) or (named is not None and len(host) <= 240)


def _is_address(host: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False


def _name_in(url: str) -> str:
    parts = urlsplit(url)
    return parts.path.strip("/").partition("/")[0] or (parts.hostname or "").partition(".")[0]


def _checked_key(setting: str, key: str) -> str:
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        raise BadSettings(f"{setting} is not base64: copy the account key whole, with the = at its end.") from None
    return key


def _checked_sas(setting: str, sas: str) -> str:
    token = sas.lstrip("?")
    if not re.fullmatch(r"[A-Za-z]+=[!-~]+", token) or not parse_qs(token).get("sig"):
        raise BadSettings(f"{setting} is no shared access signature: it must hold sig=... (copy the token whole).")
    return token


def _sign_in(primary: str) -> Any:
    if not primary.startswith("https://"):
        raise BadSettings(f"{AUTH_MODE}=login needs an https endpoint: tokens are not sent in the clear.")
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise BadSettings(
            f"{AUTH_MODE}=login needs the package azure-identity: pip install azure-identity (in the same environment)."
        ) from None
    try:
        return DefaultAzureCredential()
    except (ValueError, OSError):
        # Its message may quote the variable.
        raise BadSettings(
            f"{AUTH_MODE}=login: azure-identity does not take its AZURE_* variables. Check or unset them, and az login."
        ) from None
