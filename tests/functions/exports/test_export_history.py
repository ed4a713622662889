"""export_history: the table is the same after any order and number of messages."""

from __future__ import annotations

from itertools import permutations

import pytest

from shared.messages import ExportHistory
from tests.exports_world import ExportsWorld


@pytest.mark.parametrize("order", [pytest.param(order, id=str(order)) for order in permutations(range(3))])
def test_the_highest_version_stays_after_any_order(exports: ExportsWorld, order: tuple[int, ...]) -> None:
    """A late or duplicate record does not overwrite a newer one."""
    exports.ask_later()
    exports.run()
    records = exports.broker.of(ExportHistory)
    exports.change("service", "delete from export_history")

    for position in order:
        exports.deliver(records[position])
        exports.deliver(records[position])

    exports.assert_settled()


def test_an_older_version_does_not_stop_sweep(exports: ExportsWorld) -> None:
    """Sweep sends version 2 again while the history has version 1."""
    exports.ask()
    first, second = exports.broker.take(ExportHistory)

    exports.deliver(first)

    exports.let_time_pass()
    exports.sweep()
    assert exports.broker.take(ExportHistory) == [second]


def test_the_history_stores_every_field(exports: ExportsWorld) -> None:
    """Texts are stored exactly, and times to the microsecond."""
    exports.ask(file_name="Zoë / 2026")
    exports.run()

    record = exports.broker.of(ExportHistory)[-1]

    fields = ExportHistory.__struct_fields__
    rows = exports.rows("service", f"select {', '.join(fields)} from export_history")
    assert rows == [tuple(getattr(record, field) for field in fields)]
