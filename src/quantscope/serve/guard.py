"""Who may ask what: the token, the host, the site a request comes from, and how much and how often."""

from __future__ import annotations

import hashlib
import hmac
import html
import ipaddress
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'none'", "script-src 'self'", "style-src 'self'",
        "img-src 'self' data: blob:", "font-src 'self'", "connect-src 'self'", "worker-src 'self'",
        "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    )
)  # fmt: skip
"""What the app's pages may load: their own server's files alone, and neither script nor style in the page itself."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
_LARGEST_BODY = 2**16
_LONGEST_ADDRESS = 4096
_SAFE = ("GET", "HEAD")


class Rate:
    """So many events a second on average, and so many at once."""

    def __init__(self, per_second: float, at_once: int) -> None:
        self._per_second, self._most = per_second, float(at_once)
        self._left, self._at = float(at_once), time.monotonic()

    def allows(self) -> bool:
        """Count an event; False if it is one too many."""
        now = time.monotonic()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


@dataclass(frozen=True)
class Access:
    """How the server is reached: the token that opens it, the cookie that stands for it, and the names it answers to.

    The cookie is made from the token but is not the token, so that neither is found in place of the other.
    """

    token: str
    port: int
    tls: bool
    hosts: frozenset[str]

    @property
    def cookie_name(self) -> str:
        """Cookies do not know ports: two servers on one machine need two names."""
        return f"quantscope-{self.port}"

    @property
    def cookie_value(self) -> str:
        return hmac.new(self.token.encode(), b"cookie", hashlib.sha256).hexdigest()

    def is_token(self, given: str) -> bool:
        """Compare in a time that does not tell how much of it is right."""
        return hmac.compare_digest(given.encode(errors="replace"), self.token.encode())

    def is_cookie(self, given: str) -> bool:
        """As `is_token`."""
        return hmac.compare_digest(given.encode(errors="replace"), self.cookie_value.encode())

    def answers_to(self, host: str) -> bool:
        """True for the names it was told, and for numbers: a site that poses as this machine has to use a name."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Guard:
    """Lets through what comes with the token, from the server's own pages, in bounds; answers the rest itself."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access
        self._requests = Rate(500, 2000)
        self._wrong = Rate(5, 30)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = Headers(scope=scope)
        answer: ASGIApp | None = self._refused(scope, headers) or self._entered(scope) or self._stranger(scope, headers)
        if answer is None and scope["method"] not in _SAFE:
            body = await _body(receive)
            if body is None:
                answer = _problem(413, f"a request of more than {_LARGEST_BODY} bytes")
            else:
                receive = _once(body, receive)
        await (answer or self._app)(scope, receive, _with_headers(send))

    def _refused(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to what nobody may ask."""
        if not self._access.answers_to(headers.get("host", "")):
            return _problem(403, "this server does not answer to that host name", "open the address that it printed")
        if not self._requests.allows():
            return _problem(429, "too many requests", "wait a second")
        if len(scope["raw_path"] or b"") + len(scope["query_string"]) > _LONGEST_ADDRESS:
            return _problem(400, f"an address of more than {_LONGEST_ADDRESS} bytes")
        if scope["method"] not in _SAFE:
            origin = headers.get("origin")
            same = origin is None or urlsplit(origin).netloc == headers.get("host")
            if not same or headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
                return _problem(403, "the request comes from another site")
        return None

    def _entered(self, scope: Scope) -> Response | None:
        """The answer to a link with a token: the cookie, and the way to the page without the token."""
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
        token = query.get("token")
        if token is None or scope["path"].startswith("/api/"):
            return None
        if not self._access.is_token(token):
            return self._unknown(scope)
        # What stands behind # never reaches a server: a link to a page of the app says it as "to".
        target = html.escape(f"/#{query['to']}" if "to" in query else "/")
        # A redirect would carry no strict cookie if another site's page held the link; a page that goes on does.
        onward = f'<meta http-equiv="refresh" content="0;url={target}">'
        page = HTMLResponse(f"<!doctype html>{onward}<title>quantscope</title>")
        page.set_cookie(
            self._access.cookie_name, self._access.cookie_value, httponly=True, secure=self._access.tls,
            samesite="strict", path="/",
        )  # fmt: skip
        page.headers["Cache-Control"] = "no-store"
        return page

    def _stranger(self, scope: Scope, headers: Headers) -> Response | None:
        """The answer to who has neither cookie nor token."""
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._access.is_token(bearer.strip()):
            return None
        if any(self._access.is_cookie(value) for value in _cookies(headers, self._access.cookie_name)):
            return None
        return self._unknown(scope)

    def _unknown(self, scope: Scope) -> Response:
        if not self._wrong.allows():
            return _problem(429, "too many requests without the right token", "wait a minute")
        step = "open the address that quantscope serve printed, with its token"
        if scope["path"].startswith("/api/"):
            return _problem(401, "the token is missing or wrong", step)
        return HTMLResponse(
            "<!doctype html><html lang=en><title>quantscope: not open</title>"
            f"<h1>This page is locked</h1><p>The token is missing or wrong: {step}.</p>",
            401,
        )


def _cookies(headers: Headers, name: str) -> Iterable[str]:
    for line in headers.getlist("cookie"):
        try:
            found = SimpleCookie(line).get(name)
        except CookieError:
            continue
        if found is not None:
            yield found.value


def _problem(status: int, message: str, next_step: str = "") -> Response:
    content = json.dumps({"message": message, "accepted": "", "next_step": next_step})
    return Response(content, status, media_type="application/json")


async def _body(receive: Receive) -> bytes | None:
    """The whole body of a request; None if it is too large."""
    content = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return content
        content += bytes(message.get("body", b""))
        if len(content) > _LARGEST_BODY:
            return None
        if not message.get("more_body"):
            return content


def _once(body: bytes, receive: Receive) -> Receive:
    """What gives a body that was read already."""
    waiting = [body]

    async def again() -> Message:
        return {"type": "http.request", "body": waiting.pop(), "more_body": False} if waiting else await receive()

    return again


def _with_headers(send: Send) -> Send:
    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            _add(headers, _HEADERS)
            headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sent


def _add(headers: MutableHeaders, more: Mapping[str, str]) -> None:
    for name, value in more.items():
        headers[name] = value
