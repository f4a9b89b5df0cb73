"""Asks a bundle about a window of silence, on this box: install.sh wants to know whether the libraries work here.

python edge/try_bundle.py runs/b0/fold0        # prints the species there are and the seconds that a window takes
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.errors import run_script


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a bundle, a fold or a run")
    args = parser.parse_args()
    import numpy as np

    from src.bundle import find
    from src.predictor import Predictor

    predictor = Predictor(find([args.bundle]))
    silence = np.zeros((1, predictor.recipe.window_samples), np.float32)
    predictor.probabilities(silence)  # the first answer takes longer
    began = time.perf_counter()
    predictor.probabilities(silence)
    print(f"{predictor.name}: {len(predictor.labels)} species, {time.perf_counter() - began:.3f} s a window")
    return 0


if __name__ == "__main__":
    run_script(main)
