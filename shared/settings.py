"""Every setting of the functions: one frozen struct, decoded from the environment and validated as a whole.

The variable of a setting has the name of its field in capitals; the variables of a database start with the database's
name, like SERVICE_DATABASE_URL. An empty variable counts as not set. The defaults suit production; the local stack sets
its own values.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

S = TypeVar("S", bound=msgspec.Struct)

SWITCH_WORDS = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


def allow(description: str, **limits: Any) -> Meta:
    """Describes the allowed values of a setting: in words, and as `limits` that msgspec checks."""
    return Meta(extra={"allowed": description}, **limits)


def allow_pattern(pattern: str, description: str) -> Meta:
    """Describes the allowed values of a setting: in words, and as a pattern that must match the whole text."""
    return allow(description, pattern=rf"^(?:{pattern})\Z")


SECRET = Meta(extra={"secret": True})  # never shown: neither in an error nor in a repr

Text = Annotated[str, allow("text that is not empty")]
Switch = Annotated[bool, allow("on or off (or true, false, yes, no, 1, 0)")]
# The limit is a century: the database cannot subtract an arbitrary number of days from a date.
Days = Annotated[int, allow("a whole number of days from 1 to 36500", ge=1, le=36_500)]
Threads = Annotated[int, allow("a whole number from 1 to 1000", ge=1, le=1000)]  # Cloud Run's limit for one process
LogFormat = Annotated[Literal["json", "text"], allow("json or text")]
WebAddress = Annotated[str, allow_pattern(r"https?://[^\s/]\S*", "a URL that starts with http:// or https://")]
EmailAddress = Annotated[str, allow_pattern(r"[^\s@]+@[^\s@]+", "an email address")]
ProjectId = Annotated[str, allow_pattern(r"[a-z0-9.:-]+", "a project id: lowercase letters, digits and hyphens")]
BucketName = Annotated[
    str, allow_pattern(r"[a-z0-9._-]+", "a bucket's name: lowercase letters, digits, dots, hyphens and underscores")
]
Brokers = Annotated[
    str, allow_pattern(r"[^\s,]+:\d+(,[^\s,]+:\d+)*", "host:port, or several of them separated by commas")
]
ApiKey = Annotated[str, allow_pattern(r"\S+", "a key without spaces and newlines"), SECRET]
PublicKey = Annotated[str, allow_pattern(r"[A-Za-z0-9+/]+={0,2}", "the base64 text that SendGrid shows")]
# A URL is secret because it contains a password.
DatabaseUrl = Annotated[
    str, allow_pattern(r"postgres(ql)?://\S+", "a URL like postgresql://user:password@host:port/name"), SECRET
]
InstanceName = Annotated[str, allow_pattern(r"[^\s:]+:[^\s:]+:[^\s:]+", "a connection name, project:region:instance")]


class InvalidSettings(ValueError):
    """Settings are malformed, or missing where they are needed. The text has one line per setting."""


class FromEnvironment(msgspec.Struct, frozen=True):
    """Settings that the types of their fields document and validate."""

    def __repr__(self) -> str:
        """Hides secrets."""
        fields = msgspec.structs.fields(self)
        values = {field.name: getattr(self, field.name) for field in fields}
        hidden = {field.name: "…" for field in fields if is_secret(field) and values[field.name]}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in (values | hidden).items())})"


class DatabaseSettings(FromEnvironment, frozen=True):
    """The address of one database: a URL, or a Cloud SQL instance with the names of a database and a user."""

    url: Annotated[DatabaseUrl, Meta(description="URL of the database. It takes precedence over the instance.")] = ""
    instance: Annotated[
        InstanceName, Meta(description="Connection name of a Cloud SQL instance, if no URL is set.")
    ] = ""
    name: Annotated[Text, Meta(description="Name of the database in that instance.")] = ""
    user: Annotated[Text, Meta(description="User who logs in to that instance.")] = ""
    password: Annotated[
        Text, SECRET, Meta(description="Password of that user. Without it, the user logs in with IAM.")
    ] = ""


class Settings(FromEnvironment, frozen=True):
    """The settings of one process."""

    google_cloud_project: Annotated[ProjectId, Meta(description="Id of the Google Cloud project.")] = ""
    bucket: Annotated[
        BucketName, Meta(description="Cloud Storage bucket of imports, exports and the files of emailed buy orders.")
    ] = ""
    service_database: DatabaseSettings = DatabaseSettings()
    product_database: DatabaseSettings = DatabaseSettings()
    legacy_database: DatabaseSettings = DatabaseSettings()
    kafka_bootstrap_servers: Annotated[Brokers, Meta(description="Kafka brokers: host:port, separated by commas.")] = ""
    kafka_username: Annotated[
        Text, Meta(description="Kafka user, for SASL over TLS. Without it, Kafka needs no login.")
    ] = ""
    kafka_password: Annotated[Text, SECRET, Meta(description="Password of the Kafka user.")] = ""
    token_issuer: Annotated[Text, Meta(description="Issuer of the bearer tokens that are accepted (`iss`).")] = ""
    token_audience: Annotated[Text, Meta(description="Audience of the bearer tokens that are accepted (`aud`).")] = ""
    token_jwks_url: Annotated[WebAddress, Meta(description="Where the issuer publishes its keys.")] = ""
    signed_urls: Annotated[
        Switch, Meta(description="`on`: downloads are signed URLs. `off`: the function streams them; no key is needed.")
    ] = True
    export_retention_days: Annotated[
        Days, Meta(description="Days for which the files of exports and of emailed buy orders are kept.")
    ] = 30
    sendgrid_host: Annotated[WebAddress, Meta(description="Base URL of SendGrid's API.")] = "https://api.sendgrid.com"
    sendgrid_api_key: Annotated[ApiKey, Meta(description="Key for SendGrid's API.")] = ""
    sendgrid_webhook_public_key: Annotated[
        PublicKey, Meta(description="Public key that SendGrid shows for its signed event webhook.")
    ] = ""
    mail_from_address: Annotated[
        EmailAddress, Meta(description="Sender of every email. SendGrid must have verified it.")
    ] = ""
    log_format: Annotated[
        LogFormat, Meta(description="`json`: one object per line for Cloud Logging. `text`: lines for a terminal.")
    ] = "json"
    threads: Annotated[
        Threads, Meta(description="Requests that one process serves at once. Sizes the connection pools.")
    ] = 8

    def require(self, *names: str) -> None:
        """Raises InvalidSettings that names every field of `names` without a value.

        The code that uses a setting calls this, because each function has only the settings that it needs.
        """
        if missing := [name for name in names if not getattr(self, name)]:
            fields = {field.name: field for field in msgspec.structs.fields(self)}
            raise InvalidSettings(
                "\n".join(describe_problem(name.upper(), "not set", fields[name]) for name in missing)
            )


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Decodes the settings in `environment`. Raises InvalidSettings that names every malformed setting."""
    problems: list[str] = []
    decoded = decode(Settings, environment, "", problems)
    if problems:
        raise InvalidSettings("\n".join(problems))
    return decoded


def from_environment_or_exit(environment: Mapping[str, str]) -> Settings:
    """Decodes the settings, or exits with one line per malformed setting and no traceback."""
    try:
        return from_environment(environment)
    except InvalidSettings as error:
        sys.exit(str(error))


def decode(struct: type[S], environment: Mapping[str, str], prefix: str, problems: list[str]) -> S:
    """Decodes the fields of `struct`. Appends a sentence to `problems` for each malformed variable."""
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        variable = f"{prefix}{field.name.upper()}"
        if field.type is DatabaseSettings:
            values[field.name] = decode(DatabaseSettings, environment, f"{variable}_", problems)
        elif text := environment.get(variable):
            is_switch = get_args(field.type)[0] is bool
            value = SWITCH_WORDS.get(text.lower(), text) if is_switch else text
            try:
                values[field.name] = msgspec.convert(value, field.type, strict=False)
            except msgspec.ValidationError:
                found = "malformed (a secret, not shown)" if is_secret(field) else repr(text)
                problems.append(describe_problem(variable, found, field))
    return struct(**values)


def describe_problem(variable: str, found: str, field: FieldInfo) -> str:
    """Returns a sentence that says what was found in a variable and what is allowed."""
    return f"{variable} is {found}; it must be {extra_of(field)['allowed']}."


def is_secret(field: FieldInfo) -> bool:
    """Tells whether the value of a setting must not be shown."""
    return "secret" in extra_of(field)


def extra_of(field: FieldInfo) -> dict[str, Any]:
    """Returns what the type of a setting adds for people: `allowed` in words, and `secret` for a secret."""
    metas = [meta for meta in get_args(field.type) if isinstance(meta, Meta)]
    return {key: value for meta in metas for key, value in (meta.extra or {}).items()}


@cache
def settings() -> Settings:
    """Returns the settings of this process. Not for use at import: the framework imports in a parent and forks."""
    return from_environment(os.environ)
