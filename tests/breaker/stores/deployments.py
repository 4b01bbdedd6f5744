"""A Redis Cluster of three, and a Redis with a replica and a sentinel, of real servers on ports of their own."""

from __future__ import annotations

import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.breaker.circuits import wait_for
from tests.redis_server import RedisServer, free_port, server_program

_SLOTS = 16_384


def _start(folder: Path, stack: ExitStack, more: str = "") -> RedisServer:
    folder.mkdir()
    server = RedisServer(folder, _free_ports(), None, more)
    server.start()
    stack.callback(server.stop)
    return server


def _free_ports() -> int:
    """A free port below one, by 10,000, on which a cluster's node can talk to the others."""
    while True:
        port = free_port()
        with suppress(OSError, OverflowError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 10_000))
            return port


@contextmanager
def run_cluster(folder: Path) -> Iterator[list[RedisServer]]:
    """Three nodes that share the slots, without replicas."""
    with ExitStack() as stack:
        options = "--cluster-enabled yes --cluster-node-timeout 1000"
        nodes = [_start(folder / f"node{n}", stack, options) for n in range(3)]
        clients: list[Any] = [redis.Redis(port=node.port) for node in nodes]
        for number, client in enumerate(clients):
            slots = range(number * _SLOTS // 3, (number + 1) * _SLOTS // 3)
            client.execute_command("CLUSTER ADDSLOTS", *slots)
            client.execute_command("CLUSTER MEET", "127.0.0.1", nodes[0].port)
        wait_for(lambda: all(client.cluster("info")["cluster_state"] == "ok" for client in clients))
        wait_for(lambda: all(client.cluster("info")["cluster_known_nodes"] == "3" for client in clients))
        yield nodes


@dataclass
class Group:
    """A master, its replica, and the port of the sentinel that watches them under the name `mine`."""

    master: RedisServer
    replica: RedisServer
    sentinel: int


@contextmanager
def run_sentinel(folder: Path) -> Iterator[Group]:
    """A group in which the replica takes over about two seconds after the master's end."""
    with ExitStack() as stack:
        master = _start(folder / "master", stack)
        replica = _start(folder / "replica", stack, f"--replicaof 127.0.0.1 {master.port}")
        port = free_port()
        configuration = folder / "sentinel.conf"
        configuration.write_text(
            f"port {port}\nbind 127.0.0.1\nsentinel monitor mine 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds mine 1000\nsentinel failover-timeout mine 3000\n"
        )
        run = f"{shlex.quote(server_program())} sentinel.conf --sentinel </dev/null >sentinel.log 2>&1 &"
        process = subprocess.Popen(
            ["sh", "-c", f"{run} read end; kill -9 $! 2>/dev/null"], cwd=folder, stdin=subprocess.PIPE
        )
        stack.callback(process.wait)
        assert process.stdin is not None
        stack.callback(process.stdin.close)
        client: Any = redis.Redis(port=port)

        def knows_the_replica() -> bool:
            with suppress(redis.RedisError):
                return len(client.sentinel_slaves("mine")) == 1 and len(client.sentinel_masters()) == 1
            return False

        wait_for(knows_the_replica)
        up: Any = redis.Redis(port=replica.port)
        wait_for(lambda: up.info("replication")["master_link_status"] == "up")
        yield Group(master, replica, port)
