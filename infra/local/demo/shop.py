"""A client of the HTTP API: a user of one webshop."""

from __future__ import annotations

import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.05
RESPONSE_TIMEOUT_SECONDS = 60


class Unexpected(Exception):
    """A failure that ends the chapter. The text says what happened."""


class NotFound(Unexpected):
    """The API returned 404: what was requested does not exist, or not yet."""


@dataclass(frozen=True)
class Shop:
    """Calls the API of one webshop as one of its users."""

    api_url: str
    webshop_uuid: str
    token: str

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
        """Returns the body of the response. Raises NotFound for a 404 and Unexpected for any other error."""
        with self._open(method, path, body, headers) as response:
            return response.read()

    def json(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """Returns the decoded body of the response. Raises the same errors as `call`."""
        return json.loads(self.call(method, path, body, headers))

    def download(self, path: str, to: Path) -> None:
        """Writes the body of the response to the file `to`. Raises the same errors as `call`."""
        with self._open("GET", path) as response, to.open("wb") as file:
            shutil.copyfileobj(response, file)

    @contextmanager
    def _open(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Iterator[HTTPResponse]:
        url = f"{self.api_url}/webshops/{self.webshop_uuid}/{path}"
        data = None if body is None else json.dumps(body).encode()
        all_headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **(headers or {})}
        request = urllib.request.Request(url, data, all_headers, method=method)
        try:
            response = urllib.request.urlopen(request, timeout=RESPONSE_TIMEOUT_SECONDS)
        except urllib.error.HTTPError as error:
            message = f"{method} {path} returned {error.code}: {error.read().decode(errors='replace')}"
            raise (NotFound if error.code == 404 else Unexpected)(message) from error
        with response:
            yield response


def wait_for(name: str, find: Callable[[], Any], seconds: float, poll_seconds: float = POLL_SECONDS) -> Any:
    """Calls `find` until it returns a result, and returns that. Raises Unexpected after `seconds`.

    `name` says in the error's text what did not finish.
    """
    deadline = time.monotonic() + seconds
    while not (result := find()):
        if time.monotonic() > deadline:
            raise Unexpected(f"{name} did not finish within {seconds} s.")
        time.sleep(poll_seconds)
    return result
