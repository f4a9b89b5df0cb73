"""A built-in sample: a small synthesised competition in the layout of Cornell Birdcall Identification.

    python -m src.sample -o input/sample                   # about half a minute on two cores
    python -m src.sample -o /tmp/sample --seed 1 --jobs 1  # another one, on one core

Twelve fictional species (src/synthesis.py), eight recordists and six soundscapes (src/sample_plan.py, which says what
the truth means), and clips without birds. The traps of the real data are there: four files are bad on purpose (no mp3
at all, cut short, 0.3 s, 8 kHz), two rows lack a recordist or a date, and one recording is there twice under two names.

Each file's sound is drawn from a generator seeded by the sample's seed and the file's name: the bytes are the same
whatever the number of jobs (on one machine; another's sine may differ in the last bit).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from joblib import Parallel, delayed

from src.errors import UserError, run_script
from src.sample_plan import (
    RECORDING_PAUSE_S,
    SECOND_SPECIES_SNR_DB,
    Recording,
    Soundscape,
    generator,
    plan_recordings,
    plan_soundscapes,
    rows_of,
    usual_snr_db,
)
from src.synthesis import BACKGROUNDS, SPECIES, Call, Place, background, draw_bird, render, sing

# Written into sample.json: raise it whenever the bytes change, so that an older sample is made anew.
VERSION = 3
MARK = "sample.json"
LICENSE = "CC0 (synthesised)"
NOCALL_RATES = (22050, 32000, 44100)
TAKES = ("AB", "AB", "A")  # clips cut from the three sources of each kind of background: five a kind

TRAIN_COLUMNS = (  # noqa: SIM905 (as 35 literals it would take 35 lines)
    "rating playback_used ebird_code channels date pitch duration filename speed species number_of_notes title "
    "secondary_labels bird_seen sci_name location latitude sampling_rate type elevation description bitrate_of_mp3 "
    "file_type volume background xc_id url country author primary_label longitude length time recordist license"
).split()


@dataclass(frozen=True)
class NocallSource:
    """One long sound without birds; its takes, cut from it, share its fold."""

    kind: str
    number: int
    fold: int
    takes: str  # one letter a clip
    take_s: float

    def filename(self, take: str) -> str:
        """As in ESC-10: kind, fold, source, take."""
        return f"{self.kind}_{self.fold}-{self.number}-{take}.ogg"


def train_row(seed: int, recording: Recording) -> dict[str, str]:
    """The recording's row of train.csv, formatted as in the real one."""
    rng = generator(seed, f"row XC{recording.xc_id}")
    species, place = SPECIES[recording.code], recording.place
    labels = [SPECIES[recording.second].primary_label] if recording.second else []
    labels += recording.outsiders
    recordist = "" if recording.lacks == "recordist" else recording.recordist
    facts = {
        "rating": str(rng.choice(["3.0", "3.5", "4.0", "4.5", "5.0"])),
        "playback_used": "no",
        "ebird_code": species.code,
        "channels": "2 (stereo)" if place.channels == 2 else "1 (mono)",
        "date": "" if recording.lacks == "date" else recording.date,
        "duration": str(int(recording.duration_s)),
        "filename": f"XC{recording.xc_id}.mp3",
        "species": species.common_name,
        "title": f"XC{recording.xc_id} {species.common_name} ({species.sci_name})",
        "secondary_labels": str(labels),
        "bird_seen": str(rng.choice(["yes", "no"])),
        "sci_name": species.sci_name,
        "location": "Sample Island (fictional)",
        "latitude": f"{-48.9 + rng.uniform(-0.2, 0.2):.4f}",
        "longitude": f"{-123.4 + rng.uniform(-0.2, 0.2):.4f}",
        "sampling_rate": f"{place.sample_rate} (Hz)",
        "type": str(rng.choice(["song", "call", "call, song"])),
        "description": "Synthesised: not a recording of a bird.",
        "file_type": "mp3",
        "background": str([label.split("_")[0] for label in labels]),
        "xc_id": str(recording.xc_id),
        "country": "Nowhere",
        "author": recordist,
        "primary_label": species.primary_label,
        "time": f"{rng.integers(5, 11):02d}:{rng.integers(0, 60):02d}",
        "recordist": recordist,
        "license": LICENSE,
    }
    empty = {"elevation": "", "bitrate_of_mp3": "", "url": ""}
    return {name: (facts | empty).get(name, "Not specified") for name in TRAIN_COLUMNS}


def write_mp3(path: Path, audio: np.ndarray, sample_rate: int) -> None:
    """Write float32 [samples, channels] as an mp3 of the same length (its header tells the encoder's padding)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio, sample_rate, format="MP3", subtype="MPEG_LAYER_III")


def write_recording(seed: int, recording: Recording, folder: Path) -> None:
    """Sing the species over and over with short pauses, and a second one faintly where there is one."""
    rng, path = generator(seed, recording.sound_name), folder / recording.path
    calls: list[Call] = []
    usual_db = usual_snr_db(seed, recording.place)
    for code, snrs_db in ((recording.code, usual_db), (recording.second, SECOND_SPECIES_SNR_DB)):
        if not code:
            continue
        bird, snr_db = draw_bird(rng), rng.uniform(*snrs_db)
        start_s = float(rng.uniform(0.0, 0.8)) if recording.duration_s > 1 else 0.0
        while start_s < recording.duration_s - 0.2:
            phrase = sing(SPECIES[code], bird, rng, recording.place.sample_rate)
            calls.append(Call(start_s, SPECIES[code], phrase, snr_db + rng.normal(0, 1.5)))
            start_s += len(phrase) / recording.place.sample_rate + float(rng.uniform(*RECORDING_PAUSE_S))
    audio = render(rng, recording.duration_s, recording.place, calls, peak=10 ** (rng.uniform(-18, -2) / 20))
    write_mp3(path, audio, recording.place.sample_rate)
    if recording.fault == "garbage":
        # No byte of 255: mp3 frames begin with one, so a decoder that searches for a frame finds none.
        path.write_bytes(rng.integers(0, 255, 20_000, dtype=np.uint8).tobytes())
    if recording.fault == "truncated":
        # The header goes on promising the whole, as after an upload that broke off.
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5])


def write_soundscape(seed: int, soundscape: Soundscape, folder: Path) -> None:
    """Mix a soundscape and write it."""
    rng = generator(seed, soundscape.audio_id)
    audio = render(rng, soundscape.duration_s, soundscape.place, list(soundscape.calls), peak=0.5)
    write_mp3(folder / "test_audio" / f"{soundscape.audio_id}.mp3", audio, soundscape.place.sample_rate)


def plan_nocall(seed: int = 0, kinds: int = len(BACKGROUNDS)) -> list[NocallSource]:
    """Three sources of each of the first `kinds` backgrounds, dealt out over five folds."""
    rng = generator(seed, "nocall")
    return [
        NocallSource(kind, 9001 + 3 * k + i, (3 * k + i) % 5 + 1, takes, float(rng.integers(10, 21)) / 2)
        for k, kind in enumerate(list(BACKGROUNDS)[:kinds])
        for i, takes in enumerate(TAKES)
    ]


def write_nocall_source(seed: int, source: NocallSource, folder: Path) -> None:
    """Render a source's sound and write its takes as Vorbis."""
    rng = generator(seed, f"nocall source {source.number}")
    sample_rate = int(rng.choice(NOCALL_RATES))
    slope, weather_db = rng.uniform(-7.0, -1.0), rng.uniform(0.0, 12.0)
    place = Place(source.kind, sample_rate, 1, slope, source.kind, weather_db, rt60_s=0.0, wet_db=0.0)
    n = round(source.take_s * sample_rate)
    sound = background(rng, n * len(source.takes), place)
    sound *= 10 ** (rng.uniform(-14, -3) / 20) / np.max(np.abs(sound))
    for i, take in enumerate(source.takes):
        path = folder / "nocall" / source.filename(take)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(
            path, sound[i * n : (i + 1) * n].astype(np.float32), sample_rate, format="OGG", subtype="VORBIS"
        )
        path.write_bytes(with_serial(path.read_bytes(), source.number * 8 + i))


def with_serial(ogg: bytes, serial: int) -> bytes:
    """The Ogg stream with another serial number: libsndfile draws one from the clock, and no two runs would be alike.

    A page is a head of 27 bytes (serial at 14, checksum at 22, number of segments at 26), their lengths, and they.
    """
    data, start = bytearray(ogg), 0
    while start < len(data):
        body = start + 27 + data[start + 26]
        end = body + sum(data[start + 27 : body])
        data[start + 14 : start + 18] = serial.to_bytes(4, "little")
        data[start + 22 : start + 26] = bytes(4)
        data[start + 22 : start + 26] = ogg_checksum(bytes(data[start:end])).to_bytes(4, "little")
        start = end
    return bytes(data)


def ogg_checksum(page: bytes) -> int:
    """Ogg's CRC-32: zlib's polynomial, but with the most significant bit first and no inversion."""
    reversed_bits = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    crc = zlib.crc32(page.translate(reversed_bits), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def write_csv(path: Path, rows: list[dict[str, str]], columns: list[str]) -> None:
    """Write the named columns of `rows`, with \n at line ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_tables(
    seed: int, recordings: list[Recording], soundscapes: list[Soundscape], sources: list[NocallSource], folder: Path
) -> None:
    """Write train.csv, nocall/nocall.csv, test.csv, sample_submission.csv, truth.csv and truth_events.csv."""
    write_csv(folder / "train.csv", [train_row(seed, recording) for recording in recordings], list(TRAIN_COLUMNS))
    clips = [
        {
            "filename": source.filename(take),
            "kind": source.kind,
            "fold": str(source.fold),
            "source_id": f"synth_{source.number}",
            "duration": f"{source.take_s:.1f}",
            "license": LICENSE,
        }
        for source in sources
        for take in source.takes
    ]
    write_csv(folder / "nocall" / "nocall.csv", clips, list(clips[0]))
    rows = [row for soundscape in soundscapes for row in rows_of(soundscape)]
    write_csv(folder / "test.csv", rows, ["site", "row_id", "seconds", "audio_id"])
    write_csv(folder / "truth.csv", rows, ["row_id", "birds"])
    write_csv(folder / "sample_submission.csv", [row | {"birds": "nocall"} for row in rows], ["row_id", "birds"])
    events = [
        {
            "filename": f"{soundscape.audio_id}.mp3",
            "start_seconds": f"{start_s:.3f}",
            "end_seconds": f"{end_s:.3f}",
            "label": code,
        }
        for soundscape in soundscapes
        for code, start_s, end_s in soundscape.events
    ]
    write_csv(folder / "truth_events.csv", events, ["filename", "start_seconds", "end_seconds", "label"])


def make_sample(
    folder: Path,
    seed: int = 0,
    jobs: int = -1,
    recordings_per_species: int = 13,
    soundscape_s: float = 120.0,
    nocall_kinds: int = len(BACKGROUNDS),
) -> bool:
    """Make the sample in `folder`, whole or not at all; False where it is there already.

    The sample is made under a temporary name beside `folder` and renamed when complete. Raises UserError for a folder
    that holds something else. The last three are for tests, which need a smaller one.
    """
    folder = Path(folder)
    mark = {
        "version": VERSION,
        "seed": seed,
        "recordings_per_species": recordings_per_species,
        "soundscape_s": soundscape_s,
        "nocall_kinds": nocall_kinds,
    }
    if is_complete(folder, mark):
        return False
    if folder.exists() and not (folder / MARK).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something that is no sample: name another folder with -o, or move it away")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.part-", dir=folder.parent))
    try:
        made = temporary / "sample"
        made.mkdir()
        recordings = plan_recordings(seed, recordings_per_species)
        soundscapes = plan_soundscapes(seed, soundscape_s)
        sources = plan_nocall(seed, nocall_kinds)
        # The longest first, so that no core is left alone with a soundscape at the end.
        tasks = [delayed(write_soundscape)(seed, soundscape, made) for soundscape in soundscapes]
        tasks += [delayed(write_recording)(seed, recording, made) for recording in recordings]
        tasks += [delayed(write_nocall_source)(seed, source, made) for source in sources]
        Parallel(n_jobs=jobs)(tasks)
        write_tables(seed, recordings, soundscapes, sources, made)
        (made / MARK).write_text(json.dumps(mark | measure(made), indent=1) + "\n")
        if folder.exists():
            os.replace(folder, temporary / "old")
        os.replace(made, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def measure(folder: Path) -> dict[str, int]:
    """Number of files and their bytes, sample.json left out."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != MARK]
    return {"files": len(sizes), "bytes": sum(sizes)}


def is_complete(folder: Path, mark: dict) -> bool:
    """Whether `folder` holds all files of the very sample that `mark` describes."""
    try:
        return json.loads((folder / MARK).read_text()) == mark | measure(folder)
    except (OSError, ValueError):
        return False


def summary(folder: Path) -> str:
    """A few lines on a sample: counts, seconds, bytes and what all-nocall would score."""
    folder = Path(folder)

    def table(name: str) -> list[dict[str, str]]:
        with open(folder / name, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    train, clips, truth = table("train.csv"), table("nocall/nocall.csv"), table("truth.csv")
    sources = {(row["recordist"], row["date"]) for row in train}
    nocall = sum(row["birds"] == "nocall" for row in truth)
    several = sum(" " in row["birds"] for row in truth)
    soundscapes = sorted((folder / "test_audio").glob("*.mp3"))
    soundscape_s = sum(soundfile.info(path).duration for path in soundscapes)
    return (
        f"{len(train)} recordings of {len({row['ebird_code'] for row in train})} species from {len(sources)} sources, "
        f"{sum(int(row['duration']) for row in train)} s\n"
        f"{len(clips)} clips without birds, {sum(float(row['duration']) for row in clips):.0f} s\n"
        f"{len(soundscapes)} soundscapes, {soundscape_s:.0f} s, {len(truth)} rows: {nocall} nocall "
        f"(all-nocall scores {nocall / len(truth):.3f}), {several} with several species\n"
        f"{measure(folder)['bytes'] / 1e6:.1f} MB in {folder}"
    )


def main() -> int:
    """Parse arguments, make the sample and say on standard error what is there."""
    parser = argparse.ArgumentParser(
        prog="python -m src.sample",
        description="Make the built-in sample: a small synthesised competition in the Cornell Birdcall layout.",
        epilog="example: python -m src.sample -o input/sample",
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("input/sample"), help="folder (default: input/sample)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed makes another sample (default: 0)")
    parser.add_argument(
        "--jobs", type=int, default=-1, help="processes; the bytes do not depend on it (default: all cores)"
    )
    arguments = parser.parse_args()
    began_s = time.monotonic()
    made = make_sample(arguments.output, arguments.seed, arguments.jobs)
    print(summary(arguments.output), file=sys.stderr)
    state = f"made in {time.monotonic() - began_s:.1f} s" if made else "was complete already: nothing done"
    print(f"seed {arguments.seed}, version {VERSION}: {state}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    run_script(main)
