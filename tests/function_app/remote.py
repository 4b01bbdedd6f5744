"""A downstream API in the event loop of the test: real sockets, and each way in which an API can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

Responder = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Remote:
    """GET /503 answers 503, and so on, unless `responder` is set. Calls are counted when they arrive."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.clients: set[object] = set()
        self.responder: Responder = by_path
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/{tail:.*}", self._answer)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """From now on connections are refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.calls.append(request.path)
        assert request.transport is not None
        self.clients.add(request.transport.get_extra_info("peername"))
        return await self.responder(request)


async def by_path(request: web.Request) -> web.StreamResponse:
    status = int(request.path[1:])
    elsewhere = {"Location": "/200"} if status == 302 else {}
    return web.json_response({"status": status}, status=status, headers=elsewhere)


async def never(request: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    raise AssertionError


async def break_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"only a part")
    assert request.transport is not None
    request.transport.close()
    return response


def saying(body: bytes, status: int = 200, **headers: str) -> Responder:
    async def say(request: web.Request) -> web.StreamResponse:
        return web.Response(body=body, status=status, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return say


def held(until: asyncio.Event, status: int = 200) -> Responder:
    """Answers once `until` is set."""

    async def hold(request: web.Request) -> web.StreamResponse:
        await until.wait()
        return web.Response(status=status)

    return hold
