"""The demonstration's containers: how a run marks its own as in use, and how `--clean-up` removes abandoned ones.

A run that is killed leaves its container behind. Nothing tells from outside whether a run is still under way, so each
run sends a heartbeat: twice a minute it writes its container's metadata, which sets the container's Last-Modified. A
container without a heartbeat for five minutes counts as abandoned. Its age is computed from the account's clock alone.

Two containers look abandoned and are not: that of a run that has been stopped (Ctrl-Z) or cut off from the account for
so long, and that of a run whose credential may create containers but not change them.
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
ABANDONED_AFTER: Final = 300.0  # seconds without a heartbeat

_HEARTBEAT_EVERY = 30.0  # seconds; several may fail, or be late, before the container counts as abandoned
_HEARTBEAT: Final = {"used_by": "circuitbreaker"}  # any metadata would do: writing it sets Last-Modified
_NAME: Final = re.compile(re.escape(CONTAINER_PREFIX) + r"[0-9a-f]{12}")


def new_container_name() -> str:
    """Return a name that no other run has."""
    return CONTAINER_PREFIX + uuid.uuid4().hex[:12]


def send_heartbeats(container: ContainerClient, finished: threading.Event) -> None:
    """Mark `container` as in use every 30 seconds until `finished` is set. Runs in a thread of its own.

    A heartbeat that fails is not repeated: the next one is due soon enough.
    """
    while not finished.wait(_HEARTBEAT_EVERY):
        try:
            container.set_container_metadata(_HEARTBEAT, retry_total=0)
        except AzureError:
            continue
        except Exception:
            if not finished.is_set():  # else the transport was closed before this thread saw the end of the run
                raise


@dataclass(frozen=True, slots=True)
class DemoContainer:
    """A container of the demonstration.

    Attributes:
        name: Its name.
        last_modified: The time of its last heartbeat, by the account's clock.
        age: Seconds since then, never negative; 0 where the server does not date its answers.
    """

    name: str
    last_modified: datetime
    age: float


def clean_up(
    account: Account,
    write_line: Callable[[str], None],
    *,
    older_than: float = ABANDONED_AFTER,
    timeout: float = 5.0,
    proxy: str | None = None,
    verify: str | bool = True,
    page_size: int | None = None,
) -> bool:
    """Remove the account's abandoned containers.

    Args:
        account: The account to clean up.
        write_line: Called with one line for each container and one for all. A line may contain text from a server,
            unescaped.
        older_than: Seconds without a heartbeat after which a container is removed.
        timeout: Connect and read time-out of each request, in seconds.
        proxy: URL of the proxy to use, or None.
        verify: Which certificates to trust, as requests takes it.
        page_size: Containers per page of the listing; None: the service decides.

    Returns:
        Whether every container that should be removed is gone.

    Raises:
        BadSettings: The containers cannot be listed. Nothing has been removed then.
    """
    # From the primary alone: the secondary may list containers that are gone, and takes no deletion.
    policy = LinearRetry(backoff=1, retry_total=1, random_jitter_range=0)
    with make_transport(account, timeout=timeout, verify=verify) as transport:
        service = connect(account, policy, transport, proxy=proxy)
        try:
            found = list(find_containers(service, page_size))
        except AzureError as error:
            raise BadSettings(f"Cannot list the containers of the {account}: {explain(error, account)}") from None
        removed = kept = failed = 0
        for each in found:
            if each.age < older_than:
                kept += 1
                write_line(f"{each.name}: kept, touched {each.age:.0f} s ago, so that a run may be using it.")
                continue
            why_not = _remove(service, each, account)
            removed += why_not is None
            failed += why_not is not None
            write_line(f"{each.name}: {'removed.' if why_not is None else f'could not be removed: {why_not}'}")
    write_line(_summary(account, removed, kept, failed))
    return not failed


def find_containers(service: BlobServiceClient, page_size: int | None = None) -> Iterator[DemoContainer]:
    """Yield the demonstration's containers, page after page.

    A container whose name has the same prefix but not the form of a run's is somebody else's, and is left out.
    """
    dates: list[datetime] = []

    def remember_date(response: Any) -> None:
        with suppress(ValueError, TypeError):
            dates.append(parsedate_to_datetime(response.http_response.headers.get("Date")))

    pages = service.list_containers(
        name_starts_with=CONTAINER_PREFIX, results_per_page=page_size, raw_response_hook=remember_date
    ).by_page()
    for page in pages:
        for each in page:
            if _NAME.fullmatch(each.name):
                # A server that does not date its answers is no reason to remove anything.
                age = (dates[-1] - each.last_modified).total_seconds() if dates else 0.0
                yield DemoContainer(each.name, each.last_modified, max(age, 0.0))


def _remove(service: BlobServiceClient, container: DemoContainer, account: Account) -> str | None:
    """Delete the container unless a run has used it meanwhile. Returns None when it is gone, else why it is not."""
    try:
        service.delete_container(container.name, if_unmodified_since=container.last_modified)
    except ResourceNotFoundError:  # somebody else was faster
        return None
    except HttpResponseError as error:
        response: Any = error.response
        if response is not None and response.headers.get("x-ms-error-code") == "ConditionNotMet":
            return "a run has touched it meanwhile."
        return explain(error, account)
    except AzureError as error:
        return explain(error, account)
    return None


def _summary(account: Account, removed: int, kept: int, failed: int) -> str:
    if not removed + kept + failed:
        return f"none found: the {account} holds no container of an earlier run."
    parts = [f"{removed} container{'' if removed == 1 else 's'} removed"]
    if failed:
        parts.append(f"{failed} could not be")
    if kept:
        them = "it" if kept == 1 else "them"
        parts.append(f"{kept} kept (if no run is under way, --clean-up --older-than 0 removes {them} too)")
    return ", ".join(parts) + "."
