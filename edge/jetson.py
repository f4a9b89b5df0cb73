"""A bundle's network on the GPU of a Jetson: TensorFlow 2.7 with TensorRT, asked by listen.py over a pipe.

    python3 edge/jetson.py /model --converted /var/lib/birdcall/tensorrt    # converts at the first start: minutes
    python3 edge/jetson.py /model --plain                                   # without TensorRT: any TensorFlow 2.7 or later

/model is a bundle that train.py --saved-model wrote. listen.py starts this itself: --network "python3 edge/jetson.py ...".
The program is one of its own since NVIDIA's TensorFlow for a Jetson TX2 runs on Python 3.6 only, for which the listener's
libraries are not made; so nothing of the project is imported here, and Python 3.6 is all it needs.

Written for NVIDIA's image l4t-tensorflow:r32.7.1-tf2.7-py3. NOT RUN ON A BOARD: there was none. What was run is --plain, on
TensorFlow 2.7 and 2.21 without a GPU.

On standard output: a line of JSON, {"samples": 160000, "labels": 264}, once it is ready. Then, for each window (float32,
`samples` of them) on standard input, `labels` probabilities (float32). Ends when its standard input does.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path

WORKSPACE_BYTES = 1 << 28  # for TensorRT's trials of layers; a TX2 has 8 GB for all
SIGNATURE = "serving_default"


def main() -> int:
    """Load or convert the network, then answer until the listener has gone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="folder of a bundle with saved_model.pb")
    how = parser.add_mutually_exclusive_group(required=True)
    how.add_argument("--converted", type=Path, metavar="FOLDER", help="where networks converted by TensorRT are kept")
    how.add_argument("--plain", action="store_true", help="TensorFlow as it is, without TensorRT")
    arguments = parser.parse_args()

    # The listener says when to end, by closing the pipe: it wants answers for the windows it still has.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Whatever a library prints must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    samples, labels, digest = describe(arguments.bundle)
    folder = arguments.bundle if arguments.plain else converted(arguments.bundle, arguments.converted, samples, digest)
    network = load(folder)
    if len(ask(network, bytes(samples * 4))) != labels * 4:
        raise SystemExit(f"error: {folder}: does not give one probability for each of {labels} labels")
    answers.write((json.dumps({"samples": samples, "labels": labels}) + "\n").encode())
    answers.flush()
    while True:
        window = sys.stdin.buffer.read(samples * 4)
        if len(window) < samples * 4:
            return 0
        answers.write(ask(network, window))
        answers.flush()


def describe(bundle: Path) -> tuple:
    """Of a bundle: samples of a window, number of labels, SHA-256 of saved_model.pb, which is compared with bundle.json's."""
    saved = bundle / "saved_model.pb"
    try:
        contents = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
        digest = hashlib.sha256(saved.read_bytes()).hexdigest()
        recipe = contents["recipe"]
        samples, labels = round(recipe["sample_rate"] * recipe["window_seconds"]), len(contents["labels"])
        promised = contents["sha256"].get("saved_model.pb")
    except OSError as error:
        raise SystemExit(f"error: {error.filename}: {error.strerror}; train.py --saved-model writes it") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SystemExit(f"error: {bundle}: not a bundle's description ({error!r})") from error
    if digest != promised:
        raise SystemExit(f"error: {saved}: its SHA-256 is not the one in bundle.json; copy the bundle again")
    return samples, labels, digest


def converted(bundle: Path, kept: Path, samples: int, digest: str) -> Path:
    """Folder of the network as TensorRT has it, converted now if it was not; an engine fits this board's GPU only."""
    folder, part = kept / digest[:16], kept / (digest[:16] + ".part")
    if folder.is_dir():
        return folder
    import numpy as np

    tensorflow()
    from tensorflow.python.compiler.tensorrt import trt_convert

    print(f"converting {bundle} by TensorRT: some minutes, once", file=sys.stderr, flush=True)
    # In float32: in float16 the spectrogram's floor becomes 0, and silence not a number.
    parameters = trt_convert.TrtConversionParams(precision_mode="FP32", max_workspace_size_bytes=WORKSPACE_BYTES)
    converter = trt_convert.TrtGraphConverterV2(input_saved_model_dir=str(bundle), conversion_params=parameters)
    converter.convert()
    converter.build(input_fn=lambda: [(np.zeros((1, samples), np.float32),)])
    shutil.rmtree(str(part), ignore_errors=True)  # of a start that was cut off
    converter.save(str(part))
    part.rename(folder)
    return folder


def load(folder: Path):
    """The function of a SavedModel: a tensor [1, samples] -> a dictionary with one tensor [1, labels]."""
    model = tensorflow().saved_model.load(str(folder))
    function = model.signatures[SIGNATURE]
    function.model = model  # which owns TensorRT's engines, and must live as long
    return function


def ask(function, window: bytes) -> bytes:
    """float32 probabilities for the float32 samples of a window, both as bytes."""
    import numpy as np

    (answer,) = function(tensorflow().constant(np.frombuffer(window, np.float32)[None])).values()
    return answer.numpy().astype(np.float32).tobytes()


def tensorflow():
    """TensorFlow, which takes no more of the memory that GPU and CPU share than it needs."""
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    import tensorflow

    return tensorflow


if __name__ == "__main__":
    sys.exit(main())
