"""Every setting of the functions: one frozen value, read from the environment once a process, at first use."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class DatabaseSettings:
    """Where one database is: a URL, or a Cloud SQL instance with its database and user (password or IAM login)."""

    url: str = ""  # libpq form, postgresql://user:password@host:port/name; wins over the instance
    instance: str = ""  # Cloud SQL connection name, project:region:instance
    name: str = ""
    user: str = ""
    password: str = field(default="", repr=False)  # empty: IAM database login


@dataclass(frozen=True)
class Settings:
    """The environment of one process, as a value. Defaults suit production; the local stack sets its own."""

    project: str  # Google Cloud project id
    bucket: str  # Cloud Storage bucket of imports and exports
    service_database: DatabaseSettings
    product_database: DatabaseSettings
    legacy_database: DatabaseSettings
    kafka_bootstrap_servers: str  # host:port, comma-separated
    kafka_username: str  # empty: no SASL (a broker on a private network or this machine)
    kafka_password: str = field(repr=False)
    token_issuer: str  # `iss` of the bearer tokens
    token_audience: str  # `aud` of the bearer tokens
    token_jwks_url: str  # the issuer's public keys
    log_format: str  # "json" (Cloud Logging) or "text" (a terminal)
    signed_urls: bool  # False: downloads are streamed by the function (where nothing can sign)
    export_retention_days: int  # an export's file, and a mailed one, is kept for so long
    sendgrid_host: str  # base URL of the mail service
    sendgrid_api_key: str = field(repr=False)
    sendgrid_webhook_public_key: str  # that its event webhook is signed for, as SendGrid shows it: base64 of the DER
    mail_from_address: str  # sender of every mail; SendGrid must know it as verified
    threads: int  # requests served at once by one process; sizes the connection pools


def from_environment(environment: Mapping[str, str]) -> Settings:
    """Reads the settings from `environment`; every name is listed in the README.

    A missing name leaves its default; what has no sensible default fails where it is first used, by name.
    """

    def database(prefix: str) -> DatabaseSettings:
        return DatabaseSettings(
            url=environment.get(f"{prefix}_DATABASE_URL", ""),
            instance=environment.get(f"{prefix}_DATABASE_INSTANCE", ""),
            name=environment.get(f"{prefix}_DATABASE_NAME", ""),
            user=environment.get(f"{prefix}_DATABASE_USER", ""),
            password=environment.get(f"{prefix}_DATABASE_PASSWORD", ""),
        )

    return Settings(
        project=environment.get("GOOGLE_CLOUD_PROJECT", ""),
        bucket=environment.get("BUCKET", ""),
        service_database=database("SERVICE"),
        product_database=database("PRODUCT"),
        legacy_database=database("LEGACY"),
        kafka_bootstrap_servers=environment.get("KAFKA_BOOTSTRAP_SERVERS", ""),
        kafka_username=environment.get("KAFKA_USERNAME", ""),
        kafka_password=environment.get("KAFKA_PASSWORD", ""),
        token_issuer=environment.get("TOKEN_ISSUER", ""),
        token_audience=environment.get("TOKEN_AUDIENCE", ""),
        token_jwks_url=environment.get("TOKEN_JWKS_URL", ""),
        log_format=environment.get("LOG_FORMAT", "json"),
        signed_urls=environment.get("SIGNED_URLS", "on") == "on",
        export_retention_days=int(environment.get("EXPORT_RETENTION_DAYS", "30")),
        sendgrid_host=environment.get("SENDGRID_HOST", "https://api.sendgrid.com"),
        sendgrid_api_key=environment.get("SENDGRID_API_KEY", ""),
        sendgrid_webhook_public_key=environment.get("SENDGRID_WEBHOOK_PUBLIC_KEY", ""),
        mail_from_address=environment.get("MAIL_FROM_ADDRESS", ""),
        threads=int(environment.get("THREADS", "8")),
    )


@cache
def settings() -> Settings:
    """The settings of this process. Never called at import: the framework imports in a parent and forks."""
    return from_environment(os.environ)
