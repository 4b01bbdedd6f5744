"""A substitute for the downstream API, so that no internet is needed: GET /503 is answered with 503, and so on.

Start it with `python substitute.py`; `--delay 8` makes it slow. It listens on this machine alone.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Substitute(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps the connection

    def __init__(self, delay: float, *args: Any) -> None:
        self._delay = delay
        super().__init__(*args)

    def do_GET(self) -> None:
        wanted = self.path.strip("/")
        status = int(wanted) if wanted.isascii() and wanted.isdigit() and 200 <= int(wanted) <= 599 else 404
        body = b"" if status in (204, 304) else json.dumps({"status": status}).encode()
        time.sleep(self._delay)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser(description="Answers GET /STATUS with that status.")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="before each answer")
    options = parser.parse_args()
    server = ThreadingHTTPServer(("127.0.0.1", options.port), partial(Substitute, options.delay))
    where = f"http://127.0.0.1:{server.server_port}"
    print(f"The substitute downstream is {where} (Ctrl-C ends it)", flush=True)  # noqa: T201 (a program)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
