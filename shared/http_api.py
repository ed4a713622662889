"""HTTP functions: a table of routes over plain operations. Tokens, access, bodies and problems are dealt with here.

An operation is a function whose parameters say what it needs: path variables by name, `user_uuid`, `body` and `query`
as structs that the request is decoded into, `headers`. It returns a struct, or an Answer where there is more to say.
"""

from __future__ import annotations

import inspect
import logging
import re
import typing
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast
from uuid import UUID

import flask
import functions_framework
import msgspec
from sqlalchemy import exc
from werkzeug.datastructures import Headers
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.routing import Map, RequestRedirect, Rule

from shared import access, logs
from shared.clients.databases import is_unavailable
from shared.delivery import Function, Trigger
from shared.errors import Unavailable
from shared.problems import Problem, not_found

log = logging.getLogger(__name__)

FIELD_IN_SENTENCE = re.compile(r"(?:missing required|unknown) field `([^`]+)`")
PATH_VARIABLE = re.compile(r"<(?:(\w+)(?:\(.*?\))?:)?(\w+)>")
# The types that werkzeug's converters make of a path variable.
CONVERTED: dict[str, type] = {"": str, "string": str, "any": str, "path": str, "int": int, "float": float, "uuid": UUID}
MAX_BODY_BYTES = 1_000_000  # a request with thousands of filters is a tenth of it


@dataclass(frozen=True)
class Answer:
    """What an operation answers where a struct alone does not say it."""

    body: Any = None  # a struct (JSON), text, bytes, or an iterable of bytes (a stream)
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """One entry of an API: method, path in werkzeug's notation, and what is done."""

    method: str
    path: str
    operation: Callable[..., Any]
    status: int = 200  # of the answer, unless the operation says otherwise
    public: bool = False  # asks for no token: the operation knows by itself who is calling
    needs_feature: str = ""  # that the webshop must have booked

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The operation's parameters by name, with their types."""
        types = typing.get_type_hints(self.operation)
        return {name: types.get(name) for name in inspect.signature(self.operation).parameters}

    @cached_property
    def path_variables(self) -> dict[str, type]:
        """The variables in the path by name, with their types."""
        return {name: CONVERTED[converter] for converter, name in PATH_VARIABLE.findall(self.path)}

    @cached_property
    def body_decoder(self) -> msgspec.json.Decoder[Any]:
        """Decodes a JSON body into the struct that the operation takes."""
        return msgspec.json.Decoder(self.parameters["body"])


def http_function(name: str, routes: tuple[Route, ...]) -> Function:
    """Makes `routes` a function called `name`. Raises TypeError for a route whose operation cannot be called."""
    for route in routes:
        check(route)
    paths = Map([Rule(r.path, methods=[r.method], endpoint=r) for r in routes], strict_slashes=False)

    def handle(request: flask.Request) -> flask.Response:
        header = request.headers.get("traceparent", "")
        with logs.context(header, function=name):
            return answered(paths, request)

    handle.__name__ = name
    function: Any = functions_framework.http(handle)
    function.trigger, function.routes = Trigger("http"), routes
    return cast("Function", function)


def check(route: Route) -> None:
    """Raises TypeError if the operation asks for a parameter that the route does not have, or for another type of it.

    Called when a function is made: a mistake stops the deployment instead of every request.
    """
    operation = f"{route.method} {route.path}: {route.operation.__name__}"
    if not route.public and "webshop_uuid" not in route.path_variables:
        raise TypeError(f"{operation} has no webshop_uuid in its path; a route that is not public needs it.")
    types = route.path_variables | {"headers": Headers} | ({} if route.public else {"user_uuid": UUID})
    for name, found in route.parameters.items():
        if name in types:
            fits, allowed = found is types[name], types[name].__name__
        elif name == "query":
            fits, allowed = is_struct(found), "a struct"
        elif name == "body":
            fits, allowed = is_struct(found) or found is bytes, "a struct or bytes"
        else:
            raise TypeError(f"{operation} asks for {name!r}; the route has {', '.join(types)}, query and body.")
        if not fits:
            raise TypeError(f"{operation} asks for {name!r} as {found!r}; it must be {allowed}.")


def is_struct(found: Any) -> bool:
    """Whether a type is a struct that msgspec can decode. Raises TypeError if msgspec does not know a field's type."""
    if not (isinstance(found, type) and issubclass(found, msgspec.Struct)):
        return False
    msgspec.json.Decoder(found)  # resolves the struct's types now instead of at the first request
    return True


def answered(paths: Map, request: flask.Request) -> flask.Response:
    """The answer to `request`, whatever happens: an answer or a problem, never a traceback."""
    try:
        return performed(paths, request)
    except Problem as problem:
        return problem_response(problem)
    except Exception as error:
        reference = str(uuid.uuid4())
        log.exception("The request failed, reference %s", reference)
        return problem_response(failure(error, reference))


def failure(error: Exception, reference: str) -> Problem:
    """503 where a system that we depend on is away, 500 where the fault is ours; the reference stands in the log."""
    away = isinstance(error, (Unavailable, exc.TimeoutError))
    if away or (isinstance(error, exc.DBAPIError) and is_unavailable(error)):
        detail = f"A system that we depend on does not answer. Try again in a moment. Reference: {reference}"
        return Problem(503, "unavailable", detail, headers={"Retry-After": "5"})
    return Problem(500, "unexpected", f"Something went wrong on our side. Tell us this reference: {reference}")


def performed(paths: Map, request: flask.Request) -> flask.Response:
    """Finds the route, checks who is asking, decodes what the operation needs, and calls it."""
    route, variables = matched(paths, request)
    given: dict[str, Any] = {**variables, "headers": request.headers}
    if not route.public:
        given["user_uuid"] = access.user_of(request.headers.get("Authorization", ""))
        check_access(route, given["user_uuid"], variables["webshop_uuid"])
    wanted = route.parameters
    if "query" in wanted:
        given["query"] = converted(lambda: msgspec.convert(request.args.to_dict(), wanted["query"], strict=False))
    if "body" in wanted:
        given["body"] = decoded(request, route)
    result = route.operation(**{name: given[name] for name in wanted})
    answer = result if isinstance(result, Answer) else Answer(result, route.status)
    return response(answer)


def matched(paths: Map, request: flask.Request) -> tuple[Route, dict[str, Any]]:
    """The route and its path variables. Raises Problem 404 or 405."""
    try:
        route, variables = paths.bind_to_environ(request.environ).match()
        return cast("Route", route), dict(variables)
    except (NotFound, RequestRedirect) as error:
        raise not_found("address") from error
    except MethodNotAllowed as error:
        allowed = ", ".join(sorted(error.valid_methods or ()))
        detail = f"{request.method} is not allowed here. Allowed: {allowed}."
        raise Problem(405, "method-not-allowed", detail, headers={"Allow": allowed}) from error


def check_access(route: Route, user_uuid: UUID, webshop_uuid: UUID) -> None:
    """Raises Problem 404 where the user has nothing to do with the webshop, 403 where it lacks the feature."""
    port = access.port()
    if not port.may_see(user_uuid, webshop_uuid):
        raise not_found("webshop")
    if route.needs_feature and not port.has_feature(webshop_uuid, route.needs_feature):
        name = route.needs_feature.replace("_", " ")
        raise Problem(403, "feature-off", f"This webshop has not booked {name}. Ask the owner to add it to the plan.")


def decoded(request: flask.Request, route: Route) -> Any:
    """The body as the operation takes it. Raises Problem 400 (not JSON), 413 (too large) or 422 (not allowed)."""
    body_type = route.parameters["body"]
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise Problem(413, "too-large", f"The body may have {MAX_BODY_BYTES:,} bytes.")
    data = request.get_data() if body_type is bytes else request.get_data() or b"{}"
    if len(data) > MAX_BODY_BYTES:
        raise Problem(413, "too-large", f"The body may have {MAX_BODY_BYTES:,} bytes.")
    if body_type is bytes:
        return data
    return converted(lambda: route.body_decoder.decode(data))


def converted(convert: Callable[[], Any]) -> Any:
    """Raises Problem 422 that names the field where something is not allowed, 400 where it cannot be read at all."""
    try:
        return convert()
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at `$")
        named = FIELD_IN_SENTENCE.search(sentence)  # a field that is missing or unknown has no path yet
        at = ".".join(part for part in (path.rstrip("`").lstrip("."), named[1] if named else "") if part)
        raise Problem(422, "refused-input", f"{sentence}.", at=at) from error
    except RecursionError as error:
        raise Problem(422, "refused-input", "The body is nested too deeply.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "malformed", f"The body is not JSON: {error}.") from error


def response(answer: Answer) -> flask.Response:
    """An Answer on the wire."""
    if answer.content_type == "application/json":
        content: bytes | Iterable[bytes] = b"" if answer.body is None else msgspec.json.encode(answer.body)
    else:
        content = answer.body
    return flask.Response(content, answer.status, headers=dict(answer.headers), content_type=answer.content_type)


def problem_response(problem: Problem) -> flask.Response:
    """A Problem on the wire."""
    body = msgspec.json.encode(problem.document())
    return flask.Response(body, problem.status, headers=dict(problem.headers), content_type="application/problem+json")
