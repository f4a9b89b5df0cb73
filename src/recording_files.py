"""The recordings among the files and folders that a user names. Nothing is passed over in silence.

    recordings = find([Path("forest"), Path("dawn.flac")], ours=[Path("forest/clips")])
    recordings[0].path, recordings[0].shown, recordings[0].name      # "/data/forest/a/1.wav", "forest/a/1.wav", "forest/a/1.wav"
    output_path(Path("tables"), recordings[0].name, ".selections.txt")

What is made of a recording is called by its name with all its folders and its suffix, so that a/same.wav, b/same.wav and
same.flac never meet.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import soundfile

from src.audio import AUDIO_SUFFIXES
from src.status import as_text

LONGEST_NAME = 180  # bytes: file systems take 255, and a suffix and a temporary name are added
# What libsndfile reads of these suffixes; other programs' files have them, too, so they are looked into.
SHARED_SUFFIXES = (".8svx", ".htk", ".iff", ".mat", ".mat4", ".mat5", ".mpc", ".mpc2k", ".sf", ".svx", ".wve", ".xi")


@dataclass(frozen=True)
class Recording:
    """A file to be analysed.

    path: absolute, so that it is right in every process; shown: as it was given or found
    name: of what is made of it, relative to the folder that all that was named lies in: with a folder's own name, or recorders
        on one schedule would write over each other's tables
    fault: "" or why there is nothing to analyse (a folder that cannot be listed, or that holds no audio)
    rows: (row_id, end in seconds or NaN for the whole file) of each row that is asked for; (): windows are
    """

    path: str
    shown: str
    name: str
    fault: str = ""
    rows: tuple[tuple[str, float], ...] = ()


def find(paths: Sequence[Path], ours: Sequence[Path] = ()) -> list[Recording]:
    """The files named and the audio in the folders named, deeper ones too, each once, in the order of their names.

    ours: folders that are not looked into, since we write audio or parts there. Links to folders are followed, each folder
    once. What is passed over is said on stderr.
    """
    root = os.path.commonpath([Path(_absolute(path)).parent for path in paths])
    found: dict[str, Recording] = {}
    for path in paths:
        for file, fault in (
            _walk(path, {os.path.realpath(folder) for folder in ours}) if path.is_dir() else [(path, "")]
        ):
            absolute = _absolute(file)
            recording = Recording(absolute, str(file), os.path.relpath(absolute, root), fault)
            found.setdefault(os.path.realpath(file), recording)
    return list(found.values())


def _absolute(path: Path) -> str:
    """The path without its dots, but with its links: what is made of a recording bears the name that the user sees."""
    return os.path.normpath(path.absolute())


def output_path(folder: Path, name: str, suffix: str) -> Path:
    """Where what is made of the recording called `name` lies: folder/name + suffix.

    A leading underscore is written %5F, since readers of Parquet pass such files over (and a leading % is %25). A name that
    is too long for a file system ends with a checksum.
    """
    parts = []
    for part in Path(name).parts:
        part = f"%{ord(part[0]):02X}{part[1:]}" if part[0] in "_%" else part
        if len(os.fsencode(part)) > LONGEST_NAME:
            digest = hashlib.sha256(os.fsencode(part)).hexdigest()[:12]
            part = f"{os.fsencode(part)[:LONGEST_NAME].decode('utf-8', 'ignore')}~{digest}"
        parts.append(part)
    return folder.joinpath(*parts[:-1], f"{parts[-1]}{suffix}")


def _walk(folder: Path, ours: set[str]) -> Iterator[tuple[Path, str]]:
    """Each audio file of a folder, and each folder that has a fault, with the fault."""
    others, seen, audio, faults = [], set(), 0, []

    def unlisted(error: OSError) -> None:
        faults.append((Path(error.filename), f"cannot be listed: {error.strerror}"))

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=unlisted):
        real = os.path.realpath(parent)
        if real in seen or real in ours:
            if real in seen:
                print(f"{as_text(parent)}: was walked already under another name; passed over", file=sys.stderr)
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for file in (Path(parent, name) for name in sorted(names)):
            suffix = file.suffix.lower()
            # macOS leaves a file ._XC1.mp3 beside XC1.mp3, which is no audio.
            if not file.name.startswith(".") and (suffix in AUDIO_SUFFIXES or _opens(file, suffix)):
                audio += 1
                yield file, ""
            else:
                others.append(suffix or file.name)
    if others:
        kinds = ", ".join(as_text(kind) for kind in sorted(set(others)))
        print(
            f"{as_text(str(folder))}: {len(others)} files are no audio by their names and are passed over ({kinds})",
            file=sys.stderr,
        )
    yield from faults
    if not audio and not faults:
        yield folder, "holds no audio files (.wav, .mp3, .flac, or whatever else libsndfile reads)"


def _opens(file: Path, suffix: str) -> bool:
    """Whether a file whose suffix says little is a recording after all."""
    if suffix not in SHARED_SUFFIXES:
        return False
    try:
        soundfile.info(os.fsencode(file))
    except (soundfile.LibsndfileError, OSError):
        return False
    return True
