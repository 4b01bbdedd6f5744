"""PRIMARY and SECONDARY so large that they are read from across the room."""

from __future__ import annotations

_FONT = {
    "A": (" ## ", "#  #", "####", "#  #", "#  #"),
    "C": (" ###", "#   ", "#   ", "#   ", " ###"),
    "D": ("### ", "#  #", "#  #", "#  #", "### "),
    "E": ("####", "#   ", "### ", "#   ", "####"),
    "H": ("#  #", "#  #", "####", "#  #", "#  #"),
    "I": ("###", " # ", " # ", " # ", "###"),
    "M": ("#   #", "## ##", "# # #", "#   #", "#   #"),
    "N": ("#   #", "##  #", "# # #", "#  ##", "#   #"),
    "O": (" ## ", "#  #", "#  #", "#  #", " ## "),
    "P": ("### ", "#  #", "### ", "#   ", "#   "),
    "R": ("### ", "#  #", "### ", "# # ", "#  #"),
    "S": (" ###", "#   ", " ## ", "   #", "### "),
    "T": ("#####", "  #  ", "  #  ", "  #  ", "  #  "),
    "Y": ("#   #", " # # ", "  #  ", "  #  ", "  #  "),
}
_HALVES = {(" ", " "): " ", ("#", " "): "▀", (" ", "#"): "▄", ("#", "#"): "█"}


def pixels(word: str) -> list[str]:
    """The word as five rows of "#" and " ", one pixel between letters. Raises KeyError on a letter that is not here."""
    return [" ".join(_FONT[letter][row] for letter in word) for row in range(5)]


def halves(word: str) -> list[str]:
    """The word three lines high, two pixels to a character."""
    rows = [*pixels(word), ""]
    rows[5] = " " * len(rows[0])
    return ["".join(_HALVES[pair] for pair in zip(rows[y], rows[y + 1], strict=True)) for y in (0, 2, 4)]


def blocks(word: str) -> list[str]:
    """The word five lines high, two characters to a pixel."""
    return ["".join("██" if pixel == "#" else "  " for pixel in row) for row in pixels(word)]
