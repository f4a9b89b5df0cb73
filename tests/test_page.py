"""The page in a browser: what it shows while the listener, the record and its own server come and go.

A real headless Chromium, one for all tests; the page's script in a process of its own; a record that the real Journal and
LiveWriter write, and once the real listener.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
from conftest import lacking, tone
from listening import Listening
from served import PASSWORD, RATE, SOON, Listener, page, wait_for

from edge.columns import Columns
from edge.live import LiveWriter, live_path
from edge.page_files import PAGE
from edge.tables import DROPPED_WINDOWS, ZEROS, utc_seconds

pytest_plugins = ["page_fixtures"]


class Browser:
    """Chromium and what tests ask of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        self.driver.get(address)

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def text(self, selector: str) -> str:
        """What a person reads there."""
        script = (
            "const node = document.querySelector(arguments[0]); return node?.checkVisibility() ? node.innerText : ''"
        )
        return self.run(script, selector)

    def texts(self, selector: str) -> list[str]:
        return self.run("return [...document.querySelectorAll(arguments[0])].map((node) => node.innerText)", selector)

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def type(self, selector: str, text: str) -> None:
        self.driver.find_element("css selector", selector).send_keys(text)

    def wait_for(self, condition: Callable[[], Any], seconds: float = SOON) -> Any:
        return wait_for(condition, seconds)

    def complaints(self) -> list[str]:
        """What the browser complained about since the last time: errors of scripts, what the policy refused."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]


@pytest.fixture(scope="module")
def one_browser() -> Iterator[Browser]:
    browser, driver = shutil.which("chromium") or shutil.which("chromium-browser"), shutil.which("chromedriver")
    if not (browser and driver):
        lacking("no Chromium (apt-get install chromium chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    with tempfile.TemporaryDirectory(prefix="birdpage", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = browser
        switches = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking mute-audio"
        switches += " disable-component-update disable-sync disable-dev-shm-usage window-size=1440,900"
        for switch in switches.split():
            options.add_argument(f"--{switch}")
        options.add_argument(f"--user-data-dir={profile}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        chromium = webdriver.Chrome(options=options, service=Service(driver))
        try:
            yield Browser(chromium)
        finally:
            chromium.quit()


@pytest.fixture
def browser(one_browser: Browser) -> Iterator[Browser]:
    yield one_browser
    one_browser.open("about:blank")
    one_browser.complaints()


def test_a_page_opened_before_the_listener_was_ever_started_shows_its_first_event(folder, browser):
    with page(folder) as served:
        assert "not there yet" in served.said
        browser.open(served.address)
        browser.wait_for(lambda: "Nothing is recorded yet" in browser.text("#banner"))
        assert "Nothing yet" in browser.text("#events-empty")
        folder.mkdir()
        listener = Listener(folder)
        listener.hear("amerob", time.time() - 5)
        browser.wait_for(lambda: browser.texts(".event .species") == ["amerob"])
        browser.wait_for(lambda: browser.texts("#day-species button") == ["amerob"])
        listener.close()
        assert browser.complaints() == []


def test_an_event_is_shown_within_two_seconds_of_its_end_and_grows_before_that(folder, listener, browser):
    with page(folder) as served:
        browser.open(served.address)
        browser.wait_for(lambda: browser.text("#banner-title"))
        began = time.time()
        number = listener.hear("bkcchi", began - 5, 5.0, 0.70, closed=False)
        browser.wait_for(lambda: "going on" in browser.text(".event"))
        assert "70 %" in browser.text(".event")
        listener.tell(number, "bkcchi", began - 5, 7.5, 0.88, closed=True)
        browser.wait_for(lambda: "8 s" in browser.text(".event") and "88 %" in browser.text(".event"))
        assert browser.texts(".event .species") == ["bkcchi"], "it is one event"

        waits = []
        for again in range(3):
            listener.hear(f"bird{again}", time.time() - 5)
            ended = time.monotonic()
            browser.wait_for(lambda again=again: browser.texts(".event .species")[0] == f"bird{again}")
            waits.append(time.monotonic() - ended)
        assert sorted(waits)[1] < 2, waits


def test_a_clip_plays_and_can_be_jumped_in(folder, listener, browser):
    number = listener.hear("amerob", time.time() - 30)
    without = listener.hear("stejay", time.time() - 60)
    listener.keep_clip(number, "amerob")
    with page(folder) as served:
        browser.open(served.address)
        browser.wait_for(lambda: len(browser.texts(".event")) == 2)
        assert browser.text(f'.event[data-id="{without}"] .no-clip') == "no clip"
        playing = "return document.getElementById('audio').currentTime"
        browser.click(f'.event[data-id="{number}"] .play')
        browser.wait_for(lambda: browser.run(playing) > 0.2)
        assert browser.run("return document.getElementById('audio').duration") == pytest.approx(6, abs=0.1)
        pressed = f"return document.querySelector('.event[data-id=\"{number}\"] .play').ariaPressed"
        assert browser.run(pressed) == "true"
        browser.run("document.getElementById('audio').currentTime = 4")
        browser.wait_for(lambda: browser.run(playing) > 4.1)
        browser.wait_for(lambda: browser.run(pressed) == "false")
        assert browser.complaints() == []


def test_a_clip_that_was_deleted_to_make_room_is_said_to_be_gone(folder, listener, browser):
    number = listener.hear("amerob", time.time() - 30)
    relative = listener.keep_clip(number, "amerob")
    with page(folder) as served:
        browser.open(served.address)
        browser.wait_for(lambda: browser.texts(".event .play"))
        (folder / "clips" / relative).unlink()
        browser.click(".event .play")
        browser.wait_for(lambda: browser.text(".event .no-clip") == "no clip")
        assert "no longer there" in browser.text("#playing-when")


def test_the_page_survives_the_restart_of_the_listener_and_of_its_own_server(folder, listener, browser):
    def paint(seconds: float = 3.0) -> LiveWriter:
        writer = LiveWriter(live_path(folder))
        for column, at in Columns(RATE).hear(tone(seconds, RATE, "mid"), time.time() - seconds):
            writer.push(column, at)
        return writer

    def colours() -> int:
        """How many shades the spectrogram shows."""
        return browser.run(
            "const canvas = document.getElementById('live');"
            "const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height * 0.7).data;"
            "const shades = new Set(); for (let at = 0; at < data.length; at += 4)"
            " shades.add(data[at] * 65536 + data[at + 1] * 256 + data[at + 2]); return shades.size"
        )

    with page(folder) as served:
        browser.open(served.address)
        browser.wait_for(lambda: "not running" in browser.text("#banner"))
        blank = colours()
        writer = paint()
        browser.wait_for(lambda: browser.text("#state") == "Listening" and not browser.text("#banner"))
        browser.wait_for(lambda: colours() > blank + 3)
        os.close(writer._file)  # as SIGKILL does: the file stays, the lock goes
        browser.wait_for(lambda: "not running" in browser.text("#banner"))
        writer = paint()
        browser.wait_for(lambda: browser.text("#state") == "Listening")

        assert served.stop() == 0
        browser.wait_for(lambda: browser.text("#state") == "Reconnecting…")
        listener.hear("while it was away", time.time() - 5)
        served.start()
        browser.wait_for(lambda: browser.texts(".event .species") == ["while it was away"])
        browser.wait_for(lambda: browser.text("#state") == "Listening")
        writer.close()


def test_what_the_real_listener_hears_is_shown_within_two_seconds_and_plays_and_goes_on_after_it_was_killed_and_restarted(
    tmp_path, tone_bundle, folder, browser
):
    whistle = tmp_path / "whistle.wav"  # two windows; the first has the tone, and the event is over with the second
    soundfile.write(whistle, np.concatenate([tone(5, RATE, "low"), tone(55, RATE)]), RATE)
    options = ["--model", tone_bundle.folder, "--input", whistle]

    def shown(number: int) -> str:
        return browser.text(f'.event[data-id="{number}"]')

    def can_be_played(number: int) -> bool:
        return browser.run(f"return document.querySelector('.event[data-id=\"{number}\"] .play').checkVisibility()")

    def hears(number: int) -> Listening:
        """A listener whose first event has that number, once it is shown."""
        listening = Listening(tmp_path, *options)
        ending.callback(listening.process.kill)
        browser.wait_for(lambda: "low" in shown(number))
        ended = utc_seconds(listening.rows("events")[-1]["utc_end"])
        assert ended < time.time() < ended + 2
        assert browser.text("#state") == "Listening" and not browser.text("#banner")
        return listening

    with page(folder) as served, contextlib.ExitStack() as ending:
        browser.open(served.address)
        listening = hears(1)
        assert "going on" in shown(1)
        listening.wait_for_an_event()
        over = time.monotonic()
        browser.wait_for(lambda: "5 s" in shown(1) and can_be_played(1))
        assert time.monotonic() - over < 2
        browser.click('.event[data-id="1"] .play')
        browser.wait_for(lambda: browser.run("return document.getElementById('audio').currentTime") > 0.5)
        assert browser.run("return document.getElementById('audio').duration") == pytest.approx(8, abs=0.1)

        listening.signal(signal.SIGKILL)
        listening.wait()
        browser.wait_for(lambda: "not running" in browser.text("#banner"))
        listening = hears(2)
        listening.stop()
        browser.wait_for(lambda: "5 s" in shown(2) and can_be_played(2))
        assert browser.texts(".event .species") == ["low", "low"]
        assert browser.complaints() == []


def test_another_record_in_the_place_of_the_first_takes_its_place_on_the_page(folder, listener, browser):
    listener.hear("first", time.time() - 60)
    listener.hear("first", time.time() - 50)
    with page(folder) as served:
        browser.open(served.address)
        browser.wait_for(lambda: browser.texts(".event .species") == ["first"] * 2)
        listener.close()
        for path in folder.glob("journal.sqlite*"):
            path.unlink()
        another = Listener(folder)
        another.hear("second", time.time() - 5)
        browser.wait_for(lambda: browser.texts(".event .species") == ["second"])
        browser.wait_for(lambda: browser.texts("#day-species button") == ["second"])
        another.close()


HOSTILE = (
    "<script>window.broken = 1</script>",
    "<img src=x onerror='window.broken = 1'>",
    "\"><svg onload=window.broken=1>'",
    "${window.broken = 1}{{1}}</ol></main>",
    "../../etc/passwd",
    "A" * 300,
    "wren\u202e\u0000\nowl",
)


def test_names_from_the_record_stay_text_whatever_they_are(folder, listener, browser):
    for number, name in enumerate(HOSTILE):
        event = listener.hear(name, time.time() - 60 + number)
        listener.journal.set_clip(event, f"{name}/{name}.flac")
        listener.gap(name, time.time() - 600 + number, time.time() - 500, detail=name)
    listener.feel(time.time())
    with page(folder) as served:
        browser.open(served.address)
        browser.wait_for(lambda: len(browser.texts(".event")) == len(HOSTILE))
        browser.wait_for(lambda: len(browser.texts(".gap")) == len(HOSTILE))
        names = "return [...document.querySelectorAll('.event .species')].map((node) => node.textContent)"
        assert browser.run(names) == list(reversed(HOSTILE))
        width = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        for row in range(len(HOSTILE)):  # only this species: its name goes through an address and back
            browser.click(f"#day-species tr:nth-child({row + 1}) button")
            wanted = browser.run(f"return document.querySelectorAll('#day-species button')[{row}].textContent")
            browser.wait_for(lambda wanted=wanted: browser.run(names) == [wanted])
            assert browser.run(width) <= 0, "a long name does not make the page wider than the screen"
        assert browser.run("return window.broken ?? null") is None
        count = "return document.querySelectorAll('main img, main script, .event svg, .gap svg').length"
        assert browser.run(count) == 0
        assert browser.complaints() == []


def test_the_browser_would_refuse_a_script_that_was_injected_nevertheless(folder, listener, browser):
    with page(folder) as served:
        browser.open(served.address)
        browser.run(
            "document.body.insertAdjacentHTML('beforeend', `<img src='x:' onerror='window.broken = 1'>`);"
            "const script = document.createElement('script'); script.textContent = 'window.broken = 2';"
            "document.body.append(script)"
        )
        browser.wait_for(lambda: any("Content Security Policy" in line for line in browser.complaints()))
        assert browser.run("return window.broken ?? null") is None


@pytest.mark.parametrize("path", sorted(PAGE.glob("*.html")), ids=lambda path: path.name)
def test_the_page_needs_no_inline_script_or_style_and_nothing_from_elsewhere(path):
    text = path.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=|javascript:|https?://", text)


def test_a_fault_is_said_in_a_banner_until_it_is_over(folder, listener, browser):
    writer = LiveWriter(live_path(folder))
    number = listener.gap(ZEROS, time.time() - 90)
    listener.gap(DROPPED_WINDOWS, time.time() - 60)
    with page(folder) as served:
        browser.open(served.address)
        browser.wait_for(lambda: "Only zeros are heard" in browser.text("#banner"))
        assert browser.text("#state") == "Only zeros are heard" and "⚠" in browser.run("return document.title")
        assert "goes on" in browser.text(".gap.deaf")
        listener.journal.end_gap(number, time.time())
        browser.wait_for(lambda: browser.text("#state") == "Listening" and not browser.text("#banner"))
    writer.close()


def test_the_health_of_the_last_minute_is_shown_with_what_is_amiss(folder, listener, browser):
    listener.feel(time.time() - 100)
    listener.feel(time.time(), clipped_share=0.02, temperature_c=86.0, dropped=3, disk_free_bytes=None)
    with page(folder) as served:
        browser.open(served.address)
        browser.wait_for(lambda: "48 dBFS" in browser.text("[data-name=level]"))
        assert "2.0 % clipped" in browser.text("[data-name=level][data-warn]")
        assert "86" in browser.text("[data-name=temperature][data-warn]")
        assert "0.12 s" in browser.text("[data-name=latency]") and "95 %: 0.19 s" in browser.text("[data-name=latency]")
        assert browser.text("[data-name=dropped][data-warn]").split() == [
            "Windows",
            "dropped",
            "3",
            "of",
            "51",
            "today",
        ]
        assert "not known" in browser.text("[data-name=disk]")


def test_nothing_sticks_out_on_a_phone_or_a_desk(folder, listener, browser):
    now = time.time()
    for number in range(30):
        listener.hear(f"Pseudonymous_longtailed_whatsitsname_{number}", now - 4000 + 40 * number)
    listener.feel(now)
    wide = "return [...document.querySelectorAll('main *')].filter((node) => node.checkVisibility() &&"
    wide += " node.getBoundingClientRect().right > innerWidth + 1).map((node) => node.className)"
    touched = "return [...document.querySelectorAll('.event .play, #older, .steps button')].filter((node) =>"
    touched += " node.checkVisibility() && node.getBoundingClientRect().height < 32).length"
    with page(folder) as served:
        for width, height in ((390, 844), (768, 1024), (1440, 900)):
            device = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
            browser.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", device)
            try:
                browser.open(served.address)
                browser.wait_for(lambda: browser.texts("#day-species button") and browser.text("[data-name=latency]"))
                assert browser.run(wide) == [] and browser.run(touched) == 0, width
            finally:
                browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_older_events_are_shown_when_asked_for_until_there_are_no_more(folder, listener, browser):
    now = time.time()
    for number in range(130):
        listener.hear("amerob" if number % 2 else "stejay", now - 3000 + 20 * number)
    with page(folder) as served:
        browser.open(served.address)
        browser.wait_for(lambda: len(browser.texts(".event")) == 60)
        for expected in (120, 130):
            browser.click("#older")
            browser.wait_for(lambda expected=expected: len(browser.texts(".event")) == expected)
        assert not browser.text("#older")
        shown = "return [...document.querySelectorAll('.event .species')].map((node) => node.textContent)"
        ids = browser.run("return [...document.querySelectorAll('.event')].map((node) => Number(node.dataset.id))")
        assert ids == list(range(130, 0, -1))
        browser.click("#day-species tr:first-child button")
        browser.wait_for(lambda: len(browser.texts(".event")) == 60)
        assert set(browser.run(shown)) == {browser.text("#day-species tr:first-child button")}
        listener.hear("bkcchi", time.time() - 5)
        browser.click("#filter")
        browser.wait_for(lambda: browser.texts(".event .species")[0] == "bkcchi")


def test_with_a_password_the_browser_is_asked_once_and_stays_logged_in_over_a_restart(folder, listener, browser):
    listener.hear("amerob", time.time() - 5)
    with page(folder, PASSWORD) as served:
        browser.open(served.address)
        assert not browser.texts(".event") and not browser.run("return document.querySelector('main canvas')")
        browser.type("#password", "wrong")
        browser.click("button")
        browser.wait_for(lambda: "not the password" in browser.text(".message"))
        browser.type("#password", PASSWORD)
        browser.click("button")
        browser.wait_for(lambda: browser.texts(".event .species") == ["amerob"])
        served.stop()
        served.start()
        listener.hear("stejay", time.time() - 5)
        browser.wait_for(lambda: browser.texts(".event .species") == ["stejay", "amerob"])
        browser.click("#logout button")
        browser.wait_for(lambda: browser.run("return document.querySelector('#password')"))
        browser.type("#password", PASSWORD)
        browser.click("button")
        browser.wait_for(lambda: browser.texts(".event"))
        served.stop()
        served.password = "another"
        served.start()
        browser.wait_for(lambda: browser.run("return document.querySelector('#password')"))
