"""Whether a Jetson's TensorFlow, asked over the pipe, answers as LiteRT does here: `PYTHONPATH=. tensorflow27.py BUNDLE PYTHON`.

PYTHON has TensorFlow 2.7. Asked twice: as it is, and by way of a conversion with a fake TensorRT, which is kept and used again.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np

from edge.network_process import NetworkProcess
from src import bundle
from src.predictor import Predictor

ROOT = Path(__file__).resolve().parent.parent.parent

found = bundle.load(Path(sys.argv[1]))
windows = np.random.default_rng(1).normal(0, 0.1, (8, found.recipe.window_samples)).astype(np.float32)
expected = Predictor([found]).probabilities(windows)
with tempfile.TemporaryDirectory() as kept:
    plain = f"{ROOT}/edge/jetson.py {found.folder} --plain"
    converted = f"{ROOT}/tests/arm64/fake_tensorrt.py {found.folder} --converted {kept}"
    for script in (plain, converted, converted):
        with NetworkProcess(f"{sys.argv[2]} {script}", found) as network:
            answered = Predictor([found], networks=[network]).probabilities(windows)
        worst = float(np.abs(answered - expected).max())
        print(f"TensorFlow 2.7 and LiteRT differ by {worst:.2g} at most, {np.ptp(expected):.3f} apart: {script}")
        if not worst <= 1e-4:
            sys.exit("error: the saved model answers otherwise than LiteRT")
