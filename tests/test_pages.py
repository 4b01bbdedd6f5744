"""All pages in Markdown: what they link to, call and show exists. Links between pages: the build of the site checks."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import LinearRetry

from failover.breaker import Cooldown, Policy, State
from failover.storage import GeoFailover
from tests.checkout import ROOT, project_files

PAGES = [ROOT / name for name in project_files() if name.endswith(".md")]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


@each_page
def test_files_that_it_links_to_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", prose(page))
    local = [first or second for first, second in links if "://" not in (first or second)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@each_page
def test_files_that_it_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:failover|tests|benchmarks|docs|examples|\.github|\.ci)/[\w./-]+)`", prose(page))
    assert [name for name in named if not (ROOT / name).exists()] == []


@each_page
def test_modules_that_it_calls_exist(page: Path) -> None:
    called = re.findall(r"python -m ((?:benchmarks|tests|failover)[\w.]*)", page.read_text(encoding="utf-8"))
    assert [name for name in called if importlib.util.find_spec(name) is None] == []


@each_page
def test_its_diagrams_have_no_semicolon_which_ends_a_statement_there(page: Path) -> None:
    diagrams = re.findall(r"^```mermaid\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert [line for diagram in diagrams for line in diagram.splitlines() if ";" in line] == []


def test_the_settings_of_before_production_are_accepted() -> None:
    text = (ROOT / "docs" / "before-production.md").read_text(encoding="utf-8")
    shown = re.findall(r"`((?:GeoFailover|Policy)\([^`]+\))`", text)
    assert len(shown) >= 5
    names = {"GeoFailover": GeoFailover, "Policy": Policy, "Cooldown": Cooldown, "LinearRetry": LinearRetry}
    for each in shown:
        assert isinstance(eval(each, names), (GeoFailover, Policy))  # noqa: S307 (that is the test)


def test_circuits_are_shared_as_the_page_says() -> None:
    text = (ROOT / "docs" / "sharing.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    here, there = ({"url": "memory://sharing-page"}, {"url": "memory://sharing-page"})
    for names in (here, there):
        exec(code, names)  # noqa: S102 (that is the test)
    policies: list[Any] = [here["policy"], there["policy"]]
    policies[0].primary.trip()
    assert [each.primary.state for each in policies] == [State.OPEN, State.OPEN]
    assert [each.secondary.state for each in policies] == [State.CLOSED, State.CLOSED]


@pytest.mark.parametrize("package", ["failover.storage", "failover.breaker", "failover.breaker.stores"])
def test_every_public_name_is_in_the_reference(package: str) -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert f"automodule:: {package}\n   :members:\n" in text
    module = importlib.import_module(package)
    for name in module.__all__:
        value = getattr(module, name)
        # autodoc shows what has a docstring of its own; a constant or an alias of a type has none.
        documented = (inspect.isclass(value) or inspect.isroutine(value)) and value.__doc__
        assert documented or inspect.ismodule(value) or f"autodata:: {package}.{name}\n" in text, name


def test_modules_with_optional_packages_are_in_the_reference() -> None:
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    for name in ("failover.storage.fsspec", "failover.breaker.otel"):
        assert f"automodule:: {name}\n   :members:" in text
