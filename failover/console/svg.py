"""The few SVG elements that the picture of a run is made of. What is written as text is escaped here, and only here."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

from failover.console.wording import clean

# A picture in a README may load nothing: each of these is on the machine that shows it, or the last one is.
FONTS = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono','Liberation Mono',monospace"
ADVANCE = 0.605  # of the font's size; the widest of the fonts above advances so far for each character


def number(value: float) -> str:
    """A coordinate, as short as it can be."""
    return f"{value:.1f}".removesuffix(".0")


def columns(room: float, size: float) -> int:
    """How many characters of a font of this size have room."""
    return int(room / (size * ADVANCE))


def text(x: float, y: float, told: str, style: str = "", **attributes: object) -> str:
    """A line of text from x, on the baseline y; `style` are classes."""
    return f"<text{_attributes(x=x, y=y, **{'class': style}, **attributes)}>{_escaped(told)}</text>"


def spans(x: float, y: float, told: Iterable[tuple[str, str]], style: str = "") -> str:
    """A line of text in parts (text, classes), each where the one before it ends, whatever the font.

    A space between two parts is a distance: a renderer may leave a space out.
    """
    inner = "".join(
        f"<tspan{_attributes(**{'class': each}, dx='.6em' if part.startswith(' ') else '')}>{_escaped(part)}</tspan>"
        for part, each in told
    )
    return f"<text{_attributes(x=x, y=y, **{'class': style})}>{inner}</text>"


def rect(x: float, y: float, width: float, height: float, style: str = "", **attributes: object) -> str:
    """A rectangle."""
    return f"<rect{_attributes(x=x, y=y, width=width, height=height, **{'class': style}, **attributes)}/>"


def path(steps: Iterable[str], style: str, **attributes: object) -> str:
    """A path of these steps; nothing where there are none."""
    drawn = "".join(steps)
    return f"<path{_attributes(**{'class': style}, **attributes, d=drawn)}/>" if drawn else ""


def group(parts: Iterable[str], name: str, **attributes: object) -> str:
    """Parts that belong together, named for who looks into the file."""
    return f"<g{_attributes(id=name, **attributes)}>\n" + "\n".join(each for each in parts if each) + "\n</g>"


def document(width: float, height: float, title: str, described: str, style: str, parts: Iterable[str]) -> str:
    """The whole file. `title` and `described` are for those who do not see it."""
    size = f'viewBox="0 0 {number(width)} {number(height)}" width="{number(width)}" height="{number(height)}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title desc">'
    told = f'<title id="title">{_escaped(title)}</title>\n'
    told += f'<desc id="desc">{_escaped(described)}</desc>'
    return "\n".join([head, told, f"<style>{style}</style>", *(each for each in parts if each), "</svg>"]) + "\n"


def _escaped(told: str) -> str:
    """The text on one line, with nothing in it that is markup or that XML forbids."""
    return escape(clean(told, 2000))


def _attributes(**attributes: object) -> str:
    kept = {name: value for name, value in attributes.items() if value not in ("", None)}
    return "".join(
        f" {name.replace('_', '-')}={quoteattr(number(value) if isinstance(value, float) else str(value))}"
        for name, value in kept.items()
    )
