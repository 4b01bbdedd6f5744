"""From an account to the SDK's client: connect, check that it is readable geo-redundant, say what went wrong."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import HttpTransport, RequestsTransport
from azure.storage.blob import BlobServiceClient

from failover.storage.account import Account, BadSettings
from failover.storage.causes import describe_error, describe_status
from failover.storage.errors import BothEndpointsDown
from failover.storage.geo import GeoFailover

_READABLE: Final = frozenset({"RAGRS", "RAGZRS"})

_PROXY_DOWN: Final = "the proxy did not connect"
_UNTRUSTED: Final = "certificate is not trusted"


def make_transport(account: Account, *, timeout: float, verify: str | bool = True) -> RequestsTransport:
    """The SDK's own transport; `verify` as requests takes it.

    The stand-in is on this machine: a proxy that the environment names is not asked for it, one given by option is.
    """
    return RequestsTransport(
        connection_timeout=timeout,
        read_timeout=timeout,
        connection_verify=verify,
        use_env_settings=not account.stand_in,
    )


def connect(
    account: Account, policy: GeoFailover, transport: HttpTransport[Any, Any], *, proxy: str | None = None
) -> BlobServiceClient:
    """A client for the account's blobs whose reads survive by `policy`."""
    secondary = urlsplit(account.secondary)
    return BlobServiceClient(
        account.primary,
        credential=account.credential,
        secondary_hostname=secondary.netloc + secondary.path,
        transport=transport,
        retry_policy=policy,
        proxies=None if proxy is None else {"http": proxy, "https": proxy},
    )


def check_kind(service: BlobServiceClient, account: Account) -> str | None:
    """Ask the account whether its secondary can be read; None: it can.

    Returns a sentence for the user where the credential may not ask. Raises `BadSettings` where the account is of
    another kind, refuses the credential, or cannot be reached.
    """
    try:
        kind = str(service.get_account_information()["sku_name"])
    except AzureError as error:
        status = getattr(error, "status_code", None)
        code = str(getattr(error, "error_code", "") or "")
        if status == 403 and "AuthenticationFailed" not in code:
            return (
                "This credential may not ask for the account's kind: if that is not RA-GRS or RA-GZRS, the replica "
                "never comes."
            )
        raise BadSettings(f"Cannot use the {account}: {explain(error, account)}") from None
    if kind.rpartition("_")[2].upper() not in _READABLE:
        raise BadSettings(
            f"The {account} is {kind}: its secondary cannot be read. Change its redundancy to read-access "
            f"geo-redundant: az storage account update --name {account.name} --sku Standard_RAGRS"
        )
    return None


def explain(error: AzureError, account: Account) -> str:
    """What went wrong with a request and what to do about it, without any secret."""
    if isinstance(error, BothEndpointsDown):
        if _PROXY_DOWN in error.primary:
            return "the proxy did not connect. Is it running, and is --proxy right?"
        if _UNTRUSTED in error.primary:
            return f"{error.primary}. If a proxy is in between, give its certificate: --ca-bundle FILE."
        if "does not resolve" in error.primary:
            return f"{urlsplit(account.primary).netloc}: its name does not resolve. Is the account's name right?"
        return f"neither endpoint answered. Primary: {error.primary}. Secondary: {error.secondary}."
    if isinstance(error, HttpResponseError) and error.response is not None:
        answer: Any = error.response
        status = describe_status(answer.status_code, answer.reason, answer.headers)
        return status + _advice(answer.status_code, status, account)
    if isinstance(error, ClientAuthenticationError):
        if account.login:
            return "no Microsoft Entra ID sign-in worked. Run az login, or set the AZURE_* variables of azure-identity."
        return "the request could not be signed. Is the account key right?"
    return f"{describe_error(error)}."


def _advice(status: int, text: str, account: Account) -> str:
    if "AuthenticationFailed" in text:
        return ". The account refused the credential: is the key (or SAS) the account's, whole and not expired?"
    if status == 403 and account.login:
        return ". The identity needs the role Storage Blob Data Contributor on the account."
    if status == 403:
        return ". The credential lacks a permission. A SAS needs ss=b, srt=sco, sp=rwdlc; a firewall may also refuse."
    return "."
