"""Work in forked children, whose parents have threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable


def in_a_fork(work: Callable[[], bool]) -> bool:
    """Whether `work()` ends in a forked child and gives True."""
    child = os.fork()
    if child == 0:
        ended = threading.Event()

        def give_up() -> None:
            if not ended.wait(20):
                os._exit(2)

        threading.Thread(target=give_up, daemon=True).start()
        try:
            os._exit(0 if work() else 1)
        except BaseException:
            os._exit(3)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
