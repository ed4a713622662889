"""export_render: a request delivered is an export made, once."""

import uuid

from shared.messages import ExportRequest


def test_a_request_makes_the_file_that_was_asked_for(exports):
    """The same file as one that is made while the client waits."""
    at_once = exports.ask().json
    asked = exports.ask_later()

    exports.run()

    later = exports.get(asked["uuid"])
    assert (later["status"], later["rows"], later["size_bytes"]) == (
        "COMPLETED",
        at_once["rows"],
        at_once["size_bytes"],
    )
    assert exports.download(asked["uuid"]).data == exports.download(at_once["uuid"]).data
    exports.assert_settled()


def test_a_request_that_comes_again_changes_nothing(exports):
    """Pub/Sub delivers at least once; a final state is final."""
    asked = exports.ask_later()
    request = ExportRequest(exports.webshop, uuid.UUID(asked["uuid"]))
    exports.run()
    before = exports.row(asked["uuid"])

    assert exports.deliver(request) == 200

    assert exports.row(asked["uuid"]) | {"history_due_at": None} == before | {"history_due_at": None}
    exports.assert_settled()


def test_a_request_for_an_export_that_never_was_is_done(exports):
    assert exports.deliver(ExportRequest(exports.webshop, uuid.uuid4())) == 200


def test_the_webshop_of_the_export_is_rendered_whatever_the_message_says(exports):
    """What is read is bound to the export's own webshop; a message cannot point it elsewhere."""
    asked = exports.ask_later()
    exports.broker.take(ExportRequest)
    expected = exports.ask().json["rows"]

    exports.deliver(ExportRequest(exports.tenants.other_webshop_uuid, uuid.UUID(asked["uuid"])))

    found = exports.get(asked["uuid"])
    assert (found["status"], found["rows"]) == ("COMPLETED", expected)
