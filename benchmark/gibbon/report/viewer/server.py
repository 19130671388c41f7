"""A server of one run's examples, for this machine alone, which only reads.

It listens on 127.0.0.1.  Two things keep others out: the ``Host`` of a request must be this
address, so that no page of another site can reach it under a name of its own (DNS rebinding), and
the browser must have a cookie that it gets from the address that the command prints, so that no
other user of this machine can read the run.  Every answer forbids what the page does not need.
"""

from __future__ import annotations

import json
import secrets
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from gibbon.core.errors import RequestError, SpecError
from gibbon.core.plain_text import printable
from gibbon.report.viewer.answers_json import (
    example_values,
    page_values,
    run_values,
    shown_input,
)
from gibbon.report.viewer.examples import RunExamples, parse_filters
from gibbon.report.viewer.inputs import KINDS, InputStore, png

HOST: Final = "127.0.0.1"
FIRST_PORT: Final = 8643  # so that a link still leads somewhere when the viewer is started again
PORTS: Final = 20  # ports that are tried
LONGEST: Final = 4096  # characters of an address
_STATIC: Final = Path(__file__).parent / "static"
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "/viewer.css": ("viewer.css", "text/css; charset=utf-8"),
}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; connect-src 'self'; script-src 'self'; "
        "style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_CLOSED: Final = (
    "This page is for the user who started gibbon view: open the address that it printed.\n"
)


@dataclass(frozen=True)
class Reply:
    """The answer to a request: its status, its type, its content, and more headers."""

    status: HTTPStatus
    kind: str
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def text(cls, status: HTTPStatus, text: str) -> Reply:
        """Returns an answer of plain text."""
        return cls(status, "text/plain; charset=utf-8", text.encode())

    @classmethod
    def json(cls, values: object, status: HTTPStatus = HTTPStatus.OK) -> Reply:
        """Returns an answer of values."""
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
        return cls(status, "application/json; charset=utf-8", text.encode())


class ViewerServer(ThreadingHTTPServer):
    """Serves the examples of a run on 127.0.0.1.

    Args:
        examples: those of the run.
        port: the port; 0 for a free one; if None, the first that is free from `FIRST_PORT` on.

    Raises `SpecError` if the port is in use.
    """

    daemon_threads = True
    allow_reuse_address = False

    def __init__(self, examples: RunExamples, port: int | None = None) -> None:
        self.examples = examples
        self.inputs = InputStore(examples.folder)
        self.token = secrets.token_urlsafe(24)
        self._lock = threading.Lock()
        ports = range(FIRST_PORT, FIRST_PORT + PORTS) if port is None else (port,)
        for each in ports:
            try:
                super().__init__((HOST, each), _Handler)
                break
            except (OSError, OverflowError) as error:
                if each == ports[-1]:
                    raise SpecError(
                        f"port {each} can't be used: {error}; give another with --port",
                        where="--port",
                    ) from error

    @property
    def port(self) -> int:
        """The port that is served."""
        return int(self.server_address[1])

    @cached_property
    def hosts(self) -> frozenset[str]:
        """The names under which this server may be called."""
        return frozenset(f"{name}:{self.port}" for name in (HOST, "localhost"))

    @property
    def cookie(self) -> str:
        """The name of the cookie: those of other ports of this machine are sent too."""
        return f"gibbon-{self.port}"

    def address(self, state: str = "") -> str:
        """Returns the address to open, with the token; ``state`` follows the #."""
        return f"http://{HOST}:{self.port}/?token={self.token}{f'#{state}' if state else ''}"

    def reply(self, path: str, written: Mapping[str, str]) -> Reply:
        """Returns the answer to a request of somebody who may read the run."""
        answers: dict[str, Callable[[], Reply]] = {
            "/api/run": lambda: Reply.json(run_values(self.examples)),
            "/api/examples": lambda: Reply.json(page_values(self.examples, self.inputs, written)),
            "/api/example": lambda: Reply.json(example_values(self.examples, self.inputs, written)),
            "/image": lambda: self._picture(written),
        }
        if path in _FILES:
            name, kind = _FILES[path]
            return Reply(HTTPStatus.OK, kind, (_STATIC / name).read_bytes())
        if path not in answers:
            return Reply.text(HTTPStatus.NOT_FOUND, "There is no such page.\n")
        try:
            with self._lock:  # the stores of outcomes are not made for several threads
                return answers[path]()
        except SpecError as error:
            return Reply.json({"error": printable(str(error))}, HTTPStatus.BAD_REQUEST)
        except RequestError as error:  # a file was damaged, or removed, while it is served
            return Reply.json({"error": printable(str(error))}, HTTPStatus.CONFLICT)

    def _picture(self, written: Mapping[str, str]) -> Reply:
        filters = parse_filters(written, self.examples)
        kind, text = written.get("kind", ""), written.get("example", "")
        if kind not in KINDS:
            raise SpecError(f"expected one of {', '.join(KINDS)}, got {kind!r}", where="kind")
        if not (text.isascii() and text.isdigit() and len(text) < 16):
            raise SpecError(f"expected a whole number, got {text!r}", where="example")
        shown = shown_input(self.examples, self.inputs, filters, int(text))
        if shown is None or shown.pictures is None:
            return Reply.text(HTTPStatus.NOT_FOUND, "No picture of this example is stored.\n")
        return Reply(HTTPStatus.OK, "image/png", png(shown.pictures[KINDS.index(kind)]))

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores connections that the browser has closed; other errors are printed."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; other methods get an error."""

    server: ViewerServer
    server_version = "gibbon"
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        self._send(self._reply())

    def do_HEAD(self) -> None:
        self._send(self._reply())

    def _reply(self) -> Reply:
        if len(self.path) > LONGEST:
            return Reply.text(HTTPStatus.REQUEST_URI_TOO_LONG, "The address is too long.\n")
        if self.headers.get_all("Host") not in [[host] for host in self.server.hosts]:
            return Reply.text(HTTPStatus.FORBIDDEN, f"Open http://{HOST}:{self.server.port}/.\n")
        try:
            address = urlsplit(self.path)
            written = dict(parse_qsl(address.query, keep_blank_values=True, max_num_fields=40))
        except ValueError:
            return Reply.text(HTTPStatus.BAD_REQUEST, "The address can't be read.\n")
        foreign = self.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin")
        if foreign and address.path != "/":  # a link to the page may be on another one
            return Reply.text(HTTPStatus.FORBIDDEN, "This comes from another site.\n")
        if secrets.compare_digest(written.pop("token", "").encode(), self.server.token.encode()):
            rest = f"?{urlencode(written)}" if written else ""
            cookie = f"{self.server.cookie}={self.server.token}; Path=/; HttpOnly; SameSite=Lax"
            headers = {"Location": f"/{rest}", "Set-Cookie": cookie}
            return Reply(HTTPStatus.SEE_OTHER, "text/plain", b"", headers)
        if not secrets.compare_digest(self._token().encode(), self.server.token.encode()):
            return Reply.text(HTTPStatus.FORBIDDEN, _CLOSED)
        return self.server.reply(address.path, written)

    def _token(self) -> str:
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(self.headers.get("Cookie", ""))
        except CookieError:
            return ""
        found = cookies.get(self.server.cookie)
        return "" if found is None else found.value

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        headers = {"Content-Type": reply.kind, "Content-Length": str(len(reply.content))}
        for name, value in {**headers, **_HEADERS, **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  that of the base class
        """Logs nothing: the terminal shows what the command says."""
