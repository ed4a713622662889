"""HTTP functions: a table of routes to plain operations. This module handles tokens, access, bodies and problems.

An operation is a function whose parameters state what it needs: path variables by name, `user_uuid`, `body` and `query`
as structs that the request is decoded into, `headers`. It returns a struct, or an ApiResponse if the response has more
than a body.
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
from shared.delivery import Function, Trigger, set_trigger
from shared.errors import Unavailable
from shared.problems import Problem, invalid_input, not_found

log = logging.getLogger(__name__)

FIELD_IN_ERROR = re.compile(r"(?:missing required|unknown) field `([^`]+)`")  # in the text of msgspec's error
PATH_VARIABLE = re.compile(r"<(?:(\w+)(?:\(.*?\))?:)?(\w+)>")
# The type of a path variable, by the name of werkzeug's converter.
CONVERTER_TYPES: dict[str, type] = {
    "": str,
    "string": str,
    "any": str,
    "path": str,
    "int": int,
    "float": float,
    "uuid": UUID,
}
MAX_BODY_BYTES = 1_000_000  # a request with thousands of filters is a tenth of it


@dataclass(frozen=True)
class ApiResponse:
    """The response of an operation, if a struct alone is not enough."""

    body: Any = None  # a struct (JSON), text, bytes, or an iterable of bytes (a stream)
    status: int = 200
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """One entry of an API: a method, a path in werkzeug's notation, and the operation."""

    method: str
    path: str
    operation: Callable[..., Any]
    status: int = 200  # of the response, unless the operation returns an ApiResponse
    public: bool = False  # needs no token: the operation itself authenticates the caller
    needs_feature: str = ""  # the feature that the webshop must have booked

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The operation's parameters by name, with their types."""
        types = typing.get_type_hints(self.operation)
        return {name: types.get(name) for name in inspect.signature(self.operation).parameters}

    @cached_property
    def path_variables(self) -> dict[str, type]:
        """The variables in the path by name, with their types."""
        return {name: CONVERTER_TYPES[converter] for converter, name in PATH_VARIABLE.findall(self.path)}

    @cached_property
    def body_decoder(self) -> msgspec.json.Decoder[Any]:
        """Decodes a JSON body into the struct that the operation takes."""
        return msgspec.json.Decoder(self.parameters["body"])


def http_function(name: str, routes: tuple[Route, ...]) -> Function:
    """Makes a function called `name` of `routes`. Raises TypeError for a route whose operation cannot be called."""
    for route in routes:
        check_route(route)
    route_map = Map([Rule(r.path, methods=[r.method], endpoint=r) for r in routes], strict_slashes=False)

    def handle(request: flask.Request) -> flask.Response:
        with logs.context(request.headers.get("traceparent", ""), function=name):
            return handle_request(route_map, request)

    handle.__name__ = name
    function: Any = functions_framework.http(handle)
    function.routes = routes
    return set_trigger(function, Trigger("http"))


def check_route(route: Route) -> None:
    """Raises TypeError if the operation has a parameter that the route does not provide, or one of another type.

    It is called when a function is made: a mistake fails the deployment instead of every request.
    """
    operation = f"{route.method} {route.path}: {route.operation.__name__}"
    if not route.public and "webshop_uuid" not in route.path_variables:
        raise TypeError(f"{operation} has no webshop_uuid in its path; a route that is not public needs it.")
    provided = route.path_variables | {"headers": Headers} | ({} if route.public else {"user_uuid": UUID})
    for name, found in route.parameters.items():
        if name in provided:
            is_allowed, allowed = found is provided[name], provided[name].__name__
        elif name == "query":
            is_allowed, allowed = is_struct(found), "a struct"
        elif name == "body":
            is_allowed, allowed = is_struct(found) or found is bytes, "a struct or bytes"
        else:
            names = ", ".join(provided)
            raise TypeError(f"{operation} has the parameter {name!r}; the route provides {names}, query and body.")
        if not is_allowed:
            raise TypeError(f"{operation} has the parameter {name!r} of type {found!r}; it must be {allowed}.")


def is_struct(found: Any) -> bool:
    """Whether a type is a struct that msgspec can decode. Raises TypeError if it cannot decode a field's type."""
    if not (isinstance(found, type) and issubclass(found, msgspec.Struct)):
        return False
    msgspec.json.Decoder(found)  # resolves the struct's types now instead of at the first request
    return True


def handle_request(route_map: Map, request: flask.Request) -> flask.Response:
    """Returns the response to `request`. Every error becomes a problem: a client never sees a traceback."""
    try:
        return dispatch(route_map, request)
    except Problem as problem:
        return build_problem_response(problem)
    except Exception as error:
        reference = str(uuid.uuid4())
        log.exception("The request failed, reference %s", reference)
        return build_problem_response(problem_for(error, reference))


def problem_for(error: Exception, reference: str) -> Problem:
    """503 if a system that we depend on is unavailable, else 500: the fault is ours. The log has the reference."""
    is_temporary = isinstance(error, (Unavailable, exc.TimeoutError))
    if is_temporary or (isinstance(error, exc.DBAPIError) and is_unavailable(error)):
        detail = (
            f"A system that this service depends on does not respond. Try again in a moment. Reference: {reference}"
        )
        return Problem(503, "unavailable", detail, headers={"Retry-After": "5"})
    detail = f"Something went wrong on our side. If it happens again, contact support with this reference: {reference}"
    return Problem(500, "unexpected", detail)


def dispatch(route_map: Map, request: flask.Request) -> flask.Response:
    """Finds the route, checks the user's access, decodes what the operation needs, and calls the operation."""
    route, variables = match_route(route_map, request)
    arguments: dict[str, Any] = {**variables, "headers": request.headers}
    if not route.public:
        arguments["user_uuid"] = access.authenticate(request.headers.get("Authorization", ""))
        check_access(route, arguments["user_uuid"], variables["webshop_uuid"])
    parameters = route.parameters
    if "query" in parameters:
        query = request.args.to_dict()
        arguments["query"] = convert_input(lambda: msgspec.convert(query, parameters["query"], strict=False))
    if "body" in parameters:
        arguments["body"] = decode_body(request, route)
    result = route.operation(**{name: arguments[name] for name in parameters})
    return build_response(result if isinstance(result, ApiResponse) else ApiResponse(result, route.status))


def match_route(route_map: Map, request: flask.Request) -> tuple[Route, dict[str, Any]]:
    """Returns the route and its path variables. Raises Problem 404 or 405."""
    try:
        route, variables = route_map.bind_to_environ(request.environ).match()
        return cast("Route", route), dict(variables)
    except (NotFound, RequestRedirect) as error:
        raise Problem(404, "not-found", "The address was not found. Check the path.") from error
    except MethodNotAllowed as error:
        allowed = ", ".join(sorted(error.valid_methods or ()))
        detail = f"{request.method} is not allowed at this address. Allowed: {allowed}."
        raise Problem(405, "method-not-allowed", detail, headers={"Allow": allowed}) from error


def check_access(route: Route, user_uuid: UUID, webshop_uuid: UUID) -> None:
    """Raises Problem 404 if the user may not access the webshop, 403 if the webshop lacks the route's feature."""
    port = access.access_port()
    if not port.may_access(user_uuid, webshop_uuid):
        raise not_found("webshop")
    if route.needs_feature and not port.has_feature(webshop_uuid, route.needs_feature):
        name = route.needs_feature.replace("_", " ")
        raise Problem(403, "feature-off", f"This webshop has not booked {name}. Ask its owner to add it to the plan.")


def decode_body(request: flask.Request, route: Route) -> Any:
    """Decodes the body into the type that the operation takes.

    Raises Problem 400 (not JSON), 413 (larger than MAX_BODY_BYTES) or 422 (not allowed).
    """
    if (request.content_length or 0) > MAX_BODY_BYTES:
        raise body_too_large(request.content_length or 0)
    data = request.get_data()
    if len(data) > MAX_BODY_BYTES:
        raise body_too_large(len(data))
    if route.parameters["body"] is bytes:
        return data
    return convert_input(lambda: route.body_decoder.decode(data or b"{}"))


def body_too_large(size_bytes: int) -> Problem:
    """413: the size that was found, and the size that is allowed."""
    return Problem(413, "too-large", f"The body has {size_bytes:,} bytes. At most {MAX_BODY_BYTES:,} are allowed.")


def convert_input(convert: Callable[[], Any]) -> Any:
    """Calls `convert`. Raises Problem 422 with the name of the field that is not allowed, or 400 if it is not JSON."""
    try:
        return convert()
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at `$")
        unlocated = FIELD_IN_ERROR.search(sentence)  # the path of a missing or unknown field ends at its parent
        parts = (path.rstrip("`").lstrip("."), unlocated[1] if unlocated else "")
        raise invalid_input(".".join(filter(None, parts)), f"{sentence}.") from error
    except RecursionError as error:
        raise invalid_input("", "The body is nested too deeply.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(400, "malformed", f"The body is not JSON: {error}.") from error


def build_response(response: ApiResponse) -> flask.Response:
    """Converts an operation's response into Flask's."""
    if response.content_type == "application/json":
        content: bytes | Iterable[bytes] = b"" if response.body is None else msgspec.json.encode(response.body)
    else:
        content = response.body
    return flask.Response(content, response.status, headers=dict(response.headers), content_type=response.content_type)


def build_problem_response(problem: Problem) -> flask.Response:
    """Converts a problem into Flask's response."""
    body = msgspec.json.encode(problem.to_document())
    return flask.Response(body, problem.status, headers=dict(problem.headers), content_type="application/problem+json")
