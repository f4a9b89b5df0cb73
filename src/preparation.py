"""Recordings to prepared windows, in parallel, never twice, never half.

    prepared = prepare(recordings, recipe, folder, workers=Workers(jobs=2))

A shard is made of a few recordings by one worker, so its bytes do not depend on how many there are or where they run. Run
again, recordings that have not changed (labels, size, time of change) are not decoded again; a run that was killed goes on
after the last finished recording. A remote folder is written through a folder on this disk, a shard at a time.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import pandas as pd
from joblib import delayed
from tqdm import tqdm

from src import storage
from src.augment import Clips
from src.competition import species
from src.errors import UserError
from src.recipe import Recipe
from src.shard_files import Record, ShardWriter, parse_records, read_records
from src.shards import Prepared, labelled, open_prepared, shard_stem
from src.windows import prepare_recording
from src.workers import Workers

if TYPE_CHECKING:
    from src.storage import Place

FORMAT = 5  # of the windows: raise it when the code that makes them changes what it makes
SHAPING_PACKAGES = ("soxr", "soundfile", "audiomentations", "librosa")
RECORDINGS_PER_SHARD = 16


@dataclass(frozen=True)
class _Job:
    """What every worker has to know: all but the recordings of its shard."""

    folder: Place
    recipe: Recipe
    clips: Clips
    storage_options: tuple[str, ...]
    parent: int  # whose children the workers are; 0: nobody's on this machine


def prepare(
    recordings: pd.DataFrame,
    recipe: Recipe,
    folder: Place,
    source: dict | None = None,
    clips: Clips | None = None,
    workers: Workers | None = None,
    storage_options: tuple[str, ...] = (),
) -> Prepared:
    """Make or complete the windows of these recordings (a table of layouts.read) in `folder`.

    source: where the recordings come from, as layouts.DataSource.to_dict gives it, kept with the windows
    clips: what the augmentation "background" mixes in

    Raises UserError if the folder was prepared from elsewhere, if the disk is full (what was finished is kept), or if no
    recording could be used.
    """
    source = source or {}
    _refuse_other_data(folder, source)
    usable = recordings[recordings.fault == ""]
    tasks = _tasks(usable)
    workers = workers or Workers(jobs=1)
    parent = os.getpid() if workers.backend == "loky" and workers.jobs != 1 else 0
    job = _Job(folder, recipe, clips or Clips(), storage_options, parent)
    try:
        if not storage.is_remote(folder):
            (folder / "shards").mkdir(parents=True, exist_ok=True)
        stored = _stored_records(folder)
        waiting = [number for number, task in enumerate(tasks) if not _is_whole(stored.get(number), task)]
        strays = [number for number in stored if number >= len(tasks)]
        if waiting or strays:
            # While shards are replaced, the old index would give windows the labels of others.
            _remove(folder / "prepared.json")
        for number in strays:
            for suffix in (".jsonl", ".bin"):
                _remove(shard_stem(folder, number).with_suffix(suffix))
        # The largest first, so that at the end nobody waits long for the last one.
        waiting.sort(key=lambda number: -sum(recording["size"] for recording in tasks[number]))
        with tqdm(total=len(usable), unit="recording", desc="preparing") as bar:
            bar.update(len(usable) - sum(len(tasks[number]) for number in waiting))
            for made in workers.run(delayed(_make_shard)(job, n, tasks[n]) for n in waiting):
                bar.update(made)
        if waiting:
            stored = _stored_records(folder)
            absent = [number for number in waiting if not _is_whole(stored.get(number), tasks[number])]
            if absent:
                raise UserError(
                    f"{folder}: {len(absent)} of {len(tasks)} shards are not there though they were made; do all workers see "
                    "this folder under this path?"
                )
        _write_index(folder, recordings, stored, len(tasks))
        described = {
            "source": source,
            "recipe": recipe.to_dict(),
            "labels": species(recordings),
            "recordings": len(usable),
            "contents": [_content(stored[number][1]) for number in range(len(tasks))],
        }
        with storage.written(folder / "prepared.json") as temporary:
            temporary.write_text(json.dumps(described, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise UserError(
                f"{error.filename or folder}: the disk is full; what was finished is kept: make room (prepare.py --list shows "
                "what is prepared and how big it is) or give another folder with --prepared, and run the same command again"
            ) from error
        raise
    return open_prepared(folder)


def _refuse_other_data(folder: Place, source: dict) -> None:
    try:
        other = json.loads(storage.read_text(folder / "prepared.json"))["source"].get("data")
    except (OSError, ValueError, KeyError):
        return
    if source.get("data") and other and other != source["data"]:
        raise UserError(
            f"{folder} was prepared from {other}, not from {source['data']}: give one of the data folders another name, "
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


@lru_cache(maxsize=1)  # asked for each shard: looking up a package's version reads files
def _made_by() -> list:
    return [FORMAT, *(f"{package} {version(package)}" for package in SHAPING_PACKAGES)]


def _made_of(recording: dict) -> list:
    columns = ("filename", "ebird_code", "secondary", "events", "remark", "size", "changed")
    return [recording[column] for column in columns]


def _stored_records(folder: Place) -> dict[int, tuple[list, list[Record]]]:
    """What each published shard was made by and holds. Remote: all are fetched at once, not one after the other."""
    if not storage.is_remote(folder):
        paths = sorted((folder / "shards").glob("shard-*.jsonl"))
        return {_number(path.name): read_records(path) for path in paths}
    with storage.reachable(folder):
        prefix = (folder / "shards").path
        paths = [path for path in folder.fs.find(prefix) if path.endswith(".jsonl")]
        texts = folder.fs.cat(paths) if paths else {}
    return {_number(path): parse_records(text.decode("utf-8")) for path, text in sorted(texts.items())}


def _number(path: str) -> int:
    return int(path.rsplit("shard-", 1)[1].split(".")[0])


def _is_whole(stored: tuple[list, list[Record]] | None, task: list[dict]) -> bool:
    if stored is None:
        return False
    made_by, records = stored
    return made_by == _made_by() and [record.made_of for record in records] == [_made_of(entry) for entry in task]


def _content(records: list[Record]) -> str:
    """A checksum of a shard's images: what is cached elsewhere under it is not mistaken for a later version."""
    return f"{crc32(json.dumps([(record.n_bytes, record.crc) for record in records]).encode()):08x}"


def _remove(path: Place) -> None:
    with storage.reachable(path):
        path.unlink(missing_ok=True)


def _stage(folder: Place) -> Path:
    """Where shards grow: in place, or for a remote folder in the user's cache, where a run that was killed finds them again."""
    if not storage.is_remote(folder):
        return folder
    return storage.user_cache() / "staging" / hashlib.sha256(str(folder).encode()).hexdigest()[:16]


def _make_shard(job: _Job, number: int, task: list[dict]) -> int:
    """Make a shard and return the number of its recordings."""
    storage.configure(job.storage_options)
    stem = shard_stem(_stage(job.folder), number)
    stem.parent.mkdir(parents=True, exist_ok=True)
    wanted = [_made_of(recording) for recording in task]
    with ShardWriter(stem, _made_by()) as writer:
        finished = writer.take_up(wanted)
        before = writer.published()
        for recording, made_of in zip(task[finished:], wanted[finished:]):
            if job.parent and os.getppid() != job.parent:
                os._exit(1)  # the run that started this worker was killed: nothing else would stop it
            if (record := before.get(json.dumps(made_of))) is not None:
                writer.copy(record)
            else:
                outcome, rows = prepare_recording(recording, job.recipe, job.clips, writer.write)
                writer.finish(made_of, outcome, rows)
        writer.publish()
        if storage.is_remote(job.folder):
            _upload(stem, shard_stem(job.folder, number))
    return len(task)


def _upload(stem: Path, remote: Place) -> None:
    # What says that the shard is whole comes last, and an older one is taken away before its images are replaced.
    _remove(remote.with_suffix(".jsonl"))
    for suffix in (".bin", ".jsonl"):
        storage.upload(stem.with_suffix(suffix), remote.with_suffix(suffix))
    for suffix in (".jsonl", ".bin"):
        stem.with_suffix(suffix).unlink()


def _write_index(folder: Place, recordings: pd.DataFrame, stored: dict, n_shards: int) -> None:
    """index.parquet, one row a window, and status.csv, one row a recording."""
    rows, outcomes = [], []
    for number in range(n_shards):
        row_in_shard = 0
        for record in stored[number][1]:
            outcomes.append(record.outcome)
            first = len(rows)
            for row in record.rows:
                place = {"window": len(rows), "shard": number, "row": row_in_shard}
                rows.append({**place, **row, "parent": first + row["parent"]})
                row_in_shard += 1
    status = _status(recordings, outcomes)
    with storage.written(folder / "status.csv") as temporary:
        status.to_csv(temporary, index=False)
    if not rows:
        raise UserError(f"{folder}: no recording could be used; {folder / 'status.csv'} says why")
    with storage.written(folder / "index.parquet") as temporary:
        pd.DataFrame(rows).to_parquet(temporary, index=False)


def _status(recordings: pd.DataFrame, outcomes: list[dict]) -> pd.DataFrame:
    """What became of every recording, those that could not be taken up among them."""
    columns = ["filename", "status", "reason", "seconds", "windows", "digest"]
    done = pd.DataFrame(outcomes, columns=columns)
    refused = recordings[recordings.fault != ""]
    missing = refused.fault.str.startswith("missing")
    given_up = pd.DataFrame({"filename": refused.filename, "reason": refused.fault, "digest": ""})
    given_up["status"] = np.where(missing, "failed", "skipped")
    given_up["seconds"], given_up["windows"] = 0.0, 0
    usable = recordings[recordings.fault == ""]
    done = done.merge(usable.assign(labelled=labelled(usable))[["filename", "ebird_code", "labelled"]], on="filename")
    given_up = given_up.assign(ebird_code=refused.ebird_code, labelled="")
    order = ["filename", "ebird_code", "status", "reason", "seconds", "windows", "labelled", "digest"]
    return pd.concat([done, given_up])[order].sort_values("filename", kind="stable")
