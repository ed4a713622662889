"""Lists in pages: cursors, their refusal, and pages that stay in place while rows are added."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select

from shared.clients.databases import connect_to
from shared.pagination import PageQuery, Position, decode_cursor, encode_cursor, fetch_page
from shared.problems import Problem
from shared.settings import DatabaseSettings
from shared.tables.service import imports
from tests.conftest import Databases

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WEBSHOP_UUID = UUID("a3a8f3a2-6f9f-4f5e-9d5b-0f4f6d8f2c11")


@pytest.fixture
def conn(databases: Databases) -> Iterator[Connection]:
    """A connection to the service database. What the test inserts is rolled back."""
    engine = connect_to("TEST", DatabaseSettings(url=databases.service_url), 1)
    with engine.connect() as conn:
        yield conn
        conn.rollback()
    engine.dispose()


def insert_import(conn: Connection, created_at: datetime) -> UUID:
    """Inserts a completed import and returns its uuid."""
    import_uuid = uuid.uuid4()
    row = {
        "uuid": import_uuid,
        "webshop_uuid": WEBSHOP_UUID,
        "file_name": "products.csv",
        "object_path": f"imports/{import_uuid}",
        "generation": 1,
        "size_bytes": 1,
        "operation": "UPDATE",
        "on_error": "partial",
        "status": "COMPLETED",
        "reason": "All rows were applied.",
        "created_at": created_at,
        "finished_at": created_at,
    }
    conn.execute(insert(imports).values(row))
    return import_uuid


def fetch_imports(conn: Connection, limit: int, cursor: str = "") -> tuple[list[UUID], str | None]:
    """Returns the uuids of one page of the webshop's imports, and the cursor of the next page."""
    statement = select(imports.c.uuid, imports.c.created_at).where(imports.c.webshop_uuid == WEBSHOP_UUID)
    rows, next_cursor = fetch_page(conn, statement, imports, PageQuery(limit, cursor))
    return [row["uuid"] for row in rows], next_cursor


def fetch_all_pages(conn: Connection, limit: int) -> list[list[UUID]]:
    page, cursor = fetch_imports(conn, limit)
    pages = [page]
    while cursor:
        page, cursor = fetch_imports(conn, limit, cursor)
        pages.append(page)
    return pages


@given(
    created_at=st.datetimes(timezones=st.just(UTC)),
    item_uuid=st.uuids(),
)
def test_a_cursor_is_decoded_to_its_position(created_at: datetime, item_uuid: UUID) -> None:
    """It keeps every microsecond, and its characters need no escape in a URL."""
    position = Position(created_at, item_uuid)

    cursor = encode_cursor(position)

    assert decode_cursor(cursor) == position
    assert cursor.replace("-", "").replace("_", "").isalnum()


@pytest.mark.parametrize(
    "cursor",
    [
        pytest.param("x", id="too short"),
        pytest.param("not a cursor", id="a text"),
        pytest.param("é", id="not ASCII"),
        pytest.param("eyJhIjoxfQ", id="another JSON value"),
        pytest.param("WyIyMDI2LTAxLTAxVDEyOjAwOjAwWiIsInRoZSBsYXN0Il0", id="no uuid"),
        pytest.param(encode_cursor(Position(NOON, UUID(int=1)))[:-4], id="cut off"),
        pytest.param(
            encode_cursor(Position(datetime.min.replace(tzinfo=timezone(timedelta(hours=9))), UUID(int=1))),
            id="a time before the year 1",
        ),
    ],
)
def test_an_invalid_cursor_is_refused(cursor: str) -> None:
    """The problem names the field, and says how to get the first page."""
    with pytest.raises(Problem) as raised:
        decode_cursor(cursor)

    assert (raised.value.status, raised.value.field_name) == (422, "cursor")
    assert "Leave it out" in raised.value.detail


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
def test_the_pages_have_every_row_once_newest_first(conn: Connection, limit: int) -> None:
    """Only the last page has no cursor, and it is never empty. Rows of the same moment are ordered by their uuid."""
    times = [NOON, NOON, NOON, NOON + timedelta(microseconds=1), NOON - timedelta(days=1)]
    newest_first = sorted(((time, insert_import(conn, time)) for time in times), reverse=True)

    pages = fetch_all_pages(conn, limit)

    assert [import_uuid for page in pages for import_uuid in page] == [import_uuid for _, import_uuid in newest_first]
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)
    assert pages[-1]


def test_an_empty_list_has_one_page(conn: Connection) -> None:
    page = fetch_imports(conn, 10)

    assert page == ([], None)


def test_a_new_row_does_not_shift_the_next_page(conn: Connection) -> None:
    """The reader of a list sees no row twice and misses none, although rows are added at its start."""
    oldest, middle, newest = (insert_import(conn, NOON + timedelta(minutes=minute)) for minute in range(3))
    first_page, cursor = fetch_imports(conn, 2)
    insert_import(conn, NOON + timedelta(minutes=3))

    second_page = fetch_imports(conn, 2, cursor or "")

    assert first_page == [newest, middle]
    assert second_page == ([oldest], None)
