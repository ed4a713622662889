"""Settings: which values the environment may have, and which errors the others cause."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from infra import settings_table
from shared.clients.broker import Kafka, KafkaConsumer
from shared.clients.bucket import Storage
from shared.clients.publisher import PubSub
from shared.settings import InvalidSettings, Settings, from_environment

ROOT = Path(__file__).parents[2]

EVERY_SETTING = {
    "GOOGLE_CLOUD_PROJECT": "inventory-platform",
    "BUCKET": "imports-and-exports",
    "SERVICE_DATABASE_URL": "postgresql://us:hidden-1@db:5432/service",
    "PRODUCT_DATABASE_INSTANCE": "platform:europe-west4:products",
    "PRODUCT_DATABASE_NAME": "products",
    "PRODUCT_DATABASE_USER": "import-apply@platform.iam",
    "PRODUCT_DATABASE_PASSWORD": "hidden-2",
    "LEGACY_DATABASE_URL": "postgres://us:hidden-3@[::1]/legacy?sslmode=disable",
    "KAFKA_BOOTSTRAP_SERVERS": "broker-1:9092,[::1]:9092",
    "KAFKA_USERNAME": "functions",
    "KAFKA_PASSWORD": "hidden-4 with spaces",
    "TOKEN_ISSUER": "https://identity.example",
    "TOKEN_AUDIENCE": "imports-and-exports",
    "TOKEN_JWKS_URL": "https://identity.example/jwks.json",
    "SIGNED_URLS": "off",
    "EXPORT_RETENTION_DAYS": "7",
    "SENDGRID_HOST": "http://127.0.0.1:8025",
    "SENDGRID_API_KEY": "hidden-5",
    "SENDGRID_WEBHOOK_PUBLIC_KEY": "MFkwEwYHKoZIzj0C+/==",
    "MAIL_FROM_ADDRESS": "orders@platform.example",
    "LOG_FORMAT": "text",
    "THREADS": "4",
}

MALFORMED = {
    "BUCKET": (
        " ",
        "BUCKET is ' '; it must be a bucket's name: lowercase letters, digits, dots, hyphens and underscores.",
    ),
    "SERVICE_DATABASE_URL": (
        "mysql://us:hidden@db/service",
        "SERVICE_DATABASE_URL is malformed (a secret, not shown);"
        " it must be a URL like postgresql://user:password@host:port/name.",
    ),
    "LEGACY_DATABASE_INSTANCE": (
        "legacy",
        "LEGACY_DATABASE_INSTANCE is 'legacy'; it must be a connection name, project:region:instance.",
    ),
    "KAFKA_BOOTSTRAP_SERVERS": (
        "broker",
        "KAFKA_BOOTSTRAP_SERVERS is 'broker'; it must be host:port, or several of them separated by commas.",
    ),
    "TOKEN_JWKS_URL": (
        "identity.example",
        "TOKEN_JWKS_URL is 'identity.example'; it must be a URL that starts with http:// or https://.",
    ),
    "SIGNED_URLS": ("maybe", "SIGNED_URLS is 'maybe'; it must be on or off (or true, false, yes, no, 1, 0)."),
    "EXPORT_RETENTION_DAYS": (
        "0",
        "EXPORT_RETENTION_DAYS is '0'; it must be a whole number of days from 1 to 36500.",
    ),
    "SENDGRID_API_KEY": (
        "hidden\n",
        "SENDGRID_API_KEY is malformed (a secret, not shown); it must be a key without spaces and newlines.",
    ),
    "SENDGRID_WEBHOOK_PUBLIC_KEY": (
        "-----BEGIN",
        "SENDGRID_WEBHOOK_PUBLIC_KEY is '-----BEGIN'; it must be the base64 text that SendGrid shows.",
    ),
    "MAIL_FROM_ADDRESS": ("orders", "MAIL_FROM_ADDRESS is 'orders'; it must be an email address."),
    "LOG_FORMAT": ("xml", "LOG_FORMAT is 'xml'; it must be json or text."),
    "THREADS": ("many", "THREADS is 'many'; it must be a whole number from 1 to 1000."),
}


def test_every_setting_is_read_from_the_variable_of_its_name() -> None:
    """Other variables are ignored."""
    settings = from_environment({**EVERY_SETTING, "HOME": "/root"})

    assert settings.bucket == "imports-and-exports"
    assert settings.service_database.url == EVERY_SETTING["SERVICE_DATABASE_URL"]
    assert settings.product_database.user == "import-apply@platform.iam"
    assert settings.kafka_password == "hidden-4 with spaces"
    assert (settings.signed_urls, settings.export_retention_days, settings.threads) == (False, 7, 4)


def test_a_setting_without_a_value_has_its_default() -> None:
    """An empty variable counts as not set: Terraform sets some variables to an empty text."""
    assert from_environment(dict.fromkeys(EVERY_SETTING, "")) == from_environment({}) == Settings()


@pytest.mark.parametrize("word", ["on", "true", "1", "yes"])
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title], ids=["lower", "upper", "title"])
def test_a_switch_can_be_turned_on(word: str, case: Callable[[str], str]) -> None:
    """People write "on" in several ways, and each of them works."""
    assert from_environment({"SIGNED_URLS": case(word)}).signed_urls is True


@pytest.mark.parametrize("word", ["off", "false", "0", "no"])
@pytest.mark.parametrize("case", [str.lower, str.upper, str.title], ids=["lower", "upper", "title"])
def test_a_switch_can_be_turned_off(word: str, case: Callable[[str], str]) -> None:
    """People write "off" in several ways, and each of them works."""
    assert from_environment({"SIGNED_URLS": case(word)}).signed_urls is False


@pytest.mark.parametrize("variable", MALFORMED)
def test_the_error_names_a_malformed_setting_its_value_and_the_allowed_values(variable: str) -> None:
    """The error is one sentence, which shows no secret."""
    value, sentence = MALFORMED[variable]

    with pytest.raises(InvalidSettings) as raised:
        from_environment({**EVERY_SETTING, variable: value})

    assert str(raised.value) == sentence


def test_the_error_names_all_malformed_settings() -> None:
    """One deployment is enough to find all mistakes."""
    with pytest.raises(InvalidSettings) as raised:
        from_environment({variable: value for variable, (value, _) in MALFORMED.items()})

    assert sorted(str(raised.value).splitlines()) == sorted(sentence for _, sentence in MALFORMED.values())


def test_a_secret_is_never_shown() -> None:
    """A repr may appear in logs and in the messages of failed tests."""
    settings = from_environment(EVERY_SETTING)

    assert "hidden" not in f"{settings!r} {settings} {[settings]} {settings.service_database}"
    assert "bucket='imports-and-exports'" in repr(settings)


def test_settings_cannot_be_changed() -> None:
    """All threads of a process share the settings."""
    with pytest.raises(AttributeError):
        from_environment({}).threads = 2  # type: ignore[misc]  # mypy knows that the struct is frozen


@pytest.mark.parametrize(
    ("client", "environment", "missing"),
    [
        pytest.param(Storage, {}, ["BUCKET"], id="Storage"),
        pytest.param(PubSub, {}, ["GOOGLE_CLOUD_PROJECT"], id="PubSub"),
        pytest.param(Kafka, {}, ["KAFKA_BOOTSTRAP_SERVERS"], id="Kafka"),
        pytest.param(
            lambda settings: KafkaConsumer(settings, "group", ["topic"]),
            {"KAFKA_BOOTSTRAP_SERVERS": "broker:9092", "KAFKA_USERNAME": "functions"},
            ["KAFKA_PASSWORD"],
            id="KafkaConsumer",
        ),
    ],
)
def test_a_client_names_the_settings_that_are_missing(
    client: Callable[[Settings], object], environment: dict[str, str], missing: list[str]
) -> None:
    """A function has only the settings that it needs, so a client checks its own settings."""
    with pytest.raises(InvalidSettings) as raised:
        client(from_environment(environment))

    assert [line.split(" is not set; it must be ")[0] for line in str(raised.value).splitlines()] == missing


def test_malformed_settings_stop_a_function_before_it_serves() -> None:
    """The deployment fails with one line per setting, without a traceback."""
    process = subprocess.run(
        [sys.executable, "-m", "functions_framework", "--target", "sweep"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "SIGNED_URLS": "maybe", "LOG_FORMAT": "xml"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 1
    assert process.stderr.splitlines() == [MALFORMED["SIGNED_URLS"][1], MALFORMED["LOG_FORMAT"][1]]


def test_every_setting_is_in_the_readme() -> None:
    """The table in the README is generated."""
    assert settings_table.render_table() in (ROOT / "README.md").read_text(), "run `python -m infra.settings_table`"


def test_every_setting_is_tested_here() -> None:
    """The three databases have the same settings; it is enough to test each of them for one database."""
    of_databases = {f"_DATABASE_{field.name.upper()}" for field in msgspec.structs.fields(Settings().service_database)}
    others = {field.name.upper() for field in msgspec.structs.fields(Settings) if not field.name.endswith("_database")}

    assert {variable for variable in EVERY_SETTING if "_DATABASE_" not in variable} == others
    assert {"_DATABASE_" + variable.partition("_DATABASE_")[2] for variable in EVERY_SETTING} >= of_databases
