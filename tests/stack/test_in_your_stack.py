"""The blocks of docs/in-your-stack.md as they stand there, each in a process of its own, with the primary dead."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from failover.standin import StandIn
from tests.stack.account import GREETING, fill
from tests.storage.account import Trail

ROOT: Final = Path(__file__).parents[2]
TEXT: Final = (ROOT / "docs" / "in-your-stack.md").read_text(encoding="utf-8")
SECTIONS: Final = [section.partition("\n") for section in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)]
BLOCKS: Final = {
    heading: code
    for heading, _, text in SECTIONS
    for code in re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
}


@pytest.fixture
def account() -> Iterator[StandIn]:
    """An account that has lost its primary."""
    with StandIn(0.0) as made:
        fill(made)
        made.lose_primary()
        yield made


class Place:
    """A folder with a block of the doc in it, for programs."""

    def __init__(self, folder: Path, account: StandIn) -> None:
        self.folder = folder
        self.account = account
        self.env = {
            **os.environ,
            "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
            "AZURE_STORAGE_CONNECTION_STRING": account.connection_string,
            "AzureWebJobsStorage": account.connection_string,
            "PYTHONWARNINGS": "ignore",
        }

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout.strip()


@pytest.fixture
def place(tmp_path: Path, account: StandIn) -> Place:
    return Place(tmp_path, account)


# What is asked of each block after it has run, and what that prints.
GREETS: Final = ("print(greeting)", GREETING)
AFTER: Final[dict[str, tuple[str, str]]] = {
    "pandas": ("print(sales['sum'].sum(), again.equals(sales))", "3 True"),
    "dask": ("print(total)", "6"),
    "pyarrow": ("print(table.num_rows)", "2"),
    "polars": ("print(sales['sum'].sum())", "3"),
    "cloudpathlib": GREETS,
    "smart_open": GREETS,
    "mlflow": ("from pathlib import Path; print(Path(path).read_text())", GREETING),
    "django-storages": (
        """
        import django, django.conf
        django.conf.settings.configure(STORAGES=STORAGES)
        django.setup()
        from django.core.files.storage import default_storage
        print(default_storage.open("greeting.txt").read().decode())
        """,
        GREETING,
    ),
    "Airflow's hooks": GREETS,
    "Azure Functions: bindings": (
        """
        import json, types
        (function,) = app.get_functions()
        content = json.dumps({"Connection": "AzureWebJobsStorage", "ContainerName": "demo", "BlobName": "greeting.txt"})
        data = types.SimpleNamespace(version="1.0", source="AzureStorageBlobs", content_type="json", content=content)
        for _ in range(4):
            print(function.get_user_function()(None, blob.BlobClient(data=data).get_sdk_type()))
        """,
        "\n".join([GREETING] * 4),
    ),
    "FastAPI and other programs with asyncio": (
        """
        from fastapi.testclient import TestClient
        with TestClient(app) as client:
            print(client.get("/greeting.txt").text)
        """,
        GREETING,
    ),
}
PROGRAMS: Final = {"Data Lake", "Celery", "gunicorn"}  # tested below


def test_every_block_is_run() -> None:
    assert set(BLOCKS) == set(AFTER) | PROGRAMS
    assert len(BLOCKS) == TEXT.count("```python")


@pytest.mark.parametrize("heading", AFTER)
def test_a_block_reads_on(heading: str, place: Place) -> None:
    after, expected = AFTER[heading]
    if heading == "Airflow's hooks":
        place.write("airflow/providers/microsoft/azure/hooks/wasb.py", HOOK)
    place.write("program.py", f"{BLOCKS[heading]}\n{textwrap.dedent(after)}")
    trail = Trail(place.account)

    assert place.run("program.py") == expected

    assert set(trail.look()) == {"S"}, "the primary is dead"


HOOK: Final = '''
"""What the real hook does with its client."""
import functools, os
from azure.storage.blob import BlobServiceClient


class WasbHook:
    def __init__(self, wasb_conn_id):
        self._client = None

    def get_conn(self):
        return BlobServiceClient.from_connection_string(os.environ["AZURE_STORAGE_CONNECTION_STRING"])

    @property
    def blob_service_client(self):
        if self._client is None:
            self._client = self.get_conn()
        return self._client

    def read_file(self, container, blob):
        container_client = self.blob_service_client.get_container_client(container)
        return container_client.get_blob_client(blob).download_blob().content_as_text()
'''


def test_data_lake(place: Place) -> None:
    """The stand-in has no dfs endpoint: here host names of Azure's own form lead to a server that has."""
    from tests.storage.data_lake import ACCOUNT, KEY, data_lake

    with data_lake({"greeting.txt": GREETING.encode()}) as lake:
        lake.broken.update({f"{ACCOUNT}.blob.core.windows.net", f"{ACCOUNT}.dfs.core.windows.net"})
        place.env["AZURE_STORAGE_CONNECTION_STRING"] = f"AccountName={ACCOUNT};AccountKey={KEY}"
        place.write("sitecustomize.py", ROUTES.format(primary=lake.primary.url, secondary=lake.secondary.url))
        place.write("program.py", f"{BLOCKS['Data Lake']}\nprint(greeting.decode(), paths)")
        assert place.run("program.py") == f"{GREETING} ['greeting.txt']"


ROUTES: Final = """
import copy
from azure.core.pipeline.transport import RequestsTransport

original = RequestsTransport.send


def send(self, request, **options):
    host, _, rest = request.url.partition("://")[2].partition("/")
    sent = copy.copy(request)
    sent.url = ("{secondary}" if "-secondary." in host else "{primary}") + f"/{{host}}/{{rest}}"
    return original(self, sent, **options)


RequestsTransport.send = send
"""


def test_celery(place: Place) -> None:
    """A real worker with two processes, over a broker of files."""
    place.write("tasks.py", BLOCKS["Celery"])
    place.write(
        "configured.py",
        """
import pathlib
from tasks import app, read

for name in ("queue", "done", "results"):
    pathlib.Path(name).mkdir(exist_ok=True)
app.conf.update(
    broker_url="filesystem://",
    broker_transport_options={"data_folder_in": "queue", "data_folder_out": "queue", "processed_folder": "done"},
    result_backend="file://results",
)
""",
    )
    place.write(
        "ask.py",
        """
from configured import read

asked = [read.delay("greeting.txt") for _ in range(4)]
print(*[each.get(timeout=60) for each in asked], sep="\\n")
""",
    )
    options = ["--pool=prefork", "--concurrency=2", "--loglevel=warning", "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", "celery", "-A", "configured", "worker", *options]
    with running(command, place):
        assert place.run("ask.py") == "\n".join([GREETING] * 4)


@pytest.mark.parametrize("options", [["--preload"], []], ids=["protected before the fork", "after it"])
def test_gunicorn(options: list[str], place: Place) -> None:
    place.write("web.py", BLOCKS["gunicorn"])
    command = [sys.executable, "-m", "gunicorn", "--workers", "2", "--bind", "127.0.0.1:0", *options, "web:app"]
    with running(command, place) as output:
        url = wait_for(r"Listening at: (http://\S+)", output)
        answers = [urllib.request.urlopen(f"{url}/greeting.txt", timeout=60).read() for _ in range(6)]  # noqa: S310
    assert answers == [GREETING.encode()] * 6


class running:  # noqa: N801 (a verb with `with`)
    """A server of the place; gives the file that it writes to."""

    def __init__(self, command: list[str], place: Place) -> None:
        self._command = command
        self._place = place
        self._output = place.folder / "output.txt"

    def __enter__(self) -> Path:
        with self._output.open("w") as output:
            env = {**self._place.env, "C_FORCE_ROOT": "1"}
            self._process = subprocess.Popen(
                self._command, cwd=self._place.folder, env=env, stdout=output, stderr=subprocess.STDOUT
            )
        return self._output

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if error is not None:
            sys.stdout.write(self._output.read_text())


def wait_for(pattern: str, output: Path) -> str:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = re.search(pattern, output.read_text())
        if found:
            return found[1]
        time.sleep(0.05)
    raise AssertionError(f"no {pattern} in {output.read_text()}")
