"""The audio of prepared windows, at the sample rate that a network for audio wants.

    for numbers, waveforms in windows_of(prepared, recordings, 16000):
        numbers, waveforms      # int64 [n], which windows of prepared.index; float32 [n, samples]

Log-mel images cannot be turned back into sound, so the recordings are decoded again, each once, and the augmented copies are
made again from what seeded them: the same shift, pitch, stretch, background and level. Noise is drawn for each sample, so at
another sample rate it is other noise of the same strength.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from src import storage
from src.audio import AudioError, AudioFile, file_windows
from src.augment import Clips, augment, copy_name
from src.errors import UserError
from src.recipe import Recipe

if TYPE_CHECKING:
    import pandas as pd

    from src.shards import Prepared

CHUNK = 64  # windows given at once: 41 MB of 5 s at 32 kHz


def at_rate(recipe: Recipe, sample_rate: int) -> Recipe:
    """The recipe with another sample rate, for what cuts and augments audio. Its mel bands are made to fit and mean nothing."""
    return replace(recipe, sample_rate=sample_rate, fmin_hz=0.0, fmax_hz=min(recipe.fmax_hz, sample_rate / 2))


def windows_of(
    prepared: Prepared, recordings: pd.DataFrame, sample_rate: int, clips: Clips | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the audio of every window of prepared.index, recording by recording, at most CHUNK windows at once.

    recordings: columns filename and path (on this disk or a URL); sample_rate: in Hz; clips: for copies over a background
    yields: numbers of windows, int64 array [n], and float32 array [n, samples], unit scale
    Raises UserError that names a recording which is not there, has changed or cannot be read, or if clips are needed.
    """
    recipe = at_rate(prepared.recipe, sample_rate)
    path_of = dict(zip(recordings.filename, recordings.path))
    if clips is None and prepared.index["background"].ne("").any():
        raise UserError(
            f"{prepared.folder}: holds copies over backgrounds, which have to be mixed again for a network that hears audio; "
            "give the --background folder they were prepared with"
        )
    for filename, rows in prepared.index.groupby("filename", sort=False):
        if filename not in path_of:
            raise UserError(
                f"{filename}: is among the windows of {prepared.folder} but no longer in the data; prepare again"
            )
        numbers: list[int] = []
        waveforms: list[np.ndarray] = []
        try:
            for number, waveform in _of_recording(path_of[filename], rows, prepared.recipe, recipe, clips):
                numbers.append(number)
                waveforms.append(waveform)
                if len(numbers) == CHUNK:
                    yield np.array(numbers), np.stack(waveforms)
                    numbers, waveforms = [], []
        except (AudioError, FileNotFoundError, PermissionError) as error:
            raise UserError(
                f"{path_of[filename]}: its windows are prepared, but its audio cannot be read any more ({error}); bring the "
                "file back, or run prepare.py again"
            ) from error
        if numbers:
            yield np.array(numbers), np.stack(waveforms)


def _of_recording(
    path: str, rows: pd.DataFrame, prepared_recipe: Recipe, recipe: Recipe, clips: Clips | None
) -> Iterator[tuple[int, np.ndarray]]:
    """The windows of one recording: (number in the index, float32 [samples]), in the order in which they are heard."""
    # By the window's place in the file: at another rate its start in samples may round to other seconds.
    hop_seconds = round(prepared_recipe.hop_seconds * prepared_recipe.sample_rate) / prepared_recipe.sample_rate
    # The n-th copy by one transform of one original is the n-th that was drawn for it.
    rows = rows.assign(
        place=(rows.start_seconds / hop_seconds).round().astype(int),
        copy=rows.groupby(["parent", "transform"]).cumcount(),
    )
    wanted = {place: part for place, part in rows.groupby("place")}
    last = max(wanted)
    with storage.local_copy(path) as local, AudioFile(local) as audio:
        for place, window in enumerate(file_windows(audio, recipe, recipe.channels)):
            for row in wanted.pop(place, rows.iloc[:0]).itertuples():
                waveform = window.samples[row.channel]
                if row.transform:
                    name = copy_name(row.filename, row.channel, row.start_seconds, row.transform, row.copy)
                    waveform, _ = augment(waveform, row.transform, recipe, name, clips)
                yield row.window, waveform
            if place == last:
                break
    for place, part in wanted.items():
        # At another rate the last sample of a file may round away, and a window of it alone with it.
        if part.audio_seconds.max() * recipe.sample_rate > 2:
            raise AudioError(f"it is shorter than when it was prepared: no window {place}")
        for number in part.window:
            yield number, np.zeros(recipe.window_samples, np.float32)
