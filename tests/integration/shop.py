"""A client of the HTTP API: one user of one webshop."""

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

ImportJson = dict[str, Any]  # an import in a response of the API


class Unavailable(Exception):
    """The API responded with 5xx or did not respond. This can happen while a test kills processes."""


@dataclass(frozen=True)
class Response:
    """A response of the API."""

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

    def call(self, method: str, path: str, body: Any = None) -> Response:
        """Calls the API with a path below the webshop's. Raises Unavailable for 5xx and if there is no response."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        url = f"{self.api_url}/webshops/{self.webshop_uuid}/{path}"
        response = send(urllib.request.Request(url, data, headers, method=method))
        if response.status >= 500:
            raise Unavailable(f"{method} {path}: {response.status} {response.body!r}")
        return response

    def start_import(self, file_name: str = "products.csv", **options: Any) -> ImportJson:
        """Creates an import and returns it with the URL for its file."""
        response = self.call("POST", "imports", {"file_name": file_name, **options})
        assert response.status == 201, response.body
        started: ImportJson = response.json
        return started

    def upload(self, content: bytes, file_name: str = "products.csv", **options: Any) -> str:
        """Starts an import, uploads its file and returns its uuid."""
        started = self.start_import(file_name, **options)
        put(started, content)
        return str(started["uuid"])

    def find(self, import_uuid: str) -> ImportJson | None:
        """Returns the current state of the import, or None while it is not recorded."""
        response = self.call("GET", f"imports/{import_uuid}")
        assert response.status in (200, 404), response.body
        return response.json if response.status == 200 else None

    def retry(self, import_uuid: str) -> Response:
        return self.call("POST", f"imports/{import_uuid}/retry")

    def uuids(self) -> set[str]:
        """Returns the uuids of the newest page of imports."""
        return {item["uuid"] for item in self.call("GET", "imports?limit=200").json["items"]}

    def wait_for(
        self, import_uuid: str, what: str, despite: tuple[type[Exception], ...] = (), **values: Any
    ) -> ImportJson:
        """Waits until the import is recorded and has `values`. `what` completes "the import …" in the error."""

        def find_matching() -> ImportJson | None:
            found = self.find(import_uuid)
            return found if found and values.items() <= found.items() else None

        return wait_until(find_matching, f"the import {what}", despite)

    def wait_for_end(self, import_uuid: str, despite: tuple[type[Exception], ...] = ()) -> ImportJson:
        """Waits until the import has ended, and checks that its ledger counts every row of the file once."""

        def find_ended() -> ImportJson | None:
            found = self.find(import_uuid)
            return found if found and found["status"] not in ACTIVE else None

        ended = wait_until(find_ended, f"the end of import {import_uuid}", despite)
        assert ended["total_rows"] == ended["updated_rows"] + ended["unchanged_rows"] + ended["failed_rows"]
        assert ended["reason"]
        assert ended["progress_percent"] == 100
        return ended


def put(started: ImportJson, content: bytes) -> None:
    """Uploads the content to the URL and with the headers that the API returned."""
    response = send(
        urllib.request.Request(
            started["upload_url"], content, started["upload_headers"], method=started["upload_method"]
        )
    )
    assert response.status == 200, response


def send(request: urllib.request.Request) -> Response:
    """Sends a request and returns the response of any status. Raises Unavailable if there is none."""
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as response:
            return Response(response.status, dict(response.headers), response.read())
    except urllib.error.HTTPError as error:
        return Response(error.code, dict(error.headers), error.read())
    except (OSError, http.client.HTTPException) as error:
        raise Unavailable(f"{request.full_url}: {error!r}") from error
