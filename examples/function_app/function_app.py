"""The functions: one asked over HTTP, its twin fed by a queue, both calling the downstream through one circuit."""

from __future__ import annotations

import logging
import os
from functools import partial

import azure.functions as func

import answers
from circuit import circuit_for
from downstream import Downstream
from failover.breaker import CircuitOpen
from settings import Settings
from wanted import BadRequest, Wanted

logger = logging.getLogger("function_app")
# The SDK under table:// and blob:// logs each request at INFO, one a second for as long as the app runs.
logging.getLogger("azure.core").setLevel(logging.WARNING)

QUEUE = "circuit-breaker-requests"

settings = Settings.read(os.environ)
breaker = circuit_for(settings)
downstream = Downstream(settings.downstream)
app = func.FunctionApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.route(route="circuit-breaker", methods=[func.HttpMethod.GET])
async def circuit_breaker(req: func.HttpRequest) -> func.HttpResponse:
    """GET /api/circuit-breaker?status=503&timeout=5: each end that the call can have is one of `answers`."""
    try:
        wanted = Wanted.of(req.params)
    except BadRequest as bad:
        return answers.bad_request(bad)
    answer: func.HttpResponse = await breaker.aexecute(
        partial(downstream.get, wanted),
        on_success=partial(answers.answered, breaker),
        on_failure=partial(answers.failed, breaker),
        on_open=partial(answers.refused, breaker, settings.fallback),
    )
    return answer


@app.queue_trigger(arg_name="message", queue_name=QUEUE, connection="AzureWebJobsStorage")
@app.queue_output(arg_name="poison", queue_name=f"{QUEUE}-poison", connection="AzureWebJobsStorage")
async def circuit_breaker_queue(message: func.QueueMessage, poison: func.Out[bytes]) -> None:
    """A message {"status": 503, "timeout": 5} is done when the downstream has answered.

    What this raises tells the host to make the message visible again after `visibilityTimeout` (host.json). There is
    no fallback here: a message that is answered by one would be lost.
    """
    try:
        wanted = Wanted.of_json(message.get_body())
    except BadRequest as bad:
        # It would fail as often as it is tried. The host writes the copy before it deletes the message.
        logger.error("Message %s goes to %s-poison, since it can never succeed: %s", message.id, QUEUE, bad)  # noqa: TRY400
        poison.set(message.get_body())
        return
    try:
        await breaker.acall(downstream.get, wanted)
    except Exception as error:
        why = "refused by the open circuit" if isinstance(error, CircuitOpen) else "the call failed"
        logger.warning("Message %s goes back to the queue: %s. tries=%s", message.id, why, message.dequeue_count)
        raise
