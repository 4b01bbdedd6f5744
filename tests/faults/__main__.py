"""The table as it comes out on this machine: `python -m tests.faults`."""

from __future__ import annotations

import logging
import re
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

from azure.core.exceptions import AzureError

from failover.storage import GeoFailover
from tests.faults.front import Front
from tests.faults.kinds import KINDS, Kind, T
from tests.storage.account import HELLO, store
from tests.storage.async_client import WaitingGeoFailover
from tests.storage.clients import connect


def row(kind: Kind) -> str:
    """One read of a new client, sync and aio: what it gets, what the circuit counted, and the slower one's seconds."""
    read: list[tuple[str, str, str]] = []
    took: list[float] = []
    for policy_kind in (GeoFailover, WaitingGeoFailover):
        with tempfile.TemporaryDirectory() as folder:
            tls = Path(folder) if kind.needs == "tls" else None
            with Front(named=kind.needs == "name", tls=tls) as front:
                socket.getaddrinfo, real = front.resolver(socket.getaddrinfo), socket.getaddrinfo
                try:
                    read.append(_read(front, kind, policy_kind, took))
                finally:
                    socket.getaddrinfo = real
    cells = [sync if sync == other else f"{sync} (aio: {other})" for sync, other in zip(*read, strict=True)]
    return " | ".join([*cells, f"{max(took):.2f}"])


def _read(front: Front, kind: Kind, policy_kind: Any, took: list[float]) -> tuple[str, str, str]:
    store(front.standin)
    policy = policy_kind(attempt_timeout=T if kind.costs else 20.0)
    options = {} if front.certificate is None else {"connection_verify": str(front.certificate)}
    with connect(front, policy, **options) as service:
        front.begin(kind)
        began = time.monotonic()
        try:
            content = service.get_blob_client("demo", "HelloWorld").download_blob(**kind.options).readall()
            got = "right bytes" if content == HELLO else "wrong bytes"
        except AzureError as error:
            got = type(error).__name__
        took.append(time.monotonic() - began)
    seen = policy.primary.snapshot()
    cause = re.sub(r"0\.\d+ s|1\.2 s", "its time", seen["last_error"] or "-")
    return got, str(seen["failures"]), cause


def main() -> None:
    """Print it."""
    logging.getLogger("azure").addHandler(logging.NullHandler())
    print(f"One read each, 13 bytes, attempt_timeout {T} s where it matters; the secondary is well.")
    print("kind | gets | failures counted | cause | seconds | bound")
    for name, kind in KINDS.items():
        print(f"{name} | {row(kind)} | {kind.costs * T:.1f}", flush=True)


if __name__ == "__main__":
    main()
