"""Settings -> account: every combination, and that nothing that comes in gets out as anything but what it should."""

from __future__ import annotations

import base64
import re
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from failover.demo.account import (
    ACCOUNT,
    AUTH_MODE,
    CONNECTION_STRING,
    KEY,
    SAS_TOKEN,
    SERVICE_ENDPOINT,
    SETTINGS,
    Account,
    BadSettings,
    find_account,
    secondary_of,
)
from failover.demo.client import connect, explain, make_transport
from failover.storage import BothEndpointsDown, GeoFailover

A_KEY = base64.b64encode(b"a key that nobody may see, sixty-four bytes long as Azure's are").decode()
A_SAS = "sv=2024-11-04&ss=b&srt=sco&sp=rwdlc&se=2030-01-01T00:00:00Z&sig=abcdEFGHsecretSIGNATURE%2F%3D"
AZURITE = "http://127.0.0.1:10000/devstoreaccount1"
PUBLIC = "https://mine.blob.core.windows.net"
BY_KEY = f"DefaultEndpointsProtocol=https;AccountName=mine;AccountKey={A_KEY};EndpointSuffix=core.windows.net"


def _found(given_: dict[str, str]) -> Account:
    account = find_account(given_)
    assert account is not None
    for text in (str(account), repr(account)):
        assert A_KEY not in text
        assert "SIGNATURE" not in text
    return account


def _refused(given_: dict[str, str]) -> str:
    with pytest.raises(BadSettings) as caught:
        find_account(given_)
    told = str(caught.value)
    assert told.isprintable()
    assert A_KEY not in told
    assert "SIGNATURE" not in told
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return told


# --- what is good ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("given_", [{}, dict.fromkeys(SETTINGS, ""), dict.fromkeys(SETTINGS, "  "), {"PATH": "/bin"}])
def test_nothing_set_is_no_account(given_: dict[str, str]) -> None:
    assert find_account(given_) is None
    assert find_account(dict.fromkeys(SETTINGS)) is None


@pytest.mark.parametrize(
    ("given_", "primary", "secondary"),
    [
        ({CONNECTION_STRING: BY_KEY}, PUBLIC, "https://mine-secondary.blob.core.windows.net"),
        ({CONNECTION_STRING: f'"{BY_KEY};"'}, PUBLIC, "https://mine-secondary.blob.core.windows.net"),
        (
            {CONNECTION_STRING: f" {BY_KEY.replace(';', ' ; ')} "},
            PUBLIC,
            "https://mine-secondary.blob.core.windows.net",
        ),
        (
            {CONNECTION_STRING: f"accountname=mine;ACCOUNTKEY={A_KEY};EndpointSuffix=core.chinacloudapi.cn"},
            "https://mine.blob.core.chinacloudapi.cn",
            "https://mine-secondary.blob.core.chinacloudapi.cn",
        ),
        (
            {CONNECTION_STRING: f"BlobEndpoint={PUBLIC}/;QueueEndpoint=x;SharedAccessSignature={A_SAS}"},
            PUBLIC,
            "https://mine-secondary.blob.core.windows.net",
        ),
        (
            {CONNECTION_STRING: f"AccountName=mine;AccountKey={A_KEY};BlobEndpoint={AZURITE};"},
            AZURITE,
            f"{AZURITE}-secondary",
        ),
        (
            {CONNECTION_STRING: f"{BY_KEY};BlobEndpoint={PUBLIC};BlobSecondaryEndpoint=https://else.where/"},
            PUBLIC,
            "https://else.where",
        ),
        ({CONNECTION_STRING: "UseDevelopmentStorage=true"}, AZURITE, f"{AZURITE}-secondary"),
        ({CONNECTION_STRING: "UseDevelopmentStorage=TRUE;"}, AZURITE, f"{AZURITE}-secondary"),
        ({ACCOUNT: "mine", KEY: A_KEY}, PUBLIC, "https://mine-secondary.blob.core.windows.net"),
        ({ACCOUNT: "mine", KEY: A_KEY, AUTH_MODE: "Key"}, PUBLIC, "https://mine-secondary.blob.core.windows.net"),
        ({ACCOUNT: " mine ", SAS_TOKEN: f"?{A_SAS}"}, PUBLIC, "https://mine-secondary.blob.core.windows.net"),
        ({SERVICE_ENDPOINT: f"{PUBLIC}/", SAS_TOKEN: A_SAS}, PUBLIC, "https://mine-secondary.blob.core.windows.net"),
        ({SERVICE_ENDPOINT: AZURITE, KEY: A_KEY}, AZURITE, f"{AZURITE}-secondary"),
        (
            {SERVICE_ENDPOINT: "http://[::1]:10000/mine", KEY: A_KEY},
            "http://[::1]:10000/mine",
            "http://[::1]:10000/mine-secondary",
        ),
        ({ACCOUNT: "mine", SERVICE_ENDPOINT: "https://a.b", KEY: A_KEY}, "https://a.b", "https://a-secondary.b"),
    ],
)
def test_an_account(given_: dict[str, str], primary: str, secondary: str) -> None:
    account = _found(given_)
    assert (account.primary, account.secondary) == (primary, secondary)
    assert not account.stand_in
    assert not account.login


def test_how_it_signs_in() -> None:
    by_key = _found({CONNECTION_STRING: BY_KEY}).credential
    assert isinstance(by_key, AzureNamedKeyCredential)
    assert tuple(by_key.named_key) == ("mine", A_KEY)
    by_sas = _found({ACCOUNT: "mine", SAS_TOKEN: f"?{A_SAS}"}).credential
    assert isinstance(by_sas, AzureSasCredential)
    assert by_sas.signature == A_SAS
    both = _found({CONNECTION_STRING: f"{BY_KEY};SharedAccessSignature={A_SAS}"}).credential
    assert isinstance(both, AzureNamedKeyCredential)
    by_login = _found({ACCOUNT: "mine", AUTH_MODE: " LOGIN "})
    assert by_login.login
    assert type(by_login.credential).__name__ == "DefaultAzureCredential"


@pytest.mark.parametrize(
    "more",
    [
        {ACCOUNT: "mine"},
        {KEY: A_KEY},
        {SERVICE_ENDPOINT: f"{PUBLIC}/"},
        {AUTH_MODE: "key"},
        {ACCOUNT: "mine", KEY: A_KEY, SERVICE_ENDPOINT: PUBLIC},
        {ACCOUNT: "  ", KEY: ""},
    ],
)
def test_a_connection_string_and_variables_that_agree(more: dict[str, str]) -> None:
    assert _found({CONNECTION_STRING: BY_KEY, **more}).primary == PUBLIC


@pytest.mark.parametrize(
    ("primary", "secondary"),
    [
        ("https://mine.blob.core.windows.net", "https://mine-secondary.blob.core.windows.net"),
        ("https://mine.z12.blob.storage.azure.net", "https://mine-secondary.z12.blob.storage.azure.net"),
        ("https://mine-ipv6.blob.core.windows.net", "https://mine-secondary-ipv6.blob.core.windows.net"),
        ("https://mine-dualstack.blob.core.windows.net", "https://mine-secondary-dualstack.blob.core.windows.net"),
        ("http://localhost:10000", "http://localhost-secondary:10000"),
        ("http://mine.blob.localhost:10000", "http://mine-secondary.blob.localhost:10000"),
        (AZURITE, f"{AZURITE}-secondary"),
    ],
)
def test_the_secondary_of_a_primary(primary: str, secondary: str) -> None:
    assert secondary_of(primary) == secondary


# --- what is bad ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        # A malformed connection string.
        ({CONNECTION_STRING: "x"}, [CONNECTION_STRING, "malformed", "Access keys"]),
        ({CONNECTION_STRING: A_KEY}, [CONNECTION_STRING, "malformed"]),
        ({CONNECTION_STRING: ";;"}, ["neither AccountName nor BlobEndpoint"]),
        ({CONNECTION_STRING: f"AccountKey={A_KEY}"}, ["neither AccountName nor BlobEndpoint"]),
        ({CONNECTION_STRING: "AccountName=mine"}, ["neither AccountKey nor SharedAccessSignature"]),
        ({CONNECTION_STRING: f"AccountName=;AccountKey={A_KEY}"}, ["malformed"]),
        ({CONNECTION_STRING: f"AccountName={A_KEY};AccountKey={A_KEY}"}, ["AccountName", "3 to 24"]),
        ({CONNECTION_STRING: f"AccountName={A_KEY};AccountKey={A_KEY};BlobEndpoint={PUBLIC}"}, ["3 to 24"]),
        ({CONNECTION_STRING: f"{BY_KEY};DefaultEndpointsProtocol=ftp"}, ["usable endpoint", "https://ACCOUNT"]),
        ({CONNECTION_STRING: f"{BY_KEY};EndpointSuffix=core windows"}, ["usable endpoint"]),
        ({CONNECTION_STRING: f"{BY_KEY};BlobEndpoint=mine.blob.core.windows.net"}, ["BlobEndpoint", "https://"]),
        ({CONNECTION_STRING: f"BlobEndpoint={PUBLIC}?{A_SAS};SharedAccessSignature={A_SAS}"}, ["usable endpoint"]),
        ({CONNECTION_STRING: f"{BY_KEY};BlobSecondaryEndpoint=?"}, ["BlobSecondaryEndpoint"]),
        # Keys and tokens.
        ({CONNECTION_STRING: "AccountName=mine;AccountKey=abc"}, ["AccountKey", "not base64", "copy"]),
        ({ACCOUNT: "mine", KEY: "abcde"}, [KEY, "not base64"]),
        ({ACCOUNT: "mine", KEY: f"{A_KEY[:20]} {A_KEY[20:]}"}, [KEY, "not base64"]),
        ({ACCOUNT: "mine", KEY: "schlüssel"}, [KEY, "not base64"]),
        ({ACCOUNT: "mine", SAS_TOKEN: "sv=2024"}, [SAS_TOKEN, "sig="]),
        ({ACCOUNT: "mine", SAS_TOKEN: f"{PUBLIC}/?{A_SAS}"}, [SAS_TOKEN, "sig="]),
        ({ACCOUNT: "mine", SAS_TOKEN: A_SAS + "\n&x=y"}, [SAS_TOKEN]),
        # Endpoints.
        ({SERVICE_ENDPOINT: "mine", KEY: A_KEY}, [SERVICE_ENDPOINT, "https://ACCOUNT"]),
        ({SERVICE_ENDPOINT: f"https://:{A_KEY}@mine.blob.core.windows.net", KEY: A_KEY}, [SERVICE_ENDPOINT]),
        ({SERVICE_ENDPOINT: f"{PUBLIC}:0", KEY: A_KEY}, [SERVICE_ENDPOINT]),
        ({SERVICE_ENDPOINT: f"{PUBLIC}:99999", KEY: A_KEY}, [SERVICE_ENDPOINT]),
        ({SERVICE_ENDPOINT: "https://[::1", KEY: A_KEY}, [SERVICE_ENDPOINT]),
        ({SERVICE_ENDPOINT: f"https://{'a' * 60}.net", KEY: A_KEY}, [SERVICE_ENDPOINT]),
        ({SERVICE_ENDPOINT: "https://mine..net", KEY: A_KEY}, [SERVICE_ENDPOINT]),
        ({SERVICE_ENDPOINT: f"{PUBLIC}/\x1b[2J", KEY: A_KEY}, [SERVICE_ENDPOINT]),
        ({SERVICE_ENDPOINT: "http://127.0.0.1:10000", KEY: A_KEY}, ["account's name", "devstoreaccount1"]),
        # A semicolon was forgotten: the key would be part of the endpoint, which is shown.
        ({CONNECTION_STRING: f"AccountKey=eA==;BlobEndpoint={AZURITE}AccountKey={A_KEY}"}, ["BlobEndpoint", "usable"]),
        ({CONNECTION_STRING: f"{BY_KEY};BlobSecondaryEndpoint={PUBLIC}/AccountKey={A_KEY}"}, ["BlobSecondaryEndpoint"]),
        # Incomplete.
        ({KEY: A_KEY}, [KEY, ACCOUNT]),
        ({SAS_TOKEN: A_SAS}, [SAS_TOKEN, ACCOUNT]),
        ({AUTH_MODE: "login"}, [AUTH_MODE, ACCOUNT]),
        ({ACCOUNT: "mine"}, [KEY, SAS_TOKEN, f"{AUTH_MODE}=login"]),
        ({ACCOUNT: "mine", AUTH_MODE: "key"}, [KEY, "not set"]),
        ({ACCOUNT: "mine", AUTH_MODE: "key", SAS_TOKEN: A_SAS}, [KEY, "not set"]),
        ({ACCOUNT: A_KEY, KEY: A_KEY}, [ACCOUNT, "3 to 24"]),
        ({ACCOUNT: "Mine", KEY: A_KEY}, [ACCOUNT, "lower-case"]),
        # Contradictions.
        ({ACCOUNT: "mine", KEY: A_KEY, SAS_TOKEN: A_SAS}, [KEY, SAS_TOKEN, "unset one"]),
        ({ACCOUNT: "mine", KEY: A_KEY, AUTH_MODE: "magic"}, [AUTH_MODE, "login or key"]),
        ({CONNECTION_STRING: BY_KEY, AUTH_MODE: "magic"}, [AUTH_MODE, "login or key"]),
        ({CONNECTION_STRING: BY_KEY, ACCOUNT: "other"}, [CONNECTION_STRING, ACCOUNT, "disagree"]),
        ({CONNECTION_STRING: BY_KEY, KEY: A_KEY[::-1]}, [CONNECTION_STRING, KEY, "disagree"]),
        ({CONNECTION_STRING: BY_KEY, SAS_TOKEN: A_SAS}, [CONNECTION_STRING, SAS_TOKEN, "disagree"]),
        ({CONNECTION_STRING: BY_KEY, SERVICE_ENDPOINT: "https://a.b"}, [CONNECTION_STRING, SERVICE_ENDPOINT]),
        ({CONNECTION_STRING: BY_KEY, AUTH_MODE: "login"}, [CONNECTION_STRING, AUTH_MODE, "disagree"]),
        ({SERVICE_ENDPOINT: AZURITE, AUTH_MODE: "login"}, [AUTH_MODE, "https"]),
    ],
)
def test_what_is_wrong_is_said(given_: dict[str, str], words: list[str]) -> None:
    told = _refused(given_)
    for word in words:
        assert word in told


# --- any input ------------------------------------------------------------------------------------------------

_PIECES = st.sampled_from(
    [
        "",
        " ",
        "mine",
        A_KEY,
        A_SAS,
        "?",
        "login",
        "key",
        "true",
        PUBLIC,
        AZURITE,
        "http://",
        "https://",
        "AccountName=",
        "AccountKey=",
        "BlobEndpoint=",
        "BlobSecondaryEndpoint=",
        "SharedAccessSignature=",
        "EndpointSuffix=",
        "DefaultEndpointsProtocol=",
        "UseDevelopmentStorage=",
        "sig=",
        ";",
        "=",
        "/",
        ":",
        "@",
        "[",
        "]",
        "%",
        "#",
        '"',
        "\n",
        "\x1b",
        "\x00",
        "ü",
        "\ud800",
        "127.0.0.1",
        "localhost",
        ".",
        "..",
        "65536",
    ]
)
_VALUES = st.lists(_PIECES, max_size=8).map("".join) | st.text(max_size=20)


@settings(max_examples=700, deadline=None)
@given(given_=st.dictionaries(st.sampled_from(SETTINGS), _VALUES | st.none()))
@example(given_={SERVICE_ENDPOINT: "http://localhost:1", KEY: A_KEY})
@example(given_={SERVICE_ENDPOINT: "https://" + "a" * 50 + ".net", KEY: A_KEY})
def test_any_settings_give_an_account_or_none_or_a_sentence(given_: dict[str, Any]) -> None:
    try:
        account = find_account(given_)
    except BadSettings as problem:
        told = [str(problem), repr(problem)]
        assert re.fullmatch(r"[ -~]{10,250}", told[0])
    else:
        if account is None:
            assert not any((value or "").strip() for value in given_.values())
            return
        told = [str(account), repr(account)]
        assert told[0].isascii()
        assert told[0].isprintable()
        for url in (account.primary, account.secondary):
            parts = urlsplit(url)
            assert parts.scheme in ("http", "https")
            assert parts.hostname
            assert parts.port is None or 0 < parts.port < 65536
            assert not parts.query
            assert "@" not in url
        assert account.primary != account.secondary or "BlobSecondaryEndpoint" in (given_[CONNECTION_STRING] or "")
        with make_transport(account, timeout=1.0) as transport:
            connect(account, GeoFailover(), transport)
    for text in told:
        for secret in (A_KEY, "SIGNATURE"):
            assert secret not in text


# --- what is said about what went wrong -----------------------------------------------------------------------


class _Answer:
    def __init__(self, status: int, code: str = "") -> None:
        self.status_code, self.reason, self.headers = status, "Reason", {"x-ms-error-code": code}
        self.content_type = "application/xml"

    def text(self) -> str:
        return f"<Error>{A_KEY} {A_SAS}</Error>"

    body = text


def _explained(error: Any, given_: dict[str, str] | None = None) -> str:
    told = explain(error, _found(given_ or {CONNECTION_STRING: BY_KEY}))
    assert told.isprintable()
    assert A_KEY not in told
    assert "SIGNATURE" not in told
    return told


@pytest.mark.parametrize(
    ("status", "code", "given_", "words"),
    [
        (403, "AuthenticationFailed", {CONNECTION_STRING: BY_KEY}, ["403 AuthenticationFailed", "is the key"]),
        (403, "AuthorizationFailure", {CONNECTION_STRING: BY_KEY}, ["the key the account's", "firewall"]),
        (403, "AuthorizationPermissionMismatch", {ACCOUNT: "mine", SAS_TOKEN: A_SAS}, ["permission", "sp=rwdlc"]),
        (403, "AuthorizationPermissionMismatch", {ACCOUNT: "mine", AUTH_MODE: "login"}, ["Data Contributor"]),
        (401, "InvalidAuthenticationInfo", {ACCOUNT: "mine", AUTH_MODE: "login"}, ["401", "tenant"]),
        (401, "NoAuthenticationInformation", {ACCOUNT: "mine", SAS_TOKEN: A_SAS}, ["401", "not expired"]),
        (404, "", {CONNECTION_STRING: BY_KEY}, ["404 Reason."]),
        (503, "Server\x1b[2JBusy", {CONNECTION_STRING: BY_KEY}, ["503 Server?[2JBusy."]),
    ],
)
def test_an_answer_is_explained(status: int, code: str, given_: dict[str, str], words: list[str]) -> None:
    answer: Any = _Answer(status, code)
    for kind in (HttpResponseError, ClientAuthenticationError):
        told = _explained(kind(f"{A_KEY}", response=answer), given_)
        for word in words:
            assert word in told


def test_causes_with_a_remedy_name_it() -> None:
    down = "the proxy did not connect"
    untrusted = "its certificate is not trusted (self-signed certificate)"
    nowhere = "its name does not resolve"
    for cause, remedy in ((down, "--proxy"), (untrusted, "--ca-bundle FILE"), (nowhere, "account's name right")):
        assert remedy in _explained(BothEndpointsDown(cause, cause))
    told = _explained(BothEndpointsDown("503 ServerBusy", "connection refused"))
    assert "primary: 503 ServerBusy; secondary: connection refused." in told
    assert _explained(ServiceRequestTimeoutError(f"https://x?{A_SAS}")) == "no connection."
    assert _explained(ServiceRequestError(f"https://x?{A_SAS}")) == "no connection."
    assert "az login" in _explained(ClientAuthenticationError(A_KEY), {ACCOUNT: "mine", AUTH_MODE: "login"})
    assert "key right" in _explained(ClientAuthenticationError(A_KEY))
