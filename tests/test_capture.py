"""Capture: a source is heard again whatever happened to it, and what was not heard is in the journal with its true times.

Real parts wherever there is no "fake" in a test's name: PortAudio in a process of its own, a PulseAudio server that is
killed, stopped and suspended, the journal. With the fake time hours pass at once, and frames can be lost at will.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import ROOT, tone
from ear import Ear, children_of, kill_with_children
from microphone import VirtualMicrophone

from edge.capture import LONGEST_WAIT_SECONDS
from edge.microphone import Microphone
from edge.player import Recordings
from edge.portaudio import NotThereError, find_device
from edge.recorder import Recorder
from edge.ring import RingBuffer
from edge.source import Heard, LiveSource, Source, SourceLostError
from src.errors import UserError

RATE = 32000


@pytest.fixture
def sound_server(virtual_microphone: VirtualMicrophone, monkeypatch: pytest.MonkeyPatch) -> VirtualMicrophone:
    """The virtual microphone, heard by processes that this one starts."""
    for name, value in virtual_microphone.env.items():
        monkeypatch.setenv(name, value)
    return virtual_microphone


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A minute of noise for the microphone to hear, as a file and as the samples that it hears: no two places are alike."""
    samples = np.random.default_rng(0).integers(-3000, 3000, 60 * RATE).astype(np.int16)
    path = tmp_path_factory.mktemp("noise") / "noise.wav"
    soundfile.write(path, samples, RATE)
    return path, (samples / 32768).astype(np.float32)


def place_in(samples: np.ndarray, piece: np.ndarray) -> int:
    """Where in the samples a piece begins, which must be there from its first to its last."""
    for place in np.flatnonzero(samples == piece[0]):
        if np.array_equal(samples[place : place + len(piece)], piece):
            return int(place)
    pytest.fail("what was heard is not what was played")


# A real PortAudio stream from a real sound server.


def test_a_microphone_is_heard_sample_for_sample_and_what_a_late_reader_loses_is_counted_and_a_gap(
    tmp_path, sound_server, noise
):
    path, played = noise
    with Ear(tmp_path, lambda: Microphone("pulse", "mean", None, RATE, ring_seconds=1.0)) as ear:
        sound_server.play(path)
        ear.listen_until(lambda: any(h.frames.any() for h in ear.heard))
        before = ear.hear(0.5)[:, 0]
        end = ear.heard[-1].first_frame + len(ear.heard[-1].frames)
        time.sleep(2.0)  # twice what the ring holds
        after = ear.hear(0.5)[:, 0]

        lost = ear.heard[0].first_frame - end
        assert lost == ear.capture.lost > 0.8 * RATE
        assert place_in(played, after) - place_in(played, before) == len(before) + lost
        ((cause, start, until, detail),) = ear.gaps()
        assert (cause, detail) == ("overrun", f"{lost} frames")
        assert until - start == pytest.approx(lost / RATE, abs=0.01)


def test_a_server_that_is_killed_and_restarted_is_heard_within_10_s_though_the_microphone_has_another_place_in_the_list(
    tmp_path, sound_server, noise
):
    sound_server.name("forest")
    place = place_of("forest")
    with Ear(tmp_path, lambda: Microphone("Forest", "mean", None, RATE)) as ear:
        sound_server.play(noise[0])
        ear.hear(0.5)
        source = ear.heard[-1].source
        killed = time.time()
        sound_server.kill()
        ear.listen_until(lambda: bool(ear.gaps()), 10)
        sound_server.name("garden", "attic", "forest")
        ear.listen(1)
        sound_server.start()
        started = time.time()
        sound_server.play(noise[0])
        ear.hear(0.5)

        assert time.time() - started < 10
        assert place_of("forest") != place
        again = ear.heard[0]
        assert again.source is not source and again.first_frame == 0 and again.source.name == "forest"
        ((cause, start, end, detail),) = ear.gaps()
        assert cause == "stopped" and detail.startswith("microphone 'forest' has stopped")
        assert killed - 0.5 < start < killed + 0.1
        assert started - 0.5 < end == pytest.approx(again.source.utc(0), abs=0.2)
        assert any(line.startswith("heard again after ") for line in ear.said)


def place_of(name: str) -> int:
    """PortAudio's index of a device, as a process sees it that starts now."""
    code = "import sounddevice; print([device['name'] for device in sounddevice.query_devices()])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return eval(done.stdout).index(name)


def test_a_microphone_that_is_absent_at_boot_is_waited_for_and_that_is_a_gap_from_the_start(
    tmp_path, sound_server, noise
):
    sound_server.kill()
    began = time.time()
    with Ear(tmp_path, lambda: Microphone("pulse", "mean", None, RATE)) as ear:
        ear.listen_until(lambda: bool(ear.gaps()), 10)
        ear.listen(1.5)  # of more tries
        ((cause, start, end, detail),) = ear.gaps()
        assert cause == "no microphone" and start == pytest.approx(began, abs=0.5) and end is None
        assert "PortAudio sees no input device" in detail
        sound_server.start()
        sound_server.play(noise[0])
        ear.hear(0.1)
        ((_, _, end, _),) = ear.gaps()
        assert end == pytest.approx(time.time(), abs=1)
    assert len([line for line in ear.said if "tried again" in line]) == 1


@pytest.mark.parametrize("fault", ["hanging", "suspended"])
def test_a_server_that_gives_no_frames_is_a_gap_and_is_heard_again_when_it_gives_some(
    tmp_path, sound_server, noise, fault
):
    with Ear(tmp_path, lambda: Microphone("pulse", "mean", None, RATE, hang_seconds=2.5)) as ear:
        sound_server.play(noise[0])
        ear.hear(0.5)
        with getattr(sound_server, fault)():
            last = time.time()
            ear.listen_until(lambda: bool(ear.gaps()), 10)
            ear.listen(1)  # opening hangs, too
        ear.hear(0.5)
        ((cause, start, end, detail),) = ear.gaps("no frames")
        assert (cause, detail) == ("no frames", "microphone 'pulse' has given nothing for 2.5 s")
        assert last - 0.5 < start < last + 0.5
        assert end == pytest.approx(ear.heard[0].source.utc(0), abs=0.2)


def test_zeros_are_a_gap_from_the_first_to_the_last_of_them_and_silence_is_none(tmp_path, sound_server):
    silence = np.random.default_rng(0).integers(-1, 2, 20 * RATE).astype(np.int16)  # a quiet microphone's last bit
    soundfile.write(tmp_path / "silence.wav", silence, RATE)
    with Ear(tmp_path, lambda: Microphone("pulse", "mean", None, RATE), zero_seconds=1.0) as ear:
        ear.hear(0.1)
        first = ear.heard[0]
        ear.listen_until(lambda: bool(ear.gaps()), 10)
        assert ear.capture.levels.take().remark == "the input is all zeros: the microphone is muted, or dead"
        sound_server.play(tmp_path / "silence.wav")
        ear.listen_until(lambda: ear.heard[-1].frames.any())
        ear.capture.levels.take()
        ear.hear(2.0)
        levels = ear.capture.levels.take()
        assert (
            levels.remark.startswith("the input is silent: ")
            and -99 < levels.rms_dbfs < -90
            and levels.zero_share < 0.5
        )
        ((cause, start, end, _),) = ear.gaps()
        assert cause == "zeros" and start == pytest.approx(first.source.utc(0), abs=0.2)
        assert end == pytest.approx(time.time() - 2, abs=1)


def test_a_channel_of_a_stereo_microphone_is_chosen_by_number_at_its_own_rate_and_the_mean_is_of_both(
    tmp_path, monkeypatch, virtual_microphone
):
    virtual_microphone.stop()
    folder = virtual_microphone.folder / "stereo"
    folder.mkdir()
    stereo = VirtualMicrophone(folder, channels=2)
    try:
        for name, value in stereo.env.items():
            monkeypatch.setenv(name, value)
        sides = np.stack([tone(20, RATE, "low"), tone(20, RATE, "high")], axis=1)
        soundfile.write(tmp_path / "sides.wav", sides, RATE)
        stereo.play(tmp_path / "sides.wav")
        found = {}
        for channel in (1, 2, "mean"):
            with Ear(tmp_path, lambda channel=channel: Microphone("pulse", channel, 48000, RATE)) as ear:
                ear.listen_until(lambda ear=ear: any(h.frames.any() for h in ear.heard))
                frames = ear.hear(1.0)
                assert ear.heard[0].source.sample_rate == 48000 and frames.shape[1] == 1
                spectrum = np.abs(np.fft.rfft(frames[-24000:, 0]))  # 2 Hz a bin
                found[channel] = {hertz for hertz in (600, 8000) if spectrum[hertz // 2] > 0.2 * spectrum.max()}
        assert found == {1: {600}, 2: {8000}, "mean": {600, 8000}}
    finally:
        stereo.stop()


def test_what_waiting_does_not_mend_ends_with_a_sentence_before_anything_was_heard(tmp_path, sound_server, monkeypatch):
    def fault(device: str | None, channel: str | int, rate: int | None = None) -> str:
        with Ear(tmp_path, lambda: Microphone(device, channel, rate, RATE)) as ear:
            with pytest.raises(UserError) as caught:
                ear.listen(5)
            return str(caught.value)

    sound_server.name("forest_north", "forest_south")
    assert fault("pulse", 99) == "microphone 'pulse' has 32 channel(s): --channel 99 is none of them"
    assert fault("forest", 1).startswith("several microphones are called 'forest': 'forest_north', 'forest_south'")
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert fault("pulse", 1).endswith("sudo apt-get install libportaudio2")


def test_the_process_that_hears_is_replaced_when_it_dies_and_leaves_nothing_behind(tmp_path, sound_server, noise):
    with Ear(tmp_path, lambda: Microphone("pulse", "mean", None, RATE)) as ear:
        sound_server.play(noise[0])
        descriptors = []
        for _ in range(2):
            ear.hear(0.2)
            descriptors.append(len(list(Path("/proc/self/fd").iterdir())))
            (pid,) = children_of(os.getpid(), "portaudio.py")
            os.kill(pid, 9)
            ear.listen_until(lambda: not children_of(os.getpid(), "portaudio.py"), 2)
        ear.hear(0.2)
        assert len(set(descriptors)) == 1
        assert [gap[0] for gap in ear.gaps()] == ["stopped"] * 2
    assert not children_of(os.getpid(), "portaudio.py")


def test_when_the_listener_is_killed_the_process_that_hears_dies_too_even_where_portaudio_hangs(sound_server):
    code = (
        "from edge.microphone import Microphone\n"
        "microphone = Microphone('pulse', 'mean', None, 32000)\n"
        "print('made', flush=True)\n"
        "while True: microphone.read()\n"
    )
    with sound_server.hanging():
        listener = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
        listener.stdout.readline()
        kill_with_children(listener, "portaudio.py", after_seconds=0.5)  # it hangs by then


def test_a_microphone_is_found_by_its_name_on_whatever_card_it_is():
    def found(name: str | None) -> int:
        return find_device(devices, 7, name)["index"]

    devices = [
        {"index": 4, "name": "HDA Intel PCH: ALC236 Analog (hw:0,0)"},
        {"index": 6, "name": "USB Audio Device: - (hw:3,0)"},
        {"index": 7, "name": "default"},
    ]
    assert found("usb audio") == found("USB Audio Device: - (hw:3,0)") == 6
    assert found("USB Audio Device: - (hw:1,0)") == 6  # as it was called before it was plugged in elsewhere
    assert found(None) == found("default") == 7
    with pytest.raises(NotThereError, match="no microphone is called 'rode'; there are 'HDA Intel"):
        found("rode")
    devices.insert(1, {"index": 5, "name": "USB Audio Device: - (hw:2,0)"})
    assert found("USB Audio Device: - (hw:3,0)") == 6
    with pytest.raises(UserError, match="several microphones are called 'usb audio'"):
        found("usb audio")


# A fake time, in which hours pass at once, and a fake microphone that does what a real one cannot be made to.


class FakeTime:
    """Stands for the module `time` in edge/: it passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.wall = 1000.0, 1_795_600_000.0
        self.passing: list[Callable[[], None]] = []  # called as it passes

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.wall + self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for call in list(self.passing):
            call()


@pytest.fixture
def fake_time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    fake = FakeTime()
    for module in ("edge.capture", "edge.source", "edge.ring"):
        monkeypatch.setattr(f"{module}.time", fake)
    return fake


class FakeMicrophone(LiveSource):
    """A live source of 1000 Hz on the fake time: frames hold the time at which they were heard, in s since it was opened."""

    def __init__(self, fake_time: FakeTime, dies_after: float = 1e9) -> None:
        super().__init__("fake", "mean", 5.0, 10.0)
        self.state = "gives"  # or "trails", a second behind, or "loses"
        self.overflow = False
        self._time, self._began, self._made, self._dies_after = fake_time, fake_time.now, 0, dies_after
        self._held = np.zeros(0, np.float32)
        self._opened(RingBuffer(30_000, 1), 1000)
        fake_time.passing.append(self._pass)

    def _pass(self) -> None:
        made = round((self._time.now - self._began) * 1000)
        frames = np.concatenate([self._held, np.arange(self._made + 1, made + 1, dtype=np.float32) / 1000])
        self._made = made
        behind = 1000 if self.state == "trails" else 0
        ready, self._held = np.split(frames, [max(0, len(frames) - behind)])
        if self.state != "loses" and self._gone() is None:
            self._ring.write(ready, self.overflow)

    def _gone(self) -> Exception | None:
        gone = self._time.now - self._began > self._dies_after
        return SourceLostError("stopped", "fake has stopped") if gone else None

    def close(self) -> None:
        self._time.passing.remove(self._pass)
        super().close()


@pytest.fixture
def fake_ear(tmp_path: Path, fake_time: FakeTime) -> Iterator[Ear]:
    """An ear at a fake microphone."""
    with Ear(tmp_path, lambda: FakeMicrophone(fake_time)) as ear:
        yield ear


def hours_of(ear: Ear, fake_time: FakeTime, hours: float) -> None:
    end = fake_time.now + hours * 3600
    while fake_time.now < end:
        ear.read()
        del ear.heard[:-1]


def test_a_fake_source_that_never_opens_is_tried_for_ever_at_growing_intervals_up_to_a_cap(tmp_path, fake_time):
    tries = []

    def open_source() -> Source:
        tries.append(fake_time.now)
        raise SourceLostError("no microphone", "there is none")

    with Ear(tmp_path, open_source) as ear:
        hours_of(ear, fake_time, 1)
        waits = np.diff(tries)
        np.testing.assert_allclose(waits[:4], [0.5, 1, 2, 4], atol=0.06)
        np.testing.assert_allclose(waits[3:], LONGEST_WAIT_SECONDS, atol=0.06)
        assert tries[-1] > fake_time.now - 5
        assert len(ear.gaps()) == len(ear.said) == 1  # one gap, one sentence: a month of that fills no disk


def test_a_fake_source_that_dies_every_two_seconds_is_not_opened_without_pause(tmp_path, fake_time):
    opened = []

    def open_source() -> Source:
        opened.append(FakeMicrophone(fake_time, dies_after=2.0))
        return opened[-1]

    with Ear(tmp_path, open_source) as ear:
        hours_of(ear, fake_time, 0.05)
        assert len(opened) == pytest.approx(180 / (2 + LONGEST_WAIT_SECONDS), abs=3)
        gaps = ear.gaps("stopped")
        assert len(gaps) >= len(opened) - 1
        for _, start, end, _ in gaps[:-1]:
            assert 0.4 < end - start < 4.2


def test_frames_that_a_fake_system_lost_unseen_are_found_by_the_clock_and_later_frames_keep_their_true_time(
    fake_ear, fake_time
):
    fake_ear.listen_until(lambda: fake_time.now > 1010)
    source = fake_ear.heard[-1].source
    source.state = "loses"
    fake_time.sleep(1.5)
    lost_at = fake_time.time()
    source.state = "gives"
    hours_of(fake_ear, fake_time, 3 / 3600)
    ((cause, start, end, detail),) = fake_ear.gaps()
    assert cause == "overrun" and detail == f"{fake_ear.capture.lost} frames"
    assert end - start == pytest.approx(1.5, abs=0.1)
    assert lost_at - 1.6 < start < lost_at + 2.1  # it takes a while to be sure
    heard = fake_ear.heard[-1]
    assert source.utc(heard.first_frame) - fake_time.wall - 1000 == pytest.approx(heard.frames[0, 0], abs=0.1)
    assert source.age(heard.first_frame + len(heard.frames)) == pytest.approx(0, abs=0.1)


def test_frames_that_a_fake_system_brings_late_for_a_moment_are_not_taken_for_lost(fake_ear, fake_time):
    fake_ear.listen_until(lambda: fake_time.now > 1010)
    source = fake_ear.heard[-1].source
    for _ in range(3):
        source.state = "trails"
        hours_of(fake_ear, fake_time, 2.5 / 3600)
        source.state = "gives"
        hours_of(fake_ear, fake_time, 1 / 3600)
    assert fake_ear.gaps() == [] and fake_ear.capture.lost == 0


def test_overflows_that_a_fake_system_reports_in_a_swarm_are_counted_and_are_one_gap(fake_ear, fake_time):
    hours_of(fake_ear, fake_time, 0.01)
    source = fake_ear.heard[-1].source
    began = fake_time.time()
    for _ in range(3):
        source.overflow = True
        fake_ear.read()
        source.overflow = False
        hours_of(fake_ear, fake_time, 2 / 3600)
    hours_of(fake_ear, fake_time, 0.01)
    assert fake_ear.capture.overflows == 3
    ((cause, start, end, detail),) = fake_ear.gaps()
    assert cause == "overrun" and detail.startswith("input overflow")
    assert start == pytest.approx(began, abs=0.2) and end - start == pytest.approx(4.2, abs=0.2)


def test_when_a_fake_wall_clock_is_set_that_is_in_the_journal_and_the_dates_of_frames_follow_at_once(
    fake_ear, fake_time
):
    def date_of_the_last() -> float:
        fake_ear.read()
        heard = fake_ear.heard[-1]
        return heard.source.utc(heard.first_frame + len(heard.frames))

    hours_of(fake_ear, fake_time, 0.01)
    for step, said in [(3600.25, "set forward by 3600.250 s"), (-0.5, "set back by 0.500 s")]:
        fake_time.wall += step
        assert date_of_the_last() == pytest.approx(fake_time.time(), abs=0.1)
        cause, start, end, detail = fake_ear.gaps()[-1]
        assert (cause, detail) == ("clock", said)
        assert end == pytest.approx(fake_time.time(), abs=0.1)
        assert end - start == pytest.approx(max(step, 0), abs=0.1)  # nothing is recorded of what was leapt over
        hours_of(fake_ear, fake_time, 0.01)
        assert date_of_the_last() == pytest.approx(fake_time.time(), abs=0.1)
    for _ in range(1000):  # as NTP slews it, by 500 ppm
        fake_time.wall += 0.05 * 500e-6
        assert date_of_the_last() == pytest.approx(fake_time.time(), abs=0.1)
    assert len(fake_ear.gaps()) == 2


@pytest.mark.parametrize("step", [3 * 3600, -3 * 3600])
def test_gaps_that_go_on_while_a_fake_wall_clock_is_set_are_as_long_as_they_were_and_end_after_they_began(
    tmp_path, fake_time, step
):
    there = []

    def open_source() -> Source:
        if not there:
            raise SourceLostError("no microphone", "there is none")
        return FakeMicrophone(fake_time)

    with Ear(tmp_path, open_source) as ear:
        hours_of(ear, fake_time, 1 / 60)
        fake_time.wall += step
        hours_of(ear, fake_time, 1 / 60)
        there.append(True)
        hours_of(ear, fake_time, 1 / 60)
        absences = ear.gaps("no microphone")
    assert [end - start for _, start, end, _ in absences] == pytest.approx([60, 60], abs=5)
    assert absences[1][1] - absences[0][2] == pytest.approx(step, abs=1)
    assert any(said.startswith("heard again after 12") for said in ear.said)


@pytest.mark.parametrize("step", [3600, -3600])
def test_zeros_that_go_on_while_a_fake_wall_clock_is_set_are_two_gaps_one_of_each_time(tmp_path, fake_time, step):
    class Mute(FakeMicrophone):
        def read(self) -> Heard:
            heard = super().read()
            return Heard(heard.first_frame, np.zeros_like(heard.frames), self)

    with Ear(tmp_path, lambda: Mute(fake_time), zero_seconds=10.0) as ear:
        hours_of(ear, fake_time, 1 / 60)
        fake_time.wall += step
        hours_of(ear, fake_time, 1 / 60)
    zeros = ear.gaps("zeros")
    assert [end - start for _, start, end, _ in zeros] == pytest.approx([60, 60], abs=1)


def test_a_wall_clock_that_is_set_while_a_fake_recording_is_played_is_no_gap_of_it(tmp_path, fake_time):
    class Recording(FakeMicrophone):
        live = False

    with Ear(tmp_path, lambda: Recording(fake_time)) as ear:
        hours_of(ear, fake_time, 1 / 60)
        fake_time.wall += 3600
        hours_of(ear, fake_time, 1 / 60)
        assert ear.gaps() == []


def test_a_fake_system_that_is_short_of_descriptors_for_a_while_does_not_end_the_listening(tmp_path, fake_time):
    tries = []

    def open_source() -> Source:
        tries.append(fake_time.now)
        if len(tries) < 4:
            raise OSError(errno.EMFILE, "Too many open files")
        return FakeMicrophone(fake_time)

    with Ear(tmp_path, open_source) as ear:
        hours_of(ear, fake_time, 1 / 60)
        assert ear.heard and len(tries) == 4
        ((cause, start, end, _),) = ear.gaps()
    assert cause == "no microphone" and end - start == pytest.approx(3.5, abs=0.5)
    assert "Too many open files" in ear.said[0]


# Recordings.


def test_the_recordings_of_a_folder_are_heard_in_order_of_name_each_at_its_rate_and_broken_ones_are_named_and_skipped(
    tmp_path, capsys
):
    folder = tmp_path / "forest"
    (folder / "deeper").mkdir(parents=True)
    for name, rate, channels, frames in [
        ("b.flac", 44100, 2, 30_000),
        ("a.wav", 22050, 1, 40_000),
        ("deeper/c.wav", 48000, 1, 50_000),
    ]:
        soundfile.write(folder / name, np.full((frames, channels), 0.25), rate)
    (folder / "aa.mp3").write_bytes(b"no audio " * 100)
    (folder / "ab.wav").write_bytes((folder / "a.wav").read_bytes()[:44])  # a header and nothing more
    recordings = Recordings(folder, speed=0)
    with Ear(tmp_path, recordings.next) as ear:
        while ear.read():
            pass
        assert [Path(h.source.name).name for h in ear.heard] == ["a.wav", "b.flac", "c.wav"]
        assert [(h.source.sample_rate, h.frames.shape) for h in ear.heard] == [
            (22050, (40_000, 1)),
            (44100, (30_000, 2)),
            (48000, (50_000, 1)),
        ]
        for before, after in zip(ear.heard, ear.heard[1:]):  # at any speed the time runs on
            assert after.source.utc(0) == pytest.approx(before.source.utc(len(before.frames)), abs=0.001)
        assert ear.gaps() == []
        assert not ear.read(), "the end stays the end"
    assert len(recordings.faults) == 2
    assert "aa.mp3: cannot be decoded" in recordings.faults[0] and "ab.wav: holds no audio" in recordings.faults[1]
    assert capsys.readouterr().err.splitlines() == recordings.faults


def test_a_recording_that_cannot_be_played_or_a_folder_without_any_is_refused_with_a_sentence(tmp_path):
    (tmp_path / "text.wav").write_text("no audio " * 100)
    soundfile.write(tmp_path / "mono.wav", np.zeros(100), 32000)
    (tmp_path / "empty").mkdir()
    for path, channel, sentence in [
        (tmp_path / "nosuch.wav", "mean", "nosuch.wav: No such file"),
        (tmp_path / "text.wav", "mean", "text.wav: cannot be decoded"),
        (tmp_path / "mono.wav", 2, r"mono.wav: has 1 channel\(s\): --channel 2 is none of them"),
        (tmp_path / "empty", "mean", "empty: there is no recording to play"),
    ]:
        with pytest.raises(UserError, match=sentence):
            Recordings(path, 0, channel)


def test_a_truncated_recording_is_heard_as_far_as_it_goes_and_its_fault_is_kept(tmp_path):
    soundfile.write(tmp_path / "whole.wav", np.full(40_000, 0.1), 32000)
    (tmp_path / "cut.wav").write_bytes((tmp_path / "whole.wav").read_bytes()[:50_000])
    recordings = Recordings(tmp_path / "cut.wav", speed=0)
    with Ear(tmp_path, recordings.next) as ear:
        while ear.read():
            pass
        assert sum(len(h.frames) for h in ear.heard) == (50_000 - 44) // 2
    assert "cut.wav: truncated: 0.8 s of 1.2 s could be read" in recordings.faults[0]


def test_a_channel_of_a_recording_is_chosen_by_its_number(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.tile([0.25, -0.5], (1000, 1)), 32000)
    with Ear(tmp_path, Recordings(tmp_path / "a.wav", 0, channel=2).next) as ear:
        ear.read()
        assert ear.heard[0].frames.shape == (1000, 1) and set(ear.heard[0].frames[:, 0]) == {-0.5}


def test_what_is_recorded_of_a_source_that_was_opened_anew_is_in_another_file(tmp_path):
    class FakeSource:
        def __init__(self, sample_rate: int) -> None:
            self.sample_rate = sample_rate

    one, two = FakeSource(32000), FakeSource(44100)
    frames = np.full((100, 1), 0.5, np.float32)
    with Recorder(tmp_path / "heard.wav") as recorder:
        for heard in [Heard(0, frames, one), Heard(150, frames, one), Heard(0, frames[:0]), Heard(7, frames, two)]:
            recorder.hear(heard)
    first, rate = soundfile.read(tmp_path / "heard.wav")
    assert rate == 32000 and first.tolist() == [0.5] * 100 + [0.0] * 50 + [0.5] * 100  # silence for what was lost
    second, rate = soundfile.read(tmp_path / "heard-2.wav")
    assert rate == 44100 and second.tolist() == [0.5] * 100
    assert [path.name for path in recorder.paths] == ["heard.wav", "heard-2.wav"]


def test_a_recording_that_cannot_be_made_is_refused_before_anything_is_heard_and_one_of_nothing_is_not_left(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="the recording cannot be made"):
        Recorder(tmp_path / "file" / "heard.wav")
    with Recorder(tmp_path / "heard.wav"):
        pass
    assert not (tmp_path / "heard.wav").exists()


def test_what_was_recorded_before_is_not_written_over_by_a_listener_that_starts_again(tmp_path):
    for number in range(3):
        with Recorder(tmp_path / "heard.wav", 1000, 1) as recorder:
            recorder.write(np.full((10, 1), number / 4, np.float32))
    for number, name in enumerate(["heard.wav", "heard-2.wav", "heard-3.wav"]):
        assert soundfile.read(tmp_path / name)[0][0] == number / 4


def test_where_the_disk_is_full_listening_goes_on_unrecorded_and_says_so(small_disk, capsys):
    with Recorder(small_disk / "heard.wav", 32000, 1) as recorder:
        for _ in range(40):
            recorder.write(np.zeros((32000, 1), np.float32))
    assert capsys.readouterr().err.count("listening goes on unrecorded") == 1
    assert (small_disk / "heard.wav").stat().st_size > 1e6


@pytest.mark.parametrize(
    ("names", "offset", "starts"),
    [
        (["20230514_043000.wav", "20230514_053000.wav"], None, ["2023-05-14T04:30", "2023-05-14T05:30"]),
        (["SMU01_20230514_043000.wav"], -4, ["2023-05-14T08:30"]),
        (["SMU01_20230514_043000.wav"], None, ["now"]),
        (["a.wav", "20230514_043000.wav", "b.wav"], None, ["2023-05-14T04:30", "now", "now + 3 s"]),
    ],
)
def test_a_recording_has_the_time_at_which_it_was_recorded_if_it_tells_it_and_else_that_of_playing(
    tmp_path, names, offset, starts
):
    for name in names:
        soundfile.write(tmp_path / name, np.zeros(3000), 1000)
    now = time.time()
    known = {"now": now, "now + 3 s": now + 3}
    recordings = Recordings(tmp_path, speed=0, utc_offset_hours=offset)
    for start in starts:
        player = recordings.next()
        expected = known.get(start) or datetime.fromisoformat(start).replace(tzinfo=timezone.utc).timestamp()
        assert player.utc(0) == pytest.approx(expected, abs=1)
        while player.read():
            pass
    assert recordings.next() is None
