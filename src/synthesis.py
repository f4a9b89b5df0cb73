"""Synthesised birdsong, weather and forests: every sound of the built-in sample.

Twelve fictional species are told apart by the pattern of their song more than by its pitch: most of them sing between
2 and 5 kHz, and several share one band and one length. Everything is NumPy and SciPy, and every function that draws at
random takes a `numpy.random.Generator`, so a sound is a function of its seed.

Signals have shape [samples]: songs are float64, noise is float32 to save time. Frequencies and `sample_rate` are in Hz.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import fft

# A tone above this share of the sample rate is left out: it would alias, or fall in the slope of a converter's filter.
HIGHEST_TONE = 0.45
# Air and leaves take this much from every metre and every kHz above 1 kHz, so a faint call is a dull one, too.
AIR_LOSS_DB_PER_M_PER_KHZ = 0.02
# A call at 10 m stands this far above the background; distance and signal-to-noise ratio follow from one another.
SNR_AT_10_M_DB = 28.0


@dataclass(frozen=True)
class Bird:
    """One individual: how it differs from the mean of its species."""

    pitch: float  # factor on every frequency
    tempo: float  # factor on every speed: above 1, notes and pauses are shorter
    extra_notes: int  # added to the number of notes or repeats, -1, 0 or 1
    wobble_hz: float  # depth of a slow frequency modulation


@dataclass(frozen=True)
class Species:
    """A fictional species, its song and the band that holds the song's energy."""

    code: str
    common_name: str
    sci_name: str
    song: Callable[[Voice], np.ndarray]  # one phrase [samples]
    fmin_hz: float
    fmax_hz: float

    @property
    def primary_label(self) -> str:
        """The label as in train.csv: `Sci name_Common Name`."""
        return f"{self.sci_name}_{self.common_name}"


@dataclass(frozen=True)
class Place:
    """Where and with what a recording was made. Two recordings of one source share it."""

    name: str
    sample_rate: int
    channels: int
    slope_db_per_octave: float  # colour of the recorder's and the forest's steady noise
    weather: str  # a key of BACKGROUNDS
    weather_db: float  # its RMS against the steady noise's
    rt60_s: float
    wet_db: float  # energy of all echoes against the direct sound


@dataclass(frozen=True)
class Call:
    """One phrase in a recording; `phrase` has shape [samples] and is not yet scaled."""

    start_s: float
    species: Species
    phrase: np.ndarray
    snr_db: float  # in the species' band, over the sounding part of the phrase


def draw_bird(rng: np.random.Generator) -> Bird:
    """Draw an individual: pitch by a few percent, tempo by up to 13 %, one note more or less."""
    return Bird(
        pitch=float(np.clip(rng.normal(1.0, 0.03), 0.93, 1.07)),
        tempo=float(rng.uniform(0.88, 1.13)),
        extra_notes=int(rng.integers(-1, 2)),
        wobble_hz=float(rng.uniform(0.0, 35.0)),
    )


def soft_ends(n: int, sample_rate: int, attack_s: float) -> np.ndarray:
    """An envelope [n] of ones with raised-cosine ends, each at most a third of the whole."""
    edge = max(1, min(round(attack_s * sample_rate), n // 3))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    envelope = np.ones(n)
    envelope[:edge], envelope[n - edge :] = ramp, ramp[::-1]
    return envelope


@dataclass(frozen=True)
class Voice:
    """A bird about to sing: what its notes and pauses are made with."""

    bird: Bird
    rng: np.random.Generator
    sample_rate: int

    def samples(self, duration_s: float) -> int:
        """How many samples `duration_s` at tempo 1 lasts with this bird."""
        return round(duration_s / self.bird.tempo * self.sample_rate)

    def note(
        self, start_hz: float, end_hz: float, duration_s: float, attack_s: float = 0.012, vibrato: tuple = (0.0, 0.0)
    ) -> np.ndarray:
        """One note [n] from `start_hz` to `end_hz`, with a vibrato of (rate, depth) in Hz; no two are quite alike."""
        bird, rng = self.bird, self.rng
        n = self.samples(duration_s * rng.uniform(0.94, 1.06))
        t = np.arange(n) / self.sample_rate
        freq_hz = np.linspace(start_hz, end_hz, n) * bird.pitch * rng.normal(1.0, 0.006)
        rate_hz, depth_hz = vibrato
        freq_hz += depth_hz * np.sin(2 * np.pi * rate_hz * bird.tempo * t + rng.uniform(0, 2 * np.pi))
        freq_hz += bird.wobble_hz * np.sin(2 * np.pi * rng.uniform(2.0, 4.0) * t)
        phase = 2 * np.pi * np.cumsum(freq_hz) / self.sample_rate
        limit = HIGHEST_TONE * self.sample_rate
        whistle = np.sin(phase) * (freq_hz < limit) + 0.07 * np.sin(2 * phase) * (2 * freq_hz < limit)
        return whistle * soft_ends(n, self.sample_rate, attack_s) * 10 ** (rng.normal(0, 1.0) / 20)

    def sequence(self, *parts: np.ndarray | float) -> np.ndarray:
        """Notes (arrays) and pauses (seconds at tempo 1), joined."""
        return np.concatenate([p if isinstance(p, np.ndarray) else np.zeros(self.samples(p)) for p in parts])

    def repeat(self, times: int, make: Callable[[], np.ndarray], pause_s: float) -> np.ndarray:
        """`make()` sung `times` over, with a pause between."""
        return self.sequence(*[part for _ in range(times) for part in (make(), pause_s)][:-1])


def rising_sweeps(voice: Voice) -> np.ndarray:
    """Two to four long sweeps upwards."""
    return voice.repeat(3 + voice.bird.extra_notes, lambda: voice.note(2100, 4700, 0.34), pause_s=0.13)


def falling_sweeps(voice: Voice) -> np.ndarray:
    """The same sweeps downwards: only the direction tells this species from the first."""
    return voice.repeat(3 + voice.bird.extra_notes, lambda: voice.note(4700, 2100, 0.34), pause_s=0.13)


def slow_trill(voice: Voice) -> np.ndarray:
    """Seven flat notes a second."""
    return voice.repeat(9 + voice.bird.extra_notes, lambda: voice.note(3300, 3200, 0.075), pause_s=0.065)


def fast_trill(voice: Voice) -> np.ndarray:
    """Sixteen short falling notes a second."""
    times = 19 + 3 * voice.bird.extra_notes
    return voice.repeat(times, lambda: voice.note(3900, 2900, 0.036, attack_s=0.006), pause_s=0.026)


def buzz(voice: Voice) -> np.ndarray:
    """Broad rasps: a modulation too fast for an ear or a mel image to follow."""
    times = 2 + max(0, voice.bird.extra_notes)
    return voice.repeat(times, lambda: voice.note(3900, 3600, 0.42, vibrato=(95, 900)), pause_s=0.12)


def two_notes(voice: Voice) -> np.ndarray:
    """A high pure note and a lower, longer one."""
    high = voice.note(3750, 3700, 0.40, attack_s=0.04)
    return voice.sequence(high, 0.06, voice.note(3000, 2950, 0.55 + 0.1 * voice.bird.extra_notes, attack_s=0.04))


def harmonic_caws(voice: Voice) -> np.ndarray:
    """Hoarse arched caws: a stack of harmonics of 500 to 640 Hz."""

    def caw() -> np.ndarray:
        n = voice.samples(voice.rng.uniform(0.30, 0.38))
        f0_hz = voice.bird.pitch * (500 + 140 * np.sin(np.pi * np.linspace(0.05, 0.95, n)))
        phase = 2 * np.pi * np.cumsum(f0_hz) / voice.sample_rate
        stack = sum(k**-0.4 * np.sin(k * phase) * (k * f0_hz < HIGHEST_TONE * voice.sample_rate) for k in range(1, 10))
        return stack * soft_ends(n, voice.sample_rate, 0.05)

    return voice.repeat(3 + voice.bird.extra_notes, caw, pause_s=0.20)


def ticks(voice: Voice) -> np.ndarray:
    """Dry broad clicks in an even rhythm, in groups of three."""
    n, pitch = round(0.016 * voice.sample_rate), voice.bird.pitch

    def click() -> np.ndarray:
        burst = band_noise(voice.rng, 8 * n, voice.sample_rate, 2000 * pitch, 6000 * pitch)[:n]
        return burst * np.exp(-np.arange(n) / (0.3 * n))

    return voice.repeat(3 + voice.bird.extra_notes, lambda: voice.repeat(3, click, pause_s=0.10), pause_s=0.32)


def warble(voice: Voice) -> np.ndarray:
    """One long note that swings widely, five times a second."""
    return voice.note(3300, 3300, 1.35 + 0.3 * voice.bird.extra_notes, vibrato=(5, 850))


def rising_series(voice: Voice) -> np.ndarray:
    """A ladder of flat notes, each higher than the last."""
    steps_hz = [2200 + 370 * step for step in range(7 + voice.bird.extra_notes)]
    notes = iter([voice.note(freq_hz, freq_hz, 0.12) for freq_hz in steps_hz])
    return voice.repeat(len(steps_hz), lambda: next(notes), pause_s=0.06)


def bouncing_ball(voice: Voice) -> np.ndarray:
    """The slow trill's notes, but ever faster, as of a ball that comes to rest."""
    parts: list[np.ndarray | float] = []
    pause_s = 0.30
    for _ in range(11 + 2 * voice.bird.extra_notes):
        parts += [voice.note(3300, 3200, 0.045), pause_s]
        pause_s = max(0.03, 0.78 * pause_s)
    return voice.sequence(*parts[:-1])


def vibrato_whistle(voice: Voice) -> np.ndarray:
    """One long, nearly level whistle that trembles."""
    duration_s = 1.35 + 0.3 * voice.bird.extra_notes
    return voice.note(2900, 2850, duration_s, vibrato=(7, 110), attack_s=0.25)


SPECIES: dict[str, Species] = {
    species.code: species
    for species in (
        Species("brovir", "Brooklet Vireo", "Rivulivox undans", warble, 2300, 4300),
        Species("cincro", "Cinder Crow", "Cinericorax raucus", harmonic_caws, 450, 5500),
        Species("clotit", "Clockwork Tit", "Horoparus constans", ticks, 2000, 6200),
        Species("glawar1", "Glasswing Warbler", "Vitreala ascendens", rising_sweeps, 2000, 5000),
        Species("ladtan", "Ladder Tanager", "Scalipiranga gradata", rising_series, 2000, 5000),
        Species("lanthr", "Lantern Thrush", "Lampromerula duplex", two_notes, 2700, 4000),
        Species("marpip", "Marble Pipit", "Globanthus saltans", bouncing_ball, 2900, 3700),
        Species("moswre", "Mosslight Wren", "Bryotroglys tremulus", slow_trill, 2900, 3700),
        Species("silfin", "Silverpin Finch", "Argacantha velox", fast_trill, 2700, 4200),
        Species("thibun", "Thistledown Bunting", "Carduberiza stridens", buzz, 2400, 5200),
        Species("tinspa", "Tinder Sparrow", "Fomispiza cadens", falling_sweeps, 2000, 5000),
        Species("veirob", "Veil Robin", "Velithacus sibilans", vibrato_whistle, 2600, 3200),
    )
}


def sing(species: Species, bird: Bird, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """One phrase, float64 [samples], of RMS 1 over its sounding part (pauses are exact zeros)."""
    phrase = species.song(Voice(bird, rng, sample_rate))
    return phrase / np.sqrt(np.mean(phrase[phrase != 0.0] ** 2))


def unit_rms(x: np.ndarray) -> np.ndarray:
    """`x` scaled to an RMS of 1."""
    return x / max(np.sqrt(np.mean(x**2)), 1e-12)


def shaped_noise(rng: np.random.Generator, n: int, sample_rate: int, gain: Callable) -> np.ndarray:
    """White noise, float32 [n], whose spectrum is multiplied by `gain(freqs_hz)`, scaled to RMS 1."""
    size = fft.next_fast_len(max(n, 2), real=True)
    freqs_hz = np.maximum(fft.rfftfreq(size, 1 / sample_rate), 20.0)
    spectrum = fft.rfft(rng.standard_normal(size, dtype=np.float32)) * gain(freqs_hz).astype(np.float32)
    return unit_rms(fft.irfft(spectrum, size)[:n])


def coloured_noise(rng: np.random.Generator, n: int, sample_rate: int, slope_db_per_octave: float) -> np.ndarray:
    """Noise that falls (or rises) by a slope above 100 Hz: 0 is white, -3 pink, -6 brown."""
    return shaped_noise(rng, n, sample_rate, lambda f: (np.maximum(f, 100.0) / 1000.0) ** (slope_db_per_octave / 6.02))


def band_noise(rng: np.random.Generator, n: int, sample_rate: int, fmin_hz: float, fmax_hz: float) -> np.ndarray:
    """Noise between two frequencies, with soft edges."""
    return shaped_noise(rng, n, sample_rate, lambda f: 1 / np.sqrt((1 + (fmin_hz / f) ** 8) * (1 + (f / fmax_hz) ** 8)))


def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The first len(x) samples of the convolution. (Importing scipy.signal takes longer than all its uses here.)"""
    size = fft.next_fast_len(len(x) + len(kernel), real=True)
    return fft.irfft(fft.rfft(x, size) * fft.rfft(kernel, size), size)[: len(x)]


def swell(rng: np.random.Generator, n: int, sample_rate: int, every_s: float, low: float) -> np.ndarray:
    """A slow random envelope [n] between `low` and 1, with a new level every `every_s`."""
    knots = int(n / sample_rate / every_s) + 3
    times = (np.arange(knots) + rng.uniform(-0.3, 0.3, knots)) * every_s
    return np.interp(np.arange(n) / sample_rate, times, rng.uniform(low, 1.0, knots)).astype(np.float32)


def bursts(rng: np.random.Generator, n: int, sample_rate: int, per_s: float, length_s: float) -> np.ndarray:
    """An envelope [n] of decaying bursts at random times and of random strength."""
    impulses = np.zeros(n, np.float32)
    at = rng.integers(0, n, rng.poisson(per_s * n / sample_rate) + 1)
    impulses[at] = rng.exponential(1.0, len(at))
    decay = np.exp(-np.arange(round(5 * length_s * sample_rate)) / (length_s * sample_rate))
    return convolve(impulses, decay.astype(np.float32))


def wind(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Low rumble in gusts, with a breath of hiss."""
    rumble = coloured_noise(rng, n, sample_rate, rng.uniform(-9, -6)) * swell(rng, n, sample_rate, 1.5, 0.1)
    return rumble + 0.15 * coloured_noise(rng, n, sample_rate, -2) * swell(rng, n, sample_rate, 1.0, 0.0)


def rain(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """A steady hiss and single drops."""
    drops = band_noise(rng, n, sample_rate, 1500, 9000) * bursts(rng, n, sample_rate, rng.uniform(4, 20), 0.004)
    return band_noise(rng, n, sample_rate, 800, 9000) + rng.uniform(0.3, 0.8) * unit_rms(drops)


def stream(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Running water: a broad murmur with bubbling in the low band."""
    murmur = band_noise(rng, n, sample_rate, 300, rng.uniform(2500, 5000))
    bubbles = band_noise(rng, n, sample_rate, 400, 1100) * bursts(rng, n, sample_rate, 12, 0.03)
    return murmur * swell(rng, n, sample_rate, 0.4, 0.6) + 0.6 * unit_rms(bubbles)


def insects(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """A pulsing hum high up, above most songs."""
    centre_hz = rng.uniform(5200, 7200)
    t = np.arange(n) / sample_rate
    pulse = 0.6 + 0.4 * np.sin(2 * np.pi * rng.uniform(18, 45) * t)
    hum = (
        band_noise(rng, n, sample_rate, centre_hz - 250, centre_hz + 250) * pulse * swell(rng, n, sample_rate, 2.0, 0.3)
    )
    return unit_rms(hum) + 0.5 * coloured_noise(rng, n, sample_rate, -3)


def engine(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """A motor far off: harmonics of a low, slowly drifting pitch."""
    phase = 2 * np.pi * np.cumsum(rng.uniform(40, 90) * swell(rng, n, sample_rate, 2.0, 0.9), dtype=float) / sample_rate
    hum = sum(k**-0.7 * np.sin(k * phase + rng.uniform(0, 2 * np.pi)) for k in range(1, 16))
    return unit_rms(hum) * swell(rng, n, sample_rate, 3.0, 0.4) + 0.5 * coloured_noise(rng, n, sample_rate, -4)


def thunder(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Distant rolls in a faint rain."""
    rolls = coloured_noise(rng, n, sample_rate, -9) * bursts(rng, n, sample_rate, 0.3, 1.2)
    return unit_rms(rolls) + 0.25 * band_noise(rng, n, sample_rate, 800, 8000)


def leaves(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """Dry rustling in irregular bursts: the nearest thing to a tick that is none."""
    rustle = band_noise(rng, n, sample_rate, 1800, 8000) * bursts(rng, n, sample_rate, 6, 0.05)
    return unit_rms(rustle) * swell(rng, n, sample_rate, 1.5, 0.1) + 0.4 * coloured_noise(rng, n, sample_rate, -4)


def aeroplane(rng: np.random.Generator, n: int, sample_rate: int) -> np.ndarray:
    """A dull roar that comes and goes, with a whine in it."""
    roar = band_noise(rng, n, sample_rate, 80, rng.uniform(700, 1500)) * swell(rng, n, sample_rate, 8.0, 0.2)
    whine_hz = rng.uniform(900, 1500) * np.linspace(1.05, 0.92, n)
    return roar + 0.05 * np.sin(2 * np.pi * np.cumsum(whine_hz) / sample_rate)


BACKGROUNDS: dict[str, Callable[[np.random.Generator, int, int], np.ndarray]] = {
    kind.__name__: kind for kind in (aeroplane, engine, insects, leaves, rain, stream, thunder, wind)
}


def background(rng: np.random.Generator, n: int, place: Place) -> np.ndarray:
    """What is heard at a place without birds: steady noise and weather, [n], RMS 1."""
    steady = coloured_noise(rng, n, place.sample_rate, place.slope_db_per_octave)
    weather = unit_rms(BACKGROUNDS[place.weather](rng, n, place.sample_rate))
    return unit_rms(steady + 10 ** (place.weather_db / 20) * weather)


def through_air(phrase: np.ndarray, sample_rate: int, snr_db: float) -> np.ndarray:
    """The phrase [n] from the distance that its SNR speaks of: high frequencies are lost. `render` sets the level."""
    distance_m = 10.0 * 10 ** ((SNR_AT_10_M_DB - snr_db) / 20)
    size = fft.next_fast_len(len(phrase), real=True)
    khz_above_1 = np.maximum(fft.rfftfreq(size, 1 / sample_rate) / 1000.0 - 1.0, 0.0)
    gain = 10 ** (-AIR_LOSS_DB_PER_M_PER_KHZ * distance_m * khz_above_1 / 20)
    return fft.irfft(fft.rfft(phrase, size) * gain, size)[: len(phrase)]


def reverberate(x: np.ndarray, rng: np.random.Generator, sample_rate: int, rt60_s: float, wet_db: float) -> np.ndarray:
    """`x` [n] with echoes that fall by 60 dB in `rt60_s`; all together are `wet_db` against the direct sound."""
    n = max(8, round(rt60_s * sample_rate))
    tail = coloured_noise(rng, n, sample_rate, -2) * 10 ** (-3 * np.arange(n) / n)
    tail[: round(0.008 * sample_rate)] = 0.0  # the first echo comes from trees some metres off
    tail *= 10 ** (wet_db / 20) / np.sqrt(np.sum(tail**2) + 1e-12)
    tail[0] = 1.0
    return convolve(x, tail)


def render(rng: np.random.Generator, duration_s: float, place: Place, calls: list[Call], peak: float) -> np.ndarray:
    """A whole recording: float32 [samples, channels] whose largest magnitude is `peak` (1.0 is full scale).

    A call's level is set against the background's mean power in its species' band, before echoes. In stereo the second
    channel hears the birds a little later and fainter, and half of its background is its own.
    """
    n = round(duration_s * place.sample_rate)
    noise = background(rng, n, place)
    below = np.cumsum(np.abs(fft.rfft(noise)) ** 2, dtype=float) * 2 / n**2  # noise power below each frequency
    birds = np.zeros(n)
    for call in calls:
        low, high = (min(int(f * duration_s), n // 2) for f in (call.species.fmin_hz, call.species.fmax_hz))
        noise_rms = np.sqrt(below[high] - below[low])
        heard = through_air(call.phrase, place.sample_rate, call.snr_db)
        heard *= noise_rms * 10 ** (call.snr_db / 20) / np.sqrt(np.mean(heard[call.phrase != 0.0] ** 2))
        start = round(call.start_s * place.sample_rate)
        birds[start : start + len(heard)] += heard[: n - start]
    birds = reverberate(birds, rng, place.sample_rate, place.rt60_s, place.wet_db)
    channels = [birds + noise]
    for _ in range(1, place.channels):
        delay = int(rng.integers(3, 20))  # samples
        later = np.concatenate([np.zeros(delay), birds[:-delay]]) * 10 ** (rng.uniform(-3, 0) / 20)
        channels.append(later + np.sqrt(0.5) * noise + np.sqrt(0.5) * background(rng, n, place))
    audio = np.stack(channels, axis=1)
    return (audio * (peak / np.max(np.abs(audio)))).astype(np.float32)
