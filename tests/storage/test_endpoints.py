"""Every URL that the SDK makes of an endpoint must lead to the same resource: its own policies mangle them here."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.rest import HttpRequest
from azure.storage.blob import BlobClient, BlobServiceClient
from azure.storage.blob._shared.policies import StorageHosts
from hypothesis import given
from hypothesis import strategies as st

from failover.storage.endpoints import PRIMARY, SECONDARY, Finder, Target, changes_something, find_target

PATH_STYLE = {PRIMARY: "127.0.0.1:10000/acct", SECONDARY: "127.0.0.1:10001/acct-secondary"}
HOST_STYLE = {PRIMARY: "acct.blob.core.windows.net", SECONDARY: "acct-secondary.blob.core.windows.net"}

FINDER = Finder()


def mangled(url: str, hosts: dict[str, str], use_location: str | None = None) -> Target:
    """What becomes of `url` in the SDK's own policy, taken apart as GeoFailover does."""
    options = {} if use_location is None else {"use_location": use_location}
    request = PipelineRequest(HttpRequest("GET", url), PipelineContext(None, **options))
    StorageHosts(hosts=hosts).on_request(request)  # type: ignore[no-untyped-call]  # the SDK's
    seen = request.context.options
    bound = seen["location_mode"] if seen.get("retry_to_secondary") is False else None
    target = find_target(request.http_request.url, seen["hosts"], bound=bound)
    for _ in range(2):  # the second time it is remembered, and others are not mixed up with it
        found = FINDER.find(request.http_request.url, seen["hosts"], bound=bound)
        assert found == target
        assert not found.is_as_asked or found.url(found.location) == request.http_request.url
    return target


@pytest.mark.parametrize(
    ("client", "primary", "secondary"),
    [
        (
            BlobServiceClient("https://acct.blob.core.windows.net"),
            "https://acct.blob.core.windows.net",
            "https://acct-secondary.blob.core.windows.net",
        ),
        (
            BlobServiceClient("https://acct.blob.core.windows.net/"),
            "https://acct.blob.core.windows.net",
            "https://acct-secondary.blob.core.windows.net",
        ),
        (
            BlobServiceClient("https://acct.blob.core.chinacloudapi.cn"),
            "https://acct.blob.core.chinacloudapi.cn",
            "https://acct-secondary.blob.core.chinacloudapi.cn",
        ),
        (
            BlobServiceClient("https://acct.blob.core.usgovcloudapi.net"),
            "https://acct.blob.core.usgovcloudapi.net",
            "https://acct-secondary.blob.core.usgovcloudapi.net",
        ),
        (
            BlobServiceClient("https://files.example.com", secondary_hostname="files2.example.com"),
            "https://files.example.com",
            "https://files2.example.com",
        ),
        (
            BlobServiceClient("https://files.example.com", credential={"account_name": "acct", "account_key": "a2V5"}),
            "https://files.example.com",
            "https://acct-secondary.blob.core.windows.net",
        ),
        (BlobServiceClient("https://files.example.com", credential="sv=1&sig=x"), "https://files.example.com", None),
        (
            BlobServiceClient("http://127.0.0.1:10000/acct"),
            "http://127.0.0.1:10000/acct",
            "http://127.0.0.1:10000/acct-secondary",
        ),
        (
            BlobServiceClient("http://localhost:10000/acct", secondary_hostname="localhost:10001/acct-secondary"),
            "http://localhost:10000/acct",
            "http://localhost:10001/acct-secondary",
        ),
        (
            # The SDK would ask the public cloud for the secondary of an emulator whose host has a name.
            BlobServiceClient("http://azurite:10000/acct", credential={"account_name": "acct", "account_key": "a2V5"}),
            "http://azurite:10000/acct",
            "http://azurite:10000/acct-secondary",
        ),
        (
            BlobServiceClient.from_connection_string(
                "AccountName=acct;AccountKey=a2V5;BlobEndpoint=http://127.0.0.1:1/acct;"
                "BlobSecondaryEndpoint=http://127.0.0.1:2/acct-secondary"
            ),
            "http://127.0.0.1:1/acct",
            "http://127.0.0.1:2/acct-secondary",
        ),
        (
            BlobServiceClient.from_connection_string(
                "AccountName=acct;AccountKey=a2V5;BlobEndpoint=https://acct.blob.core.windows.net/;"
                "BlobSecondaryEndpoint=https://acct-secondary.blob.core.windows.net/"
            ),
            "https://acct.blob.core.windows.net",
            "https://acct-secondary.blob.core.windows.net",
        ),
    ],
)
@pytest.mark.parametrize("use_location", [None, PRIMARY, SECONDARY])
def test_a_clients_two_endpoints_are_known(
    client: BlobServiceClient, primary: str, secondary: str | None, use_location: str | None
) -> None:
    url = client.get_blob_client("box", "a/b c").url.partition("?")[0]

    target = mangled(url, client._hosts, use_location)

    assert (target.endpoints.primary, target.endpoints.secondary) == (primary, secondary)
    assert target.resource == "/box/a/b%20c"
    assert target.location == (use_location or PRIMARY)
    assert target.url(PRIMARY) == f"{primary}/box/a/b%20c"


@pytest.mark.parametrize("service", ["blob", "dfs"])
@pytest.mark.parametrize("use_location", [None, PRIMARY, SECONDARY])
@pytest.mark.parametrize("zone", ["core.windows.net", "core.chinacloudapi.cn", "z12.storage.azure.net"])
def test_a_data_lake_client_asks_two_services_and_tells_of_one(
    service: str, use_location: str | None, zone: str
) -> None:
    # What is bound to an endpoint is asked of the blob service, and loses its host.
    service = service if use_location is None else "blob"
    hosts = {PRIMARY: f"acct.dfs.{zone}", SECONDARY: ""}

    target = mangled(f"https://acct.{service}.{zone}/fs/file?x=1", hosts, use_location)

    assert target.endpoints.primary == f"https://acct.{service}.{zone}"
    assert target.endpoints.secondary == f"https://acct-secondary.{service}.{zone}"
    assert (target.location, target.resource) == (use_location or PRIMARY, "/fs/file?x=1")


@pytest.mark.parametrize(
    ("given", "asked", "secondary"),
    [
        ("two.blob.example.com", "acct.dfs.core.windows.net", "two.dfs.example.com"),
        ("two.dfs.example.com", "acct.blob.core.windows.net", "two.blob.example.com"),
        ("two.dfs.example.com", "files.example.com", "two.dfs.example.com"),
        ("two.example.com", "acct.dfs.core.windows.net", "two.example.com"),
    ],
)
def test_a_secondary_that_is_named_is_that_of_the_service_asked(given: str, asked: str, secondary: str) -> None:
    target = find_target(f"https://{asked}/fs/file", {PRIMARY: asked, SECONDARY: ""}, bound=None, secondary=given)
    assert target.endpoints.secondary == f"https://{secondary}"


@pytest.mark.parametrize("use_location", [None, PRIMARY, SECONDARY])
def test_a_client_for_the_secondarys_own_url_has_one_endpoint(use_location: str | None) -> None:
    host = "acct-secondary.blob.core.windows.net"

    target = mangled(f"https://{host}/box/blob", {PRIMARY: host, SECONDARY: host}, use_location)

    assert (target.endpoints.primary, target.endpoints.secondary) == (f"https://{host}", None)
    assert (target.location, target.resource) == (PRIMARY, "/box/blob")


@pytest.mark.parametrize("container", ["acct", "acct-secondary", "box", "$root"])
@pytest.mark.parametrize("use_location", [None, PRIMARY, SECONDARY])
@pytest.mark.parametrize("hosts", [PATH_STYLE, HOST_STYLE])
def test_a_container_may_be_named_like_the_account(
    container: str, use_location: str | None, hosts: dict[str, str]
) -> None:
    target = mangled(f"http://{hosts[PRIMARY]}/{container}/blob?x=1", hosts, use_location)

    assert target.resource == f"/{container}/blob?x=1"
    assert target.url(SECONDARY) == f"http://{hosts[SECONDARY]}/{container}/blob?x=1"


@pytest.mark.parametrize("container", ["acct", "acct-secondary", "box"])
@pytest.mark.parametrize("use_location", [None, SECONDARY])
@pytest.mark.parametrize("hosts", [PATH_STYLE, HOST_STYLE])
def test_a_client_set_to_the_secondary_stays_there(
    container: str, use_location: str | None, hosts: dict[str, str]
) -> None:
    target = mangled(f"http://{hosts[SECONDARY]}/{container}/blob", hosts, use_location)

    assert (target.location, target.resource) == (SECONDARY, f"/{container}/blob")


@pytest.mark.parametrize("hosts", [PATH_STYLE, HOST_STYLE])
def test_a_client_set_to_the_secondary_may_be_bound_to_the_primary(hosts: dict[str, str]) -> None:
    target = mangled(f"http://{hosts[SECONDARY]}/box/blob", hosts, PRIMARY)

    assert (target.location, target.resource) == (PRIMARY, "/box/blob")


@pytest.mark.parametrize("resource", ["", "/", "?restype=service&comp=stats", "/?comp=list", "/box?restype=container"])
@pytest.mark.parametrize("use_location", [None, PRIMARY, SECONDARY])
@pytest.mark.parametrize("hosts", [PATH_STYLE, HOST_STYLE, {PRIMARY: "127.0.0.1:10000/acct", SECONDARY: ""}])
def test_resources_of_the_account_and_of_a_container(
    resource: str, use_location: str | None, hosts: dict[str, str]
) -> None:
    assert mangled(f"http://{hosts[PRIMARY]}{resource}", hosts, use_location).resource == resource


def test_without_the_sdks_hosts_the_url_tells_the_primary() -> None:
    target = find_target("https://acct.blob.core.windows.net/box/blob", None, bound=None)

    assert target.url(PRIMARY) == "https://acct.blob.core.windows.net/box/blob"
    assert target.endpoints.secondary == "https://acct-secondary.blob.core.windows.net"
    assert target.endpoints.name(SECONDARY) == "acct-secondary.blob.core.windows.net"
    assert target.endpoints.name(PRIMARY) == "acct.blob.core.windows.net"


@pytest.mark.parametrize("url", ["https://other.example/box/blob", "https://acct.blob.core.windows.net:8443/box/blob"])
def test_what_is_at_neither_endpoint_is_elsewhere(url: str) -> None:
    hosts = {PRIMARY: "acct.blob.core.windows.net", SECONDARY: "acct-secondary.blob.core.windows.net"}

    assert find_target(url, hosts, bound=None).is_elsewhere
    for known in hosts.values():
        assert not find_target(f"https://{known}/box/blob", hosts, bound=None).is_elsewhere


def test_an_endpoint_that_nobody_knows_is_called_none() -> None:
    target = find_target("https://files.example.com/box/blob", None, bound=None)

    assert target.endpoints.secondary is None
    assert target.endpoints.name(SECONDARY) == "none"


def test_a_sas_goes_along() -> None:
    sas = "sv=2024-01-01&se=2030-01-01T00%3A00%3A00Z&sr=b&sp=r&sig=ab%2Fc%3D"

    for hosts in (PATH_STYLE, HOST_STYLE):
        for use_location in (None, PRIMARY, SECONDARY):
            target = mangled(f"http://{hosts[PRIMARY]}/box/blob?{sas}", hosts, use_location)
            assert target.url(SECONDARY) == f"http://{hosts[SECONDARY]}/box/blob?{sas}"


_names = st.text("abz09-", min_size=3, max_size=8)
_secondaries = st.sampled_from(
    ["{host2}/{account}-secondary", "http://{host2}/{account}-secondary", "{host2}/{account}-secondary/", ""]
)


@given(
    account=_names,
    container=st.one_of(_names, st.just("SAME"), st.just("SAME-secondary")),
    blob=st.text(min_size=1, max_size=8).filter(lambda name: not name.startswith("/")),
    secondary=_secondaries,
    path_style=st.booleans(),
    set_to=st.sampled_from([PRIMARY, SECONDARY]),
    use_location=st.sampled_from([None, PRIMARY, SECONDARY]),
    query=st.sampled_from(["", "?a=http://x/y?z", "?snapshot=1&sig=%2F%2F"]),
)
def test_the_resource_survives_any_mangling(
    account: str,
    container: str,
    blob: str,
    secondary: str,
    path_style: bool,
    set_to: str,
    use_location: str | None,
    query: str,
) -> None:
    container = container.replace("SAME", account)
    if path_style:
        hosts = {PRIMARY: f"127.0.0.1:1/{account}", SECONDARY: secondary.format(host2="127.0.0.1:2", account=account)}
    else:
        domain = "blob.core.windows.net"
        hosts = {PRIMARY: f"{account}.{domain}", SECONDARY: f"{account}-secondary.{domain}"}
    if not hosts[SECONDARY] and set_to == SECONDARY:
        set_to = PRIMARY  # as the SDK insists
    client = BlobClient(f"http://{hosts[PRIMARY]}", container, blob, _hosts=hosts)
    client.location_mode = set_to
    resource = f"/{container}/{quote(blob, safe='~/')}{query}"

    target = mangled(client.url + query, hosts, use_location)

    assert target.resource == resource
    assert target.location == (use_location or set_to)
    assert target.endpoints.primary == f"http://{hosts[PRIMARY]}"


@pytest.mark.parametrize(
    ("method", "url", "changes"),
    [
        ("GET", "http://h/a/box/blob", False),
        ("HEAD", "http://h/a/box/blob", False),
        ("PUT", "http://h/a/box/blob", True),
        ("DELETE", "http://h/a/box/blob", True),
        ("POST", "http://h/a/box/blob?comp=query", False),
        ("POST", "http://h/a/box?comp=batch", True),
        ("GET", "http://h/a/jobs/messages", True),
        ("GET", "http://h/a/jobs/messages?numofmessages=2&visibilitytimeout=5", True),
        ("GET", "http://h/a/jobs/messages?peekonly=false", True),
        ("GET", "http://h/a/jobs/messages?peekonly=true", False),
        ("GET", "http://h/a/jobs/messages?numofmessages=2&peekonly=True", False),
        ("GET", "https://a.queue.core.windows.net/messages/messages", True),
        ("GET", "http://h/a/jobs?comp=metadata", False),
        # What is asked about a blob or a container of that name. Its download is streamed, and not asked about here.
        ("HEAD", "http://h/a/box/messages", False),
        ("GET", "http://h/a/box/messages?comp=tags", False),
        ("GET", "http://h/a/messages?restype=container&comp=list", False),
        ("GET", "http://h/a/messages?restype=container", False),
        ("GET", "https://a.dfs.core.windows.net/messages?resource=filesystem&recursive=true", False),
    ],
)
def test_what_changes_something(method: str, url: str, changes: bool) -> None:
    assert changes_something(method, url) is changes
