"""A run of two folds that was never trained: recordings of tones, answered by the bundle that hears tones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
from conftest import TONES_HZ, tone

from src.bundle import Bundle
from src.predictor import Predictor

RATE = 32000
SOURCES = 4  # of each species, two in each fold
CODES = tuple(TONES_HZ)


def make_tone_run(folder: Path, tone_bundle: Bundle) -> Path:
    """FOLDER/data and FOLDER/nocall with recordings, and FOLDER/runs/tones as train.py would have left it. Returns the run.

    Each species has a recording of 10 s of each of its sources (its tone for 2.5 s of each window), and four sources of
    noise a fold have 5 s each. The first recording of `high` names `low` as a secondary species.
    """
    generator = np.random.default_rng(0)
    core = Predictor([tone_bundle], calibrated=False)
    tables: dict[int, list[pd.DataFrame]] = {0: [], 1: []}

    def noise(seconds: float) -> np.ndarray:
        return generator.normal(0, 0.002, round(seconds * RATE)).astype(np.float32)

    def add(path: str, samples: np.ndarray, code: str, source: str, fold: int, secondary: str = "") -> None:
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(file, samples, RATE, subtype="FLOAT")
        windows = samples.reshape(-1, core.recipe.window_samples)
        described = pd.DataFrame(
            {
                "filename": path.removeprefix("data/") if path.startswith("data/") else Path(path).name,
                "channel": 0,
                "ebird_code": code,
                "others": "",
                "secondary": secondary,
                "source": source,
                "fold": fold,
                "start_seconds": np.arange(len(windows)) * core.recipe.window_seconds,
                "audio_seconds": core.recipe.window_seconds,
                "call_score": 10.0,
            }
        )
        probabilities = pd.DataFrame(core.probabilities(windows), columns=list(CODES))
        tables[fold].append(pd.concat([described, probabilities], axis=1))

    for code in CODES:
        for number in range(SOURCES):
            call = np.concatenate([tone(1, RATE), tone(2.5, RATE, code, amplitude=0.1), tone(1.5, RATE)])
            secondary = "low" if (code, number) == ("high", 0) else ""
            source = f"someone {number} with {code}"
            add(f"data/{code}/{number}.wav", noise(10) + np.tile(call, 2), code, source, number % 2, secondary)
    for number in range(8):
        add(f"nocall/rain{number}.wav", noise(5), "nocall", f"rain {number}", number % 2)

    run = folder / "runs" / "tones"
    source = {"data": str(folder / "data"), "nocall": str(folder / "nocall")}
    for fold, parts in tables.items():
        kept = run / f"fold{fold}"
        shutil.copytree(tone_bundle.folder, kept / "bundle")
        pd.concat(parts, ignore_index=True).to_parquet(kept / "oof.parquet", index=False)
        described = {"source": source, "parameters": 1234, "training_cpu_seconds": 5.0, "cpu_seconds": 7.0}
        (kept / "run.json").write_text(json.dumps(described))
    return run
