"""Fixtures for every test: the stand-in account, Azurite, and each in turn.

In CI nothing is skipped: an Azurite that does not start is an error. `-m "not azurite"` leaves its tests out.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from failover.standin import StandIn
from tests.servers import Account, Azurite, install_azurite, run_azurite

# The programs that tests start inherit what is ignored here, as under nohup, and would not hear the signals they get.
for name in ("SIGHUP", "SIGINT", "SIGTERM"):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)

# tests/stack needs the extra `stack`, and an environment of its own: .ci/run makes that.
collect_ignore = [] if find_spec("adlfs") else ["stack"]


@pytest.fixture
def standin() -> Iterator[StandIn]:
    """A new stand-in account whose secondary is never behind: for lag, make one with a Clock."""
    with StandIn(0.0) as account:
        yield account


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """One Azurite for all tests: each uses names of its own."""
    with run_azurite(tmp_path_factory.mktemp("azurite")) as account:
        yield account


@pytest.fixture(scope="session")
def azurite_https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """Azurite behind TLS, which takes any well-formed Entra token that says it is for storage."""
    with run_azurite(tmp_path_factory.mktemp("azurite-https"), https=True) as account:
        yield account


@pytest.fixture(params=["stand-in", pytest.param("azurite", marks=pytest.mark.azurite)])
def account(request: pytest.FixtureRequest) -> Account:
    """The stand-in, then Azurite."""
    chosen: Account = request.getfixturevalue("standin" if request.param == "stand-in" else "azurite")
    return chosen


@pytest.fixture
def unlogged() -> Iterator[None]:
    """Pytest's own handler writes to a buffered file, whose lock a fork may leave held in the child."""
    logger = logging.getLogger("failover")
    logger.propagate = False
    yield
    logger.propagate = True


@pytest.hookimpl(tryfirst=True)  # before -m takes its pick
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if {"azurite", "azurite_https"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.azurite)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install Azurite before the first test, whose time-out is not meant for that."""
    if session.config.option.collectonly or not any(item.get_closest_marker("azurite") for item in session.items):
        return
    try:
        install_azurite()
    except RuntimeError as error:
        pytest.exit(str(error), returncode=1)
