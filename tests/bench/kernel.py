"""How long the Kaggle kernel would take over the hidden test set: the built script, measured on files like its own.

    python tests/bench/kernel.py                                # a network as large as EfficientNet B0; 2 minutes on two cores
    python tests/bench/kernel.py --model runs/b6                # yours, all its folds
    python tests/bench/kernel.py --network tiny --files 4 --minutes 10

Synthesises mp3 files, lays them out as on Kaggle, runs what build.py made without a network if that can be (unshare), and
prints what the script says of its speed, and the CPU seconds of its whole process. A network is not trained for this: its
time does not depend on its weights.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

    from src.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def main() -> None:
    """Make everything, run the script, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, action="append", help="bundle, fold or run, instead of an untrained one")
    parser.add_argument("--network", choices=["b0", "tiny"], default="b0", help="an untrained one for 264 species")
    parser.add_argument("--files", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=2.0, help="of each file")
    parser.add_argument("--wheels", type=Path, help="as for build.py")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = arguments.model or [untrained(folder / "run", arguments.network)]
        build(models, folder / "built", arguments.wheels)
        root = folder / "kaggle"
        lay_out(root, folder / "built/dataset", arguments.files, arguments.minutes)
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        apart = ["unshare", "-n"]
        if subprocess.run([*apart, "true"], capture_output=True).returncode:
            apart = []
        subprocess.run(
            [*apart, sys.executable, folder / "built/kernel/kernel.py"],
            env={**os.environ, "BIRDCALL_KAGGLE_ROOT": str(root)},
            cwd=root / "working",
            check=True,
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        print(f"{cpu_seconds:.1f} CPU seconds for the whole process, {os.cpu_count()} cores")


def build(models: list[Path], output: Path, wheels: Path | None) -> None:
    """Run build.py for the Python that runs this."""
    command = [sys.executable, ROOT / "submissions/kernel/build.py", "-o", output]
    for model in models:
        command += ["--model", model]
    command += ["--python-versions", f"{sys.version_info.major}.{sys.version_info.minor}"]
    subprocess.run([*command, *(["--wheels", wheels] if wheels else [])], check=True)


def lay_out(root: Path, dataset: Path, files: int, minutes: float) -> None:
    """Folders as on Kaggle, with noise and whistles at 32 kHz as test audio, and a row for each 5 s of it."""
    import numpy as np
    import soundfile

    rate, seconds = 32000, round(minutes * 60)
    data = root / "input/birdsong-recognition"
    (data / "test_audio").mkdir(parents=True)
    (root / "working").mkdir()
    (root / "input/birdcall-code").symlink_to(dataset.resolve())
    generator = np.random.default_rng(0)
    rows = ["site,row_id,seconds,audio_id"]
    for number in range(files):
        name = f"file{number}"
        with soundfile.SoundFile(data / f"test_audio/{name}.mp3", "w", rate, 1) as audio:
            for second in range(seconds):
                time_s = second + np.arange(rate) / rate
                whistle = (
                    0.1 * np.sin(2 * np.pi * (3000 + 500 * np.sin(2 * np.pi * 3 * time_s)) * time_s) * (second % 7 == 0)
                )
                audio.write((generator.normal(0, 0.01, rate) + whistle).astype(np.float32))
        rows += [f"site_1,site_1_{name}_{end},{end},{name}" for end in range(5, seconds + 1, 5)]
    (data / "test.csv").write_text("\n".join(rows) + "\n")


def untrained(run: Path, network: str) -> Path:
    """A run of one fold with random weights, for 264 species; B0 hears the log-mel of 5 s at 32 kHz as train.py's does."""
    model, recipe, labels = untrained_model(network)
    return write_run(run, network, model, recipe, labels)


def untrained_model(network: str) -> tuple[keras.Model, Recipe, tuple[str, ...]]:
    """The same as a Keras model, float32 (batch, samples) -> (batch, labels), and what it hears and knows."""
    import keras

    from src import backbones, classifier, heads
    from src.recipe import changed, preset

    labels = tuple(f"bird{number}" for number in range(264))
    recipe = changed(preset("default"), backbone="tiny")
    if network == "tiny":
        below = classifier.body(recipe, backbones.get("tiny"))
    else:
        db = keras.Input(recipe.image_shape)
        image = keras.layers.Resizing(224, 224)(classifier.Image(recipe.level_bands)(db))
        image = keras.layers.Concatenate()([image, image, image])
        b0 = keras.applications.EfficientNetB0(include_top=False, weights=None, pooling="avg")
        below = keras.Model(db, b0(image, training=False))
    model = classifier.with_head(below, heads.build(labels, below.output.shape[1], recipe))
    return classifier.with_front_end(model, recipe), recipe, labels


def write_run(run: Path, name: str, model: keras.Model, recipe: Recipe, labels: tuple[str, ...]) -> Path:
    """Export a model as a run of one fold."""
    import tensorflow as tf

    from src import bundle, classifier

    folder = run / "fold0/bundle"
    classifier.export(model, folder)
    bundle.write(folder, name, labels, recipe, {"tensorflow": tf.__version__})
    return run


if __name__ == "__main__":
    main()
