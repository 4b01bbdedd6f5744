"""The downstream API: one kept-alive HTTP session for as long as the worker's event loop runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

import aiohttp

from failover.breaker import failures
from wanted import Wanted

logger = logging.getLogger("function_app")

_MOST_BYTES: Final = 1 << 20  # of a body, after which the rest is not waited for
_SHOWN: Final = 500  # characters of it


@dataclass(frozen=True, slots=True)
class Answer:
    """text: the beginning of the body, at most 500 characters, as the downstream wrote it."""

    url: str
    status: int
    text: str


class Downstream:
    """`base_url` has no last slash. For any number of tasks; each event loop has a session of its own."""

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._sessions: dict[asyncio.AbstractEventLoop, tuple[aiohttp.ClientSession, AsyncGenerator[None, None]]] = {}

    async def get(self, wanted: Wanted) -> Answer:
        """GET base/status. Raises what aiohttp raises where the downstream is down: 503 and its like, no answer."""
        url = f"{self._base_url}/{wanted.status}"
        logger.info("Calling downstream URL %s", url)
        session = await self._session()
        timeout = aiohttp.ClientTimeout(total=wanted.timeout)
        # A redirect is an answer: where it leads is not what was asked.
        async with session.get(url, timeout=timeout, allow_redirects=False) as response:
            if failures.classify(response) is failures.FAILURE:
                response.raise_for_status()
            body = bytearray()
            # To its end: a body that breaks off is a failure.
            async for chunk in response.content.iter_chunked(1 << 16):
                body += chunk
                if len(body) > _MOST_BYTES:
                    response.close()
                    break
            text = body[: 4 * _SHOWN].decode("utf-8", "replace")[:_SHOWN]
            return Answer(url, response.status, text)

    async def _session(self) -> aiohttp.ClientSession:
        loop = asyncio.get_running_loop()
        if loop not in self._sessions:
            for old in [each for each in self._sessions if each.is_closed()]:
                del self._sessions[old]
            # What one caller's answer sets as a cookie must not be sent for the next.
            session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
            closer = _close_with_loop(session)
            self._sessions[loop] = session, closer
            await anext(closer)
        return self._sessions[loop][0]


async def _close_with_loop(session: aiohttp.ClientSession) -> AsyncGenerator[None, None]:
    """Once begun, it ends with its event loop (`shutdown_asyncgens`): a worker has no other hook for its end."""
    try:
        yield
    finally:
        await session.close()
