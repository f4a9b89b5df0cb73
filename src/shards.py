"""Prepared windows on disk: recordings in, log-mel shards and an index out, in parallel, never half.

    prepared = prepare(recordings, recipe, folder, jobs=2)
    prepared.index        # a table, one row a window: shard, row, filename, ebird_code, secondary, channel, ...
    prepared.status       # a table, one row a recording: ok, skipped or failed, and why

    <folder>/prepared.json                      the recipe and the species
    <folder>/shards/shard-00012.bin             uint8 [windows, mels, frames], see spectrogram.to_bytes
    <folder>/shards/shard-00012.parquet         its rows of the index
    <folder>/shards/shard-00012.json            what it was made of; written last, so it says that the shard is whole
    <folder>/index.parquet, status.csv          all shards together

A shard is made of a few recordings by one worker, so its bytes do not depend on the number of jobs. Run again, shards
whose recordings have not changed (size and time) are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from src.audio import AudioError, AudioFile, Window, file_windows
from src.augment import augment
from src.competition import species
from src.errors import UserError
from src.files import write_json, written_whole
from src.recipe import Recipe
from src.spectrogram import log_mel, to_bytes

FORMAT = 1  # of the windows: raise it when the code that makes them changes what it makes
SHAPING_PACKAGES = ("soxr", "soundfile", "audiomentations", "librosa")
RECORDINGS_PER_SHARD = 16


@dataclass(frozen=True)
class Prepared:
    """A folder of prepared windows, opened.

    index: columns window (number, the rows' order), shard, row, filename, ebird_code, secondary, channel, start_seconds,
        audio_seconds, transform ("" for an original), parameters (JSON), parent (the original's number; its own for one)
    status: columns filename, ebird_code, status, reason, seconds, windows
    """

    folder: Path
    recipe: Recipe
    labels: tuple[str, ...]
    index: pd.DataFrame
    status: pd.DataFrame

    def shard_path(self, shard: int) -> Path:
        """The file of a shard's windows."""
        return _shard_stem(self.folder, shard).with_suffix(".bin")


def prepare(
    recordings: pd.DataFrame, recipe: Recipe, folder: Path, jobs: int = 1, data: Path | None = None
) -> Prepared:
    """Make or complete the shards of these recordings (columns filename, path, ebird_code, secondary) in `folder`.

    data: where the recordings come from; a folder prepared from elsewhere is refused with a UserError, not overwritten
    """
    _refuse_other_data(folder, data)
    tasks = _tasks(recordings)
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    waiting = [number for number, task in enumerate(tasks) if not _is_whole(folder, number, task)]
    strays = _strays(folder, len(tasks))
    if waiting or strays:
        # While shards are replaced, the old index would give windows the labels of others.
        (folder / "prepared.json").unlink(missing_ok=True)
    for path in strays:
        path.unlink()
    with tqdm(total=len(recordings), unit="recording", desc="preparing") as bar:
        bar.update(len(recordings) - sum(len(tasks[number]) for number in waiting))
        work = (delayed(_make_shard)(folder, number, tasks[number], recipe) for number in waiting)
        for made in Parallel(n_jobs=jobs, return_as="generator_unordered")(work):
            bar.update(made)
    _write_index(folder, len(tasks))
    write_json(
        folder / "prepared.json",
        {
            "data": str(data.resolve()) if data else "",
            "recipe": recipe.to_dict(),
            "labels": species(recordings),
            "recordings": len(recordings),
        },
    )
    return open_prepared(folder)


def open_prepared(folder: Path) -> Prepared:
    """Open a prepared folder. Raises UserError if it is not there whole."""
    try:
        described = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))
        prepared = Prepared(
            folder=folder,
            recipe=Recipe.from_dict(described["recipe"]),
            labels=tuple(described["labels"]),
            index=pd.read_parquet(folder / "index.parquet"),
            status=pd.read_csv(folder / "status.csv", keep_default_na=False),
        )
        mels, frames = prepared.recipe.image_shape
        for shard, windows in prepared.index.groupby("shard").size().items():
            if prepared.shard_path(shard).stat().st_size != windows * mels * frames:
                raise ValueError(f"{prepared.shard_path(shard)} is not of the index's size")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{folder}: no whole set of prepared windows there; run prepare.py with the same --recipe ({error})"
        ) from error
    return prepared


def check_labels(prepared: Prepared, recordings: pd.DataFrame) -> None:
    """Raise UserError if a recording's labels are not those its windows were prepared with."""
    columns = ["ebird_code", "secondary"]
    then = prepared.index.drop_duplicates("filename").set_index("filename")[columns]
    now = recordings.set_index("filename")[columns].reindex(then.index).dropna()
    changed = now.index[(now != then.loc[now.index]).any(axis=1)]
    if len(changed):
        raise UserError(
            f"{prepared.folder}: the labels of {len(changed)} recordings, {changed[0]} among them, have changed since it was "
            "prepared; run prepare.py again"
        )


def _refuse_other_data(folder: Path, data: Path | None) -> None:
    try:
        other = json.loads((folder / "prepared.json").read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError):
        return
    if data and other and Path(other) != data.resolve():
        raise UserError(
            f"{folder} was prepared from {other}, not from {data}: give one of the data folders another name, "
            "or remove the prepared one"
        )


def _tasks(recordings: pd.DataFrame) -> list[list[dict]]:
    """The recordings of each shard, by a hash of their names: each shard holds many species, and a recording that is added
    later changes its own shard only (until their number doubles).
    """
    shards = max(1, 2 ** round(np.log2(max(1, len(recordings) / RECORDINGS_PER_SHARD))))
    tasks = [[] for _ in range(shards)]
    for recording in recordings.sort_values("filename").to_dict("records"):
        tasks[crc32(recording["filename"].encode()) % shards].append(recording)
    return tasks


def _shard_stem(folder: Path, number: int) -> Path:
    return folder / "shards" / f"shard-{number:05d}"


def _strays(folder: Path, n_shards: int) -> list[Path]:
    """What an earlier, larger or interrupted run left in the shards' folder."""
    wanted = {f"shard-{number:05d}" for number in range(n_shards)}
    return [path for path in (folder / "shards").iterdir() if path.stem not in wanted]


def _fingerprint(task: list[dict]) -> list:
    """What a shard is made of: the code and libraries, and each recording's name, labels, size and time of change."""
    described = [[FORMAT, *(version(package) for package in SHAPING_PACKAGES)]]
    for recording in task:
        try:
            stat = Path(recording["path"]).stat()
            size, changed = stat.st_size, stat.st_mtime_ns
        except OSError:
            size = changed = -1
        described.append([recording["filename"], recording["ebird_code"], recording["secondary"], size, changed])
    return described


def _is_whole(folder: Path, number: int, task: list[dict]) -> bool:
    try:
        done = json.loads(_shard_stem(folder, number).with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return done["made_of"] == _fingerprint(task)


def _make_shard(folder: Path, number: int, task: list[dict], recipe: Recipe) -> int:
    """Make a shard and return the number of its recordings. Holds one recording's images at a time."""
    stem = _shard_stem(folder, number)
    stem.with_suffix(".json").unlink(missing_ok=True)  # while the shard is being replaced it is not whole
    made_of = _fingerprint(task)
    rows, status = [], []
    with written_whole(stem.with_suffix(".bin")) as temporary, open(temporary, "wb") as file:
        for recording in task:
            outcome, images, recording_rows = _make_windows(recording, recipe)
            for row in recording_rows:
                row["parent"] += len(rows)  # a row number in the shard until the index gives window numbers
            for image in images:
                file.write(image.tobytes())
            rows += recording_rows
            status.append(outcome)
    with written_whole(stem.with_suffix(".parquet")) as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)
    write_json(stem.with_suffix(".json"), {"made_of": made_of, "status": status})
    return len(task)


def _make_windows(recording: dict, recipe: Recipe) -> tuple[dict, list[np.ndarray], list[dict]]:
    """A recording's status, its windows' images and their rows of the index (parent: row number within the recording)."""
    outcome = {key: recording[key] for key in ("filename", "ebird_code")}
    images, rows = [], []
    try:
        with AudioFile(Path(recording["path"])) as audio:
            for window in _kept(file_windows(audio, recipe, recipe.channels), recipe):
                for channel, waveform in enumerate(window.samples):
                    parent = len(images)
                    for transform, parameters, copy in _copies(
                        waveform, recipe, recording["filename"], channel, window
                    ):
                        images.append(to_bytes(log_mel(copy, recipe), recipe))
                        rows.append(
                            {
                                "filename": recording["filename"],
                                "ebird_code": recording["ebird_code"],
                                "secondary": recording["secondary"],
                                "channel": channel,
                                "start_seconds": window.start_seconds,
                                "audio_seconds": window.audio_seconds,
                                "transform": transform,
                                "parameters": json.dumps(parameters),
                                "parent": parent,
                            }
                        )
            seconds, reason = audio.seconds_read, audio.fault
    except AudioError as error:
        return {**outcome, "status": "failed", "reason": str(error), "seconds": 0.0, "windows": 0}, [], []
    outcome.update(status="ok", reason=reason, seconds=round(seconds, 3), windows=len(rows))
    if not any(image.max() > 0 for image in images):
        # Nothing above the floor of the front end in any window: no label is true of it.
        outcome.update(status="skipped", reason="silent throughout", windows=0)
        return outcome, [], []
    return outcome, images, rows


def _kept(windows: Iterator[Window], recipe: Recipe) -> Iterator[Window]:
    for window in windows:
        if window.start_seconds == 0 or window.audio_seconds >= recipe.min_tail_seconds:
            yield window


def _copies(
    waveform: np.ndarray, recipe: Recipe, filename: str, channel: int, window: Window
) -> Iterator[tuple[str, dict, np.ndarray]]:
    """The window itself and its augmented copies: (transform, parameters, float32 [samples])."""
    yield "", {}, waveform
    for entry in recipe.augment:
        for copy in range(recipe.copies):
            name = f"{filename}/{channel}/{window.start_seconds:.3f}/{entry}/{copy}"
            augmented, parameters = augment(waveform, entry, recipe, name)
            yield entry, parameters, augmented


def _write_index(folder: Path, n_shards: int) -> None:
    tables, status, first = [], [], 0
    for number in range(n_shards):
        stem = _shard_stem(folder, number)
        status += json.loads(stem.with_suffix(".json").read_text(encoding="utf-8"))["status"]
        table = pd.read_parquet(stem.with_suffix(".parquet"))
        if len(table) == 0:
            continue
        table.insert(0, "window", np.arange(first, first + len(table)))
        table.insert(1, "shard", number)
        table.insert(2, "row", np.arange(len(table)))
        table["parent"] += first
        tables.append(table)
        first += len(table)
    if not tables:
        raise UserError(f"{folder}: no recording could be used; {folder / 'status.csv'} says why")
    with written_whole(folder / "index.parquet") as temporary:
        pd.concat(tables, ignore_index=True).to_parquet(temporary, index=False)
    with written_whole(folder / "status.csv") as temporary:
        pd.DataFrame(status).sort_values("filename").to_csv(temporary, index=False)
