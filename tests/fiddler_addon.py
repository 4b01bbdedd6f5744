"""Loaded by mitmdump: Fiddler_script.txt decides on live traffic, a file is its check box, and all traffic is noted."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from mitmproxy import ctx, http
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from tests.fiddler import FiddlerScript


class Fiddler:
    """`fiddler_folder` holds settings.json, the check box (a file that is there, or not) and what was seen."""

    def __init__(self) -> None:
        self.folder = Path()
        self.script: FiddlerScript | None = None
        self.routes: dict[str, int] = {}

    def load(self, loader: Loader) -> None:
        loader.add_option("fiddler_folder", str, "", "Where tests.proxy.Proxy keeps its files.")
        # The parent holds the other end: when it dies, however it dies, this proxy goes too.
        threading.Thread(target=self._follow_parent, daemon=True).start()

    def _follow_parent(self) -> None:
        sys.stdin.read()
        os._exit(0)

    def running(self) -> None:
        self.folder = Path(ctx.options.fiddler_folder)
        settings = json.loads((self.folder / "settings.json").read_text("utf-8"))
        self.routes = settings["routes"]
        self.script = FiddlerScript(settings["script"]) if settings["script"] is not None else None
        proxyserver: Proxyserver = ctx.master.addons.lookup["proxyserver"]
        port = proxyserver.listen_addrs()[0][1]
        print(f"fiddler listens on {port}", flush=True)

    def request(self, flow: http.HTTPFlow) -> None:
        if flow.request.host in self.routes:
            flow.metadata["asked"] = flow.request.host, flow.request.port
            header = flow.request.host_header
            flow.request.host, flow.request.port = "127.0.0.1", self.routes[flow.request.host]
            flow.request.host_header = header

    def responseheaders(self, flow: http.HTTPFlow) -> None:
        # Rules are asked after this hook: they see the request as the client made it.
        if "asked" in flow.metadata:
            flow.request.host, flow.request.port = flow.metadata["asked"]

    def server_connect(self, data: ServerConnectionHookData) -> None:
        # No test may reach a real account, whatever its URLs say.
        host, port = (data.server.address or ("", 0))[:2]
        if host not in ("127.0.0.1", "localhost", "::1"):
            data.server.error = f"{host}:{port} is not on this machine and has no route"

    def response(self, flow: http.HTTPFlow) -> None:
        if flow.response is None:  # pragma: no cover - mitmproxy calls this hook with a response only
            return
        seen: dict[str, object] = {
            "method": flow.request.method,
            "url": flow.request.pretty_url,
            "original": flow.response.status_code,
        }
        try:
            if self.script is not None:
                self.script.checked = (self.folder / "checked").exists()
                answer = self.script.answer(
                    flow.request.method,
                    flow.request.pretty_host,
                    flow.request.path,
                    flow.response.status_code,
                    flow.response.reason,
                )
                flow.response.status_code, flow.response.reason = answer.status, answer.reason
        except Exception as error:  # mitmproxy would log it and let the answer pass; the test must hear of it
            seen["error"] = str(error)
            raise
        finally:
            seen["final"] = flow.response.status_code
            with (self.folder / "seen.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(seen) + "\n")


addons = [Fiddler()]
