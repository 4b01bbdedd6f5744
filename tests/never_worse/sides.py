"""The two sides: a client of a world of its own, and what comes of its calls."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobServiceClient, ExponentialRetry
from azure.storage.blob.aio import BlobServiceClient as AsyncBlobServiceClient
from azure.storage.blob.aio import ExponentialRetry as AsyncExponentialRetry

from failover.breaker import CircuitBreaker, CircuitOpen, Permit
from failover.storage import PRODUCTION, AsyncGeoFailover, GeoFailover
from tests.never_worse.clock import LoopClock, ThreadClock, VirtualThreadRace
from tests.never_worse.schedule import BLOCK, PAGE, Call, Schedule
from tests.never_worse.transports import CALLER, AsyncOwnTransport, OwnTransport, sdk_transport
from tests.never_worse.world import Entry, World

Kind = Literal["sync", "sdk", "aio"]
"""Threads over a transport of a user's own, threads over the SDK's, or tasks over a transport of a user's own."""
KINDS: Final[tuple[Kind, ...]] = ("sync", "sdk", "aio")

CONTAINER: Final = "demo"
_KEY: Final = "a2V5"  # of nobody
_VERDICTS: Final = frozenset({404, 409, 412, 416})  # answers that the SDK raises


@dataclass(frozen=True)
class Outcome:
    """What came of a call.

    value: what it gave; of an answer that the SDK raises `("status", 404)`. error: what it raised where nobody
    answered. began, ended: seconds. was_open: whether the primary's circuit has refused it; found_no_place: for a
    last resort, since other calls had them all; both of ours alone.
    """

    value: Any
    error: Exception | None
    began: float
    ended: float
    trace: list[Entry] = field(repr=False, default_factory=list)
    was_open: bool = False
    found_no_place: bool = False

    @property
    def is_answer(self) -> bool:
        return self.error is None

    @property
    def reads(self) -> int:
        """How many requests its caller made of the retry policy; the SDK asks anew for a body that broke off."""
        broken = sum(each.is_broken for each in self.trace)
        return max(1, len({each.what for each in self.trace}) + broken)

    @property
    def is_broken(self) -> bool:
        """Whether the last that was asked for broke off."""
        return bool(self.trace) and self.trace[-1].is_broken

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def __str__(self) -> str:
        if self.error is not None:
            what = f"{type(self.error).__name__}: {str(self.error).splitlines()[0][:160]}"
        else:
            what = repr(self.value) if len(repr(self.value)) < 100 else f"{repr(self.value)[:100]}..."
        return f"{what} after {self.seconds:.2f} s"


_REFUSALS: Final[ContextVar[list[str]]] = ContextVar("_REFUSALS")


class _Circuit(CircuitBreaker):
    """Takes down whom it has refused, as a last resort or before."""

    def admit(self, *, last_resort: bool = False) -> Permit:
        try:
            return super().admit(last_resort=last_resort)
        except CircuitOpen:
            _REFUSALS.get().append("no place" if last_resort else self.name)
            raise


def our_policy(kind: Kind, clock: Any, seed: int, store: Any = None, hedge: float | None = None) -> Any:
    """`GeoFailover` as a user has it by default, but for the clock, and for chance, which is the seed's.

    hedge: seconds, for a user who has turned hedging on: with no budget to be spent, so that as much as can is hedged.
    """
    circuits = [
        _Circuit(name, PRODUCTION, clock=clock, random=random.Random(f"{seed} {name}").random, store=store)
        for name in ("primary", "secondary")
    ]
    made: Any = AsyncGeoFailover if kind == "aio" else GeoFailover
    policy = made(*circuits, clock=clock, retry=_sdk_retry(kind), hedge_after=hedge, hedge_budget=1.0)
    if kind != "aio":
        policy._make_race = functools.partial(VirtualThreadRace, clock)
    return policy


def _sdk_retry(kind: Kind) -> Any:
    """The SDK's default, without its jitter, so that the two sides wait for the same times."""
    made: Any = AsyncExponentialRetry if kind == "aio" else ExponentialRetry
    return made(random_jitter_range=0)


class Side:
    """The clients of all nodes, the world they share and their clock.

    make_policies: makes a retry policy for each node; None: the SDK's own.
    """

    def __init__(
        self,
        kind: Kind,
        schedule: Schedule,
        make_policies: Callable[[Callable[[], float]], list[Any]] | None = None,
    ) -> None:
        self.kind = kind
        self.world = World(schedule.seed, schedule.faults, schedule.lag, schedule.hosts)
        for name, data in schedule.blobs.items():
            self.world.put(name, data, -1e6)
        self.clock: Any = LoopClock() if kind == "aio" else ThreadClock()
        if make_policies is None:
            self.policies = [_sdk_retry(kind) for _ in range(schedule.nodes)]
        else:
            self.policies = make_policies(self.clock)
        transports: dict[Kind, Any] = {"sync": OwnTransport, "sdk": sdk_transport, "aio": AsyncOwnTransport}
        client: Any = AsyncBlobServiceClient if kind == "aio" else BlobServiceClient
        self._services = [
            client(
                schedule.url,
                credential={"account_name": "account", "account_key": _KEY},
                transport=transports[kind](self.world, self.clock, node),
                retry_policy=policy,
                max_single_get_size=BLOCK,
                max_chunk_get_size=BLOCK,
                max_single_put_size=2 * BLOCK,
                max_block_size=BLOCK,
            )
            for node, policy in enumerate(self.policies)
        ]

    def perform(self, calls: Sequence[Call]) -> list[Outcome]:
        """Make calls at once, or each as much later than the first as its time is."""
        if self.kind == "aio":
            return self.clock.run(self._gather(calls))  # type: ignore[no-any-return]  # a LoopClock
        works = [functools.partial(self._one, call, n, call.at - calls[0].at) for n, call in enumerate(calls)]
        return self.clock.run_together(works)  # type: ignore[no-any-return]  # a ThreadClock

    def close(self) -> None:
        for service in self._services:
            if self.kind == "aio":
                self.clock.run(service.close())
            else:
                service.close()
        self.clock.close()

    # --- one call ----------------------------------------------------------------------------------------------

    def _one(self, call: Call, number: int, later: float) -> Outcome:
        CALLER.set(f"#{number}")
        _REFUSALS.set([])
        self.clock.sleep(later)
        began = self.clock.now
        try:
            return self._outcome(number, began, value=_call(self._services[call.node], call))
        except Exception as error:
            return self._outcome(number, began, error=error)

    async def _gather(self, calls: Sequence[Call]) -> list[Outcome]:
        works = [self._one_async(call, n, call.at - calls[0].at) for n, call in enumerate(calls)]
        return list(await asyncio.gather(*works))

    async def _one_async(self, call: Call, number: int, later: float) -> Outcome:
        CALLER.set(f"#{number}")
        _REFUSALS.set([])
        await asyncio.sleep(later)
        began = self.clock.now
        try:
            return self._outcome(number, began, value=await _call_async(self._services[call.node], call))
        except Exception as error:
            return self._outcome(number, began, error=error)

    def _outcome(self, number: int, began: float, value: Any = None, error: Exception | None = None) -> Outcome:
        if isinstance(error, HttpResponseError) and error.status_code in _VERDICTS:
            value, error = ("status", error.status_code), None
        trace = [each for each in self.world.trace if each.caller == f"#{number}"]
        refusals = _REFUSALS.get()
        return Outcome(value, error, began, self.clock.now, trace, "primary" in refusals, "no place" in refusals)


def _call(service: Any, call: Call) -> Any:
    container = service.get_container_client(CONTAINER)
    options = dict(call.options)
    if call.kind == "list":
        pages = container.list_blobs(results_per_page=PAGE, **options)
        return tuple(_entry(each) for each in pages)
    blob = container.get_blob_client(call.name)
    if call.kind in ("download", "range", "checked", "chunks"):
        stream = blob.download_blob(**_download_options(call))
        data = b"".join(stream.chunks()) if call.kind == "chunks" else stream.readall()
        return (data, stream.properties.etag)
    if call.kind == "properties":
        return _entry(blob.get_blob_properties(**options))
    if call.kind == "exists":
        return blob.exists(**options)
    if call.kind == "delete":
        blob.delete_blob(**options)
    else:
        blob.upload_blob(call.data, overwrite=call.kind != "create", **options)
    return True


async def _call_async(service: Any, call: Call) -> Any:
    container = service.get_container_client(CONTAINER)
    options = dict(call.options)
    if call.kind == "list":
        pages = container.list_blobs(results_per_page=PAGE, **options)
        return tuple([_entry(each) async for each in pages])
    blob = container.get_blob_client(call.name)
    if call.kind in ("download", "range", "checked", "chunks"):
        stream = await blob.download_blob(**_download_options(call))
        data = b"".join([each async for each in stream.chunks()]) if call.kind == "chunks" else await stream.readall()
        return (data, stream.properties.etag)
    if call.kind == "properties":
        return _entry(await blob.get_blob_properties(**options))
    if call.kind == "exists":
        return await blob.exists(**options)
    if call.kind == "delete":
        await blob.delete_blob(**options)
    else:
        await blob.upload_blob(call.data, overwrite=call.kind != "create", **options)
    return True


def _download_options(call: Call) -> dict[str, Any]:
    options = dict(call.options)
    if call.kind == "range":
        options |= {"offset": call.first, "length": call.length}
    if call.kind == "checked":
        options["validate_content"] = True
    return options


def _entry(properties: Any) -> tuple[str, str, int]:
    return (properties.name, properties.etag.strip('"'), properties.size)
