"""What the page's server answers, and to whom: the password, addresses that lead nowhere, clips, tables."""

from __future__ import annotations

import csv
import io
import json
import os
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import run
from served import PASSWORD, Answer, Listener, Page, page, secret, utc, wait_for

from edge.page_access import Access, is_loopback, read_password
from edge.page_data import Zone
from edge.tables import utc_text
from src.errors import UserError

pytest_plugins = ["page_fixtures"]

AUDIO = bytes(range(256)) * 1000
CLIP = "/clips/amerob/a.flac"


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A record with an event and its clip, beside which lies what nobody may have."""
    folder = tmp_path_factory.mktemp("filled") / "record"
    species = folder / "clips" / "amerob"
    species.mkdir(parents=True)
    listener = Listener(folder)
    listener.journal.set_clip(listener.hear("amerob", time.time() - 5), "amerob/a.flac")
    listener.close()
    (species / "a.flac").write_bytes(AUDIO)
    (species / "ünlike %2F.flac").write_bytes(b"odd")
    (species / ".a.part.flac").write_bytes(b"half")
    (species / "notes.txt").write_bytes(b"private")
    (species / "deeper.flac").mkdir()
    (folder / "secret.flac").write_bytes(b"private")
    (folder / "clips" / "secret.flac").write_bytes(b"private")
    (species / "link.flac").symlink_to(folder / "secret.flac")
    (species / "inside.flac").symlink_to(species / "a.flac")
    (folder / "clips" / "elsewhere").symlink_to(folder)
    os.mkfifo(species / "pipe.flac")
    return folder


@pytest.fixture(scope="module")
def anyone(filled: Path) -> Iterator[Page]:
    """The page of that record on loopback, without a password."""
    with page(filled) as served:
        yield served
        assert served.process.poll() is None and "Traceback" not in served.said


@pytest.fixture(scope="module")
def guarded(filled: Path) -> Iterator[Page]:
    """The page of that record with a password."""
    with page(filled, PASSWORD) as served:
        yield served


def test_without_the_password_nothing_is_told_but_the_form(guarded):
    for path in ("/", "/stream", "/api/events", "/api/day", "/events.csv", CLIP, "/nothing", "/clips/a/b.flac"):
        answer = guarded.ask(path)
        assert answer.status == 401, path
        assert "amerob" not in answer.text
    assert 'name="password"' in guarded.ask("/").text
    for header in (secret("wrong"), secret(""), "Basic ####", "Bearer x", "Basic", ""):
        assert guarded.ask("/api/day", Authorization=header, X_Forwarded_For="192.0.2.1").status == 401
    assert guarded.ask("/", Cookie='birdcall="2|1:0|10:1795000000|8:birdcall|4:MQ==|0000"').status == 401


def test_the_password_admits_by_form_and_cookie_or_by_http_basic(guarded):
    form = urllib.parse.urlencode({"password": PASSWORD})
    answer = guarded.ask("/login", "POST", form)
    assert answer.status == 303 and answer.headers["Location"] == "./"
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Secure" not in cookie
    for path in ("/", "/api/events", "/api/day", "/events.csv", CLIP):
        assert guarded.ask(path, Cookie=cookie.partition(";")[0]).status == 200
        assert guarded.ask(path, Authorization=secret(PASSWORD)).status == 200
    secure = guarded.ask("/login", "POST", form, X_Forwarded_Proto="https")
    assert "Secure" in secure.headers["Set-Cookie"], "behind a proxy with TLS"
    assert guarded.ask("/", Host="bird.example", Authorization=secret(PASSWORD)).status == 200, "by a proxy's name"


def test_who_guesses_waits_longer_and_longer_and_the_right_guess_is_not_heard_meanwhile(guarded):
    def guess(password: str, address: str = "192.0.2.2") -> Answer:
        return guarded.ask("/api/day", Authorization=secret(password), X_Forwarded_For=address)

    assert [guess(str(number)).status for number in range(4)] == [401, 401, 401, 429]
    answer = guess(PASSWORD)
    assert answer.status == 429 and int(answer.headers["Retry-After"]) >= 1
    form = urllib.parse.urlencode({"password": PASSWORD})
    asked = guarded.ask("/login", "POST", form, X_Forwarded_For="192.0.2.2")
    assert asked.status == 429 and "Wait" in asked.text
    assert guess(PASSWORD, "192.0.2.3").status == 200, "another address does not wait"
    wait_for(lambda: guess(PASSWORD).status == 200)
    assert guarded.said.count("wrong password from 192.0.2.2") == 3


def test_who_guesses_is_who_the_proxy_says_and_not_who_the_browser_says(guarded):
    """Caddy passes X-Real-Ip on as it came, and puts the address that it saw at the end of X-Forwarded-For."""
    said = [
        guarded.ask(
            "/api/day",
            Authorization=secret("wrong"),
            X_Real_Ip=f"198.51.100.{number}",
            X_Forwarded_For=f"203.0.113.{number}, 192.0.2.9",
        ).status
        for number in range(4)
    ]
    assert said == [401, 401, 401, 429]
    assert guarded.said.count("wrong password from 192.0.2.9") == 3


def test_a_monitor_that_asks_for_the_head_only_is_answered(anyone):
    answer = anyone.ask("/", "HEAD")
    assert answer.status == 200 and answer.body == b""


def test_waiting_is_by_address_doubles_up_to_a_minute_and_ends_with_the_right_password():
    access = Access(PASSWORD, set())
    waits, now = [], 0.0
    for _ in range(12):
        assert not access.try_password("192.0.2.1", "wrong", now).admitted
        wait = access.try_password("192.0.2.1", PASSWORD, now).wait if len(waits) >= 2 else 0.0
        waits.append(wait)
        now += wait
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert access.try_password("192.0.2.2", PASSWORD, now).admitted, "another address does not wait"
    assert access.try_password("192.0.2.1", PASSWORD, now).admitted
    assert access.try_password("192.0.2.1", "wrong", now).wait == 0, "and is trusted again"
    for last in range(9):
        access.try_password(f"2001:db8::{last}", "wrong", now)
    assert access.try_password("2001:db8::ffff", PASSWORD, now).wait > 0, "all of an IPv6 network are one guesser"


def test_no_password_admits_nobody_by_an_empty_one():
    assert not Access("", set()).try_password("192.0.2.1", "").admitted


def test_without_a_password_the_page_is_answered_under_names_of_this_machine_only(anyone):
    for host in ("localhost", "127.0.0.1", f"localhost:{anyone.port}", "[::1]:8080", "LOCALHOST"):
        assert anyone.ask("/", Host=host).status == 200, host
    for host in ("evil.example", "evil.example:80", "localhost.evil.example", "<script>", "127.0.0.1.evil.example"):
        answer = anyone.ask("/", Host=host)
        assert answer.status in (400, 403), host
        assert "evil" not in answer.text and "<script>" not in answer.text


def test_on_another_host_the_page_does_not_start_without_a_password(folder, tmp_path):
    done = run("edge/page.py", folder, "--host", "0.0.0.0", "--port", 0, env={"BIRDCALL_PAGE_PASSWORD": ""})
    assert done.returncode == 1
    assert "needs a password" in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "", "192.0.2.1"))
    assert all(is_loopback(host) for host in ("127.0.0.2", "localhost", "::1"))


def test_a_password_file_without_a_password_is_said(tmp_path):
    (tmp_path / "empty").write_text("\nsecond line\n")
    with pytest.raises(UserError, match="empty: holds no password"):
        read_password("from the variable", tmp_path / "empty")
    with pytest.raises(UserError, match="absent: the password cannot be read"):
        read_password(None, tmp_path / "absent")


def test_a_password_file_serves_every_network(folder, tmp_path):
    file = tmp_path / "password"
    file.write_text("from the file\nsecond line\n")
    with page(folder, "", "--host", "0.0.0.0", "--password-file", str(file)) as served:
        assert served.ask("/").status == 401
        assert served.ask("/", Authorization=secret("from the file")).status == 200


def test_a_wrong_option_is_said_in_a_sentence(folder, anyone):
    taken = run("edge/page.py", folder, "--port", anyone.port)
    assert taken.returncode == 1 and "cannot be served on" in taken.stderr and "Traceback" not in taken.stderr
    none = run("edge/page.py", Path(__file__))
    assert none.returncode == 1 and "is no folder" in none.stderr
    assert "must lie in [0, 65535]" in run("edge/page.py", folder, "--port", 99999).stderr
    for zone in ("Mars/Olympus", "../../etc/passwd", "/etc/passwd", "\0"):
        with pytest.raises(UserError, match="no such time zone"):
            Zone(zone)
    with pytest.raises(UserError, match="is no address of this machine"):
        is_loopback("no.such.host.invalid")


def test_every_answer_bears_a_strict_policy_and_says_nothing_of_the_server(anyone):
    for path in ("/", "/static/page.js", "/api/events", "/events.csv", "/nothing", CLIP, "/clips/a/b.flac"):
        headers = anyone.ask(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Server"] is None
        assert "Access-Control-Allow-Origin" not in headers
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        assert anyone.ask("/api/events", method).status in (404, 405, 501)
    with pytest.raises(ConnectionError):
        anyone.ask("/login", "POST", "password=" + "x" * 1_000_000)


def test_the_page_s_own_files_are_sent_once_and_nothing_beside_them(anyone):
    first = anyone.ask("/static/page.css")
    assert first.status == 200 and first.headers["Content-Type"].startswith("text/css")
    assert anyone.ask("/static/page.css", If_None_Match=first.headers["Etag"]).status == 304
    for path in ("/static/", "/static/../page.py", "/static/%2e%2e/page.py", "/static/page.py", "/static//etc/passwd"):
        assert anyone.ask(path).status == 404, path


# Clips.


def test_no_path_leads_out_of_the_clips(anyone, filled):
    absolute = str(filled / "secret.flac")
    paths = [
        "/clips/../secret.flac",
        "/clips/amerob/../../secret.flac",
        "/clips/..%2fsecret.flac",
        "/clips/amerob/..%2f..%2fsecret.flac",
        "/clips/%2e%2e/secret.flac",
        "/clips/%2e%2e%2fsecret.flac/a.flac",
        "/clips/..%252fsecret.flac",
        "/clips/..%5csecret.flac",
        "/clips/amerob%2f../secret.flac",
        "/clips/%c0%ae%c0%ae/secret.flac",
        f"/clips/{absolute}",
        f"/clips//{absolute}",
        f"/clips/{urllib.parse.quote(absolute, safe='')}",
        f"/clips/amerob/{urllib.parse.quote(absolute, safe='')}",
        f"/clips/{urllib.parse.quote(str(filled), safe='')}/secret.flac",
        "/clips/./secret.flac",
        "/clips/%2e/secret.flac",
        "/clips//secret.flac",
        "/clips/secret.flac",
        "/clips/elsewhere/secret.flac",
        "/clips/amerob/link.flac",
        "/clips/amerob/inside.flac",
        "/clips/amerob/pipe.flac",
        "/clips/amerob/deeper.flac",
        "/clips/amerob/notes.txt",
        "/clips/amerob/.a.part.flac",
        "/clips/amerob/a.flac%00",
        "/clips/amerob%00/a.flac",
        "/clips/amerob/a.flac/",
        "/clips/amerob/",
        "/clips/",
        "/clips/amerob/absent.flac",
        "/clips/" + "a" * 300 + "/a.flac",
    ]
    for path in paths:
        for method in ("GET", "HEAD"):
            answer = anyone.ask(path, method)
            assert answer.status == (400 if "%c0" in path else 404), path
            assert b"private" not in answer.body
    assert anyone.ask("/clips/amerob/%C3%BCnlike%20%252F.flac").body == b"odd"


@pytest.mark.parametrize(
    ("asked", "begin", "end"),
    [
        ("bytes=0-1", 0, 2),
        ("bytes=0-", 0, 256_000),
        ("bytes=1000-1999", 1000, 2000),
        ("bytes=255999-", 255_999, 256_000),
        ("bytes=-500", 255_500, 256_000),
        ("bytes=-9999999", 0, 256_000),
        ("bytes=100000-99999999", 100_000, 256_000),
    ],
)
def test_a_part_of_a_clip_is_sent_as_asked(anyone, asked, begin, end):
    answer = anyone.ask(CLIP, Range=asked)
    assert answer.status == 206 and answer.headers["Content-Range"] == f"bytes {begin}-{end - 1}/256000"
    assert answer.body == AUDIO[begin:end]


def test_a_clip_is_sent_whole_where_no_part_or_nonsense_is_asked_for(anyone):
    for asked in (
        "",
        "bytes=",
        "bytes=-",
        "bytes=5-2",
        "bytes=0-1,5-6",
        "lines=1-2",
        "bytes=a-b",
        "bytes=" + "9" * 40 + "-",
    ):
        answer = anyone.ask(CLIP, Range=asked)
        assert answer.status == 200 and len(answer.body) == 256_000, asked
    for asked in ("bytes=256000-", "bytes=-0"):
        answer = anyone.ask(CLIP, Range=asked)
        assert answer.status == 416 and answer.headers["Content-Range"] == "bytes */256000"
    head = anyone.ask(CLIP, "HEAD")
    assert head.status == 200 and head.headers["Content-Length"] == "256000" and head.body == b""
    assert head.headers["Content-Type"] == "audio/flac" and head.headers["Accept-Ranges"] == "bytes"


# Tables.


def rows_of(answer: Answer) -> list[dict]:
    assert answer.status == 200
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_the_csv_has_the_events_that_began_on_the_days_that_are_asked_for_in_the_page_s_zone(folder, listener):
    starts = {
        "before": "2026-03-28T22:59:59.999",
        "first": "2026-03-28T23:00:00.000",
        "last": "2026-03-29T21:59:59.000",  # the clock was set forward: a day of 23 hours
        "after": "2026-03-29T22:00:00.000",
    }
    for species, start in starts.items():
        listener.hear(species, utc(start))
    with page(folder, "", "--timezone", "Europe/Berlin") as served:
        answer = served.ask("/events.csv?from=2026-03-29&to=2026-03-29")
        assert [row["species"] for row in rows_of(answer)] == ["first", "last"]
        name = "birdcall_2026-03-29_2026-03-29.csv"
        assert answer.headers["Content-Disposition"] == f'attachment; filename="{name}"'
        assert [row["species"] for row in rows_of(served.ask("/events.csv"))] == list(starts)
        assert [row["species"] for row in rows_of(served.ask("/events.csv?from=2026-03-30&to="))] == ["after"]
        assert rows_of(served.ask("/events.csv?from=2026-03-30&to=2026-03-29")) == []
        for wrong in (
            "from=yesterday",
            "to=2026-02-30",
            "from=0001-01-01",
            "to=9999-12-31",
            "from=<script>",
        ):
            answer = served.ask("/events.csv?" + wrong)
            assert answer.status == 400 and "script" not in answer.text, wrong


def test_the_csv_is_what_the_journal_holds_at_any_length(folder, listener):
    begin = utc("2026-11-20T00:00:00")
    same = [listener.hear("amerob", begin) for _ in range(5)]
    # More than is read at once, many of them at the same moment, and the clock was set back: later ids, earlier times.
    connection = listener.journal._connection
    connection.execute("begin")
    connection.executemany(
        "insert into events values (?, ?, ?, 'stejay', 0.5, 1, 'b6', 'mic', 0, 1, null)",
        [(6000 - n, utc_text(begin + n // 700), utc_text(begin + 5 + n)) for n in range(3500)],
    )
    connection.commit()
    with page(folder) as served:
        rows = rows_of(served.ask("/events.csv"))
    assert sorted(int(row["id"]) for row in rows) == [*same, *range(2501, 6001)]
    assert [row["utc_start"] for row in rows] == sorted(row["utc_start"] for row in rows)
    assert rows[0] == {
        **dict(id="1", utc_start="2026-11-20T00:00:00.000Z", utc_end="2026-11-20T00:00:05.000Z", species="amerob"),
        **dict(probability="0.93", windows="1", model="b6", source="mic", offset_seconds="0.0", closed="1", clip=""),
    }


def test_a_species_that_looks_like_a_formula_is_text_in_a_spreadsheet(folder, listener):
    listener.hear('=HYPERLINK("http://evil.example","wren")', time.time() - 5)
    listener.hear('wren, "winter"\nnext', time.time() - 4)
    with page(folder) as served:
        species = [row["species"] for row in rows_of(served.ask("/events.csv"))]
    assert species == ['\'=HYPERLINK("http://evil.example","wren")', 'wren, "winter"\nnext']


def test_where_there_is_no_journal_tables_are_empty_and_nothing_fails(folder):
    with page(folder) as served:
        assert rows_of(served.ask("/events.csv")) == []
        assert json.loads(served.ask("/api/events").text) == {"events": [], "more": False}
        day = json.loads(served.ask("/api/day?date=2026-11-25").text)
        assert day["hours"] == {} and day["listened"] == [None] * 24


def test_a_question_that_makes_no_sense_is_refused(anyone):
    for query in ("before=x", "before=1.5", "before=' or 1", "before=" + "9" * 5000):
        assert anyone.ask("/api/events?" + urllib.parse.quote(query, safe="=")).status == 400, query
    for query in (
        "before=-5",
        "before=99999999999999999999",
        "species=' or 1=1 --",
        "before=0&species=%00",
        "before=1e3",
    ):
        answer = anyone.ask("/api/events?" + urllib.parse.quote(query, safe="=&%"))
        assert answer.status in (200, 400), query
        assert answer.status == 400 or json.loads(answer.text)["events"] == [], query
    assert json.loads(anyone.ask("/api/events?species=amerob").text)["events"][0]["clip"] == "amerob/a.flac"
