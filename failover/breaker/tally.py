"""Tally: what the algorithm of a circuit has counted, where it keeps a window; the user's code in it may raise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from failover.breaker.machine import Counted, Event, Record, State, Ticket
from failover.breaker.trips import Trip, Window

if TYPE_CHECKING:
    from failover.breaker.telling import Teller

_RAISED: Final = "the algorithm of circuit %s raised; failures in a row decide"


class Tally:
    """Of one circuit, under its lock. Where there is no window, failures in a row are counted in the record."""

    __slots__ = ("_teller", "_trip", "window")

    def __init__(self, trip: Trip, teller: Teller) -> None:
        self._trip = trip
        self._teller = teller
        self.window: Window | None = trip.window()

    def count(self, record: Record, event: Event, ticket: Ticket | None, now: float) -> Counted | None:
        """What the window says with this result in it; None where there is none, it raised, or this does not count."""
        if self.window is None or event not in (Event.SUCCESS, Event.FAILURE) or record.state is not State.CLOSED:
            return None
        if ticket is None or ticket.era != record.era or ticket.last_resort:
            return None
        try:
            trips = self.window.add(event is Event.FAILURE, now)
            return Counted(int(self.window.failures), bool(trips))
        except Exception as error:  # noqa: BLE001 (an algorithm of the user's may raise anything)
            self._teller.note_defect(_RAISED, error)
            return None

    def start_anew(self) -> None:
        """A new era has begun."""
        if self.window is None:
            return
        try:
            self.window = self._trip.window()
        except Exception as error:  # noqa: BLE001 (as in `count`)
            self._teller.note_defect(_RAISED, error)
            self.window = None
