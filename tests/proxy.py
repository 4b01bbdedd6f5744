"""A real intercepting proxy (mitmdump) in which the text of Fiddler_script.txt decides, for tests over real sockets."""

from __future__ import annotations

import collections
import json
import os
import queue
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.fiddler import SCRIPT

ROOT = Path(__file__).parent.parent
START_SECONDS = 60.0  # 2 s on an idle machine; the rest is for a busy one
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Passed:
    """One request that got an answer: the server's status, and the status that the client was given."""

    method: str
    url: str
    original: int
    final: int


class Proxy:
    """`with Proxy() as proxy:` is a proxy on 127.0.0.1 with its own certificate authority, gone at the end.

    routes: host name -> port on 127.0.0.1 to which the proxy connects instead, so that host-style names of Azure can
        be tried (`{"account.blob.core.windows.net": 10000}`). Other hosts off this machine are refused with 502.
    script: the rule's text; None: no rule, for trying other add-ons.
    addons: further mitmproxy scripts, loaded before ours; they run in `folder`.
    """

    url: str  # http://127.0.0.1:PORT, for `proxies=` and `--proxy`
    ca_pem: Path
    ca_der: Path  # what Fiddler exports

    def __init__(
        self,
        *,
        routes: Mapping[str, int] | None = None,
        script: str | None = SCRIPT.read_text(encoding="utf-8"),
        addons: Sequence[Path] = (),
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fiddler-"))
        self._output: collections.deque[str] = collections.deque(maxlen=200)
        settings = json.dumps({"routes": dict(routes or {}), "script": script})
        (self.folder / "settings.json").write_text(settings, encoding="utf-8")
        options = {
            "listen_host": "127.0.0.1",
            "listen_port": "0",  # the system picks a free one, and the add-on tells which
            "confdir": str(self.folder / "conf"),
            "fiddler_folder": str(self.folder),
            "connection_strategy": "lazy",  # connect when the request is known, hence after its route is
            "termlog_verbosity": "error",
            "flow_detail": "0",
            "ssl_insecure": "true",  # servers in tests sign for themselves, and none is off this machine
        }
        command = [sys.executable, "-c", "from mitmproxy.tools.main import mitmdump; mitmdump()"]
        for script_file in (*addons, ROOT / "tests" / "fiddler_addon.py"):
            command += ["-s", str(script_file)]
        for name, value in options.items():
            command += ["--set", f"{name}={value}"]
        self._process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
                "PYTHONIOENCODING": "utf-8",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        started: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read_output, args=(started,), daemon=True)
        self._reader.start()
        try:
            port = started.get(timeout=START_SECONDS)
        except queue.Empty:
            port = None
        if port is None:
            self.stop()
            raise RuntimeError("mitmdump did not start:\n" + "".join(self._output))
        self.url = f"http://127.0.0.1:{port}"
        self.ca_pem = self.folder / "conf" / "mitmproxy-ca-cert.pem"
        self.ca_der = self.folder / "FiddlerRoot.cer"
        self.ca_der.write_bytes(ssl.PEM_cert_to_DER_cert(self.ca_pem.read_text(encoding="ascii")))

    def _read_output(self, started: queue.Queue[str | None]) -> None:
        # Read to the end, or mitmdump would stand still once the pipe is full.
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._output.append(line)
            if found := re.match(r"fiddler listens on (\d+)", line):
                started.put(found[1])
        started.put(None)

    def check(self, on: bool) -> None:
        """Set the check box. Holds for each answer that reaches the proxy from now on."""
        box = self.folder / "checked"
        box.touch() if on else box.unlink(missing_ok=True)

    @property
    def seen(self) -> list[Passed]:
        """What has passed so far, in the order of the answers. Raises RuntimeError when the rule itself failed."""
        try:
            lines = (self.folder / "seen.jsonl").read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        records = [json.loads(line) for line in lines]
        for record in records:
            if "error" in record:
                raise RuntimeError(f"the rule failed on {record['method']} {record['url']}: {record['error']}")
        return [Passed(**record) for record in records]

    def stop(self) -> None:
        """End the process and remove its files; `seen` is empty afterwards. May be called again."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(STOP_SECONDS)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
