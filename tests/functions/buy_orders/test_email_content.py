"""The subject and text of an email, in every language that has a template, with any name or message."""

from __future__ import annotations

import shutil
from datetime import date
from decimal import Decimal
from pathlib import Path

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
def test_every_language_shows_all_values(language: str) -> None:
    """An email shows number, date, supplier, total and sender. In the HTML no value is read as markup."""
    content = email_content.render_content(ORDER, "a < b\n{{ order }}", language)

    assert "BO-1 <b>" in content.subject
    for value in (
        "BO-1 <b>",
        "2026-05-31",
        "Müller <GmbH>",
        "1,234,567.50",
        "EUR",
        "Huis & Haard",
        "a < b\n{{ order }}",
    ):
        assert value in content.text
    for value in ("BO-1 &lt;b&gt;", "Müller &lt;GmbH&gt;", "Huis &amp; Haard", "a &lt; b\n{{ order }}"):
        assert value in content.html
    assert "None" not in content.text + content.html
    assert "\n\n\n" not in content.text


def test_a_language_is_added_by_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The template's name is the language's code. Nothing else has to change."""
    shutil.copy(email_content.TEMPLATES / "en.jinja", tmp_path)
    (tmp_path / "nl.jinja").write_text(
        "{% block subject %}Bestelling {{ order.number }}{% endblock %}"
        "{% block text %}{{ order.supplier_name }}{% endblock %}{% block html %}{{ order.supplier_name }}{% endblock %}"
    )
    monkeypatch.setattr(email_content, "TEMPLATES", tmp_path)
    email_content.environment.cache_clear()

    content = email_content.render_content(ORDER, "", "nl")

    email_content.environment.cache_clear()
    assert email_content.languages() == ["en", "nl"]
    assert content == email_content.EmailContent("Bestelling BO-1 <b>", "Müller <GmbH>\n", "Müller &lt;GmbH&gt;\n")


@pytest.mark.parametrize("language", [pytest.param("", id="empty"), "xx", "../en", "EN", "en.jinja"])
def test_a_language_without_a_template_is_refused(language: str) -> None:
    """The reason lists the languages that have a template."""
    with pytest.raises(Problem) as refusal:
        email_content.check_options("", language)

    assert "Known: en." in refusal.value.detail
