"""What an account does for the official SDK, the same for the stand-in and for Azurite: a parameter apart."""

from __future__ import annotations

import datetime as dt
import gzip
import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import (
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
    ResourceNotModifiedError,
)
from azure.storage.blob import (
    AccountSasPermissions,
    BlobClient,
    BlobServiceClient,
    ContainerClient,
    ContentSettings,
    ResourceTypes,
    generate_account_sas,
)

from tests.servers import Account, Azurite, FakeToken, credential

HELLO = b"Hello, World!"
MIB = 1024 * 1024


def code_of(refused: pytest.ExceptionInfo[HttpResponseError]) -> str:
    code: str = refused.value.error_code  # type: ignore[attr-defined]  # the storage SDK puts it there
    return code


@pytest.fixture
def service(account: Account) -> Iterator[BlobServiceClient]:
    with BlobServiceClient(account.primary_url, credential=credential(account), retry_total=0) as client:
        yield client


@pytest.fixture
def secondary(account: Account) -> Iterator[BlobServiceClient]:
    """A client of its own: the SDK's `secondary_hostname` spoils a path that begins with the account's name."""
    with BlobServiceClient(account.secondary_url, credential=credential(account), retry_total=0) as client:
        yield client


@pytest.fixture
def container(service: BlobServiceClient) -> Iterator[ContainerClient]:
    with service.create_container(f"contract-{uuid.uuid4().hex}") as client:
        yield client
        client.delete_container()


@pytest.fixture
def blob(container: ContainerClient) -> BlobClient:
    client = container.get_blob_client("HelloWorld")
    client.upload_blob(HELLO, content_settings=ContentSettings(content_type="text/plain"), metadata={"made": "by-hand"})
    return client


def test_what_is_uploaded_can_be_read(blob: BlobClient) -> None:
    download = blob.download_blob()

    assert download.readall() == HELLO
    assert download.properties.size == len(HELLO)
    assert download.properties.content_settings.content_type == "text/plain"
    assert download.properties.metadata == {"made": "by-hand"}


def test_a_head_tells_what_a_read_would(blob: BlobClient) -> None:
    head, read = blob.get_blob_properties(), blob.download_blob().properties

    assert head.size == len(HELLO)
    assert head.etag == read.etag
    assert head.etag.startswith('"0x')
    assert head.last_modified == read.last_modified
    assert head.blob_type == "BlockBlob"
    assert head.content_settings.content_type == "text/plain"
    assert head.content_settings.content_md5 == read.content_settings.content_md5 is not None
    assert head.metadata == {"made": "by-hand"}


def test_the_secondary_has_it_under_its_own_path(blob: BlobClient, secondary: BlobServiceClient) -> None:
    there = secondary.get_blob_client(blob.container_name, blob.blob_name)

    assert there.download_blob().readall() == HELLO
    assert there.get_blob_properties().etag == blob.get_blob_properties().etag


@pytest.mark.parametrize(
    ("offset", "length", "part"),
    [(0, 5, b"Hello"), (7, 5, b"World"), (7, None, b"World!"), (12, 1, b"!"), (7, 4000, b"World!"), (0, None, HELLO)],
)
def test_a_range_is_that_part(blob: BlobClient, offset: int, length: int | None, part: bytes) -> None:
    assert blob.download_blob(offset=offset, length=length).readall() == part


def test_a_range_says_of_which_whole_it_is(blob: BlobClient) -> None:
    seen: list[tuple[int, str]] = []

    def note(response: object) -> None:
        answer = response.http_response  # type: ignore[attr-defined]  # the SDK gives its hooks no type
        seen.append((answer.status_code, answer.headers["Content-Range"]))

    blob.download_blob(offset=7, length=5, raw_response_hook=note).readall()

    assert seen == [(206, "bytes 7-11/13")]


def test_a_range_with_its_md5_is_checked_by_the_sdk(blob: BlobClient) -> None:
    seen: list[str | None] = []
    download = blob.download_blob(
        offset=0,
        length=5,
        validate_content=True,
        raw_response_hook=lambda response: seen.append(response.http_response.headers.get("Content-MD5")),
    )

    assert download.readall() == b"Hello"
    assert seen == ["ixqZU8RhEpaoJ6v4xHgE1w=="]


def test_a_range_beyond_the_end_is_416(blob: BlobClient) -> None:
    with pytest.raises(HttpResponseError) as refused:
        blob.download_blob(offset=100, length=1).readall()

    assert (refused.value.status_code, code_of(refused)) == (416, "InvalidRange")


def test_an_empty_blob(container: ContainerClient) -> None:
    blob = container.get_blob_client("nothing")
    blob.upload_blob(b"")

    assert blob.download_blob().readall() == b""
    assert blob.get_blob_properties().size == 0


def test_content_encoding_is_kept_and_content_comes_as_it_was_stored(container: ContainerClient) -> None:
    blob = container.get_blob_client("text.gz")
    packed = gzip.compress(HELLO)
    blob.upload_blob(packed, content_settings=ContentSettings(content_type="text/plain", content_encoding="gzip"))

    download = blob.download_blob(decompress=False)

    assert download.readall() == packed
    assert download.properties.content_settings.content_encoding == "gzip"


def test_writing_again_gives_a_new_etag_and_keeps_the_creation_time(blob: BlobClient) -> None:
    before = blob.get_blob_properties()
    blob.upload_blob(b"other", overwrite=True)
    after = blob.get_blob_properties()

    assert after.etag != before.etag
    assert after.creation_time == before.creation_time
    assert blob.download_blob().readall() == b"other"


def test_not_to_overwrite(blob: BlobClient) -> None:
    with pytest.raises(ResourceExistsError) as refused:
        blob.upload_blob(b"other", overwrite=False)

    assert (refused.value.status_code, code_of(refused)) == (409, "BlobAlreadyExists")
    assert blob.download_blob().readall() == HELLO


def test_write_only_what_has_not_changed(blob: BlobClient) -> None:
    etag = blob.get_blob_properties().etag
    blob.upload_blob(b"second", overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified)

    with pytest.raises(ResourceModifiedError) as refused:
        blob.upload_blob(b"third", overwrite=True, etag=etag, match_condition=MatchConditions.IfNotModified)

    assert (refused.value.status_code, code_of(refused)) == (412, "ConditionNotMet")
    assert blob.download_blob().readall() == b"second"


def test_read_only_what_has_not_changed(blob: BlobClient) -> None:
    etag = blob.get_blob_properties().etag
    assert blob.download_blob(etag=etag, match_condition=MatchConditions.IfNotModified).readall() == HELLO
    blob.upload_blob(b"second", overwrite=True)

    with pytest.raises(ResourceModifiedError) as refused:
        blob.download_blob(etag=etag, match_condition=MatchConditions.IfNotModified)
    assert refused.value.status_code == 412
    with pytest.raises(ResourceModifiedError):
        blob.get_blob_properties(etag=etag, match_condition=MatchConditions.IfNotModified)


def test_read_only_what_has_changed(blob: BlobClient) -> None:
    etag = blob.get_blob_properties().etag

    with pytest.raises((ResourceNotModifiedError, ResourceModifiedError)) as refused:
        blob.download_blob(etag=etag, match_condition=MatchConditions.IfModified)
    assert refused.value.status_code == 304

    blob.upload_blob(b"second", overwrite=True)
    assert blob.download_blob(etag=etag, match_condition=MatchConditions.IfModified).readall() == b"second"


def test_a_missing_blob(container: ContainerClient) -> None:
    blob = container.get_blob_client("missing")

    with pytest.raises(ResourceNotFoundError) as refused:
        blob.download_blob()
    assert (refused.value.status_code, code_of(refused)) == (404, "BlobNotFound")
    with pytest.raises(ResourceNotFoundError) as refused:
        blob.delete_blob()
    assert code_of(refused) == "BlobNotFound"
    assert not blob.exists()


def test_a_missing_container(service: BlobServiceClient) -> None:
    container = service.get_container_client(f"missing-{uuid.uuid4().hex}")

    with pytest.raises(ResourceNotFoundError) as refused:
        container.get_blob_client("any").download_blob()
    assert code_of(refused) == "ContainerNotFound"
    with pytest.raises(ResourceNotFoundError) as refused:
        container.upload_blob("any", b"")
    assert code_of(refused) == "ContainerNotFound"
    with pytest.raises(ResourceNotFoundError):
        list(container.list_blobs())
    with pytest.raises(ResourceNotFoundError):
        container.delete_container()
    assert not container.exists()


def test_a_container_there_already(container: ContainerClient) -> None:
    with pytest.raises(ResourceExistsError) as refused:
        container.create_container()

    assert code_of(refused) == "ContainerAlreadyExists"
    assert container.exists()


def test_a_deleted_blob_is_gone(blob: BlobClient, container: ContainerClient) -> None:
    blob.delete_blob()

    assert not blob.exists()
    assert list(container.list_blobs()) == []


def test_delete_only_what_has_not_changed(blob: BlobClient) -> None:
    etag = blob.get_blob_properties().etag
    blob.upload_blob(b"second", overwrite=True)

    with pytest.raises(ResourceModifiedError):
        blob.delete_blob(etag=etag, match_condition=MatchConditions.IfNotModified)
    assert blob.exists()


def test_a_listing_comes_in_pages_and_in_order(container: ContainerClient) -> None:
    names = [f"blob-{n:02}" for n in range(7)] + ["other & <more>", "über/café +1%"]
    for name in reversed(names):
        container.upload_blob(name, name.encode())

    pages = [[each.name for each in page] for page in container.list_blobs(results_per_page=4).by_page()]

    assert pages == [names[:4], names[4:8], names[8:]]
    assert [each.name for each in container.list_blobs(name_starts_with="blob-0")] == names[:7]
    first = next(iter(container.list_blobs()))
    assert (first.size, first.blob_type) == (7, "BlockBlob")
    assert first.etag == container.get_blob_client(names[0]).get_blob_properties().etag.strip('"')
    for name in names:
        assert container.download_blob(name).readall() == name.encode()


def test_a_listing_by_folder(container: ContainerClient) -> None:
    for name in ("a/1", "a/2", "a/b/3", "ab", "c", "d/"):
        container.upload_blob(name, b"x", metadata={"of": name.replace("/", "-")})

    def walk(prefix: str, **options: Any) -> list[str]:
        return sorted(each.name for each in container.walk_blobs(prefix, **options))  # the SDK has folders first

    assert walk("") == ["a/", "ab", "c", "d/"]
    assert walk("a") == ["a/", "ab"]
    assert walk("a/") == ["a/1", "a/2", "a/b/"]
    assert walk("a/", delimiter="b") == ["a/1", "a/2", "a/b"]
    pages = container.walk_blobs("", results_per_page=2).by_page()
    assert [sorted(each.name for each in page) for page in pages] == [["a/", "ab"], ["c", "d/"]]
    assert [each.metadata for each in container.list_blobs("a/1")] == [{}]
    assert [each.metadata for each in container.list_blobs("a/1", include=["metadata"])] == [{"of": "a-1"}]


def test_containers_are_listed_by_prefix(service: BlobServiceClient, container: ContainerClient) -> None:
    found = [each.name for each in service.list_containers(name_starts_with=container.container_name[:-1])]

    assert found == [container.container_name]


@pytest.mark.parametrize("single_put", [64 * MIB, 4 * MIB], ids=["one-put", "blocks"])
def test_40_mib_in_many_ranges_at_once(account: Account, container: ContainerClient, single_put: int) -> None:
    content = random.Random(40).randbytes(40 * MIB)
    with BlobServiceClient(
        account.primary_url,
        credential=credential(account),
        max_single_put_size=single_put,
        max_block_size=4 * MIB,
        max_single_get_size=4 * MIB,
        max_chunk_get_size=4 * MIB,
        retry_total=0,
    ) as service:
        blob = service.get_blob_client(container.container_name, "forty")
        blob.upload_blob(content, max_concurrency=4)

        assert blob.get_blob_properties().size == len(content)
        assert blob.download_blob(max_concurrency=4).readall() == content


def test_a_small_block_at_a_time(container: ContainerClient) -> None:
    with BlobClient(
        container.url.rpartition("/")[0],
        container.container_name,
        "blocks",
        credential=container.credential,
        max_single_put_size=4,
        max_block_size=5,
    ) as blob:
        blob.upload_blob(HELLO)
        assert blob.download_blob().readall() == HELLO
        with pytest.raises(ResourceExistsError):
            blob.upload_blob(HELLO, overwrite=False)


def test_account_information(service: BlobServiceClient, blob: BlobClient) -> None:
    for client in (service, blob):
        information = client.get_account_information()
        assert information["sku_name"] == "Standard_RAGRS"
        assert information["account_kind"] == "StorageV2"


def test_who_has_neither_key_nor_sas_is_refused(blob: BlobClient, account: Account) -> None:
    with (
        BlobServiceClient(account.primary_url, retry_total=0) as nobody,
        pytest.raises(HttpResponseError) as refused,
    ):
        nobody.get_blob_client(blob.container_name, blob.blob_name).download_blob()

    assert refused.value.status_code in (401, 403, 404)  # 404: Azurite hides what is not public


def test_a_sas_will_do(blob: BlobClient, account: Account) -> None:
    sas = generate_account_sas(
        account.account_name,
        account.account_key,
        resource_types=ResourceTypes(object=True),
        permission=AccountSasPermissions(read=True),
        expiry=dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=1),
    )
    with BlobServiceClient(account.primary_url, credential=sas, retry_total=0) as guest:
        assert guest.get_blob_client(blob.container_name, blob.blob_name).download_blob().readall() == HELLO


@pytest.mark.azurite
def test_azurite_takes_entra_tokens_over_tls(azurite_https: Azurite) -> None:
    with BlobServiceClient(
        azurite_https.primary_url,
        credential=FakeToken(),
        connection_verify=str(azurite_https.certificate),
        retry_total=0,
    ) as service:
        container = service.create_container(f"contract-{uuid.uuid4().hex}")
        container.upload_blob("HelloWorld", HELLO)

        assert container.download_blob("HelloWorld").readall() == HELLO
