"""The bundles that run.sh compares two machines by: `python tests/arm64/bundles.py FOLDER` writes FOLDER/tones and FOLDER/tiny.

tones: has no weights, and hears tones (tests/conftest.py). tiny: a network, never trained, with a SavedModel for jetson.py.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from conftest import make_tone_bundle
from keras_bundle import make_keras_bundle

folder = Path(sys.argv[1])
with tempfile.TemporaryDirectory() as made:
    make_tone_bundle(Path(made))
    shutil.copytree(Path(made) / "fold0/bundle", folder / "tones")
make_keras_bundle(folder / "tiny", window_seconds=5.0)
