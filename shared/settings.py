"""Every setting of the functions: one frozen struct, decoded and validated at once from the environment.

A setting's variable has the name of its field in capitals; those of a database start with the database's name, like
SERVICE_DATABASE_URL. An empty variable counts as not set. Defaults suit production; the local stack sets its own.
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


def allowed(words: str, **limits: Any) -> Meta:
    """What a setting may be: `limits` that msgspec checks, and the same in words."""
    return Meta(extra={"allowed": words}, **limits)


def matching(pattern: str, words: str) -> Meta:
    """What a setting may be: text that `pattern` matches as a whole, and the same in words."""
    return allowed(words, pattern=rf"^(?:{pattern})\Z")


SECRET = Meta(extra={"secret": True})  # never shown: neither in an error nor in a repr

Text = Annotated[str, allowed("text that is not empty")]
Switch = Annotated[bool, allowed("on or off (or true, false, yes, no, 1, 0)")]
# A century: the database cannot count back just any number of days.
Days = Annotated[int, allowed("a whole number of days from 1 to 36500", ge=1, le=36_500)]
Threads = Annotated[int, allowed("a whole number from 1 to 1000", ge=1, le=1000)]  # Cloud Run's limit for one process
LogFormat = Annotated[Literal["json", "text"], allowed("json or text")]
WebAddress = Annotated[str, matching(r"https?://[^\s/]\S*", "a URL that starts with http:// or https://")]
EmailAddress = Annotated[str, matching(r"[^\s@]+@[^\s@]+", "an email address")]
ProjectId = Annotated[str, matching(r"[a-z0-9.:-]+", "a project id: lowercase letters, digits and hyphens")]
BucketName = Annotated[
    str, matching(r"[a-z0-9._-]+", "a bucket's name: lowercase letters, digits, dots, hyphens and underscores")
]
Brokers = Annotated[str, matching(r"[^\s,]+:\d+(,[^\s,]+:\d+)*", "host:port, or several of them separated by commas")]
ApiKey = Annotated[str, matching(r"\S+", "a key without spaces and newlines"), SECRET]
PublicKey = Annotated[str, matching(r"[A-Za-z0-9+/]+={0,2}", "the base64 text that SendGrid shows")]
# Secret because of the password in it.
DatabaseUrl = Annotated[
    str, matching(r"postgres(ql)?://\S+", "a URL like postgresql://user:password@host:port/name"), SECRET
]
InstanceName = Annotated[str, matching(r"[^\s:]+:[^\s:]+:[^\s:]+", "a connection name, project:region:instance")]


class InvalidSettings(ValueError):
    """Settings are malformed, or missing where they are needed. The text has one line for each."""


class FromEnvironment(msgspec.Struct, frozen=True):
    """Settings, each documented and validated by the type of its field."""

    def __repr__(self) -> str:
        """Hides secrets."""
        fields = msgspec.structs.fields(self)
        values = {field.name: getattr(self, field.name) for field in fields}
        hidden = {field.name: "…" for field in fields if is_secret(field) and values[field.name]}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in (values | hidden).items())})"


class DatabaseSettings(FromEnvironment, frozen=True):
    """Where one database is: a URL, or a Cloud SQL instance with its database and user."""

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
    """The environment of one process."""

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

        Called where a setting is used: each function is given only the settings that it needs.
        """
        if missing := [name for name in names if not getattr(self, name)]:
            fields = {field.name: field for field in msgspec.structs.fields(self)}
            raise InvalidSettings("\n".join(sentence(name.upper(), "not set", fields[name]) for name in missing))


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Decodes the settings that `environment` has. Raises InvalidSettings that names every malformed one."""
    problems: list[str] = []
    decoded = decode(Settings, environment, "", problems)
    if problems:
        raise InvalidSettings("\n".join(problems))
    return decoded


def from_environment_or_exit(environment: Mapping[str, str]) -> Settings:
    """Decodes the settings, or ends a process that must not start: one line per malformed setting, no traceback."""
    try:
        return from_environment(environment)
    except InvalidSettings as error:
        sys.exit(str(error))


def decode(struct: type[S], environment: Mapping[str, str], prefix: str, problems: list[str]) -> S:
    """Decodes the fields of `struct`. Adds a sentence to `problems` for each variable that is malformed."""
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
                problems.append(sentence(variable, found, field))
    return struct(**values)


def sentence(variable: str, found: str, field: FieldInfo) -> str:
    """Says what was found in a variable and what is allowed there."""
    return f"{variable} is {found}; it must be {extra(field)['allowed']}."


def is_secret(field: FieldInfo) -> bool:
    """Whether the value of a setting must not be shown."""
    return "secret" in extra(field)


def extra(field: FieldInfo) -> dict[str, Any]:
    """What the type of a setting says beyond what msgspec checks: what is `allowed`, in words, and `secret`."""
    metas = [meta for meta in get_args(field.type) if isinstance(meta, Meta)]
    return {key: value for meta in metas for key, value in (meta.extra or {}).items()}


@cache
def settings() -> Settings:
    """The settings of this process. Never called at import: the framework imports in a parent and forks."""
    return from_environment(os.environ)
