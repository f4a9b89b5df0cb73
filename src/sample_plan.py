"""What the built-in sample holds, decided before any of it is written: who sings where, when and how loud.

Training recordings are made by eight fictional recordists on three days each; a source is a recordist on a day and has
its own noise, weather and echoes. The six soundscapes come from sites that no recordist visited.

The truth of the soundscapes: a row holds a species when one of its phrases overlaps the row by at least 0.5 s, or by
half the phrase where that is shorter. Phrases are placed so that none touches a row by less than that: no row is a
matter of taste.

Everything is a function of the seed. Planning the whole sample takes seconds; src/sample.py turns a plan into files.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass, replace

import numpy as np

from src.synthesis import BACKGROUNDS, SPECIES, Call, Place, draw_bird, sing

# How hard the task is. Ranges are uniform; SNRs are in a species' own band.
RECORDING_SNR_DB = (12.0, 26.0)
NEARNESS_DB = 4.0  # a recording's SNR lies this near to its recordist's usual one: some get close, some do not
SOUNDSCAPE_SNR_DB = (6.0, 22.0)
SECOND_SPECIES_SNR_DB = (2.0, 8.0)  # the faint bird behind the labelled one
RECORDING_WEATHER_DB = (-14.0, 2.0)  # weather against the steady noise
SOUNDSCAPE_WEATHER_DB = (-6.0, 8.0)
RECORDING_RT60_S = (0.15, 0.5)
SOUNDSCAPE_RT60_S = (0.3, 0.9)
RECORDING_WET_DB = (-16.0, -7.0)
SOUNDSCAPE_WET_DB = (-11.0, -4.0)
RECORDING_S = (6.0, 13.0)
RECORDING_PAUSE_S = (0.4, 2.2)
BUSY_SHARES = (0.375, 0.46, 0.5, 0.5, 0.5, 0.46)  # rows with birds, for each soundscape in turn
SPECIES_IN_A_BUSY_ROW = (0.5, 0.3, 0.2)  # how often one, two, three
SPECIES_IN_A_SOUNDSCAPE = 5

ROW_S = 5.0
LEAST_OVERLAP_S = 0.5
ECHO_ROOM_S = 0.25  # a phrase ends this long before its last row does, so that its echo rings in no other

# Fictional people, each with a recorder of their own: sampling rate in Hz and channels.
RECORDISTS = {
    "Ansel Quill": (44100, 1),
    "Bryn Tallow": (22050, 1),
    "Corin Vesper": (32000, 2),
    "Delphine Marsh": (32000, 1),
    "Edda Larkspur": (48000, 1),
    "Fenn Holloway": (22050, 1),
    "Greta Sedge": (22050, 2),
    "Hollis Umber": (32000, 1),
}
DAYS_PER_RECORDIST = 3
SITES = {"site_1": 32000, "site_2": 22050, "site_3": 32000}  # two soundscapes each, sampling rate in Hz
OUTSIDERS = ("Umbrocola profunda_Hollow Cuckoo", "Nivalauda errans_Drift Lark", "Ferrophaga minor_Lesser Rustpecker")


@dataclass(frozen=True)
class Recording:
    """A training recording before it is sung. `sound_name` seeds it, so two recordings with one name are one sound."""

    xc_id: int
    code: str
    recordist: str
    date: str
    place: Place
    duration_s: float
    sound_name: str
    second: str = ""  # code of a faint second species
    outsiders: tuple[str, ...] = ()  # labels of species outside the twelve that the recordist noted
    fault: str = ""  # "garbage" or "truncated"
    lacks: str = ""  # "recordist" or "date": left empty in the table

    @property
    def path(self) -> str:
        """Where the file lies in the sample."""
        return f"train_audio/{self.code}/XC{self.xc_id}.mp3"


@dataclass(frozen=True)
class Soundscape:
    """A held-out soundscape: its calls, and `events` as (ebird_code, start_s, end_s) to the millisecond."""

    site: str
    audio_id: str
    place: Place
    duration_s: float
    calls: tuple[Call, ...]
    events: tuple[tuple[str, float, float], ...]


def generator(seed: int, name: str) -> np.random.Generator:
    """The generator of everything that is called `name` (Python's hash() would differ from run to run)."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def plan_recordings(seed: int = 0, recordings_per_species: int = 13) -> list[Recording]:
    """All rows of train.csv, in order, without making a sound."""
    rng = generator(seed, "recordings")
    names = list(RECORDISTS)
    recordings: list[Recording] = []

    def add(code: str, recordist: str, **changes) -> None:
        date = f"20{12 + names.index(recordist)}-05-{(3, 17, 24)[rng.integers(DAYS_PER_RECORDIST)]:02d}"
        xc_id = 9_000_001 + 7 * len(recordings)
        place = source_place(seed, recordist, date)
        duration_s = round(float(rng.uniform(*RECORDING_S)), 2)
        made = Recording(xc_id, code, recordist, date, place, duration_s, sound_name=f"XC{xc_id}")
        recordings.append(replace(made, **changes))

    for code in SPECIES:
        # Every recordist has met every species before any has met one twice.
        order = [name for _ in range(recordings_per_species) for name in rng.permutation(names)]
        for recordist in order[:recordings_per_species]:
            i = len(recordings)
            second = str(rng.choice([c for c in SPECIES if c != code])) if i % 7 == 3 else ""
            add(code, recordist, second=second, outsiders=OUTSIDERS[i % 3 :][: 1 + i % 2] if i % 11 == 5 else ())
    recordings[5] = replace(recordings[5], lacks="recordist")
    recordings[9] = replace(recordings[9], lacks="date")
    add("moswre", "Ansel Quill", fault="garbage")
    add("lanthr", "Corin Vesper", fault="truncated", duration_s=12.0)
    add("cincro", "Edda Larkspur", duration_s=0.3)
    add("veirob", "Fenn Holloway")
    recordings[-1] = replace(recordings[-1], place=replace(recordings[-1].place, sample_rate=8000, channels=1))
    twin = recordings[2]
    other = next(name for name in names if name != twin.recordist)
    add(twin.code, other, place=twin.place, duration_s=twin.duration_s, sound_name=twin.sound_name, second=twin.second)
    return sorted(recordings, key=lambda recording: (recording.code, recording.xc_id))


def source_place(seed: int, recordist: str, date: str) -> Place:
    """The place of one source: the recorder is the recordist's, the weather is the day's."""
    sample_rate, channels = RECORDISTS[recordist]
    own, day = generator(seed, f"recordist {recordist}"), generator(seed, f"source {recordist} {date}")
    return Place(
        name=f"{recordist} {date}",
        sample_rate=sample_rate,
        channels=channels,
        slope_db_per_octave=float(own.uniform(-6.0, -1.0)),
        weather=str(day.choice(list(BACKGROUNDS))),
        weather_db=float(day.uniform(*RECORDING_WEATHER_DB)),
        rt60_s=float(own.uniform(*RECORDING_RT60_S)),
        wet_db=float(day.uniform(*RECORDING_WET_DB)),
    )


def usual_snr_db(seed: int, place: Place) -> tuple[float, float]:
    """The range of SNRs in the recordings of a place's recordist, in dB: how near they usually get to a bird."""
    recordist = place.name.rsplit(" ", 1)[0]  # without the date
    least, greatest = RECORDING_SNR_DB
    usual = float(generator(seed, f"distance {recordist}").uniform(least + NEARNESS_DB, greatest - NEARNESS_DB))
    return usual - NEARNESS_DB, usual + NEARNESS_DB


def plan_soundscapes(seed: int = 0, soundscape_s: float = 120.0) -> list[Soundscape]:
    """The six soundscapes with their songs, not yet mixed: two each for site_1, site_2 and site_3."""
    rng = generator(seed, "soundscapes")
    order, weathers = rng.permutation(list(SPECIES)), rng.permutation(list(BACKGROUNDS))
    soundscapes = []
    for i, busy_share in enumerate(BUSY_SHARES):
        site = list(SITES)[i // 2]
        # Consecutive slices of one order: the casts of the four soundscapes with timed rows hold all species.
        cast = [str(order[(i * SPECIES_IN_A_SOUNDSCAPE + k) % len(order)]) for k in range(SPECIES_IN_A_SOUNDSCAPE)]
        place = soundscape_place(seed, site, i % 2, weather=str(weathers[i]))
        soundscapes.append(plan_soundscape(seed, place, cast, busy_share, soundscape_s))
    return soundscapes


def soundscape_place(seed: int, site: str, i: int, weather: str) -> Place:
    """The place of a site's i-th soundscape: no recordist has been there."""
    rng = generator(seed, f"place {site} {i}")
    return Place(
        name=f"{site} {i}",
        sample_rate=SITES[site],
        channels=1,
        slope_db_per_octave=float(rng.uniform(-7.0, -2.0)),
        weather=weather,
        weather_db=float(rng.uniform(*SOUNDSCAPE_WEATHER_DB)),
        rt60_s=float(rng.uniform(*SOUNDSCAPE_RT60_S)),
        wet_db=float(rng.uniform(*SOUNDSCAPE_WET_DB)),
    )


def plan_soundscape(seed: int, place: Place, cast: list[str], busy_share: float, duration_s: float) -> Soundscape:
    """Choose the rows with birds, and place one or two phrases of one to three species in each."""
    rng = generator(seed, f"soundscape {place.name}")
    birds = {code: [draw_bird(rng), draw_bird(rng)] for code in cast}
    rows = int(duration_s / ROW_S)
    busy = {int(row) for row in rng.permutation(rows)[: max(1, round(busy_share * rows))]}
    calls: list[Call] = []
    events: list[tuple[str, float, float]] = []
    for row in sorted(busy):
        wanted = 1 + int(rng.choice(3, p=SPECIES_IN_A_BUSY_ROW))
        for code in rng.choice(cast, wanted, replace=False):
            species, bird = SPECIES[code], birds[code][rng.integers(2)]
            for _ in range(1 + int(rng.random() < 0.5)):
                phrase = sing(species, bird, rng, place.sample_rate)
                length_s = len(phrase) / place.sample_rate
                for _ in range(50):
                    start_s = round(float(rng.uniform(ROW_S * row - length_s, ROW_S * (row + 1))), 3)
                    event = (species.code, start_s, round(start_s + length_s, 3))
                    if is_clear(event, busy, events, duration_s):
                        events.append(event)
                        calls.append(Call(start_s, species, phrase, float(rng.uniform(*SOUNDSCAPE_SNR_DB))))
                        break
    audio_id = hashlib.md5(f"{seed} {place.name}".encode()).hexdigest()
    ordered = tuple(sorted(events, key=lambda event: event[1:]))
    return Soundscape(place.name.split()[0], audio_id, place, duration_s, tuple(calls), ordered)


def least_overlap_s(start_s: float, end_s: float) -> float:
    """How much of a phrase a row must hold for the row to hold its species."""
    return min(LEAST_OVERLAP_S, (end_s - start_s) / 2)


def is_clear(event: tuple[str, float, float], busy: set[int], events: list, duration_s: float) -> bool:
    """Whether a phrase leaves a clear truth: enough of it in each row it touches, all of them rows with birds.

    Nor may it overlap a phrase of its own species, which would make one event of two.
    """
    code, start_s, end_s = event
    if start_s < 0 or end_s > duration_s:
        return False
    for row in range(int(start_s // ROW_S), int(end_s // ROW_S) + 1):
        overlap_s = min(end_s, ROW_S * (row + 1)) - max(start_s, ROW_S * row)
        if row not in busy or overlap_s < least_overlap_s(start_s, end_s) + 0.01:
            return False
    if int((end_s + ECHO_ROOM_S) // ROW_S) != int(end_s // ROW_S):
        return False
    return all(code != other or end_s < begun_s or start_s > ended_s for other, begun_s, ended_s in events)


def truth_of(soundscape: Soundscape, start_s: float, end_s: float) -> str:
    """The `birds` of a row: codes sorted and separated by spaces, or nocall."""
    codes = {
        code
        for code, begun_s, ended_s in soundscape.events
        if min(ended_s, end_s) - max(begun_s, start_s) >= least_overlap_s(begun_s, ended_s)
    }
    return " ".join(sorted(codes)) or "nocall"


def rows_of(soundscape: Soundscape) -> list[dict[str, str]]:
    """A soundscape's rows: the columns of test.csv, and `birds`. Those of site_3 are one row for the whole file."""
    site, audio_id = soundscape.site, soundscape.audio_id
    if site == "site_3":
        birds = truth_of(soundscape, 0.0, soundscape.duration_s)
        return [{"site": site, "row_id": f"{site}_{audio_id}", "seconds": "", "audio_id": audio_id, "birds": birds}]
    return [
        {
            "site": site,
            "row_id": f"{site}_{audio_id}_{end_s}",
            "seconds": str(end_s),
            "audio_id": audio_id,
            "birds": truth_of(soundscape, end_s - ROW_S, end_s),
        }
        for end_s in range(int(ROW_S), int(soundscape.duration_s) + 1, int(ROW_S))
    ]
