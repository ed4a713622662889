"""export_history: the table ends the same whatever the order and number of its messages."""

from itertools import permutations

import pytest

from shared.messages import ExportHistory


@pytest.mark.parametrize("order", [pytest.param(order, id=str(order)) for order in permutations(range(3))])
def test_the_highest_version_stays_whatever_comes_when(exports, order):
    """Late, early, twice: no older record writes over a newer one."""
    exports.ask_later()
    exports.run()
    records = exports.broker.of(ExportHistory)
    exports.change("service", "delete from export_history")

    for position in order:
        exports.deliver(records[position])
        exports.deliver(records[position])

    exports.assert_settled()


def test_a_record_of_an_export_that_changed_since_leaves_it_due(exports):
    """The history has version 1 then; sweep still sends version 2."""
    exports.ask()
    first, second = exports.broker.take(ExportHistory)

    exports.deliver(first)

    exports.let_time_pass()
    exports.sweep()
    assert exports.broker.take(ExportHistory) == [second]


def test_the_history_keeps_what_it_was_told(exports):
    """All ten fields, to the letter and the microsecond."""
    exports.ask(file_name="Zoë / 2026")
    exports.run()

    record = exports.broker.of(ExportHistory)[-1]

    fields = ExportHistory.__struct_fields__
    rows = exports.rows("service", f"select {', '.join(fields)} from export_history")
    assert rows == [tuple(getattr(record, field) for field in fields)]
