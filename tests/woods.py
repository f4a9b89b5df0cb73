"""A small data set in a folder a species, and what prepare.py is told to make of it, for tests that compare what comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000


def make_woods(folder: Path, recordings: int, seconds: float) -> Path:
    """Recordings of hiss of the species a, b and c: folder/a/r00.flac, folder/b/r01.flac, ..."""
    generator = np.random.default_rng(0)
    for number in range(recordings):
        path = folder / "abc"[number % 3] / f"r{number:02d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, generator.normal(0, 0.05, round(seconds * RATE)), RATE)
    return folder


def prepare_arguments(data: Path, folder: Path, *more: str) -> list[str]:
    """Arguments of prepare.py that write all it writes into `folder`."""
    where = ["--folds", str(folder / "folds.csv"), "--prepared", str(folder / "p")]
    return ["--data", str(data), "--n-folds", "3", *where, *more]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its name, hidden ones too."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
