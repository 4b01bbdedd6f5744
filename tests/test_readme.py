"""The README's examples and commands, as they stand there."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import ServiceRequestError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobServiceClient

from failover.breaker import CircuitBreaker, State

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\]\(([^)#]+)\)")


def fenced(heading: str, number: int = 0) -> str:
    """The fenced blocks below a heading, one of them."""
    below = re.split(rf"^##+ {re.escape(heading)}$", README, maxsplit=1, flags=re.MULTILINE)[1]
    section = re.split(r"^##+ ", below, maxsplit=1, flags=re.MULTILINE)[0]
    return str(re.findall(r"^```\w*\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[number])


@pytest.mark.azurite
def test_the_three_lines_keep_reads_alive(azurite: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    container = BlobServiceClient(azurite.primary_url, credential=azurite.account_key).create_container("readme-lines")
    container.upload_blob("greeting", b"hello")
    names: dict[str, Any] = {"url": azurite.primary_url, "credential": azurite.account_key}
    exec(fenced("Put it into your own program"), names)  # noqa: S102 (that is the test)
    blob = names["service"].get_blob_client("readme-lines", "greeting")
    assert blob.download_blob().readall() == b"hello"

    send = RequestsTransport.send
    asked = []

    def lose_primary(self: RequestsTransport, request: Any, **options: Any) -> Any:
        asked.append(request.url)
        if request.url.startswith(azurite.primary_url + "/"):
            raise ServiceRequestError("the primary is down")
        return send(self, request, **options)

    monkeypatch.setattr(RequestsTransport, "send", lose_primary)
    assert [blob.download_blob().readall() for _ in range(20)] == [b"hello"] * 20
    monkeypatch.undo()
    at_primary = [url for url in asked if url.startswith(azurite.primary_url + "/")]
    assert len(at_primary) == 5, "five failures open the circuit, and then the primary is left alone"
    container.delete_container()


def test_the_breaker_example_runs_as_it_stands() -> None:
    calls = []

    def fetch_invoice(number: int) -> str:
        calls.append(number)
        if len(calls) > 1:
            raise ConnectionError("billing is down")
        return "invoice"

    names: dict[str, Any] = {"fetch_invoice": fetch_invoice}
    code = fenced("The circuit breaker")
    exec(code, names)  # noqa: S102 (that is the test)
    assert names["invoice"] == "invoice"
    breaker: CircuitBreaker = names["breaker"]
    for _ in range(3):
        with pytest.raises(ConnectionError):
            breaker.call(fetch_invoice, 4711)
    assert breaker.state is State.OPEN
    retried = code.partition("try:")
    exec(retried[1] + retried[2], names)  # noqa: S102 (the same lines, now with an open circuit)
    assert names["invoice"] is None
    assert calls == [4711] * 4


def test_the_library_example_guards_three_calls_as_it_stands(standin: Any, tmp_path: Path) -> None:
    file = tmp_path / "orders.db"
    with sqlite3.connect(file) as database:
        database.execute("create table orders (number)")
        database.execute("insert into orders values (4711)")

    def source() -> Iterator[str]:
        yield "first"
        raise ConnectionError("the feed broke")

    api = f"{standin.primary_url}?restype=account&comp=properties&sig=none"
    names: dict[str, Any] = {"api": api, "file": str(file), "source": source}
    exec(fenced("Guard every remote call"), names)  # noqa: S102 (that is the test)
    assert names["page"] == b""
    assert names["orders"] == [(4711,)]
    with pytest.raises(ConnectionError):
        list(names["feed"]())
    failures = {name: each["failures"] for name, each in names["breakers"].snapshot().items()}
    assert failures == {standin.primary_url: 0, "orders database": 0, "event feed": 1}


def test_files_that_are_linked_exist() -> None:
    links = [link for link in LINK.findall(README) if "://" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_modules_in_the_table_exist() -> None:
    for name in re.findall(r"`(failover/[\w/.]+)`", README):
        assert (ROOT / name).exists(), name


def test_paragraphs_are_short() -> None:
    prose = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    for paragraph in prose.split("\n\n"):
        if not paragraph.lstrip().startswith(("|", "-", "#", "1.")):
            assert len(paragraph) <= 4 * 120, paragraph


def test_it_is_short() -> None:
    """Examples and commands included, but not the descriptions of pictures, which only some readers hear."""
    shown = re.sub(r"<[^>]+>|!\[[^\]]*\]", "", README)
    assert sum(1 for word in shown.split() if re.search(r"\w", word)) <= 1200
