"""HTTP functions: mistakes in a table of routes fail when the function is made, and every error is a problem."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest
from werkzeug.datastructures import Headers

from shared.http_api import Route, http_function

THING = "/webshops/<uuid:webshop_uuid>/things/<uuid:thing_uuid>/<int:number>"


class Body(msgspec.Struct):
    text: str


class Broken(msgspec.Struct):
    field: dict[Body, str] | dict[str, str]  # msgspec cannot distinguish the two


def takes_everything(
    *, webshop_uuid: UUID, thing_uuid: UUID, number: int, user_uuid: UUID, body: Body, query: Body, headers: Headers
) -> None: ...
def takes_bytes(body: bytes) -> None: ...
def takes_an_unknown(webshop_uuid: UUID, thing_id: UUID) -> None: ...
def takes_a_text(thing_uuid: str) -> None: ...
def takes_an_untyped(number) -> None: ...  # type: ignore[no-untyped-def]  # the mistake under test
def takes_a_dict(body: dict[str, str]) -> None: ...
def takes_bytes_as_query(query: bytes) -> None: ...
def takes_broken(body: Broken) -> None: ...
def takes_the_user(user_uuid: UUID) -> None: ...
def takes_nothing() -> None: ...


@pytest.mark.parametrize(
    "route",
    [
        pytest.param(Route("POST", THING, takes_everything), id="everything"),
        pytest.param(Route("POST", "/events", takes_bytes, public=True), id="public"),
        pytest.param(Route("GET", THING, takes_nothing), id="nothing"),
    ],
)
def test_an_operation_may_take_what_its_route_provides(route: Route) -> None:
    function: Any = http_function("things", (route,))

    assert function.routes == (route,)


@pytest.mark.parametrize(
    ("route", "sentence"),
    [
        pytest.param(
            Route("GET", THING, takes_an_unknown),
            f"GET {THING}: takes_an_unknown has the parameter 'thing_id'; the route provides webshop_uuid, thing_uuid,"
            " number, headers, user_uuid, query and body.",
            id="an unknown parameter",
        ),
        pytest.param(
            Route("GET", THING, takes_a_text),
            f"GET {THING}: takes_a_text has the parameter 'thing_uuid' of type <class 'str'>; it must be UUID.",
            id="another type",
        ),
        pytest.param(
            Route("GET", THING, takes_an_untyped),
            f"GET {THING}: takes_an_untyped has the parameter 'number' of type None; it must be int.",
            id="no type",
        ),
        pytest.param(
            Route("POST", THING, takes_a_dict),
            f"POST {THING}: takes_a_dict has the parameter 'body' of type dict[str, str]; it must be a struct or"
            " bytes.",
            id="a dict",
        ),
        pytest.param(
            Route("GET", THING, takes_bytes_as_query),
            f"GET {THING}: takes_bytes_as_query has the parameter 'query' of type <class 'bytes'>; it must be a"
            " struct.",
            id="a query of bytes",
        ),
        pytest.param(Route("POST", THING, takes_broken), "Type unions may not contain", id="an unusable struct"),
        pytest.param(
            Route("GET", "/me", takes_the_user, public=True),
            "GET /me: takes_the_user has the parameter 'user_uuid'; the route provides headers, query and body.",
            id="a user without a token",
        ),
        pytest.param(
            Route("GET", "/me", takes_nothing),
            "GET /me: takes_nothing has no webshop_uuid in its path; a route that is not public needs it.",
            id="no webshop",
        ),
    ],
)
def test_an_operation_that_cannot_be_called_is_refused(route: Route, sentence: str) -> None:
    """The deployment fails, and names the route and the parameter, instead of every request."""
    with pytest.raises(TypeError) as raised:
        http_function("things", (route,))

    assert str(raised.value).startswith(sentence)
