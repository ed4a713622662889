"""import_upload, through the framework: which objects become imports, and how they are recorded."""

import uuid

import pytest

from functions.imports.states import Status
from shared.clients.bucket import StoredObject
from shared.messages import ImportTrigger
from tests.world import World

FILE = "identifier,price\r\nA,1\r\n"


def test_an_upload_is_recorded_and_triggered(world: World):
    """The import exists from now on, and somebody is told."""
    import_uuid = world.upload(FILE, on_error="abort")

    assert world.deliver_upload(import_uuid) == 200

    found = world.find(import_uuid)
    assert (found.status, found.user_uuid, found.file_name) == (Status.IN_QUEUE, world.user, "products.csv")
    assert (found.operation, found.on_error, found.run) == ("UPDATE", "abort", 1)
    assert world.broker.sent == [ImportTrigger(world.webshop, import_uuid, 1)]


def test_the_event_again_sends_the_trigger_again(world):
    """The sender may have been killed between commit and send; an import that is over is left alone."""
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
def test_a_path_that_is_not_ours_is_ignored(world, caplog, path):
    """Other things may lie in the bucket: 2xx, logged once, nothing recorded."""
    stored = world.bucket.put(path.replace("{uuid}", str(uuid.uuid4())), b"x", {"user-uuid": str(world.user)})

    assert world.deliver_object(stored) == 200

    assert world.rows("service", "select * from imports") == []
    assert [record.message for record in caplog.records if "Not an import" in record.message] == [
        f"Not an import, ignored: {stored.path}"
    ]


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        pytest.param({"user-uuid": ""}, 'without a valid "user-uuid"', id="empty user"),
        pytest.param({"user-uuid": "somebody"}, "somebody", id="malformed user"),
        pytest.param({"on-error": "whatever"}, "partial or abort", id="unknown on-error"),
    ],
)
def test_metadata_that_is_missing_or_wrong_fails_the_import_with_that_reason(world, metadata, says):
    """Nothing is guessed; a person who retries the import puts their name to it."""
    import_uuid = world.upload(FILE, **metadata)

    assert world.deliver_upload(import_uuid) == 200

    found = world.find(import_uuid)
    assert (found.status, found.user_uuid) == (Status.FAILED_UNEXPECTEDLY, None)
    assert says in found.reason
    assert not world.broker.sent
    world.retry(import_uuid)
    assert (world.find(import_uuid).user_uuid, world.find(import_uuid).on_error) == (world.user, "abort")


def test_a_later_generation_is_ignored_and_logged(world, caplog):
    """The first recorded generation is the import's."""
    import_uuid = world.upload(FILE)
    world.deliver_upload(import_uuid)
    (first,) = world.bucket.list("imports/")
    world.put(import_uuid, "identifier,price\r\nB,2\r\n")

    assert world.deliver_upload(import_uuid) == 200

    assert world.rows("service", "select generation from imports") == [(first.generation,)]
    assert "ignored" in caplog.text
    assert len(world.broker.sent) == 1


def test_an_event_that_is_none_is_put_aside(world):
    """Poison is dead-lettered, not delivered for ever."""
    from tests.world import app

    headers = {
        "ce-id": "1",
        "ce-source": "x",
        "ce-specversion": "1.0",
        "ce-type": "google.cloud.storage.object.v1.finalized",
    }
    answer = app("import_upload").post("/", json={"kind": "something else"}, headers=headers)

    assert answer.status_code == 200
    assert "Not an event of Cloud Storage" in world.dead_letters.messages[0].attributes["reason"]


def test_the_size_is_the_objects(world):
    """Nobody reads a file to learn that it is too large."""
    import_uuid = world.upload(b"x" * 1000)
    stored: StoredObject = next(world.bucket.list("imports/"))

    world.deliver_upload(import_uuid)

    assert world.rows("service", "select size_bytes from imports") == [(stored.size_bytes,)]
