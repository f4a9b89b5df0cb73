"""What all answers of the page's web server have in common: what they read, who may have them, the policy they bear.

    class Home(Answer):
        async def get(self) -> None:
            self.send_static("index.html")

No answer holds anything that was asked, or a name from the record, outside of JSON, CSV and audio, and a strict policy
has browsers run and load nothing but the page's own files.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, Callable

import tornado.escape
import tornado.netutil
import tornado.web

from edge.live import LiveReader, live_path
from edge.page_access import Access, Verdict, basic_password
from edge.page_data import Record, Zone
from edge.page_feed import Feed
from edge.page_files import load_static, version
from edge.page_status import Sound

LOG = logging.getLogger(__name__)
REFRESH_SECONDS = 0.5  # between two looks at the journal, while there is a viewer
COOKIE, COOKIE_DAYS = "birdcall", 30
CHALLENGE = 'Form realm="Birdcall"'  # a scheme that browsers do not know: they show our form and no window of their own

SECURITY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " media-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


class Shared:
    """What all requests share: the record, read in one thread of its own, the ring, the feed and the page's files."""

    def __init__(self, folder: Path, zone: Zone) -> None:
        self.clips = Path(folder) / "clips"
        self.zone = zone
        self.static = load_static()
        self.version = version(self.static)
        self.ring = LiveReader(live_path(folder))
        self.record = Record(folder, zone)
        self.feed = Feed(self.record)
        self.viewers = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._refreshing: asyncio.Future | None = None
        self._refreshed = float("-inf")

    async def read(self, work: Callable, *arguments: Any) -> Any:
        """The answer of a function that reads the record, in the record's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def refresh(self) -> None:
        """Have the feed up to date, within REFRESH_SECONDS, for however many viewers."""
        if self._refreshing is None and time.monotonic() - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            self._refreshing = asyncio.ensure_future(self.read(self.feed.refresh, time.time(), self._sound()))
        if self._refreshing is not None:
            refreshing = self._refreshing
            try:
                await asyncio.shield(refreshing)
            finally:
                if self._refreshing is refreshing and refreshing.done():
                    self._refreshing = None

    def _sound(self) -> Sound:
        ring = self.ring
        return Sound(ring.last_utc is not None or ring.alive, ring.alive, ring.quiet_seconds, ring.last_utc)


class Answer(tornado.web.RequestHandler):
    """What all answers have in common; by itself the answer to addresses that are none."""

    open_to_all = False
    _wait = 1  # seconds until this address may guess again

    def initialize(self, shared: Shared, access: Access, behind_proxy: bool) -> None:
        self.shared = shared
        self.access = access
        self._behind_proxy = behind_proxy

    @property
    def client(self) -> str:
        """The address that asks; of a proxy on this machine, who it says asked it, which is the last that it added."""
        said = self._of_proxy("X-Forwarded-For")
        return said if tornado.netutil.is_valid_ip(said) else self.request.remote_ip

    @property
    def is_encrypted(self) -> bool:
        """Does the browser speak HTTPS, to the proxy on this machine?"""
        return self.request.protocol == "https" or self._of_proxy("X-Forwarded-Proto") == "https"

    def _of_proxy(self, header: str) -> str:
        """The last value of a header, for whoever wrote those before it may have been the browser; "" without a proxy."""
        return self.request.headers.get(header, "").rsplit(",", 1)[-1].strip() if self._behind_proxy else ""

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")
        for name, value in SECURITY.items():
            self.set_header(name, value)

    def prepare(self) -> None:
        if not self.access.admits_host(self.request.host):
            raise tornado.web.HTTPError(403)
        if not (self.open_to_all or self.is_admitted()):
            raise tornado.web.HTTPError(401)

    def is_admitted(self) -> bool:
        """Does the request bear the cookie or the password, if one is needed? Raises HTTPError 429 for too many guesses."""
        if not self.access.needs_password or self.get_signed_cookie(COOKIE, max_age_days=COOKIE_DAYS):
            return True
        password = basic_password(self.request.headers.get("Authorization", ""))
        if password is None:
            return False
        verdict = self.try_password(password)
        if verdict.wait:
            raise tornado.web.HTTPError(429)
        return verdict.admitted

    def try_password(self, guess: str) -> Verdict:
        """Is it the password? A wrong one makes the address wait before its next guess, and is logged."""
        verdict = self.access.try_password(self.client, guess)
        self._wait = max(1, round(verdict.wait))
        if not (verdict.wait or verdict.admitted):
            LOG.warning("wrong password from %s", self.client)
        return verdict

    async def get(self, *_: str) -> None:
        raise tornado.web.HTTPError(404)

    async def head(self, *_: str) -> None:
        raise tornado.web.HTTPError(404)

    def write_error(self, status_code: int, **_: Any) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        if status_code == 401:
            self.set_header("WWW-Authenticate", CHALLENGE)
        if status_code == 429:
            self.set_header("Retry-After", str(self._wait))
        self.finish(f"{status_code} {self._reason}\n")

    def write_json(self, value: Any) -> None:
        """Answer with JSON."""
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value))

    def send_static(self, name: str) -> None:
        """Answer with one of the page's files, or 304 if the browser has it."""
        file = self.shared.static.get(name)
        if file is None:
            raise tornado.web.HTTPError(404)
        self.set_header("Content-Type", file.type)
        self.set_header("Cache-Control", "no-cache")  # that is: ask whether it is still the same
        self.set_header("Etag", file.etag)
        if self.check_etag_header():
            self.set_status(304)
            self.finish()
        else:
            self.finish(file.content)

    def send_form(self, status: int, message: str = "") -> None:
        """Answer with the form that asks for the password. message: a text of ours"""
        form = self.shared.static["login.html"]
        self.set_status(status)
        self.set_header("Content-Type", form.type)
        if status == 401:
            self.set_header("WWW-Authenticate", CHALLENGE)
        else:
            self.set_header("Retry-After", str(self._wait))
        self.finish(form.content.replace(b"<!--message-->", tornado.escape.xhtml_escape(message).encode()))

    def day_argument(self, name: str, default: date) -> date:
        """A day that is asked for, as 2026-11-25. Raises HTTPError 400 for what is none."""
        text = self.get_query_argument(name, "")
        if not text:
            return default
        try:
            day = date.fromisoformat(text)
        except ValueError as error:
            raise tornado.web.HTTPError(400) from error
        if not 1970 <= day.year < 2100:
            raise tornado.web.HTTPError(400)
        return day

    @property
    def today(self) -> date:
        """The local day that it is."""
        return self.shared.zone.local(time.time()).date()
