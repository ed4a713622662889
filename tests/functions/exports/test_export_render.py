"""export_render: each request renders its export once."""

from __future__ import annotations

import uuid

from shared.messages import ExportRequest
from tests.exports_world import ExportsWorld


def test_a_request_renders_the_file(exports: ExportsWorld) -> None:
    """The file is the same as one that is rendered while the client waits."""
    at_once = exports.ask().json
    later = exports.ask_later()

    exports.run()

    export = exports.get(later["uuid"])
    assert (export["status"], export["rows"], export["size_bytes"]) == (
        "COMPLETED",
        at_once["rows"],
        at_once["size_bytes"],
    )
    assert exports.download(later["uuid"]).data == exports.download(at_once["uuid"]).data
    exports.assert_settled()


def test_a_duplicate_request_changes_nothing(exports: ExportsWorld) -> None:
    """Pub/Sub delivers a message at least once, and a final state is final."""
    export_uuid = exports.ask_later()["uuid"]
    request = ExportRequest(exports.webshop, uuid.UUID(export_uuid))
    exports.run()
    before = exports.row(export_uuid)

    assert exports.deliver(request) == 200

    assert exports.row(export_uuid) | {"history_due_at": None} == before | {"history_due_at": None}
    exports.assert_settled()


def test_a_request_for_an_unknown_export_has_nothing_to_do(exports: ExportsWorld) -> None:
    assert exports.deliver(ExportRequest(exports.webshop, uuid.uuid4())) == 200


def test_the_export_s_own_webshop_is_rendered(exports: ExportsWorld) -> None:
    """A message with another webshop cannot make the worker read that webshop's data."""
    export_uuid = exports.ask_later()["uuid"]
    exports.broker.take(ExportRequest)
    expected_rows = exports.ask().json["rows"]

    exports.deliver(ExportRequest(exports.tenants.other_webshop_uuid, uuid.UUID(export_uuid)))

    export = exports.get(export_uuid)
    assert (export["status"], export["rows"]) == ("COMPLETED", expected_rows)
