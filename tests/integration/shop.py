"""A webshop's user at the HTTP API."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from functions.imports.states import ACTIVE
from tests.integration.waiting import PATIENCE_SECONDS, wait_until

Seen = dict[str, Any]  # an import as the API shows it


class Unavailable(Exception):
    """The API answered 5xx or not at all: what a user meets while something is being killed."""


@dataclass(frozen=True)
class Answer:
    """What the API said."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Shop:
    """One webshop and one user of it."""

    api_url: str
    webshop_uuid: str
    user_uuid: str
    token: str

    def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Calls the API below the webshop. Raises Unavailable for 5xx and for no answer."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        url = f"{self.api_url}/webshops/{self.webshop_uuid}/{path}"
        answer = send(urllib.request.Request(url, data, headers, method=method))
        if answer.status >= 500:
            raise Unavailable(f"{method} {path}: {answer.status} {answer.body!r}")
        return answer

    def start_import(self, file_name: str = "products.csv", **more: Any) -> Seen:
        """Opens an upload."""
        answer = self.call("POST", "imports", {"file_name": file_name, **more})
        assert answer.status == 201, answer.body
        started: Seen = answer.json
        return started

    def upload(self, content: bytes, file_name: str = "products.csv", **more: Any) -> str:
        """Starts an import, sends its file and returns its uuid."""
        started = self.start_import(file_name, **more)
        put(started, content)
        return str(started["uuid"])

    def find(self, import_uuid: str) -> Seen | None:
        """The import as it is now; None while it is not recorded."""
        answer = self.call("GET", f"imports/{import_uuid}")
        assert answer.status in (200, 404), answer.body
        return answer.json if answer.status == 200 else None

    def retry(self, import_uuid: str) -> Answer:
        return self.call("POST", f"imports/{import_uuid}/retry")

    def uuids(self) -> set[str]:
        """The imports of the newest page."""
        return {item["uuid"] for item in self.call("GET", "imports?limit=200").json["items"]}

    def wait_for(self, import_uuid: str, what: str, despite: tuple[type[Exception], ...] = (), **values: Any) -> Seen:
        """Waits until the import is recorded and holds `values`."""

        def seen() -> Seen | None:
            found = self.find(import_uuid)
            return found if found and values.items() <= found.items() else None

        return wait_until(seen, f"the import {what}", despite)

    def wait_for_end(self, import_uuid: str, despite: tuple[type[Exception], ...] = ()) -> Seen:
        """The import once it is over, its ledger checked: every row of the file is accounted for once."""

        def over() -> Seen | None:
            found = self.find(import_uuid)
            return found if found and found["status"] not in ACTIVE else None

        seen = wait_until(over, f"the end of import {import_uuid}", despite)
        assert seen["total_rows"] == seen["updated_rows"] + seen["unchanged_rows"] + seen["failed_rows"]
        assert seen["reason"]
        assert seen["progress_percent"] == 100
        return seen


def put(started: Seen, content: bytes) -> None:
    """Sends the bytes where the API said, with the headers that it said."""
    answer = send(
        urllib.request.Request(
            started["upload_url"], content, started["upload_headers"], method=started["upload_method"]
        )
    )
    assert answer.status == 200, answer


def send(request: urllib.request.Request) -> Answer:
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
            return Answer(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        return Answer(error.code, dict(error.headers), error.read())
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{request.full_url}: {error!r}") from error
