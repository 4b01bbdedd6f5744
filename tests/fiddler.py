"""Runs the text of Fiddler_script.txt itself in V8, so that tests try what a user pastes and no copy of it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from py_mini_racer import MiniRacer

SCRIPT = Path(__file__).parent.parent / "Fiddler_script.txt"

_PASTE = re.compile(r"^// =+ PASTE (\d) BEGINS\b.*?=+\n(.*?)^// =+ PASTE \1 ENDS =+\n", re.MULTILINE | re.DOTALL)
# The only form in which Fiddler knows a check box of the Rules menu that is bound to a pref.
_OPTION = re.compile(
    r'public\s+static\s+RulesOption\("(?P<label>[^"]*)"\)\s+BindPref\("(?P<pref>[^"]*)"\)\s+'
    r"var\s+(?P<name>\w+)\s*:\s*boolean\s*=\s*(?P<default>true|false);"
)
_COMMENT = re.compile(r"^\s*//.*$", re.MULTILINE)

# Fiddler's Session, as far as rules for a response use it. A member that is not here is an error and not
# `undefined`: JScript.NET would refuse to compile it. Names in brackets are session flags, as oSession["ui-color"].
_SESSION = """
function only(members, kind) {
    return new Proxy(members, {
        get: function (target, name) {
            if (name in target) return target[name];
            if (kind === "Session" && String(name).indexOf("-") > 0) return null;
            throw new Error("Fiddler's " + kind + " has no member " + String(name));
        },
        set: function (target, name, value) {
            if (kind === "Session" && String(name).indexOf("-") > 0) { target.flags[name] = value; return true; }
            throw new Error("Fiddler's " + kind + " has no member " + String(name) + " that can be set");
        }
    });
}
function answer(given) {
    var flags = {};
    var result = { status: given.status, reason: given.reason, flags: flags };
    OnBeforeResponse(only({
        flags: flags,
        hostname: given.hostname,
        PathAndQuery: given.path_and_query,
        get responseCode() { return result.status; },
        HTTPMethodIs: function (name) { return given.method.toUpperCase() === name.toUpperCase(); },
        oResponse: only({ headers: only({
            SetStatus: function (code, text) { result.status = code; result.reason = text; return true; }
        }, "HTTPResponseHeaders") }, "ServerChatter")
    }, "Session"));
    return JSON.stringify(result);
}
"""

# CustomRules.js as Fiddler ships it has this in OnBeforeResponse; the paste goes above it and must leave it alone.
_HANDLER = """
var m_Hide304s = true;
var %(name)s = %(default)s;
function OnBeforeResponse(oSession) {
%(body)s
    if (m_Hide304s && oSession.responseCode == 304) {
        oSession["ui-hide"] = "true";
    }
}
"""


@dataclass(frozen=True)
class Answer:
    """What the program behind Fiddler gets, and how the session is marked in Fiddler's list."""

    status: int
    reason: str
    flags: dict[str, str] = field(default_factory=dict)


class FiddlerScript:
    """Fiddler with both pastes in its CustomRules.js.

    Raises ValueError when the text has not exactly two pastes, or the first is not a check box of the Rules menu.
    """

    def __init__(self, text: str | None = None) -> None:
        text = SCRIPT.read_text(encoding="utf-8") if text is None else text
        pastes = dict(_PASTE.findall(text))
        if list(pastes) != ["1", "2"] or len(re.findall(r"^// =+ PASTE", text, re.MULTILINE)) != 4:
            raise ValueError("Fiddler_script.txt must have exactly two marked pastes, 1 and 2")
        self.option_paste, self.rule_paste = pastes["1"], pastes["2"]
        option = _OPTION.fullmatch(_COMMENT.sub("", self.option_paste).strip())
        if option is None:
            raise ValueError("paste 1 must be one RulesOption field with a BindPref and nothing else")
        self.label, self.pref = option["label"], option["pref"]
        self._field = option["name"]
        self._engine = MiniRacer()
        body = re.sub(r"\bvar\s+(\w+)\s*:\s*[\w.]+(\[\])?", r"var \1", self.rule_paste)
        self._engine.eval(_SESSION + _HANDLER % {"name": self._field, "default": option["default"], "body": body})

    @property
    def checked(self) -> bool:
        return self._engine.eval(self._field) is True

    @checked.setter
    def checked(self, on: bool) -> None:
        self._engine.eval(f"{self._field} = {json.dumps(on)}")

    def answer(self, method: str, hostname: str, path_and_query: str, status: int = 200, reason: str = "OK") -> Answer:
        """The answer to one request after OnBeforeResponse. `hostname` has no port, as in Fiddler.

        Raises py_mini_racer's JSEvalException when the rule uses what Fiddler does not have.
        """
        given = {
            "method": method,
            "hostname": hostname,
            "path_and_query": path_and_query,
            "status": status,
            "reason": reason,
        }
        return Answer(**json.loads(str(self._engine.eval(f"answer({json.dumps(given)})"))))
