"""The listener on a virtual microphone that plays a real soundscape, held against predict.py on what was heard.

    python tests/bench/microphone.py --model runs/birds/fold0/bundle SOUNDSCAPE.mp3 --seconds 60

Plays the soundscape into a PulseAudio microphone, runs edge/listen.py on it with --record, then predict.py on the
recording, and prints what the listener received, analysed and lost, and whether both found the same. Takes the seconds
that are played and a few more.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import soundfile

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from microphone import VirtualMicrophone  # noqa: E402


def main() -> int:
    """Play, listen, predict, compare; 1 if they differ or anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("soundscape", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threshold", type=float, help="lower than the bundle's, to compare more detections")
    arguments = parser.parse_args()
    threshold = [] if arguments.threshold is None else ["--threshold", str(arguments.threshold)]

    with tempfile.TemporaryDirectory(prefix="birdmic") as name:
        folder = Path(name)
        waveform, rate = soundfile.read(arguments.soundscape, frames=round((arguments.seconds + 10) * 48000))
        soundfile.write(folder / "played.wav", waveform, rate)  # paplay does not decode mp3
        microphone = VirtualMicrophone(folder)
        try:
            microphone.play(folder / "played.wav")
            listen = [sys.executable, ROOT / "edge/listen.py", "--model", arguments.model, "--device", "pulse"]
            listen += ["--duration", str(arguments.seconds), "--record", folder / "heard.wav"]
            listen += ["-o", folder / "record", "--clip-seconds", "0", *threshold]
            status = subprocess.run(listen, env=microphone.env).returncode
        finally:
            microphone.stop()
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        print(
            f"listener, and players: {used.ru_utime + used.ru_stime:.1f} CPU s, at most {used.ru_maxrss / 1024:.0f} MiB"
        )

        predict = [sys.executable, ROOT / "predict.py", "--model", arguments.model, folder / "heard.wav"]
        subprocess.run([*predict, "-o", folder / "detections.csv", *threshold], check=True)
        with contextlib.closing(sqlite3.connect(folder / "record/journal.sqlite")) as journal:
            heard = pd.read_sql("select offset_seconds, species, probability from detections", journal)
        answered = pd.read_csv(folder / "detections.csv")
        # The last window of the recording may be short; a listener answers whole windows only.
        answered = answered[answered.end_s <= arguments.seconds]
        both = heard.merge(
            answered, left_on=["offset_seconds", "species"], right_on=["start_s", "species"], how="outer"
        )
        unmatched = int(both.isna().any(axis=1).sum())
        difference = (both.probability_x - both.probability_y).abs().max()
        print(f"detections: listener {len(heard)}, predict.py {len(answered)}, in one and not the other {unmatched}")
        print(f"greatest difference in probability {difference:.5f} (detections.csv has four digits)")
    return int(status != 0 or unmatched > 0)


if __name__ == "__main__":
    sys.exit(main())
