"""The containers of the demonstration: how a run keeps its own from being taken for left over, and who removes those.

A run that is killed leaves its container behind. Nothing tells from outside whether a run still is under way, so each
run touches its container twice a minute, and one that nobody has touched for five minutes is left over. Its age is
reckoned by the account's clock alone. Two things look left over and are not: the container of a run that has been
stopped (Ctrl-Z) or cut off from the account for that long, and one whose credential may create but not change it.
"""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient, ContainerClient, LinearRetry

from failover.demo.account import Account, BadSettings
from failover.demo.client import connect, explain, make_transport

CONTAINER_PREFIX: Final = "circuitbreaker-demo-"
LEFT_OVER_AFTER: Final = 300.0  # seconds untouched

_TOUCH_EVERY = 30.0  # seconds; several may fail, or be late, before the container looks left over
_NAME: Final = re.compile(re.escape(CONTAINER_PREFIX) + r"[0-9a-f]{12}")
_TOUCHED: Final = {"used_by": "circuitbreaker"}  # that it is written is what counts: it dates the container


def new_name() -> str:
    """A name that no other run has."""
    return CONTAINER_PREFIX + uuid.uuid4().hex[:12]


def keep_touching(container: ContainerClient, over: threading.Event) -> None:
    """Touch it again and again until `over`, in a thread of its own. Failures change nothing: the next may succeed."""
    while not over.wait(_TOUCH_EVERY):
        try:
            container.set_container_metadata(_TOUCHED, retry_total=0)
        except AzureError:
            continue
        except Exception:
            if not over.is_set():  # else the transport was closed before this thread knew
                raise


@dataclass(frozen=True, slots=True)
class Found:
    """A container of the demonstration's, when it was last touched, and the seconds since then (never negative)."""

    name: str
    touched: datetime
    age: float


def clean_up(
    account: Account,
    tell: Callable[[str], None],
    *,
    older_than: float = LEFT_OVER_AFTER,
    timeout: float = 5.0,
    proxy: str | None = None,
    verify: str | bool = True,
    page_size: int | None = None,
) -> bool:
    """Remove the account's left-over containers; True where none is left that should have gone.

    `tell` takes a line for each container and one for all. It may hold what a server wrote, raw. Raises `BadSettings`
    where the containers cannot be listed; nothing has been removed then.
    """
    # By the primary alone: what the secondary lists may be gone, and takes no deletion.
    policy = LinearRetry(backoff=1, retry_total=1, random_jitter_range=0)
    with make_transport(account, timeout=timeout, verify=verify) as transport:
        service = connect(account, policy, transport, proxy=proxy)
        try:
            found = list(find(service, page_size))
        except AzureError as error:
            raise BadSettings(f"Cannot list the containers of the {account}: {explain(error, account)}") from None
        removed = kept = failed = 0
        for each in found:
            if each.age < older_than:
                kept += 1
                tell(f"{each.name}: kept, touched {each.age:.0f} s ago, so that a run may be using it.")
                continue
            why = _remove(service, each, account)
            removed += why is None
            failed += why is not None
            tell(f"{each.name}: {'removed.' if why is None else f'could not be removed: {why}'}")
    tell(_in_all(account, removed, kept, failed))
    return not failed


def find(service: BlobServiceClient, page_size: int | None = None) -> Iterator[Found]:
    """The demonstration's containers, page after page. Others whose name begins alike are none of them."""
    dates: list[datetime] = []

    def note_date(answer: Any) -> None:
        with suppress(ValueError, TypeError):
            dates.append(parsedate_to_datetime(answer.http_response.headers.get("Date")))

    pages = service.list_containers(
        name_starts_with=CONTAINER_PREFIX, results_per_page=page_size, raw_response_hook=note_date
    ).by_page()
    for page in pages:
        for each in page:
            if _NAME.fullmatch(each.name):
                # A server that does not date its answers is no reason to remove anything.
                age = (dates[-1] - each.last_modified).total_seconds() if dates else 0.0
                yield Found(each.name, each.last_modified, max(age, 0.0))


def _remove(service: BlobServiceClient, found: Found, account: Account) -> str | None:
    """None when it is gone, else why it is not."""
    try:
        service.delete_container(found.name, if_unmodified_since=found.touched)
    except ResourceNotFoundError:  # somebody else was faster
        return None
    except HttpResponseError as error:
        answer: Any = error.response
        if answer is not None and answer.headers.get("x-ms-error-code") == "ConditionNotMet":
            return "a run has touched it meanwhile."
        return explain(error, account)
    except AzureError as error:
        return explain(error, account)
    return None


def _in_all(account: Account, removed: int, kept: int, failed: int) -> str:
    if not removed + kept + failed:
        return f"none found: the {account} holds no container of an earlier run."
    parts = [f"{removed} container{'' if removed == 1 else 's'} removed"]
    if failed:
        parts.append(f"{failed} could not be")
    if kept:
        them = "it" if kept == 1 else "them"
        parts.append(f"{kept} kept (if no run is under way, --clean-up --older-than 0 removes {them} too)")
    return ", ".join(parts) + "."
