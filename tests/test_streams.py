"""Streams: a radio over HTTP and a camera over RTSP are heard as a microphone is, through a real ffmpeg."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from broadcast import RATE, SYSTEM_PYTHON, HttpRadio, RtspCamera, numbers
from conftest import ROOT, lacking
from ear import Ear, children_of, kill_with_children

from edge.streams import AHEAD_SECONDS, Stream, is_stream, shown
from src.errors import UserError


@pytest.fixture
def radio() -> Iterator[HttpRadio]:
    if shutil.which("ffmpeg") is None:
        lacking("no ffmpeg (apt-get install ffmpeg)")
    radio = HttpRadio()
    yield radio
    radio.stop()


@pytest.fixture
def camera() -> Iterator[RtspCamera]:
    check = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if shutil.which("ffmpeg") is None or subprocess.run([SYSTEM_PYTHON, "-c", check], capture_output=True).returncode:
        lacking(
            "no RTSP server (apt-get install ffmpeg python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base)"
        )
    camera = RtspCamera()
    yield camera
    camera.kill()


def numbers_of(ear: Ear) -> np.ndarray:
    """What was heard, as the radio's samples."""
    return np.round(np.concatenate([h.frames for h in ear.heard])[:, 0] * 32768).astype(int)


def test_a_radio_is_heard_from_its_first_sample_to_its_last_and_again_when_it_broke_off_and_came_back(tmp_path, radio):
    with Ear(tmp_path, lambda: Stream(radio.url, "mean")) as ear:
        ear.hear(0.5, RATE)
        first = ear.heard[0].source
        radio.stop()
        stopped = time.time()
        ear.listen_until(lambda: bool(ear.gaps()), 10)
        heard = numbers_of(ear)
        np.testing.assert_array_equal(heard, numbers(0, len(heard)))
        assert (first.name, first.sample_rate, first.channels) == (radio.url, RATE, 1)

        ear.listen(1)
        radio.start()
        ear.heard.clear()
        ear.hear(0.5, RATE)
        heard = numbers_of(ear)
        np.testing.assert_array_equal(heard, numbers(0, len(heard)))
        ((cause, start, end, _),) = ear.gaps()
        assert cause == "stopped" and start == pytest.approx(stopped, abs=0.5)
        # It begins with some seconds at once, which are dated as the past: the gap may end where it began, not before.
        assert end == pytest.approx(max(start, ear.heard[0].source.utc(0)), abs=0.2)


def test_a_radio_that_is_there_and_sends_nothing_is_a_gap_of_no_frames(tmp_path, radio):
    with Ear(tmp_path, lambda: Stream(radio.url, "mean", hang_seconds=1.0)) as ear:
        ear.hear(0.2, RATE)
        radio.silent = True
        last = time.time()
        ear.listen_until(lambda: bool(ear.gaps()), 10)
        radio.silent = False
        ear.hear(0.2, RATE)
        ((cause, start, end, _),) = ear.gaps()
        assert cause == "no frames" and start == pytest.approx(last, abs=0.5) and end >= start


def test_samples_that_a_radio_never_sent_are_counted_as_lost_and_later_ones_keep_their_true_time(tmp_path, radio):
    with Ear(tmp_path, lambda: Stream(radio.url, "mean")) as ear:
        ear.hear(1.0, RATE)
        radio.skipped += 0.8
        ear.listen_until(lambda: ear.capture.lost > 0, 6)
        ((cause, start, end, _),) = ear.gaps()
        assert cause == "overrun" and end - start == pytest.approx(0.8, abs=0.3)
        ear.listen(0.2)
        last = ear.heard[-1]
        assert last.source.utc(last.first_frame + len(last.frames)) == pytest.approx(time.time(), abs=0.2)


def test_a_file_on_a_server_is_heard_at_its_own_pace_and_none_of_it_is_lost(tmp_path, radio):
    url = radio.url.replace("live", "file")
    with Ear(tmp_path, lambda: Stream(url, "mean")) as ear:
        began = time.monotonic()
        ear.hear(AHEAD_SECONDS + 3, RATE)
        assert time.monotonic() - began > 1.0
        heard = numbers_of(ear)
        np.testing.assert_array_equal(heard, numbers(0, len(heard)))
        assert ear.capture.lost == 0


def test_a_camera_is_heard_at_its_own_rate_waited_for_and_none_of_its_secrets_is_said(tmp_path, camera):
    camera.kill()
    with Ear(tmp_path, lambda: Stream(camera.url, 2)) as ear:
        ear.listen_until(lambda: bool(ear.gaps()), 10)
        camera.start()
        ear.hear(0.5, 44100)
        source = ear.heard[0].source
        assert (source.sample_rate, source.channels, ear.heard[0].frames.shape[1]) == (44100, 1, 1)
        assert source.name == shown(camera.url) == camera.url.replace("user:secret@", "").replace("?token=secret", "")
        tone = np.concatenate([h.frames for h in ear.heard])[-4410:, 0]
        assert np.abs(np.fft.rfft(tone)).argmax() == 100  # 1000 Hz, 10 Hz a bin

        camera.kill()
        ear.listen_until(lambda: len(ear.gaps()) == 2, 10)
        ear.listen(0.7)  # an attempt that is refused
        camera.start()
        ear.heard.clear()
        ear.hear(0.2, 44100)
        (absent, _, first, detail), (cause, _, second, _) = ear.gaps()
        assert (absent, cause) == ("no microphone", "stopped") and first and second
        assert "Connection refused" in detail
        assert not [line for line in [*ear.said, detail] if "secret" in line or "0x" in line]


@pytest.mark.parametrize(
    ("url", "channel", "sentence"),
    [
        ("ftp://host/a.mp3", "mean", "ftp://host/a.mp3: is neither a file nor a stream"),
        ("RADIO", 2, r"live.wav has 1 channel\(s\): --channel 2 is none of them"),
    ],
)
def test_a_stream_that_cannot_be_heard_by_waiting_ends_with_a_sentence(tmp_path, radio, url, channel, sentence):
    url = radio.url if url == "RADIO" else url
    with Ear(tmp_path, lambda: Stream(url, channel)) as ear, pytest.raises(UserError, match=sentence):
        ear.listen(5)


def test_without_ffmpeg_a_stream_is_refused_with_the_package_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="sudo apt-get install ffmpeg"):
        Stream("http://127.0.0.1:1/", "mean")


def test_an_address_is_a_stream_and_a_path_is_not():
    assert is_stream("rtsp://camera/1") and is_stream("http://radio/live")
    assert not is_stream("forest/dawn.flac") and not is_stream("C:\\dawn.wav")


def test_openings_that_fail_leave_no_process_thread_or_descriptor_behind(radio):
    url = radio.url
    radio.stop()
    for _ in range(5):
        stream = Stream(url, "mean")
        deadline = time.monotonic() + 5
        while stream._gone() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        stream.close()
        left = (len(list(Path("/proc/self/fd").iterdir())), len(list(Path("/proc/self/task").iterdir())))
        first = locals().get("first", left)
        assert left == first and not children_of(os.getpid(), "ffmpeg")
    radio.start()


def test_when_the_listener_is_killed_ffmpeg_dies_too(radio):
    radio.silent = True  # it would not notice by writing
    code = (
        "import sys\n"
        "from edge.streams import Stream\n"
        "stream = Stream(sys.argv[1], 'mean')\n"
        "print('made', flush=True)\n"
        "while True: stream.read()\n"
    )
    listener = subprocess.Popen([sys.executable, "-c", code, radio.url], cwd=ROOT, stdout=subprocess.PIPE)
    listener.stdout.readline()
    kill_with_children(listener, "pcm_f32be")
