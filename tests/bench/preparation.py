"""What a prepared window costs, part by part, against the plain loop of a notebook.

    python tests/bench/preparation.py $DATA/birds --recordings 60         # 6 minutes on two cores

Prints CPU seconds a window for decode, resample, high-pass, mel, score, write and each augmentation; the whole without and with
augmentation, as prepare.py does it in one process; and the plain loop in the same run: librosa.load resampled with kaiser_fast,
the same audiomentations transform, librosa.feature.melspectrogram, np.save, a window at a time. Then the wall time of one job
against two. Ratios are what to look at: the machine may be shared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import audiomentations
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src import augment, layouts, preparation, windows
from src.audio import AudioFile, Highpass, Resampler, WindowStream
from src.augment import Clips
from src.calls import NoiseFloor, call_score
from src.recipe import Recipe, preset
from src.shard_files import ShardWriter
from src.spectrogram import log_mel, to_bytes
from src.workers import Workers

TRANSFORMS = ("shift", "pitch", "stretch", "noise")


class Clock:
    """CPU seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.process_time()
        yield
        self.seconds[name] += time.process_time() - started


def parts(recordings: list[dict], recipe: Recipe, folder: Path, clock: Clock) -> int:
    """Each part by itself, on all recordings; returns the number of windows."""
    number = 0
    # audiomentations' other method, for comparison
    others = {
        "pitch": audiomentations.PitchShift(-2, 2, method="signalsmith_stretch", p=1.0),
        "stretch": audiomentations.TimeStretch(0.8, 1.2, method="signalsmith_stretch", p=1.0),
    }
    with ShardWriter(folder / "parts", []) as writer:
        writer.take_up([])
        for recording in recordings:
            with AudioFile(Path(recording["path"])) as audio:
                with clock("decode"):
                    blocks = [block.mean(axis=1, keepdims=True) for block in audio.blocks()]
                rate = audio.sample_rate
            with clock("resample"):
                stream = Resampler(rate, recipe.sample_rate, 1)
                blocks = [*map(stream.push, blocks), stream.push(blocks[0][:0], last=True)]
            with clock("high-pass"):
                highpass = Highpass(1400.0, recipe.sample_rate, 1)
                for block in blocks:
                    highpass.push(block)
            with clock("cut"):
                cutter = WindowStream(recipe.sample_rate, recipe)
                cut = [window for block in blocks for window in cutter.push(block)]
                cut += list(cutter.finish())
                cut = [w for w in cut if w.start_seconds == 0 or w.audio_seconds >= recipe.min_tail_seconds]
            with clock("mel"):
                images = [to_bytes(log_mel(window.samples[0], recipe), recipe) for window in cut]
            with clock("score"):
                floor = NoiseFloor(recipe)
                for image, window in zip(images, cut):
                    floor.add(image, window.audio_seconds)
                median = floor.median()
                for image in images:
                    call_score(image, median, recipe)
            with clock("write"):
                for image in images:
                    writer.write(image)
                writer.finish([recording["filename"]], {}, [])
            for transform in TRANSFORMS:
                with clock(transform):
                    for window in cut:
                        name = f"{recording['filename']}/{window.start_seconds}"
                        augment.augment(window.samples[0], transform, recipe, name)
            for transform, other in others.items():
                with clock(f"{transform}, other"):
                    for window in cut:
                        other(window.samples[0], recipe.sample_rate)
            number += len(cut)
    return number


def whole(recordings: list[dict], recipe: Recipe, folder: Path) -> int:
    """As a worker of prepare.py does it; returns the number of rows."""
    rows = 0
    with ShardWriter(folder / f"whole-{len(recipe.augment)}", []) as writer:
        writer.take_up([])
        for recording in recordings:
            outcome, made = windows.prepare_recording(recording, recipe, Clips(), writer.write)
            writer.finish([recording["filename"]], outcome, made)
            rows += len(made)
    return rows


def plain_loop(recordings: list[dict], recipe: Recipe, folder: Path, transforms: tuple[str, ...]) -> int:
    """What a notebook does; returns the number of files it wrote."""
    import librosa

    warnings.simplefilter("ignore")
    size, number = recipe.window_samples, 0
    for recording in recordings:
        waveform, _ = librosa.load(recording["path"], sr=recipe.sample_rate, res_type="kaiser_fast")
        for start in range(0, len(waveform), size):
            window = librosa.util.fix_length(waveform[start : start + size], size=size)
            copies = [window]
            for transform in transforms:
                copies.append(augment._transform(transform, recipe)(window, recipe.sample_rate))
            for copy in copies:
                mel = librosa.feature.melspectrogram(
                    y=copy, sr=recipe.sample_rate, n_fft=recipe.n_fft, hop_length=recipe.hop_length,
                    n_mels=recipe.n_mels, fmin=recipe.fmin_hz, fmax=recipe.fmax_hz,
                )  # fmt: skip
                np.save(folder / f"{number}.npy", librosa.power_to_db(mel))
                number += 1
    return number


def timed(work: Callable[[], int]) -> tuple[float, int]:
    """(CPU seconds, what the work returned)."""
    started = time.process_time()
    number = work()
    return time.process_time() - started, number


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="as --data of prepare.py")
    parser.add_argument("--recordings", type=int, default=60)
    parser.add_argument("--wall-recordings", type=int, default=240, help="for one job against two")
    arguments = parser.parse_args()

    recipe = preset("default", windows_per_recording=0, quiet_share=0.0)
    augmented = preset("default", windows_per_recording=0, quiet_share=0.0, augment=TRANSFORMS)
    table = layouts.read(layouts.DataSource(arguments.data))
    everything = table[table.fault == ""].sample(frac=1, random_state=0)
    table = everything.head(arguments.recordings)
    recordings = table.to_dict("records")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain_loop(
            recordings[:1], recipe, folder, TRANSFORMS
        )  # imports and compilation are paid before anything is timed
        whole(recordings[:1], augmented, folder)
        clock = Clock()
        n_windows = parts(recordings, recipe, folder, clock)
        print(f"{len(recordings)} recordings, {n_windows} windows of 5 s; CPU ms a window")
        for part, seconds in clock.seconds.items():
            print(f"  {part:10} {1000 * seconds / n_windows:7.2f}")
        made = ("decode", "resample", "cut", "mel", "score", "write")
        parts_plain = sum(clock.seconds[part] for part in made)
        # Copies need their own mel and write, and the recording decoded and resampled again: see src/windows.py.
        again = len(TRANSFORMS) * (clock.seconds["mel"] + clock.seconds["write"])
        parts_augmented = parts_plain + again + sum(clock.seconds[part] for part in TRANSFORMS)

        whole_plain, rows = timed(lambda: whole(recordings, recipe, folder))
        loop_plain, files = timed(lambda: plain_loop(recordings, recipe, folder, ()))
        print(f"without augmentation, {rows} and {files} windows")
        report(parts_plain / n_windows, whole_plain / rows, loop_plain / files)
        whole_augmented, rows = timed(lambda: whole(recordings, augmented, folder))
        loop_augmented, files = timed(lambda: plain_loop(recordings, recipe, folder, TRANSFORMS))
        print(f"with {', '.join(TRANSFORMS)}, {rows} and {files} windows and copies")
        report(parts_augmented / rows, whole_augmented / rows, loop_augmented / files)

        walls = {}
        table = everything.head(arguments.wall_recordings)
        for jobs in (2, 1):
            started = time.perf_counter()
            preparation.prepare(table, augmented, folder / f"jobs{jobs}", workers=Workers(jobs))
            walls[jobs] = time.perf_counter() - started
        print(f"wall: one job {walls[1]:.1f} s, two {walls[2]:.1f} s: {walls[1] / walls[2]:.2f} times")


def report(parts_seconds: float, whole_seconds: float, loop_seconds: float) -> None:
    """Three figures and their ratios."""
    print(
        f"  parts {1000 * parts_seconds:.2f} ms, whole {1000 * whole_seconds:.2f} ms, plain loop {1000 * loop_seconds:.2f} ms"
    )
    print(
        f"  whole to parts {whole_seconds / parts_seconds:.2f}, plain loop to whole {loop_seconds / whole_seconds:.1f}"
    )


if __name__ == "__main__":
    main()
