"""The site: `sphinx-build -W --keep-going docs site` makes it of the pages here and of the public docstrings."""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from failover import __version__  # noqa: E402 (found by the line above)

project = "RA-GRS failover"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinxcontrib.mermaid"]

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = html_css_files = ["site.css"]
html_show_copyright = False
html_show_sphinx = False
# Those that pages name in a <picture>, as GitHub shows them in light and dark, too.
html_extra_path = [picture.name for picture in HERE.glob("*.svg")]

myst_heading_anchors = 3  # as GitHub names them, so that a link to a heading works in both places
myst_fence_as_directive = ["mermaid"]
mermaid_fullscreen = False
mermaid_height = "auto"
mermaid_init_config = {
    "startOnLoad": False,
    # Ids are numbers, not times: two diagrams drawn in the same millisecond would be drawn into one.
    "deterministicIds": True,
    # Narrow enough for the page's width, so that the text is not scaled down.
    "sequence": {"wrap": True, "width": 150, "actorMargin": 10, "messageMargin": 28},
}
highlight_language = "none"  # of a fence that names none

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
# The site is built with the extra `docs` alone; modules of the reference import these packages.
autodoc_mock_imports = ["adlfs", "fsspec", "opentelemetry"]
napoleon_numpy_docstring = False


def single_backticks_are_code(
    _app: object, _what: str, _name: str, _of: object, _opts: object, lines: list[str]
) -> None:
    """Docstrings are written as Markdown has it; reST wants two backticks, and no letter right behind them."""
    text = re.sub(
        r"(?<!`)`([^`]+)`(?!`)(\w?)",
        lambda found: rf"``{found[1]}``" + (rf"\ {found[2]}" if found[2] else ""),
        "\n".join(lines),
    )
    lines[:] = text.split("\n")


def setup(app: object) -> None:
    app.connect("autodoc-process-docstring", single_backticks_are_code, priority=900)  # type: ignore[attr-defined]
