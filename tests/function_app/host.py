"""One instance of the function app, as a process of its own: asked in lines of JSON on stdin, answers on stdout.

Started by its path with the settings in the environment. It ends with its stdin.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any
from urllib.parse import parse_qsl

import azure.functions as func

# As the Python worker does it: everything from INFO, whoever says it.
logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")


async def serve() -> None:
    import function_app

    app: Any = function_app
    function = app.circuit_breaker.build().get_user_function()

    async def answer(order: dict[str, Any]) -> None:
        if order["query"] == "snapshot":
            said: dict[str, Any] = {"status": 0, "body": app.breaker.snapshot()}
        else:
            params = dict(parse_qsl(order["query"]))
            got = await function(func.HttpRequest(method="GET", url="/api/circuit-breaker", params=params, body=b""))
            said = {"status": got.status_code, "body": json.loads(got.get_body())}
        print(json.dumps({"id": order["id"], **said}), flush=True)

    tasks = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        task = asyncio.create_task(answer(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(serve())
