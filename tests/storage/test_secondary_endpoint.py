"""Where the secondary is: found from the primary's address, named by the user, or unknown, which is said once."""

from __future__ import annotations

from typing import Any, Final

import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError

from failover.storage import BothEndpointsDown, NotReplicated
from tests.never_worse.world import PRIMARY, SECONDARY, Fault
from tests.storage.both_kinds import geo_failover
from tests.storage.virtual import FOREVER, FRESH, KINDS, OLD, Lab, P

# The endpoints of accounts, as Azure names them.
KNOWN: Final = {
    "public cloud": ("account.blob.core.windows.net", "account-secondary.blob.core.windows.net"),
    "DNS zone": ("mine.z12.blob.storage.azure.net", "mine-secondary.z12.blob.storage.azure.net"),
    "DNS zone of one digit": ("mine.z4.blob.storage.azure.net", "mine-secondary.z4.blob.storage.azure.net"),
    "private link": ("mine.privatelink.blob.core.windows.net", "mine-secondary.privatelink.blob.core.windows.net"),
    "China": ("mine.blob.core.chinacloudapi.cn", "mine-secondary.blob.core.chinacloudapi.cn"),
    "US government": ("mine.blob.core.usgovcloudapi.net", "mine-secondary.blob.core.usgovcloudapi.net"),
    "Azure Stack": ("mine.blob.east.stack.example.com", "mine-secondary.blob.east.stack.example.com"),
    "IPv6": ("mine-ipv6.blob.core.windows.net", "mine-secondary-ipv6.blob.core.windows.net"),
    "dual stack": ("mine-dualstack.blob.core.windows.net", "mine-secondary-dualstack.blob.core.windows.net"),
}

# Addresses that tell no secondary.
UNKNOWN: Final = {
    "custom domain": "files.example.com",
    "a secondary as primary": "account-secondary.blob.core.windows.net",
    "a secondary of a DNS zone": "mine-secondary.z12.blob.storage.azure.net",
    "an address": "10.0.0.4",
}


def _lab(kind: str, primary: str, secondary: str | None, *faults: Fault, **settings: Any) -> Lab:
    settings.setdefault("credential", None)
    hosts = {primary: PRIMARY} if secondary is None else {primary: PRIMARY, secondary: SECONDARY}
    return Lab(kind, *faults, url=f"https://{primary}", hosts=hosts, **settings)


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "failover.storage" and each.levelno >= 30]


@pytest.mark.parametrize(("primary", "secondary"), KNOWN.values(), ids=list(KNOWN))
@pytest.mark.parametrize("kind", KINDS)
def test_the_secondary_is_found(kind: str, primary: str, secondary: str, caplog: pytest.LogCaptureFixture) -> None:
    # With the account's name the SDK takes the public cloud's secondary for any account's.
    key = {"account_name": primary.partition(".")[0].partition("-")[0], "account_key": "a2V5"}
    # Of a private link's it tells the public name, which is as good.
    for credential in (None,) if ".privatelink." in primary else (None, key):
        _check_outage(kind, primary, secondary, credential)
    assert _warnings(caplog) == []


def _check_outage(kind: str, primary: str, secondary: str, credential: Any) -> None:
    with _lab(kind, primary, secondary, Fault(0.0, FOREVER, P, "refuse"), credential=credential) as lab:
        assert lab.read("old") == OLD
        assert lab.trail == "PPS"
        assert (lab.policy.primary.name, lab.policy.secondary.name) == (primary, secondary)


@pytest.mark.parametrize("given", ["https://second.example.com", "https://second.example.com/", "second.example.com"])
@pytest.mark.parametrize("primary", ["files.example.com", "mine.z12.blob.storage.azure.net"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_secondary_is_where_its_user_says(
    kind: str, primary: str, given: str, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Fault(0.0, FOREVER, P, "refuse")
    with _lab(kind, primary, "second.example.com", outage, secondary_endpoint=given) as lab:
        assert lab.read("old") == OLD
        assert lab.names() == ["old"]
        assert lab.trail == "PPSPPS"
    assert _warnings(caplog) == []


@pytest.mark.parametrize("primary", UNKNOWN.values(), ids=list(UNKNOWN))
@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_secondary_is_one_warning(kind: str, primary: str, caplog: pytest.LogCaptureFixture) -> None:
    with _lab(kind, primary, None) as lab:
        for _ in range(3):
            assert lab.read("fresh") == FRESH
    assert len(_warnings(caplog)) == 1
    assert "secondary_endpoint=" in caplog.text
    assert primary in caplog.text


@pytest.mark.parametrize("primary", UNKNOWN.values(), ids=list(UNKNOWN))
@pytest.mark.parametrize("kind", KINDS)
def test_without_a_secondary_it_is_the_bare_clients_behaviour(kind: str, primary: str) -> None:
    """The SDK's errors and none of ours; its time-outs and its retry; and no host is asked that nobody named."""
    for fault, expected in (("503", HttpResponseError), ("dns", ServiceRequestError)):
        with _lab(kind, primary, None, Fault(0.0, 1000.0, P, fault)) as lab:
            error = lab.try_to_read("old")
            assert isinstance(error, expected)
            assert not isinstance(error, (BothEndpointsDown, NotReplicated))
            assert set(lab.trail) == {"P"}
            lab.clock.now = 1000.0
            assert lab.read("old") == OLD
        with _lab(kind, primary, None, Fault(0.0, FOREVER, P, "slow", seconds=20.0)) as lab:
            assert lab.read("old") == OLD
            assert lab.trail == "P"


@pytest.mark.parametrize(
    "nonsense",
    ["", "https://", "ftp://second.example.com", "https://second.example.com/?sv=1&sig=SECRET", "two words", 5, b"x",
     "https://user:pass@second.example.com", "https://second.example.com:port"],
)  # fmt: skip
def test_a_secondary_endpoint_that_is_none(client_kind: str, nonsense: Any) -> None:
    with pytest.raises(ValueError, match=r"^secondary_endpoint must") as caught:
        geo_failover(client_kind, secondary_endpoint=nonsense)
    assert "SECRET" not in str(caught.value)
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_custom_domain_whose_account_is_known(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The key tells the account's name, and the SDK its secondary."""
    key = {"account_name": "account", "account_key": "a2V5"}
    secondary = "account-secondary.blob.core.windows.net"
    with _lab(kind, "files.example.com", secondary, Fault(0.0, FOREVER, P, "refuse"), credential=key) as lab:
        assert lab.read("old") == OLD
        assert lab.trail == "PPS"
    assert _warnings(caplog) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_primary_given_as_the_secondary_is_none(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Or each read of an outage would ask the same endpoint again and call it a failover."""
    primary = "files.example.com"
    with _lab(kind, primary, None, Fault(0.0, 1.0, P, "503"), secondary_endpoint=f"https://{primary}") as lab:
        assert isinstance(lab.try_to_read("old", retry_total=0), HttpResponseError)
    assert len(_warnings(caplog)) == 1
