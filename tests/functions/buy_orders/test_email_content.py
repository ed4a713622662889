"""What the mail says: in every language there is a file for, whatever stands in names and messages."""

from __future__ import annotations

import shutil
from datetime import date
from decimal import Decimal

import pytest

from functions.buy_orders import email_content
from functions.buy_orders.orders import Order
from shared.problems import Problem

ORDER = Order(
    number="BO-1 <b>",
    currency="EUR",
    ordered_on=date(2026, 5, 31),
    expected_on=None,
    lines=3,
    total=Decimal("1234567.5"),
    webshop_name="Huis & Haard",
    webshop_email_address="shop@shop.example",
    webshop_phone_number=None,
    supplier_name="Müller <GmbH>",
    supplier_email_address=None,
    contact_name=None,
)


@pytest.mark.parametrize("language", email_content.languages())
def test_every_language_says_what_a_supplier_needs(language):
    """Number, date, supplier, total, sender; in the HTML no value is read as markup."""
    written = email_content.render_content(ORDER, "a < b\n{{ order }}", language)

    assert "BO-1 <b>" in written.subject
    for value in (
        "BO-1 <b>",
        "2026-05-31",
        "Müller <GmbH>",
        "1,234,567.50",
        "EUR",
        "Huis & Haard",
        "a < b\n{{ order }}",
    ):
        assert value in written.text
    for value in ("BO-1 &lt;b&gt;", "Müller &lt;GmbH&gt;", "Huis &amp; Haard", "a &lt; b\n{{ order }}"):
        assert value in written.html
    assert "None" not in written.text + written.html
    assert "\n\n\n" not in written.text


def test_another_language_is_one_more_file(tmp_path, monkeypatch):
    """Named by its code; nothing else has to know of it."""
    shutil.copy(email_content.TEMPLATES / "en.jinja", tmp_path)
    (tmp_path / "nl.jinja").write_text(
        "{% block subject %}Bestelling {{ order.number }}{% endblock %}"
        "{% block text %}{{ order.supplier_name }}{% endblock %}{% block html %}{{ order.supplier_name }}{% endblock %}"
    )
    monkeypatch.setattr(email_content, "TEMPLATES", tmp_path)
    email_content.environment.cache_clear()

    written = email_content.render_content(ORDER, "", "nl")

    email_content.environment.cache_clear()
    assert email_content.languages() == ["en", "nl"]
    assert written == email_content.EmailContent("Bestelling BO-1 <b>", "Müller <GmbH>\n", "Müller &lt;GmbH&gt;\n")


@pytest.mark.parametrize("language", [pytest.param("", id="empty"), "xx", "../en", "EN", "en.jinja"])
def test_a_language_without_a_file_is_refused(language):
    """By name, with those that there are."""
    with pytest.raises(Problem) as refusal:
        email_content.check_options("", language)

    assert "Known: en." in refusal.value.detail
