"""A webshop's user at the API."""

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
ANSWER_SECONDS = 60  # that any answer may take


class Unexpected(Exception):
    """Something after which a chapter cannot go on. The text says what."""


class NotFound(Unexpected):
    """There is no such thing, or not yet."""


@dataclass(frozen=True)
class Shop:
    """Calls the API below one webshop, as one of its users."""

    api_url: str
    webshop_uuid: str
    token: str

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
        """The answer's body. Raises Unexpected with the problem that came instead, NotFound for a 404."""
        with self._opened(method, path, body, headers) as response:
            return response.read()

    def json(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Any:
        """The answer, decoded. Raises as `call`."""
        return json.loads(self.call(method, path, body, headers))

    def download(self, path: str, to: Path) -> None:
        """Leaves the answer's body in a file. Raises as `call`."""
        with self._opened("GET", path) as response, to.open("wb") as file:
            shutil.copyfileobj(response, file)

    @contextmanager
    def _opened(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Iterator[HTTPResponse]:
        url = f"{self.api_url}/webshops/{self.webshop_uuid}/{path}"
        data = None if body is None else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json", **(headers or {})}
        try:
            response = urllib.request.urlopen(
                urllib.request.Request(url, data, sent, method=method), timeout=ANSWER_SECONDS
            )
        except urllib.error.HTTPError as error:
            told = f"{method} {path} was answered {error.code}: {error.read().decode(errors='replace')}"
            raise (NotFound if error.code == 404 else Unexpected)(told) from error
        with response:
            yield response


def wait_for(what: str, look: Callable[[], Any], seconds: float, every_seconds: float = POLL_SECONDS) -> Any:
    """Looks until there is something to see, and returns it. Raises Unexpected when `seconds` have passed."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        if time.monotonic() > deadline:
            raise Unexpected(f"{what} is not over after {seconds} s.")
        time.sleep(every_seconds)
    return seen
