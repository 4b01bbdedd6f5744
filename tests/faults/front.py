"""The account whose primary misbehaves on demand: a stand-in behind a raw server that spoils reads of its blob."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import urlsplit

from failover.standin import StandIn
from tests.servers import make_certificate
from tests.storage.raw_server import Answer, Asked, RawServer

NAME = "primary.invalid"
"""The primary's host where it has a name: it is resolved as long as `Front.known`."""

Spoil = Callable[[Asked, Answer], Answer]
"""What becomes of the good answer to a question."""


class Fault(Protocol):
    """A kind of misbehaviour: of each answer, or of the server."""

    @property
    def spoil(self) -> Spoil | None: ...
    @property
    def switch(self) -> Callable[[Front, bool], None] | None: ...


def forward(target: str, asked: Asked) -> Answer:
    """What the server at `target` answers, as it is."""
    parts = urlsplit(target)
    link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    with contextlib.closing(link):
        link.request(asked.method, asked.target, asked.body or None, asked.headers)
        answer = link.getresponse()
        body = answer.read()
    head = "\n".join([f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{k}: {v}" for k, v in answer.getheaders())])
    return Answer(head, body)


class Front:
    """An account with a well-behaved secondary, whose primary spoils reads of `blob` from `begin` to `end`.

    `named`: the primary's host has a name, which resolves while `known`. `tls`: a folder for certificates; both
    endpoints speak TLS. `both`: the secondary misbehaves too. `spoilt` counts requests at the primary; the first
    `skip` that could be are not, nor any once `most` have been.
    """

    def __init__(self, *, named: bool = False, tls: Path | None = None, blob: str = "HelloWorld") -> None:
        self._stack = ExitStack()
        self.standin = self._stack.enter_context(StandIn(0.0))
        self.account_name, self.account_key = self.standin.account_name, self.standin.account_key
        self.both = False
        self.known = True
        self.spoilt, self.skip, self.most = 0, 0, 10**9
        self._spoil: Spoil | None = None
        self._blob = blob
        self._named = named
        self.certificate: Path | None = None
        contexts: list[ssl.SSLContext | None] = [None, None]
        if tls is not None:
            files = []
            for name in ("trusted", "wrong"):
                (tls / name).mkdir()
                files.append(make_certificate(tls / name))
            self.certificate = files[0][0]
            contexts = [_context(*each) for each in files]
        self._trusted, self._wrong = contexts
        self.primary = self._serve("primary")
        self.secondary = self._serve("secondary")

    def _serve(self, at: str) -> RawServer:
        target = self.standin.primary_url if at == "primary" else self.standin.secondary_url
        path = urlsplit(target).path

        def answer(asked: Asked) -> Answer:
            good = forward(target, asked)
            spoil = self._spoil
            if spoil is None or asked.method != "GET" or not asked.target.partition("?")[0].endswith(f"/{self._blob}"):
                return good
            if at == "secondary":
                return spoil(asked, good) if self.both else good
            if self.skip or self.spoilt == self.most:
                self.skip = max(0, self.skip - 1)
                return good
            self.spoilt += 1
            return spoil(asked, good)

        return self._stack.enter_context(RawServer(answer, path=path, tls=self._trusted))

    @property
    def primary_url(self) -> str:
        return self.primary.url.replace("127.0.0.1", NAME) if self._named else self.primary.url

    @property
    def secondary_url(self) -> str:
        return self.secondary.url

    def begin(self, kind: Fault) -> None:
        """Misbehave; nothing that was established before is left."""
        self._switch(kind, on=True)
        self._spoil = kind.spoil

    def end(self, kind: Fault) -> None:
        """Behave."""
        self._spoil = None
        self._switch(kind, on=False)

    def _switch(self, kind: Fault, *, on: bool) -> None:
        if kind.switch is not None:
            kind.switch(self, on)
            self.primary.cut()

    def distrust(self, on: bool) -> None:
        """Show a certificate that nobody trusts, from the next connection on."""
        for server in [self.primary, self.secondary][: 1 + self.both]:
            server.tls = self._wrong if on else self._trusted

    def lose(self, on: bool) -> None:
        """Refuse connections."""
        for server in [self.primary, self.secondary][: 1 + self.both]:
            (server.lose if on else server.restore)()

    def resolver(self, real: Callable[..., Any]) -> Callable[..., Any]:
        """`socket.getaddrinfo` with us as the name server for `NAME`, for threads and event loops alike."""

        def getaddrinfo(host: Any, *args: Any, **options: Any) -> Any:
            if host not in (NAME, NAME.encode()):
                return real(host, *args, **options)
            if not self.known:
                raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
            return real("127.0.0.1", *args, **options)

        return getaddrinfo

    def __enter__(self) -> Front:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
