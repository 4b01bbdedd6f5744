"""The errors that a read through `GeoFailover` raises in addition to those of the SDK."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from azure.core.exceptions import AzureError, HttpResponseError

E = TypeVar("E", bound=AzureError)


class _Unanswered(AzureError):  # noqa: N818 (it says what is wrong)
    """No endpoint answered the read.

    No `HttpResponseError`: the SDK replaces those by its own. Pickles and copies keep the text and the fields but for
    the responses, which hold sockets.

    Attributes:
        primary: Why the primary gave no answer, in a few words without any secret.
        secondary: The same of the secondary.
        primary_error: The primary's last failure, of the type that the SDK raises for it, without any secret; None
            where it was not asked. Also the `__cause__`, else `secondary_error`.
        secondary_error: The same of the secondary.
        response: Of the primary's failure, else of the secondary's; None where there was no response.
        status_code: Of that response.
        error_code: The service's own word for it, such as "ServerBusy".
        request_id: The service's number of the request, for a support case.
    """

    _text = ""

    def __init__(
        self,
        primary: str,
        secondary: str,
        *,
        primary_error: Exception | None = None,
        secondary_error: Exception | None = None,
    ) -> None:
        super().__init__(self._text.format(primary=primary, secondary=secondary))
        forget_context(self)
        self.primary = primary
        self.secondary = secondary
        self.primary_error = primary_error
        self.secondary_error = secondary_error
        self.__cause__ = primary_error or secondary_error
        responses = [getattr(each, "response", None) for each in (primary_error, secondary_error)]
        self.response: Any = next((each for each in responses if each is not None), None)
        self.status_code: int | None = getattr(self.response, "status_code", None)
        headers = getattr(self.response, "headers", {})
        self.error_code: str | None = headers.get("x-ms-error-code")
        self.request_id: str | None = headers.get("x-ms-request-id")

    def __reduce__(self) -> tuple[Any, ...]:
        errors = [_without_response(each) for each in (self.primary_error, self.secondary_error)]
        told = (self.status_code, self.error_code, self.request_id)
        return _remade, (type(self), self.primary, self.secondary, *errors, told)


class BothEndpointsDown(_Unanswered):
    """Neither endpoint answered the read. The attributes say why."""

    _text = "Neither endpoint answered. Primary: {primary}. Secondary: {secondary}."


class NotReplicated(_Unanswered):
    """The secondary does not have the resource, and the primary, which may have it, does not answer.

    This is deliberately not a `ResourceNotFoundError`: it is unknown whether the resource exists.
    """

    _text = "The secondary does not hold it ({secondary}), and the primary, which may, gives no answer: {primary}."


class StaleRead(_Unanswered):
    """The secondary's answer is older than what was read or written before, and the primary does not answer.

    Only raised with `GeoFailover(consistency="session")`.

    Attributes:
        older: When the secondary's version was written (Last-Modified). None: it does not have the resource, or does
            not send the time.
        newer: When the newest version that this policy's clients have read or written was written, or when it was
            deleted. If this is no longer remembered: the newest such time of everything that was forgotten.
    """

    older: datetime | None = None
    newer: datetime | None = None

    _text = "The secondary's answer is older than what was read or written before ({secondary}). Primary: {primary}."

    def __reduce__(self) -> tuple[Any, ...]:
        return (*super().__reduce__(), {"older": self.older, "newer": self.newer})


def forget_context(error: E) -> E:
    """Take from an error what azure-core keeps of the exception that was being handled when it was made.

    That has a traceback, may have a SAS in its message, and may be the error itself.
    """
    error.exc_type = error.exc_value = error.exc_traceback = error.inner_exception = None
    error.exc_msg = error.message
    return error


def _without_response(error: Exception | None) -> Exception | None:
    if not isinstance(error, HttpResponseError):
        return error
    bare = forget_context(type(error)(error.message))
    bare.status_code, bare.reason = error.status_code, error.reason
    return bare


def _remade(
    kind: type[_Unanswered],
    primary: str,
    secondary: str,
    primary_error: Exception | None,
    secondary_error: Exception | None,
    told: tuple[int | None, str | None, str | None],
) -> _Unanswered:
    error = kind(primary, secondary, primary_error=primary_error, secondary_error=secondary_error)
    error.status_code, error.error_code, error.request_id = told
    return error
