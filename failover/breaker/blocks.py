"""Which `with breaker:` blocks a thread or task is in, so that one circuit serves all of them at once."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

from failover.breaker.machine import Record, Ticket

if TYPE_CHECKING:
    from failover.breaker.circuit import CircuitBreaker

# A block entered and not yet left: breaker, ticket, record, time of entry, and the block around it.
# A plain tuple, since making one is most of what an empty block costs.
Block: TypeAlias = "tuple[CircuitBreaker, Ticket | None, Record, float, Block | None]"

# The innermost block of this thread or task.
entered: ContextVar[Block | None] = ContextVar("failover_breaker_entered", default=None)


def leave(breaker: CircuitBreaker, *, gone: bool) -> Block | None:
    """The innermost block of this circuit, which is left now; raises `RuntimeError` where there is none.

    With `gone` it gives None instead: the garbage collector closes a generator or coroutine in whichever thread or
    task it happens to run in. A block that is left so counts neither way anyhow.
    """
    block = entered.get()
    if block is None or block[0] is not breaker:
        block = _take_from_within(breaker, block)
        if block is None:
            if gone:
                return None
            raise RuntimeError(f"circuit {breaker.name!r} was not entered in this thread or task")
    entered.set(block[4])
    return block


def _take_from_within(breaker: CircuitBreaker, innermost: Block | None) -> Block | None:
    """The block of `breaker` with all others around it: two generators may leave theirs in any order."""
    inside: list[Block] = []
    block = innermost
    while block is not None and block[0] is not breaker:
        inside.append(block)
        block = block[4]
    if block is None:
        return None
    outer = block[4]
    for other in reversed(inside):
        outer = (*other[:4], outer)
    return (*block[:4], outer)
