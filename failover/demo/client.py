"""From an account to the SDK's client: connect, check its redundancy, explain errors to the user."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError
from azure.core.pipeline.transport import HttpTransport, RequestsTransport
from azure.storage.blob import BlobServiceClient, LinearRetry

from failover.demo.account import Account, BadSettings
from failover.storage.causes import describe_status, failure_cause
from failover.storage.errors import BothEndpointsDown
from failover.storage.geo import GeoFailover
from failover.storage.preflight import preflight

_READABLE: Final = frozenset({"RAGRS", "RAGZRS"})

_PROXY_DOWN: Final = "the proxy did not connect"
_UNTRUSTED: Final = "certificate is not trusted"


def make_transport(account: Account, *, timeout: float, verify: str | bool = True) -> RequestsTransport:
    """Return the SDK's own transport for `account`.

    The stand-in runs on this machine, so a proxy that the environment names is not used for it. One that is given to
    `connect` is.

    Args:
        account: Where the requests will go.
        timeout: Connect and read time-out, in seconds.
        verify: Which certificates to trust, as requests takes it.
    """
    return RequestsTransport(
        connection_timeout=timeout,
        read_timeout=timeout,
        connection_verify=verify,
        use_env_settings=not account.stand_in,
    )


def connect(
    account: Account, policy: GeoFailover | LinearRetry, transport: HttpTransport[Any, Any], *, proxy: str | None = None
) -> BlobServiceClient:
    """Return a client for the account's blobs.

    Args:
        account: The account.
        policy: The client's retry policy. With `GeoFailover` its reads fail over to the secondary.
        transport: Sends the client's requests.
        proxy: URL of the proxy to use, or None.
    """
    secondary = urlsplit(account.secondary)
    return BlobServiceClient(
        account.primary,
        credential=account.credential,
        secondary_hostname=secondary.netloc + secondary.path,
        transport=transport,
        retry_policy=policy,
        proxies=None if proxy is None else {"http": proxy, "https": proxy},
    )


def check_redundancy(service: BlobServiceClient, account: Account, *, timeout: float) -> str | None:
    """Ask the account whether its secondary can be read.

    Args:
        service: A client of the account.
        account: The account.
        timeout: Seconds for each question.

    Returns:
        None where it can; a sentence for the user where that is in doubt.

    Raises:
        BadSettings: The account has another redundancy, refuses the credential, or cannot be reached.
    """
    found = preflight(service, timeout=timeout)
    error = found.primary_error
    if error is not None and found.kind is None:
        response: Any = getattr(error, "response", None)
        # The header, since the SDK's own code is an enum whose text depends on the version of Python.
        code = "" if response is None else str(response.headers.get("x-ms-error-code") or "")
        if response is not None and response.status_code == 403 and "AuthenticationFailed" not in code:
            return (
                "This credential may not ask for the account's kind: if that is not RA-GRS or RA-GZRS, the replica "
                "never comes."
            )
        signs = not isinstance(error, ClientAuthenticationError)
        if signs and response is None and found.secondary_error is not None:
            error = BothEndpointsDown(error.message, found.secondary_error.message)
        raise BadSettings(f"Cannot use the {account}: {explain(error, account)}")
    if not found.kind:
        raise BadSettings(f"The {account} does not say which kind it is. Is that the endpoint of a storage account?")
    if found.kind.rpartition("_")[2].upper() not in _READABLE:
        raise BadSettings(
            f"The {account} is {found.kind}: its secondary cannot be read. Change its redundancy to read-access "
            f"geo-redundant: az storage account update --name {account.name} --sku Standard_RAGRS"
        )
    # Without its primary the demonstration ends soon, and says so itself.
    return None if error is not None else " ".join(found.problems) or None


def explain(error: AzureError, account: Account) -> str:
    """Return what went wrong with a request and what to do about it, without any secret."""
    if isinstance(error, BothEndpointsDown):
        return _known_cause(error.primary, account) or (f"primary: {error.primary}; secondary: {error.secondary}.")
    if isinstance(error, HttpResponseError) and error.response is not None:
        response: Any = error.response
        status = describe_status(response.status_code, response.reason, response.headers)
        return status + _advice(response.status_code, status, account)
    if isinstance(error, ClientAuthenticationError):
        if account.login:
            return "no Microsoft Entra ID sign-in worked. Run az login, or set the AZURE_* variables of azure-identity."
        return "the request could not be signed. Is the account key right?"
    cause = failure_cause(error)
    return _known_cause(cause, account) or f"{cause}."


def _known_cause(cause: str, account: Account) -> str | None:
    """Return the sentence for a cause that has a remedy, or None."""
    if _PROXY_DOWN in cause:
        return "the proxy did not connect. Is it running, and is --proxy right?"
    if _UNTRUSTED in cause:
        return f"{cause}. If a proxy is in between, give its certificate: --ca-bundle FILE."
    if "does not resolve" in cause:
        return f"{urlsplit(account.primary).netloc}: its name does not resolve. Is the account's name right?"
    return None


def _advice(status: int, text: str, account: Account) -> str:
    """Return how to go on after a refused request: the end of a sentence, with its period."""
    if account.login and status in (401, 403):
        return ". The identity needs the role Storage Blob Data Contributor on the account, in the account's tenant."
    if status == 401 or "AuthenticationFailed" in text:
        return ". The account refused the credential: is the key (or SAS) the account's, whole and not expired?"
    if status == 403 and isinstance(account.credential, AzureNamedKeyCredential):
        return ". The account refused: is the key the account's? A firewall may also refuse."
    if status == 403:
        return ". The credential lacks a permission. A SAS needs ss=b, srt=sco, sp=rwdlc; a firewall may also refuse."
    return "."
