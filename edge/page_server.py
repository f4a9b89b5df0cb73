"""The page's web server: what is answered under which address, and to whom.

    application = make_application(Shared(folder, zone), access)

    .                  the page, or the form that asks for the password
    static/NAME        its style and scripts
    stream             server-sent events: the live spectrogram, and what is new in the record
    api/events         events before an id, of a species        api/day     another day by hour
    clips/SPECIES/NAME.flac                                     events.csv  events of some days
    login, logout      the form's

All answers only read. Addresses in the page are relative, so a reverse proxy may have it under any path.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from datetime import date
from typing import Any

import tornado.web
from tornado.iostream import StreamClosedError

from edge.csv_export import write_rows
from edge.page_access import Access
from edge.page_answer import COOKIE, COOKIE_DAYS, Answer, Shared
from edge.page_data import EXPORT
from edge.page_day import Day
from edge.page_feed import Viewer
from edge.page_files import UnsatisfiableError, byte_range, open_clip

TICK_SECONDS = 0.25  # between two messages to a viewer: five columns of the spectrogram
IDLE_SECONDS = 15.0  # after which a viewer is sent something, if only to learn that it has gone
STALLED_SECONDS = 30.0  # a viewer that takes nothing for so long has gone
RETRY_MILLISECONDS = 2000  # after which a browser asks for a broken stream again
MOST_VIEWERS = 20
PAGE_OF_EVENTS = 60
EXPORT_ROWS = 1000  # read at once; between two reads the journal is let go
CLIP_BYTES = 1 << 16
LARGEST_ID = 2**63 - 1  # of SQLite


def make_application(shared: Shared, access: Access, behind_proxy: bool = False) -> tornado.web.Application:
    """The page's addresses and their handlers. behind_proxy: believe the last word of X-Forwarded-For and -Proto"""
    common = {"shared": shared, "access": access, "behind_proxy": behind_proxy}
    routes = [
        (r"/", Home),
        (r"/static/([a-z0-9_.-]+)", StaticFile),
        (r"/stream", Stream),
        (r"/api/events", Events),
        (r"/api/day", DayByHour),
        (r"/clips/([^/]+)/([^/]+)", Clip),
        (r"/events\.csv", Csv),
        (r"/login", Login),
        (r"/logout", Logout),
    ]
    return tornado.web.Application(
        [(pattern, handler, common) for pattern, handler in routes],
        default_handler_class=Answer,
        default_handler_args=common,
        cookie_secret=access.cookie_secret if access.needs_password else None,
    )


class Home(Answer):
    """The page, or the form."""

    open_to_all = True

    async def head(self) -> None:
        await self.get()

    async def get(self) -> None:
        if self.is_admitted():
            self.send_static("index.html")
        else:
            self.send_form(401)


class StaticFile(Answer):
    """The page's style and scripts, which the form needs as well."""

    open_to_all = True

    async def get(self, name: str) -> None:
        self.send_static(name)


class Login(Answer):
    """Takes what the form sends."""

    open_to_all = True

    async def get(self) -> None:
        self.redirect("./")

    async def post(self) -> None:
        verdict = self.try_password(self.get_body_argument("password", "", strip=False))
        if verdict.wait:
            self.send_form(429, f"Too many wrong passwords. Wait {round(verdict.wait) or 1} s, then try again.")
        elif not verdict.admitted:
            self.send_form(401, "That is not the password.")
        else:
            secure = self.is_encrypted
            self.set_signed_cookie(
                COOKIE, "1", expires_days=COOKIE_DAYS, httponly=True, samesite="Lax", secure=secure, path="/"
            )
            self.redirect("./", status=303)


class Logout(Answer):
    """Ends the session of this browser."""

    open_to_all = True

    async def post(self) -> None:
        self.clear_cookie(COOKIE)
        self.redirect("./", status=303)


class Stream(Answer):
    """Tells a viewer what it does not know yet, until it goes: see page_feed.py, and edge/live.py for the columns."""

    async def get(self) -> None:
        shared = self.shared
        if shared.viewers >= MOST_VIEWERS:
            raise tornado.web.HTTPError(503)
        self._gone = asyncio.Event()
        self.set_header("Content-Type", "text/event-stream")
        self.set_header("X-Accel-Buffering", "no")  # nginx would hold the messages back
        self.write(f"retry: {RETRY_MILLISECONDS}\n\n")
        self._tell("hello", {"page": shared.version, "password": self.access.needs_password, "now": time.time()})
        shared.viewers += 1
        try:
            await self._follow(Viewer())
        except (StreamClosedError, asyncio.TimeoutError):
            pass
        finally:
            shared.viewers -= 1

    async def _follow(self, viewer: Viewer) -> None:
        shared, cursor, told_at = self.shared, None, time.monotonic()
        while not self._gone.is_set():
            cursor, runs = shared.ring.all_since(cursor)
            await shared.refresh()
            if runs and viewer.parts.get("scale") != shared.ring.scale:
                viewer.parts["scale"] = shared.ring.scale
                self._tell("scale", shared.ring.scale._asdict())
            for columns, utc in runs:
                self._tell("live", {"utc": utc, "columns": base64.b64encode(columns).decode()})
            for name, value in shared.feed.news(viewer):
                self._tell(name, value)
            if not self._write_buffer and time.monotonic() - told_at > IDLE_SECONDS:
                self.write(": still here\n\n")
            if self._write_buffer:
                await asyncio.wait_for(self.flush(), STALLED_SECONDS)
                told_at = time.monotonic()
            try:
                await asyncio.wait_for(self._gone.wait(), TICK_SECONDS)
            except asyncio.TimeoutError:
                continue

    def _tell(self, name: str, value: Any) -> None:
        self.write(f"event: {name}\ndata: {json.dumps(value)}\n\n")

    def on_connection_close(self) -> None:
        if hasattr(self, "_gone"):
            self._gone.set()
        super().on_connection_close()


class Events(Answer):
    """Events before an id, of a species or of all: a page of them, the latest first."""

    async def get(self) -> None:
        try:
            before = int(self.get_query_argument("before", "0")) or None
        except ValueError as error:
            raise tornado.web.HTTPError(400) from error
        if before is not None and abs(before) > LARGEST_ID:
            raise tornado.web.HTTPError(400)
        # As it came: tornado's get_query_argument tidies, and a name is found only as it is.
        asked = self.request.query_arguments.get("species", [])
        species = asked[-1].decode("utf-8", "replace") if asked else None
        events = await self.shared.read(self._latest, before, species)
        self.write_json({"events": events[:PAGE_OF_EVENTS], "more": len(events) > PAGE_OF_EVENTS})

    def _latest(self, before: int | None, species: str | None) -> list[dict]:
        self.shared.record.open()
        return self.shared.record.latest_events(PAGE_OF_EVENTS + 1, before, species)


class DayByHour(Answer):
    """The species of a local day by hour."""

    async def get(self) -> None:
        self.write_json(await self.shared.read(self._read, self.day_argument("date", self.today)))

    def _read(self, wanted: date) -> dict:
        record = self.shared.record
        record.open()
        day = Day(record, wanted)
        day.update_listened(record, time.time())
        first, last = record.days()
        return {**day.as_json(), "first": first and first.isoformat(), "last": last and last.isoformat()}


class Clip(Answer):
    """A clip, in parts if the browser asks so, as it does to jump within it and as Safari always does."""

    async def head(self, species: str, name: str) -> None:
        await self.get(species, name)

    async def get(self, species: str, name: str) -> None:
        file = open_clip(self.shared.clips, species, name)
        if file is None:
            raise tornado.web.HTTPError(404)
        with file:
            size = file.seek(0, io.SEEK_END)
            self.set_header("Content-Type", "audio/flac")
            self.set_header("Accept-Ranges", "bytes")
            self.set_header("Cache-Control", "private, max-age=3600")
            self.set_header("Content-Security-Policy", "default-src 'none'; media-src 'self'; sandbox")
            try:
                part = byte_range(self.request.headers.get("Range", ""), size)
            except UnsatisfiableError:
                self.set_status(416)
                self.set_header("Content-Range", f"bytes */{size}")
                return
            begin, end = part or (0, size)
            if part:
                self.set_status(206)
                self.set_header("Content-Range", f"bytes {begin}-{end - 1}/{size}")
            self.set_header("Content-Length", str(end - begin))
            if self.request.method == "HEAD":
                return
            file.seek(begin)
            while begin < end:
                block = file.read(min(CLIP_BYTES, end - begin))
                if not block:  # deleted files stay whole while they are open; this one was cut
                    raise StreamClosedError
                begin += len(block)
                self.write(block)
                await self.flush()


class Csv(Answer):
    """The events that began from one local day to another, both included, as a table; of any length, at constant memory."""

    async def get(self) -> None:
        shared = self.shared
        first, last = await shared.read(self._days)
        first = self.day_argument("from", first or self.today)
        last = self.day_argument("to", max(self.today, last or self.today))
        begin, _ = shared.zone.bounds(first)
        _, end = shared.zone.bounds(last)
        self.set_header("Content-Type", "text/csv; charset=utf-8")
        self.set_header("Content-Disposition", f'attachment; filename="birdcall_{first}_{last}.csv"')
        self.write(_as_csv([EXPORT]))
        after, rows = ("", 0), [()]
        while rows:
            rows = await shared.read(shared.record.export, begin, end, after, EXPORT_ROWS)
            if rows:
                after = rows[-1][1], rows[-1][0]
                self.write(_as_csv(rows))
            await self.flush()

    def _days(self) -> tuple[date | None, date | None]:
        self.shared.record.open()
        return self.shared.record.days()


def _as_csv(rows: list) -> str:
    lines = io.StringIO()
    write_rows(lines, rows)
    return lines.getvalue()
