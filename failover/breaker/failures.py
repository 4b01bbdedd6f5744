"""Which outcomes of a call mean that the remote is down. Errors are recognized by name, so no SDK has to be imported.

A remote that answers is up, even if its answer is "no such blob" or "that key exists". Therefore an error counts as a
FAILURE unless these tables say that the remote answered (SUCCESS) or was never asked (NEUTRAL). They look at:

1. the status of the response that an error carries,
2. its class: the first class of its MRO that a table contains, by package and name,
3. its SQLSTATE, or its PEP 249 class.

For a result, only the status is looked at. Chained causes are ignored, because a library that wraps an error has
classified it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from enum import Enum
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, TypeAlias


class Verdict(Enum):
    """What the outcome of a call says about the remote."""

    SUCCESS = "success"
    """The remote answered, be it with an error of the caller's own making."""
    FAILURE = "failure"
    """The remote did not do its work."""
    NEUTRAL = "neutral"
    """The call says nothing: it counts neither way, and a probe's place is given back."""


SUCCESS: Final = Verdict.SUCCESS
FAILURE: Final = Verdict.FAILURE
NEUTRAL: Final = Verdict.NEUTRAL

Classifier: TypeAlias = Callable[[object], Verdict]
"""Takes what a call raised or returned. It is never asked about cancellation: see `is_cancellation`."""

Predicate: TypeAlias = Callable[[object], "Verdict | None"]
"""A part of a classifier: None where it has no opinion."""

FAILURE_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
"""HTTP statuses that say that the remote did not do its work. Any other is an answer."""


def is_cancellation(error: BaseException) -> bool:
    """Whether the caller gave up, which says nothing about the remote.

    True for `CancelledError`, `KeyboardInterrupt`, `SystemExit`, `GeneratorExit` and whatever else is no
    `Exception`: those are raised to stop the caller, not by the remote.
    """
    return not isinstance(error, Exception) or isinstance(error, CancelledError)


def classify(outcome: object) -> Verdict:
    """The default classifier. An unknown exception is a FAILURE; a result without an HTTP status is a SUCCESS.

    A result with an int `status_code`, or with `headers` and an int `status` or `code`, is judged by that status. It
    never raises, except for what is not an `Exception` (Ctrl-C), and does not call `__getattr__`, because a mock or a
    remote proxy would have every attribute.
    """
    try:
        judge = _judges.get(type(outcome), _judge_new_type)
        return SUCCESS if judge is None else judge(outcome)
    except Exception:  # noqa: BLE001 (a property of somebody's object; nothing can be known of it)
        return FAILURE if issubclass(type(outcome), BaseException) else SUCCESS


def classifier(*predicates: Predicate, then: Classifier = classify) -> Classifier:
    """One's own rules first: the first predicate that returns a verdict decides, `then` where none does.

    For `Policy(classify=...)`. A predicate takes what a call raised or returned.

    >>> def known_outcomes(outcome):
    ...     if isinstance(outcome, KeyError):  # the shop has no such article, and says so
    ...         return SUCCESS
    ...     if isinstance(outcome, dict) and outcome.get("state") == "degraded":
    ...         return FAILURE
    ...     return None
    >>> judge = classifier(known_outcomes)
    >>> judge(KeyError("article 7")), judge({"state": "degraded"})
    (<Verdict.SUCCESS: 'success'>, <Verdict.FAILURE: 'failure'>)
    >>> judge(ConnectionRefusedError()), judge({"state": "fine"})  # as `classify` says
    (<Verdict.FAILURE: 'failure'>, <Verdict.SUCCESS: 'success'>)
    """

    def judge(outcome: object) -> Verdict:
        for predicate in predicates:
            verdict = predicate(outcome)
            if verdict is not None:
                return verdict
        return then(outcome)

    return judge


# --- results ------------------------------------------------------------------------------------------------------

UNSTARTED: Final = frozenset((CoroutineType, GeneratorType, AsyncGeneratorType))
"""Types of results that are work not yet begun, where the function is of that kind."""

_COMMON: Final = frozenset((type(None), bool, int, float, str, bytes, tuple, list, dict, set))
PLAIN: Final = set(_COMMON)
"""Types whose instances `classify` finds to be a SUCCESS, whatever they hold: so a call need not ask it. Those that it
has met so far; none of work not yet begun, which a call must look at."""

# How to judge a result, by its type; None: its type is plain. Looked up with each result, so a plain dict: a weak one
# takes three times as long. It keeps at most this many types alive that nobody else needs.
_MOST_TYPES = 1000
_judges: dict[type, Classifier | None] = {}
_STATUS_NAMES = ("status_code", "status", "code")


def _judge_new_type(outcome: object) -> Verdict:
    kind = type(outcome)
    if issubclass(kind, BaseException):
        return _judge_error(outcome)
    judge = _judge_of(kind)
    if len(_judges) >= _MOST_TYPES:  # of classes made while the program runs
        _judges.clear()
        PLAIN.intersection_update(_COMMON)
    _judges[kind] = judge
    if judge is None and kind not in UNSTARTED:
        PLAIN.add(kind)
    return SUCCESS if judge is None else judge(outcome)


def _judge_of(kind: type) -> Classifier | None:
    found = {name: value for each in kind.__mro__[:-1] for name, value in vars(each).items()}
    # Without a __dict__ an instance has the attributes of its class and no others.
    if not kind.__dictoffset__ and not found.keys() & {"status_code", "headers"}:
        return None
    # Built-in types have a __getattribute__ of their own that does what object's does.
    written = type(found.get("__getattribute__", object.__getattribute__)) is not type(object.__getattribute__)
    return _judge_guarded if written or "__getattr__" in found else _judge_result


def _judge_result(result: Any) -> Verdict:
    status = getattr(result, "status_code", None)
    if status is None:
        # Plenty of things that are no response have a `status` or a `code`; none has headers too.
        if getattr(result, "headers", None) is None:
            return SUCCESS
        status = _status_in(result, ("status", "code"))
    return FAILURE if issubclass(type(status), int) and status in FAILURE_STATUSES else SUCCESS


def _judge_guarded(result: object) -> Verdict:
    return FAILURE if _status_of(result) in FAILURE_STATUSES else SUCCESS


def _status_of(thing: object) -> int | None:
    return _status_in(thing, ("status_code",) if _peek(thing, "headers") is None else _STATUS_NAMES)


def _status_in(thing: object, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = _peek(thing, name)
        # Flask's `status` is text, gRPC's `code` a method; aiohttp says 0 where it has none.
        if issubclass(type(value), int) and 100 <= value <= 599:
            return int(value)
    return None


def _peek(thing: object, name: str) -> Any:
    """An attribute that is really there, or None: `__getattr__` is not asked, what a property raises is dropped."""
    try:
        return object.__getattribute__(thing, name)
    except Exception:  # noqa: BLE001 (of somebody's property)
        return None


# --- errors -------------------------------------------------------------------------------------------------------

_Rule: TypeAlias = Callable[[Any], "Verdict | None"]


def _judge_error(error: Any) -> Verdict:
    if is_cancellation(error):
        return NEUTRAL
    response = _peek(error, "response")
    status = _status_of(error) if response is None else _status_in(response, _STATUS_NAMES)
    if status is not None and status >= 300:
        return FAILURE if status in FAILURE_STATUSES else SUCCESS
    for rule in (_by_class, _by_sqlstate, _by_dbapi_class):
        verdict = rule(error)
        if verdict is not None:
            return verdict
    # A status below 300 does not explain an error, but says that there was an answer.
    return FAILURE if status is None else SUCCESS


def _by_class(error: BaseException) -> Verdict | None:
    for kind in type(error).__mro__:
        rule = _KNOWN.get((kind.__module__.partition(".")[0], kind.__name__))
        verdict = rule if rule is None or isinstance(rule, Verdict) else rule(error)
        if verdict is not None:
            return verdict
    return None


def _of_members(group: Any) -> Verdict | None:
    # One failure makes the whole a failure; among the rest one answer shows that the remote is there.
    verdicts = {_judge_error(member) for member in group.exceptions}
    return next((each for each in (FAILURE, SUCCESS, NEUTRAL) if each in verdicts), None)


def _of_file(error: OSError) -> Verdict:
    # An error that names a file is about that file. One that names none comes from a socket: no server listens at
    # that path, or a firewall forbids the way.
    return FAILURE if error.filename is None else NEUTRAL


# 429, 500 and 503 of HTTP, under other names. All others are answers, but for CANCELLED: ABORTED is a conflict with
# another caller, its 409.
_GRPC_FAILURES = {"DATA_LOSS", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"}


def _of_grpc(error: Any) -> Verdict:
    # A streaming call that has just been returned is an RpcError too, and its code() waits for the stream's end.
    if hasattr(error, "done") and not error.done():
        return SUCCESS
    name = error.code().name
    return NEUTRAL if name == "CANCELLED" else FAILURE if name in _GRPC_FAILURES else SUCCESS


def _of_botocore(error: Any) -> Verdict | None:
    # The answer is a dict: the status in its metadata, the service's own word in Error.Code ("404" for a HEAD).
    answer = _peek(error, "response")
    if not isinstance(answer, dict):
        return None
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    code = str(answer.get("Error", {}).get("Code", ""))
    if status is None and code.isdigit():
        status = int(code)
    # Throttling is a 400 in the older protocols.
    if status in FAILURE_STATUSES or code in _AWS_THROTTLING:
        return FAILURE
    return None if status is None else SUCCESS


_AWS_THROTTLING = {
    *("BandwidthLimitExceeded", "EC2ThrottledException", "LimitExceededException", "PriorRequestNotComplete"),
    *("ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled", "SlowDown"),
    *("RequestThrottledException", "ThrottledException", "Throttling", "ThrottlingException"),
    *("TooManyRequestsException", "TransactionInProgressException"),
}
"""botocore's own list of codes that it retries as throttling (`botocore.retries.standard`)."""


def _of_google(error: Any) -> Verdict | None:
    # `code` is an `http.HTTPStatus`, of gRPC's errors too; None where nothing answered.
    status = _peek(error, "code")
    if not isinstance(status, int):
        return None
    # Cancelled has 499, and is the caller's.
    return NEUTRAL if status == 499 else FAILURE if status in FAILURE_STATUSES else SUCCESS


# A server that is shutting down, stepping down, not the primary, out of disk, memory or time: MongoDB's retryable
# errors and its exceeded limits. All other codes are answers.
_MONGO_FAILURES = {6, 7, 24, 50, 63, 89, 91, 112, 133, 134, 150, 189, 202, 262, 292, 314, 317, 354, 384}
_MONGO_FAILURES |= {9001, 10058, 10107, 11600, 11602, 13388, 13435, 13436, 14031}


def _of_pymongo(error: Any) -> Verdict | None:
    code = _peek(error, "code")
    return FAILURE if code is None or code in _MONGO_FAILURES else SUCCESS


# SQLite's primary result codes. A lock is the whole database's, so while BUSY nobody's writes get done: unlike the
# lock of a row, which only its rivals wait for.
_SQLITE: Mapping[int, Verdict] = {
    # INTERNAL PERM BUSY NOMEM READONLY IOERR CORRUPT FULL CANTOPEN PROTOCOL NOLFS NOTADB
    **dict.fromkeys((2, 3, 5, 7, 8, 10, 11, 13, 14, 15, 22, 26), FAILURE),
    **dict.fromkeys((9, 21), NEUTRAL),  # INTERRUPT and MISUSE: the caller's
}
# Python 3.10 does not tell the code. What SQL may be wrong about is said in these words.
_SQLITE_SAYS = re.compile(
    r"no such |near |already exists|has no column|ambiguous |unrecognized token|incomplete input|misuse of|"
    r"wrong number of arguments|values (for|were) |do not have the same number|table is locked|cannot (start|commit) "
)


def _of_sqlite(error: Any) -> Verdict | None:
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None:
        return _SQLITE.get(code & 0xFF, SUCCESS)
    if str(error) == "interrupted":
        return NEUTRAL
    return SUCCESS if type(error).__name__ == "OperationalError" and _SQLITE_SAYS.search(str(error)) else None


# What MySQL and MariaDB say with numbers from 1000 on are answers, deadlocks and lock time-outs included, but for
# 2000 to 2999 (the client's: no connection) and for these: no memory, disk, threads or connections left; shutting
# down, killed; the network; a crashed table; read-only; a statement's time-out.
_MYSQL_FAILURES = {1015, 1021, 1030, 1037, 1038, 1040, 1041, 1047, 1053, 1077, 1079, 1080, 1105, 1114, 1129, 1135}
_MYSQL_FAILURES |= {*range(1152, 1162), 1184, 1194, 1195, 1203, 1226, 1290, 1317, 1836, 1927, 1969, 3024, 3169, 4031}


def _of_mysql(error: Any) -> Verdict | None:
    number = error.args[0] if error.args else None
    if not isinstance(number, int) or number < 1000:  # of the driver, or of the server's disk
        return None
    return FAILURE if 2000 <= number < 3000 or number in _MYSQL_FAILURES else SUCCESS


# By the whole SQLSTATE, then by its class. One that is not here is an answer: rows that are rivals for a lock (40,
# 55) say nothing of the server.
_SQLSTATES: Mapping[str, Verdict | None] = {
    # No connection; out of resources; shutting down or timed out; I/O; a defect of the server; ODBC's time-outs.
    **dict.fromkeys(("08", "53", "57", "58", "XX", "HYT00", "HYT01"), FAILURE),
    "25006": FAILURE,  # read-only: it was the primary before its failover
    "40003": FAILURE,  # nobody knows whether the statement was done
    "HY008": NEUTRAL,  # cancelled by the caller
    "IM": NEUTRAL,  # the ODBC driver manager's own: no such data source, no such driver
    **dict.fromkeys(("00", "01", "HY"), None),  # no error, a warning, "general error": ask the class
}


def _by_sqlstate(error: Any) -> Verdict | None:
    return _of_sqlstate(_peek(error, "sqlstate") or _peek(error, "pgcode"))


def _of_sqlstate(state: object) -> Verdict | None:
    if not isinstance(state, str) or len(state) != 5:
        return None
    return _SQLSTATES.get(state, _SQLSTATES.get(state[:2], SUCCESS))


def _by_dbapi_class(error: BaseException) -> Verdict | None:
    """By PEP 249, where no code says more: operational, interface and internal errors are failures, as is the rest.

    Only the server can find that a row breaks a constraint. The other classes are as often the driver's word for a
    query that it never sent.
    """
    names = {kind.__name__ for kind in type(error).__mro__}
    if not names >= {"DatabaseError", "Error"}:  # a DataError of somebody's own
        return None
    if "IntegrityError" in names:
        return SUCCESS
    return NEUTRAL if names & {"DataError", "ProgrammingError", "NotSupportedError"} else None


# Classes that are no failures, and failures derived from those. By package, not by module: modules move. NEUTRAL is
# what the package itself says of a request that was malformed or never sent (a pool of one's own that is empty).
_BY_PACKAGE: Mapping[str, Mapping[Verdict | _Rule, str]] = {
    "aiohttp": {
        NEUTRAL: "InvalidURL NonHttpUrlClientError WSMessageTypeError",
        SUCCESS: "RedirectClientError TooManyRedirects",
        FAILURE: "ContentTypeError",  # HTML for JSON: something in between answered in the remote's place
    },
    "azure": {
        # One without a response comes from a credential that could not sign.
        NEUTRAL: "ClientAuthenticationError SerializationError StreamConsumedError StreamClosedError "
        "ResponseNotReadError",
        # A body that is broken at its source is so on any attempt. (The same of httpx, requests and urllib3.)
        SUCCESS: "DecodeError ResourceExistsError ResourceModifiedError ResourceNotFoundError "
        "ResourceNotModifiedError TooManyRedirectsError",
        FAILURE: "IncompleteReadError",
    },
    "botocore": {
        NEUTRAL: "NoCredentialsError NoRegionError ParamValidationError PartialCredentialsError UnknownServiceError",
        _of_botocore: "ClientError",
    },
    "builtins": {
        _of_members: "BaseExceptionGroup",
        _of_file: "FileExistsError FileNotFoundError IsADirectoryError NotADirectoryError PermissionError",
    },
    "exceptiongroup": {_of_members: "BaseExceptionGroup"},  # of Python 3.10
    # Another circuit, inside the call, is open: what is behind this call is not available either.
    "failover": {FAILURE: "CircuitOpen"},
    "google": {_of_google: "GoogleAPICallError"},
    "grpc": {_of_grpc: "RpcError", NEUTRAL: "FutureCancelledError"},
    "http": {NEUTRAL: "InvalidURL CannotSendRequest"},
    "httpx": {
        NEUTRAL: "CookieConflict InvalidURL LocalProtocolError PoolTimeout StreamError UnsupportedProtocol",
        SUCCESS: "DecodingError TooManyRedirects",
    },
    # What the server said of the command; it is down or not by the codes of `_MONGO_FAILURES` and by other classes.
    "pymongo": {_of_pymongo: "OperationFailure", NEUTRAL: "ConfigurationError InvalidName InvalidOperation"},
    "redis": {
        NEUTRAL: "CrossSlotTransactionError DataError InvalidPipelineStack MaxConnectionsError PubSubError",
        SUCCESS: "AuthenticationError AuthorizationError LockError ResponseError WatchError",
        FAILURE: "ClusterDownError OutOfMemoryError ReadOnlyError",  # "I cannot", in the form of an answer
    },
    "requests": {
        NEUTRAL: "InvalidHeader InvalidJSONError InvalidSchema InvalidURL MissingSchema StreamConsumedError "
        "UnrewindableBodyError URLRequired",
        SUCCESS: "ContentDecodingError TooManyRedirects",
        FAILURE: "JSONDecodeError",  # as the standard library's, which nobody knows
    },
    "urllib3": {
        NEUTRAL: "ClosedPoolError EmptyPoolError HostChangedError LocationValueError ProxySchemeUnsupported "
        "UnrewindableBodyError",
        SUCCESS: "DecodeError",
    },
    **{driver: {_of_mysql: "Error"} for driver in ("MySQLdb", "mysql", "pymysql")},
    "pyodbc": {lambda error: _of_sqlstate(error.args[0] if len(error.args) > 1 else None): "Error"},
    "sqlalchemy": {lambda error: _judge_error(error.orig) if error.orig else None: "DBAPIError"},
    "sqlite3": {_of_sqlite: "Error"},
}
_KNOWN: Mapping[tuple[str, str], Verdict | _Rule] = {
    (package, name): rule
    for package, rules in _BY_PACKAGE.items()
    for rule, names in rules.items()
    for name in names.split()
}
