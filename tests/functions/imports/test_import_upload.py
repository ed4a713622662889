"""import_upload, called through functions-framework: which objects become imports, and how they are recorded."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from functions.imports.states import Status
from shared.messages import ImportTrigger
from tests.world import app

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.world import World

FILE = "identifier,price\r\nA,1\r\n"


def test_an_upload_is_recorded_and_triggered(world: World) -> None:
    """From now on the import exists, and its trigger is sent."""
    import_uuid = world.upload(FILE, on_error="abort")

    assert world.deliver_upload(import_uuid) == 200

    recorded = world.find(import_uuid)
    assert (recorded.status, recorded.user_uuid, recorded.file_name) == (Status.IN_QUEUE, world.user, "products.csv")
    assert (recorded.operation, recorded.on_error, recorded.run) == ("UPDATE", "abort", 1)
    assert world.broker.sent == [ImportTrigger(world.webshop, import_uuid, 1)]


def test_a_duplicate_event_sends_the_trigger_again_until_the_import_is_final(world: World) -> None:
    """The process may have been killed between commit and send."""
    import_uuid = world.upload(FILE)

    world.deliver_upload(import_uuid)
    world.deliver_upload(import_uuid)
    assert world.broker.sent == [ImportTrigger(world.webshop, import_uuid, 1)] * 2

    world.run()
    world.deliver_upload(import_uuid)
    assert not world.broker.waiting


@pytest.mark.parametrize(
    "path",
    [
        "imports/not-a-uuid/{uuid}/a.csv",
        "imports/{uuid}/a.csv",
        "imports/{uuid}/{uuid}/folder/a.csv",
        "imports/{uuid}/{uuid}/",
        "exports/{uuid}/{uuid}/1/a.csv",
        "a.csv",
        "imports/{uuid}/{uuid}/../../a.csv",
    ],
)
def test_a_path_of_another_kind_is_ignored(world: World, caplog: pytest.LogCaptureFixture, path: str) -> None:
    """The bucket may contain other objects: 2xx, one log line, no import."""
    stored = world.bucket.put(path.replace("{uuid}", str(uuid.uuid4())), b"x", {"user-uuid": str(world.user)})

    assert world.deliver_object(stored) == 200

    assert world.rows("service", "select * from imports") == []
    assert [record.message for record in caplog.records if "Not an import" in record.message] == [
        f"Not an import, ignored: {stored.path}"
    ]


@pytest.mark.parametrize(
    ("metadata", "reason_part"),
    [
        pytest.param({"user-uuid": ""}, 'without a valid "user-uuid"', id="empty user"),
        pytest.param({"user-uuid": "somebody"}, "somebody", id="malformed user"),
        pytest.param({"on-error": "whatever"}, "partial or abort", id="unknown on-error"),
    ],
)
def test_missing_or_wrong_metadata_fails_the_import_with_that_reason(
    world: World, metadata: Mapping[str, str], reason_part: str
) -> None:
    """Nothing is guessed. The import of a file without a user gets the user who retries it."""
    import_uuid = world.upload(FILE, **metadata)

    assert world.deliver_upload(import_uuid) == 200

    failed = world.find(import_uuid)
    assert (failed.status, failed.user_uuid) == (Status.FAILED_UNEXPECTEDLY, None)
    assert reason_part in failed.reason
    assert not world.broker.sent
    world.retry(import_uuid)
    assert (world.find(import_uuid).user_uuid, world.find(import_uuid).on_error) == (world.user, "abort")


def test_a_later_generation_is_ignored_and_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The first recorded generation is the import's."""
    import_uuid = world.upload(FILE)
    world.deliver_upload(import_uuid)
    (first,) = world.bucket.list("imports/")
    world.put(import_uuid, "identifier,price\r\nB,2\r\n")

    assert world.deliver_upload(import_uuid) == 200

    assert world.rows("service", "select generation from imports") == [(first.generation,)]
    assert "ignored" in caplog.text
    assert len(world.broker.sent) == 1


def test_an_invalid_event_becomes_a_dead_letter(world: World) -> None:
    """It is answered with 2xx, so that it is not delivered again."""
    headers = {
        "ce-id": "1",
        "ce-source": "x",
        "ce-specversion": "1.0",
        "ce-type": "google.cloud.storage.object.v1.finalized",
    }
    response = app("import_upload").post("/", json={"kind": "something else"}, headers=headers)

    assert response.status_code == 200
    assert "Not an event of Cloud Storage" in world.dead_letters.messages[0].attributes["reason"]


def test_the_size_is_read_from_the_event(world: World) -> None:
    """A file that is too large is refused without being read."""
    import_uuid = world.upload(b"x" * 1000)
    (stored,) = world.bucket.list("imports/")

    world.deliver_upload(import_uuid)

    assert world.rows("service", "select size_bytes from imports") == [(stored.size_bytes,)]
