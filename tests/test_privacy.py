"""Human speech is heard, and what was found in windows with it and next to it is withheld.

The speech model is the real one, exported from the real module; voices are espeak-ng's, what is no voice is real recordings
or, for the listener as a whole, tones.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from conftest import lacking, made_once, tone
from hypothesis import given
from hypothesis import strategies as st
from listening import Listening, length
from test_listen import assert_same_detections, detections_of_predict_file

from edge.journal import PRIVACY, utc_seconds
from edge.privacy import SpeechDetector, Withholder
from src import speech_model
from src.audio import AudioFile, file_windows
from src.errors import UserError
from src.recipe import Recipe

RATE = 32000
SENTENCES = {
    "en": "Good morning. I walked up the valley to look for the owl, but nobody had seen it since the storm last week.",
    "es": "Buenos dias, estuve caminando por el bosque para escuchar los pajaros, pero hoy hace mucho viento.",
    "de": "Guten Morgen, ich bin heute frueh in den Wald gegangen, um Voegel zu hoeren, aber es war zu windig.",
    "fr+f3": "Bonjour, je suis venu ecouter les oiseaux de la foret, mais le vent souffle trop fort aujourd'hui.",
    "pt+m3": "Bom dia, vim ouvir os passaros na floresta, mas hoje esta ventando muito e quase nao se ouve nada.",
}


@pytest.fixture(scope="session")
def speech_file(tmp_path_factory: pytest.TempPathFactory, real_data: Path) -> Path:
    """speech.tflite as the command makes it, compared on real recordings; beside it what the command said."""

    def make(folder: Path) -> None:
        recordings = [real_data / "nocall", real_data / "birds/train_audio/purbul1"]
        (folder / "said").write_text(export(real_data, "-o", folder / "speech.tflite", *recordings))

    return made_once(tmp_path_factory, "speech", make) / "speech.tflite"


def export(real_data: Path, *arguments: object) -> str:
    """Run the command in this process, with the real module in the cache; what it says on standard error."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setenv("TFHUB_CACHE_DIR", str(real_data / "hub"))
        patch.setattr("sys.argv", ["speech_model", *map(str, arguments)])
        assert speech_model.main() == 0
    return said.getvalue()


@pytest.fixture(scope="session")
def detector(speech_file: Path) -> SpeechDetector:
    return SpeechDetector(speech_file, RATE)


@pytest.fixture(scope="session")
def voices(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """5 s each of several voices and languages, float32 at 32 kHz, with a root mean square of 1."""
    if shutil.which("espeak-ng") is None:
        lacking("no espeak-ng (apt-get install espeak-ng)")
    folder, found = tmp_path_factory.mktemp("voices"), []
    for voice, sentence in SENTENCES.items():
        subprocess.run(["espeak-ng", "-v", voice, "-w", folder / "voice.wav", sentence], check=True)
        spoken, rate = soundfile.read(folder / "voice.wav", dtype="float32")
        found.append(of_level(np.resize(soxr.resample(spoken, rate, RATE), 5 * RATE), 0.0))
    return found


def of_level(samples: np.ndarray, dbfs: float) -> np.ndarray:
    """Scaled to a root mean square of so much."""
    return (samples / np.sqrt(np.mean(samples**2)) * 10 ** (dbfs / 20)).astype(np.float32)


def windows_of(*paths: Path) -> list[np.ndarray]:
    """The windows of recordings, 5 s at 32 kHz."""
    found = []
    for path in paths:
        with AudioFile(path) as audio:
            found += [window.samples[0] for window in file_windows(audio, Recipe())]
    return found


def share_with_speech(detector: SpeechDetector, windows: list[np.ndarray]) -> float:
    return float(np.mean([detector.heard(window) for window in windows]))


# What is heard.


@pytest.mark.parametrize("dbfs", [-20.0, -40.0])
def test_speech_is_heard_in_several_languages_and_voices_loud_or_soft(detector, voices, dbfs):
    assert share_with_speech(detector, [of_level(voice, dbfs) for voice in voices]) == 1.0


@pytest.mark.parametrize("kind", ["rain", "sea_waves"])
def test_speech_is_heard_through_weather_as_loud_as_itself(detector, voices, real_data, kind):
    weather = windows_of(*sorted((real_data / "nocall").glob(f"{kind}*.ogg"))[:10])
    mixed = [of_level(noise, -36) + of_level(voice, -36) for voice in voices for noise in weather[:4]]
    assert share_with_speech(detector, mixed) >= 0.9


def test_a_few_words_in_a_window_are_enough(detector, voices):
    for voice in voices:
        window = np.zeros(5 * RATE, np.float32)
        window[2 * RATE : 3 * RATE] = of_level(voice[:RATE], -30)
        assert detector.heard(window)


def test_weather_and_engines_are_not_taken_for_speech(detector, real_data):
    clips = [windows_of(path)[0] for path in sorted((real_data / "nocall").glob("*.ogg"))]
    assert len(clips) == 160
    assert share_with_speech(detector, clips) <= 0.02


def test_birds_are_mostly_not_taken_for_speech(detector, real_data):
    recordings = sorted((real_data / "birds/train_audio").glob("*/*.mp3"))[::9]
    windows = windows_of(*recordings)
    assert len(windows) > 100
    assert share_with_speech(detector, windows) <= 0.05
    (soundscape,) = (real_data / "birdsong-recognition/example_test_audio").glob("BLKFR*.mp3")
    assert share_with_speech(detector, windows_of(soundscape)) == 0.0


@pytest.mark.parametrize(("rate", "seconds"), [(16000, 5.0), (48000, 3.0), (22050, 10.0)])
def test_windows_of_any_length_at_any_rate_are_heard(speech_file, voices, rate, seconds):
    detector = SpeechDetector(speech_file, rate)
    spoken = np.resize(of_level(voices[0], -30), round(seconds * RATE))
    assert detector.heard(soxr.resample(spoken, RATE, rate))
    assert not detector.heard(np.zeros(round(seconds * rate), np.float32))


def test_the_probability_from_which_somebody_speaks_can_be_chosen(speech_file, voices):
    window = of_level(voices[0], -30)
    probability = SpeechDetector(speech_file, RATE).probability(window)
    assert 0.5 < probability < 1
    assert SpeechDetector(speech_file, RATE, probability - 0.001).heard(window)
    assert not SpeechDetector(speech_file, RATE, probability + 0.001).heard(window)


def test_what_is_no_number_is_not_taken_for_silence(detector):
    assert detector.heard(np.full(5 * RATE, np.nan, np.float32))


def test_a_file_that_is_no_speech_model_is_refused_with_the_command_that_makes_one(tone_bundle, tmp_path):
    with pytest.raises(UserError, match=r"model\.tflite: is no speech model: it takes .*python -m src\.speech_model"):
        SpeechDetector(tone_bundle.folder / "model.tflite", RATE)
    (tmp_path / "speech.tflite").write_text("not a model")
    for path in (tmp_path / "speech.tflite", tmp_path / "nowhere.tflite"):
        with pytest.raises(UserError, match=f"{path}: LiteRT cannot load it"):
            SpeechDetector(path, RATE)


# The command that makes the model.


def test_the_model_is_kept_after_it_was_compared_with_the_module_on_real_audio(speech_file):
    said = (speech_file.parent / "said").read_text()
    found = re.search(r"on (\d+) windows of real audio it says what the module says, within (\S+) \(", said)
    assert found, said
    assert int(found[1]) > 20 and float(found[2]) < 1e-4
    assert list(speech_file.parent.glob("*part*")) == []


@pytest.mark.parametrize(
    "wrong", [lambda p: p + 0.05, lambda p: p * 0.0, lambda p: p * np.nan], ids=["off", "0", "NaN"]
)
def test_a_file_that_says_otherwise_than_a_fake_module_is_refused(speech_file, real_data, wrong: Callable):
    detector = SpeechDetector(speech_file, 16000)
    windows = speech_model.real_windows([real_data / "birds/train_audio/purbul1"], 16000)[::4]

    def module(change: Callable) -> Callable:
        return lambda window: np.array([[change(detector.probability(window))]])

    expected, difference = speech_model.compare(speech_file, module(lambda p: p), windows)
    assert difference == 0 and len(expected) == len(windows)
    with pytest.raises(UserError, match="it is not kept"):
        speech_model.compare(speech_file, module(wrong), windows)


def test_without_a_recording_to_compare_on_nothing_is_made(tmp_path, real_data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no recording to compare the file with the module on: name one"):
        export(real_data, "-o", "speech.tflite")
    with pytest.raises(UserError, match=r"nowhere\.wav: is not there"):
        export(real_data, "-o", "speech.tflite", "nowhere.wav")
    assert list(tmp_path.iterdir()) == []


def test_recordings_of_the_data_set_are_found_without_being_named(tmp_path, monkeypatch, real_data):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "input/birdsong-recognition/train_audio"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(real_data / "birds/train_audio/purbul1")
    assert [path for path in speech_model.SEARCHED if path.is_dir()] == [Path("input/birdsong-recognition/train_audio")]
    assert len(speech_model.real_windows(speech_model.SEARCHED[:1], 16000)) > 4


# What is withheld.


def pushed(withholder: Withholder, starts: list[float], speech: set[float]) -> list[tuple[float, float, bool]]:
    """(start, start of the window at which it was decided, withheld) of each window, `finish` counting as infinity."""
    found = []
    for start in starts:
        found += [(payload, start, withheld) for payload, withheld in withholder.push(start, start in speech, start)]
    return found + [(payload, math.inf, withheld) for payload, withheld in withholder.finish()]


def test_a_window_with_speech_is_withheld_with_the_one_before_and_the_one_after():
    withholder = Withholder(window_seconds=5)
    assert pushed(withholder, [0, 5, 10, 15, 20], {10}) == [
        (0, 5, False),
        (5, 10, True),
        (10, 15, True),
        (15, 20, True),
        (20, math.inf, False),
    ]
    assert withholder.withheld == 3


def test_all_windows_that_overlap_or_touch_speech_are_withheld_and_decided_a_window_s_length_later():
    withholder = Withholder(window_seconds=5)
    starts = [2.5 * number for number in range(9)]
    found = pushed(withholder, starts, {10})
    assert [start for start, _, withheld in found if withheld] == [5, 7.5, 10, 12.5, 15]
    assert all(decided == start + 5 for start, decided, _ in found if decided < math.inf)


def test_windows_that_were_dropped_in_between_do_not_make_far_ones_neighbours():
    withholder = Withholder(window_seconds=5)
    found = pushed(withholder, [0, 20, 22.5, 40], {20})
    assert [(start, withheld) for start, _, withheld in found] == [(0, False), (20, True), (22.5, True), (40, False)]


def test_where_another_source_begins_what_waits_is_decided_without_it():
    withholder = Withholder(window_seconds=5)
    withholder.push(0, False, "first")
    assert withholder.push(0, True, "a new source's first") == [("first", False)]
    assert withholder.push(5, False, "its second") == [("a new source's first", True)]
    assert withholder.finish() == [("its second", True)]
    assert withholder.push(10, False, "a third source") == []  # nobody spoke there
    assert withholder.finish() == [("a third source", False)]


starts_of_windows = st.lists(st.floats(0.02, 12), min_size=1, max_size=40).map(lambda steps: np.cumsum(steps).tolist())


@given(starts=starts_of_windows, data=st.data())
def test_each_window_is_decided_once_in_order_and_withheld_only_for_speech_that_touches_it(starts, data):
    speech = {start for start in starts if data.draw(st.booleans())}
    withholder = Withholder(window_seconds=5)
    found = pushed(withholder, starts, speech)
    assert [start for start, _, _ in found] == starts
    for start, decided, withheld in found:
        assert withheld is any(abs(start - other) <= 5.001 for other in speech)
        assert decided == next((later for later in starts if later >= start + 4.999), math.inf)
    assert withholder.withheld == sum(withheld for _, _, withheld in found)


def spans_without_clips() -> tuple[Withholder, list[tuple[float, float]]]:
    spans: list[tuple[float, float]] = []
    return Withholder(5, lambda first, end: spans.append((first, end))), spans


@pytest.mark.parametrize("hop", [1.0, 2.5, 5.0])
def test_no_clip_has_audio_that_withheld_windows_alone_have_heard(hop):
    withholder, spans = spans_without_clips()
    starts = [hop * number for number in range(30)]
    found = pushed(withholder, starts, {10, 15})
    kept = [start for start, _, withheld in found if not withheld]
    before, after = max(start for start in kept if start < 10), min(start for start in kept if start > 15)
    assert (min(first for first, _ in spans), max(end for _, end in spans)) == (before + 5, after)
    assert all(first <= 15 + 5 and end >= 10 for first, end in spans), "one hole, without a rest in between"


def test_no_clip_has_audio_that_no_window_heard():
    withholder, spans = spans_without_clips()
    pushed(withholder, [1, 3.5, 6, 20, 22.5], set())  # the windows between 6 and 20 s were dropped
    assert spans == [(0, 1), (11, 20)]


@given(data=st.data(), hop=st.sampled_from([1.0, 2.5, 5.0]), around=st.floats(0, 12))
def test_a_clip_that_is_cut_when_its_window_is_decided_has_nothing_of_what_withheld_windows_alone_hear(
    data, hop, around
):
    numbers = sorted(data.draw(st.sets(st.integers(0, 30), min_size=1)))  # some windows were dropped
    starts = [hop * number for number in numbers]
    speech = {start for start in starts if data.draw(st.booleans())}
    withholder, holes = spans_without_clips()
    windows, clips = [], []
    for step in [*starts, None]:
        decided = withholder.finish() if step is None else withholder.push(step, step in speech, step)
        for start, withheld in decided:
            windows.append((start, withheld))
            if not withheld:
                # As the keeper does: up to the nearest holes on both sides of the window, and not beyond what is clear.
                first = max([start - around, *(end for _, end in holes if end <= start)])
                end = min([start + 5 + around, withholder.clear_until, *(begin for begin, _ in holes if begin > start)])
                clips.append((first, end))
                assert end >= start + 5 and first <= start, "the window itself is in it"
    kept = [start for start, withheld in windows if not withheld]
    for first, end in clips:
        for moment in np.arange(max(0, first) + 0.05, end, 0.1):
            assert any(window <= moment <= window + 5 for window in kept), (first, end, moment)


def test_what_waits_and_what_is_remembered_does_not_grow():
    withholder = Withholder(window_seconds=5)
    for start in range(20_000):
        withholder.push(float(start), start % 3 == 0, start)
    assert len(withholder._waiting) <= 5 and len(withholder._speech) <= 5


# The listener as a whole.


@pytest.fixture(scope="module")
def path_in_the_forest(tmp_path_factory: pytest.TempPathFactory, voices: list[np.ndarray]) -> Path:
    """45 s: the mid tone from 5 to 10 s, the high one from 10 s on, and from 21 to 24 s somebody who passes by."""
    heard = np.random.default_rng(0).normal(0, 0.0005, 45 * RATE)  # no two places in it are alike
    heard[5 * RATE : 10 * RATE] += tone(5, RATE, "mid", amplitude=0.02)
    heard[10 * RATE :] += tone(35, RATE, "high", amplitude=0.02)
    heard[21 * RATE : 24 * RATE] += of_level(voices[0][: 3 * RATE], -23)
    path = tmp_path_factory.mktemp("forest") / "path.wav"
    soundfile.write(path, heard, RATE, subtype="PCM_16")
    return path


def place_of(clip: np.ndarray, recording: np.ndarray) -> tuple[int, int]:
    """The frames of a recording that are a clip: the first, and the one after the last."""
    begins = np.flatnonzero(recording[: len(recording) - len(clip) + 1] == clip[0])
    (first,) = (begin for begin in begins if np.array_equal(recording[begin : begin + len(clip)], clip))
    return int(first), int(first) + len(clip)


@pytest.mark.parametrize(("hop", "withheld"), [(5.0, [15, 20, 25]), (2.5, [12.5, 15, 17.5, 20, 22.5, 25, 27.5])])
def test_who_passes_the_listener_is_in_no_clip_and_windows_with_speech_and_beside_it_are_not_reported_but_a_gap(
    tmp_path, tone_bundle, speech_file, path_in_the_forest, hop, withheld
):
    options = ["--input", path_in_the_forest, "--speed", 0, "--hop", hop, "--clip-seconds", 25]
    listening = Listening(tmp_path, "--model", tone_bundle.folder, *options, "--privacy", speech_file)
    assert listening.wait() == 0, listening.err
    assert listening.count("windows withheld") == len(withheld)

    everything = detections_of_predict_file(tone_bundle, path_in_the_forest, hop)
    assert {start for start, species in everything if species == "high"} > set(withheld)
    rows = listening.rows()
    assert_same_detections(rows, {key: value for key, value in everything.items() if key[0] not in withheld})
    (gap,) = listening.gaps(PRIVACY)
    began = utc_seconds(rows[0]["utc_start"]) - rows[0]["offset_seconds"]
    assert utc_seconds(gap["utc_start"]) - began == pytest.approx(withheld[0], abs=0.002)
    assert length(gap) == pytest.approx(withheld[-1] + 5 - withheld[0], abs=0.002)
    assert gap["detail"] == f"windows with speech or beside it: {len(withheld)}"

    recording, _ = soundfile.read(path_in_the_forest, dtype="int16")
    places = []
    for event in listening.rows("events"):
        clip, _ = soundfile.read(listening.record / "clips" / event["clip"], dtype="int16")
        places.append(place_of(clip, recording))
    assert len(places) == len(list(listening.record.rglob("*.flac"))) == 3  # of the mid tone, and of the high one two
    # Where windows overlap, one that is kept has heard some of a withheld one's audio; nothing of what those alone heard is kept.
    first, end = round((withheld[0] - hop + 5) * RATE), round((withheld[-1] + hop) * RATE)
    assert all(place[1] <= first or place[0] >= end for place in places), places
    assert first in {place[1] for place in places} and end in {place[0] for place in places}, "they reach up to there"
