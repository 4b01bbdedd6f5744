"""What the HTTP function answers: always JSON, with the circuit as it is now wherever one was asked."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Final

import aiohttp
import azure.functions as func

from downstream import Answer
from failover.breaker import CircuitBreaker, CircuitOpen
from wanted import BadRequest

EXAMPLE: Final = "/api/circuit-breaker?status=503&timeout=5"
_HEADERS: Final = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def bad_request(bad: BadRequest) -> func.HttpResponse:
    return _json(400, {"message": f"Bad request: {bad}.", "example": f"GET {EXAMPLE}"})


def answered(breaker: CircuitBreaker, answer: Answer) -> func.HttpResponse:
    """Any status that is no failure of the downstream's, 404 too."""
    return _json(
        200,
        {
            "message": f"The downstream answered {answer.status}.",
            "downstream": {"url": answer.url, "status": answer.status, "body": answer.text},
            "breaker": breaker.snapshot(),
        },
    )


def failed(breaker: CircuitBreaker, error: BaseException) -> func.HttpResponse:
    body = {"message": "The downstream failed.", "error": _words(error), "breaker": breaker.snapshot()}
    return _json(502, body)


def refused(breaker: CircuitBreaker, fallback: str | None, refusal: CircuitOpen) -> func.HttpResponse:
    """With a fallback its text and 200, else 503 and Retry-After."""
    circuit = breaker.snapshot()
    if refusal.retry_after is not None:
        reason, seconds = "The circuit is open: the downstream failed and is left alone.", refusal.retry_after
    elif circuit["isolated"]:
        reason, seconds = "The circuit was opened by hand, and stays so until it is reset by hand.", 60.0
    else:
        reason, seconds = "The circuit is half-open: a probe of the downstream is in flight.", 1.0
    if fallback is not None:
        return _json(200, {"message": fallback, "degraded": True, "reason": reason, "breaker": circuit})
    body = {"message": "The downstream was not called.", "reason": reason, "breaker": circuit}
    # Whole seconds, and never earlier than the probe is due.
    return _json(503, body, {"Retry-After": str(max(1, math.ceil(seconds)))})


def _words(error: BaseException) -> str:
    """Not the error's own: they may quote what came over the wire."""
    if isinstance(error, aiohttp.ClientResponseError):
        return f"it answered {error.status}"
    if isinstance(error, asyncio.TimeoutError):
        return "it did not answer in time"
    return f"the call failed ({type(error).__name__})"


def _json(status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> func.HttpResponse:
    return func.HttpResponse(
        # ASCII alone: what the downstream wrote cannot end a line or turn the text around.
        json.dumps(body, indent=2) + "\n",
        status_code=status,
        headers={**_HEADERS, **(headers or {})},
        mimetype="application/json",
        charset="utf-8",
    )
