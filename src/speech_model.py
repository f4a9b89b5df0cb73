"""The speech model of the listener's --privacy: YAMNet as a LiteRT file that says how probable human speech is in a window.

    python -m src.speech_model -o speech.tflite DAWN.flac VOICES.wav      # compared with the module on these
    python -m src.speech_model -o speech.tflite                           # on recordings of the data set in input/
    python edge/listen.py --model runs/b6/fold0/bundle --privacy speech.tflite

Done once, at the desk, where TensorFlow is; the box needs the file only. YAMNet (Plakal and Ellis 2020, Apache 2.0) is trained
on AudioSet's 521 classes; those of SPEECH_CLASSES are kept. The file is there only after it has said of real audio what the
module says: recordings with voices in them make the better comparison.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from src import backbones, quiet, recording_files
from src.audio import AudioError, AudioFile, file_windows
from src.errors import UserError, run_script
from src.files import check_replaceable, written_whole
from src.litert import Graph
from src.recipe import Recipe

if TYPE_CHECKING:
    import tensorflow as tf

# By their names in yamnet_class_map.csv. Of recordings of birds (124 minutes, 1484 windows of 5 s) each of these but the
# first names fewer than 0.1 % at a probability of 0.3. Left out are voices that birds have too: "Screaming" and "Laughter"
# name 1 % at 0.1. Left out as well is music, singing among it.
SPEECH_CLASSES = (
    *("Speech", "Child speech, kid speaking", "Conversation", "Narration, monologue", "Babbling", "Speech synthesizer"),
    *("Shout", "Yell", "Children shouting", "Whispering", "Chatter", "Hubbub, speech noise, speech babble"),
)
SEARCHED = (Path("input/birdsong-recognition/train_audio"), Path("input/sample/train_audio"))
WINDOW_SECONDS = 5.0
MOST_WINDOWS = 40  # to compare on
MOST_OF_A_FILE = 4
# In log odds, so that a file that always says "nobody" fails on recordings without speech too. As much as 0.012 of probability
# where it is 0.5; found are 1e-4.
TOLERANCE = 0.05
LEAST_PROBABILITY = 1e-6  # below it float32 is not worth comparing


def main() -> int:
    """Load the module, export, compare, keep; then say on standard error what was compared."""
    arguments = _arguments()
    check_replaceable(arguments.output)
    audio = arguments.audio or [folder for folder in SEARCHED if folder.is_dir()][:1]
    if not audio:
        raise UserError(
            "there is no recording to compare the file with the module on: name one, or a folder, after -o SPEECH.tflite"
        )

    backbone = backbones.get("yamnet")
    windows = real_windows(audio, backbone.sample_rate)

    from src import hub_modules  # only now: it imports TensorFlow

    speech = speech_of(hub_modules.load_module(backbone, arguments.weights))
    with written_whole(arguments.output) as temporary:
        temporary.write_bytes(converted(speech))
        expected, difference = compare(temporary, speech, windows)
    print(
        f"{arguments.output}: {arguments.output.stat().st_size / 1e6:.1f} MB; on {len(windows)} windows of real audio it says "
        f"what the module says, within {difference:.1e} (probability of speech {expected.min():.3f} to {expected.max():.3f})",
        file=sys.stderr,
    )
    return 0


def _arguments() -> argparse.Namespace:
    description, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m src.speech_model",
        description=description,
        epilog="examples:\n" + rest.split("\n\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("speech.tflite"), help="file (default: speech.tflite)"
    )
    parser.add_argument("--weights", type=Path, metavar="FOLDER", help="unpacked YAMNet, where it cannot be downloaded")
    parser.add_argument("audio", type=Path, nargs="*", help="recordings or folders to compare file and module on")
    return parser.parse_args()


def real_windows(paths: Sequence[Path], sample_rate: int) -> np.ndarray:
    """Some windows of the recordings, of files named before those of folders: float32 [n, samples].

    Raises UserError if none can be read.
    """
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: is not there; name a recording, or a folder of them, to compare on")
    files, folders = [path for path in paths if path.is_file()], [path for path in paths if path.is_dir()]
    recordings = recording_files.find(files) if files else []
    in_folders = recording_files.find(folders) if folders else []
    recordings += in_folders[:: max(1, len(in_folders) * MOST_OF_A_FILE // MOST_WINDOWS)]
    recipe = Recipe(name="speech", sample_rate=sample_rate, fmax_hz=sample_rate / 2)
    found = [window for recording in recordings for window in _windows(recording.path, recipe)][:MOST_WINDOWS]
    if not found:
        raise UserError(f"{paths[0]}: no recording there can be read; name one that can to compare on")
    return np.stack(found)


def _windows(path: str, recipe: Recipe) -> Iterator[np.ndarray]:
    try:
        with AudioFile(Path(path)) as audio:
            for number, window in enumerate(file_windows(audio, recipe)):
                if number == MOST_OF_A_FILE:
                    return
                yield window.samples[0]
    except AudioError:
        return


def speech_of(module: Any) -> tf.Module:
    """YAMNet's module as what the listener asks: float32 (samples,) at 16 kHz -> (1, 1), the probability of speech.

    That is the greatest of SPEECH_CLASSES in the greatest of YAMNet's frames of 0.96 s.
    """
    import tensorflow as tf

    names = class_names(Path(module.class_map_path().numpy().decode()))
    missing = [name for name in SPEECH_CLASSES if name not in names]
    if missing:
        raise UserError(f"YAMNet's class map has no {missing[0]!r}: this is another model; leave --weights out")
    columns = [names.index(name) for name in SPEECH_CLASSES]

    class Speech(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module  # tracked, so that its weights are saved

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="waveform")])
        def __call__(self, waveform: tf.Tensor) -> tf.Tensor:
            scores, *_ = self.module(waveform)  # (frames, classes)
            return tf.reshape(tf.reduce_max(tf.gather(scores, columns, axis=1)), [1, 1])

    return Speech()


def class_names(class_map: Path) -> list[str]:
    """The classes of YAMNet's outputs in order, from the CSV that the module brings (index, mid, display_name)."""
    with open(class_map, encoding="utf-8", newline="") as file:
        return [row["display_name"] for row in csv.DictReader(file)]


def converted(speech: tf.Module) -> bytes:
    """The module as a LiteRT file in float32, for waveforms of any length."""
    import tensorflow as tf

    logging.getLogger("absl").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, quiet.native_stderr():  # the converter tells its inner life
        # By way of a SavedModel: from_concrete_functions can lose the weights in silence.
        tf.saved_model.save(speech, folder)
        return tf.lite.TFLiteConverter.from_saved_model(folder).convert()


def compare(path: Path, speech: Callable[[np.ndarray], Any], windows: np.ndarray) -> tuple[np.ndarray, float]:
    """The module's probabilities [n], and the file's greatest difference from them. Raises UserError if that is too much."""
    graph = Graph(path, (windows.shape[1],), features=None)
    expected = np.array([float(speech(window)[0, 0]) for window in windows])
    given = np.array([float(graph.run(window)[0, 0]) for window in windows])
    apart = np.abs(_log_odds(given) - _log_odds(expected)).max()
    if not apart <= TOLERANCE:  # NaN fails, too
        worst = int(np.argmax(np.nan_to_num(np.abs(given - expected), nan=np.inf)))
        raise UserError(
            f"the exported file says {given[worst]:.4f} where the module says {expected[worst]:.4f}; it is not kept: "
            "install the versions of requirements.txt and run again"
        )
    return expected, float(np.abs(given - expected).max())


def _log_odds(probability: np.ndarray) -> np.ndarray:
    kept = np.clip(probability, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY)  # leaves NaN as it is
    return np.log(kept / (1 - kept))


if __name__ == "__main__":
    run_script(main)
