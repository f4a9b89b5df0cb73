"""Events and health to a web address: an HTTP POST of JSON for each, as edge/publishing.py describes it.

    sink = WebhookSink("https://example.org/birds?key=...", say)

`kind` says which it is, "event" or "health". Any 2xx is an acknowledgement. No connection, no answer for ten seconds, 5xx,
and what is about the address, the key or the hour and not about this event (3xx, 401, 403, 404, 407, 408, 425, 429) is
tried again until it works. Another 4xx says that this very event will never be taken: it is passed over, and the log says
so once, until one is taken again. Redirects are not followed, since a POST that is redirected arrives as a GET without its
event. Certificates are checked; $SSL_CERT_FILE names the file of one's own authority.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edge.publishing import RefusedError, Sink, SinkError
from src.errors import UserError

TIMEOUT_SECONDS = 10.0
REFUSES_US = (401, 403, 404, 407)
NOT_NOW = (408, 425, 429)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect to be an error."""

    def redirect_request(self, *_: Any) -> None:
        return None


class WebhookSink(Sink):
    """A web address. A user and password in it (https://user:password@host/) are sent as basic authentication.

    Raises UserError for what is no http or https address.
    """

    shows = ("health",)

    def __init__(self, url: str, say: Callable[[str], None], timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        try:
            parts = urllib.parse.urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError:
            host = None
        if (
            not host
            or parts.scheme not in ("http", "https")
            or not url.isascii()
            or not url.isprintable()
            or " " in url
        ):
            raise UserError(f"--webhook {url!r} is no web address; give one such as https://example.org/birds")
        where = f"[{host}]" if ":" in host else host
        where = f"{where}:{port}" if port else where
        bare = urllib.parse.urlunsplit((parts.scheme, where, parts.path or "/", "", ""))
        # Paths and queries of web addresses hold keys: they stay out of the log, and out of a journal that is passed on.
        self.name = f"webhook {where} {hashlib.sha256(bare.encode()).hexdigest()[:12]}"
        self.title = f"webhook {parts.scheme}://{where}"
        self._url = urllib.parse.urlunsplit((parts.scheme, where, parts.path, parts.query, ""))
        self._headers = {"Content-Type": "application/json", "User-Agent": "Birdcall"}
        if parts.username is not None:
            login = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
            self._headers["Authorization"] = f"Basic {base64.b64encode(login.encode()).decode()}"
        self._say = say
        self._timeout_seconds = timeout_seconds
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._passed_over: set[str] = set()  # kinds, of which nothing was taken since

    def send(self, events: Sequence[dict[str, Any]]) -> Iterator[int]:
        """POST each event; see Sink."""
        for event in events:
            self._post("event", event)
            yield event["id"]

    def show(self, what: str, values: dict[str, Any]) -> None:
        """POST a health line. One that is not taken is not missed: the next one comes in a minute."""
        with contextlib.suppress(SinkError):
            self._post(what, values)

    def _post(self, kind: str, values: dict[str, Any]) -> None:
        content = json.dumps({"kind": kind, **values}).encode()
        request = urllib.request.Request(self._url, content, self._headers, method="POST")
        try:
            self._opener.open(request, timeout=self._timeout_seconds).close()
        except urllib.error.HTTPError as error:
            error.close()
            self._answered(error.code, error.reason, kind, values["id"])
            return
        except (OSError, http.client.HTTPException) as error:
            raise SinkError(f"no answer ({_reason(error)})") from error
        self._passed_over.discard(kind)

    def _answered(self, status: int, reason: str, kind: str, number: int) -> None:
        """Pass an answer that is no success on, or over it. Raises SinkError."""
        answer = f"answers {status} {reason}".strip()
        if 300 <= status < 400:
            raise RefusedError(f"{answer}: it has moved; give --webhook the address that it has now")
        if status in REFUSES_US:
            raise RefusedError(f"{answer}: check the address, and the key in it")
        if status in NOT_NOW or not 400 <= status < 500:
            raise SinkError(answer)
        if kind not in self._passed_over:
            self._say(f"{self.title}: {answer} to {kind} {number}: it is passed over, as all that are answered so")
        self._passed_over.add(kind)


def _reason(error: Exception) -> str:
    """What was wrong, in the system's words."""
    inner = getattr(error, "reason", error)  # a URLError wraps it
    return getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
