"""The local stack's commands, on the project's own functions."""

from __future__ import annotations

import base64
import json
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import msgspec

from shared.messages import ProductsUpdated
from tests.integration.conftest import running_stack
from tests.integration.stack import LocalStack, find_alive
from tests.integration.waiting import PATIENCE_SECONDS, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.catalogue import Catalogue
    from tests.integration.shop import Shop
    from tests.integration.stack import Databases


def test_the_commands_fail_when_there_is_no_stack(tmp_path: Path) -> None:
    """They exit with 1 and say on stderr what to do, so that a script can wait for the stack with `env`."""
    stopped = LocalStack(tmp_path / "local", 1, {})

    for command in ("env", "token", "ps"):
        process = stopped.run(command)
        assert (process.returncode, process.stdout) == (1, "")
        assert "infra.local up" in process.stderr


def test_an_event_can_be_sent_by_hand(
    stack: LocalStack, shop: Shop, catalogue: Catalogue, databases: Databases
) -> None:
    """`send` sends one event to a function: here, the message that makes it mirror a product changed by SQL."""
    [identifier] = catalogue.identifiers(1)
    databases.product.rows(
        "update products set name = 'changed by hand' where webshop_uuid = cast(:webshop as uuid)"
        " and identifier = :identifier",
        webshop=shop.webshop_uuid,
        identifier=identifier,
    )
    updated = ProductsUpdated(UUID(shop.webshop_uuid), uuid4(), run=1, first_row=2, identifiers=(identifier,))
    event = {
        "specversion": "1.0",
        "id": "1",
        "type": "google.cloud.pubsub.topic.v1.messagePublished",
        "source": f"//pubsub.googleapis.com/projects/local/topics/{ProductsUpdated.topic}",
        "data": {"message": {"data": base64.b64encode(updated.encode()).decode(), "attributes": {}}},
    }
    file = stack.folder / "event.json"

    file.write_bytes(msgspec.json.encode(event))
    process = stack.run("send", str(file))

    assert process.returncode == 0, process.stderr
    assert (
        databases.legacy.value(
            "select name from products where webshop_uuid = cast(:webshop as uuid) and identifier = :identifier",
            webshop=shop.webshop_uuid,
            identifier=identifier,
        )
        == "changed by hand"
    )

    file.write_text(json.dumps(event | {"source": "//pubsub.googleapis.com/projects/local/topics/unknown"}))
    assert stack.run("send", str(file)).returncode == 1


def test_a_stopped_stack_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM ends every process and frees every port. Then `env` exits with 1 again."""
    with running_stack(50, {}) as small:
        assert small.processes().keys() >= {"postgres", "kafka", "pubsub", "storage", "gateway", "import_apply"}
        processes = small.process_tree()
        addresses = [small.env["API_URL"], small.env["STORAGE_EMULATOR_HOST"], small.env["SERVICE_DATABASE_URL"]]
        addresses += [f"tcp://{small.env[name]}" for name in ("KAFKA_BOOTSTRAP_SERVERS", "PUBSUB_EMULATOR_HOST")]
        assert all(map(is_open, addresses))

        small.stop()

        assert not find_alive(processes)
        wait_until(lambda: not any(map(is_open, addresses)), "every port to be closed")
        assert small.run("env").returncode == 1


def is_open(url: str) -> bool:
    """Tells whether a server listens on the port of `url`."""
    address = urlsplit(url)
    try:
        socket.create_connection((address.hostname, address.port), timeout=PATIENCE_SECONDS).close()
    except ConnectionRefusedError:
        return False
    return True
