"""Listen to a microphone and name the birds: a line on the terminal and a row in the journal for each detection.

    python edge/listen.py --model runs/b6/fold0/bundle                       # the default microphone, until Ctrl-C
    python edge/listen.py --list-devices
    python edge/listen.py --model runs/b6 --device usb --hop 2.5             # all folds of a run; a microphone by name
    python edge/listen.py --model runs/b6/fold0 --input dawn.flac --speed 0  # a recording, as fast as it goes
    python edge/listen.py --model runs/b6/fold0 --duration 60 --record heard.wav   # for predict.py to answer again

Detections go to standard output, all else to standard error. `pip install -r edge/requirements.txt` is all it needs.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.errors import UserError, run_script

if TYPE_CHECKING:
    from src.recipe import Recipe

JOURNAL = Path(__file__).resolve().parent / "journal.sqlite"


def main() -> int:
    args = parse_arguments()
    stop = stop_on_signals()

    # Only now, so that --help answers at once.
    from edge.journal import Journal
    from edge.listener import Listener
    from edge.recorder import Recorder
    from edge.sources import FilePlayer, Microphone, describe_devices
    from src.bundle import find
    from src.predictor import Predictor

    if args.list_devices:
        print(describe_devices())
        return 0

    bundles = find(args.model)
    predictor = Predictor(bundles, args.threads)
    recipe = predictor.recipe
    hop_seconds = chosen_hop(args.hop, recipe)
    threshold = predictor.thresholds if args.threshold is None else args.threshold

    if args.input:
        source = FilePlayer(args.input, 1.0 if args.speed is None else args.speed)
    else:
        source = Microphone(args.device, args.channels or 1, args.sample_rate, recipe.sample_rate)

    with contextlib.ExitStack() as open_things:
        journal = open_things.enter_context(Journal(args.journal))
        recorder = Recorder(args.record, source.sample_rate, source.channels) if args.record else None
        if recorder:
            open_things.enter_context(recorder)
        open_things.enter_context(source)
        log(f"{source.name}: {source.sample_rate} Hz, {source.channels} channel(s)")
        log(f"{predictor.name}: {len(predictor.labels)} species in {recipe.window_seconds:g} s every {hop_seconds:g} s")
        mean = predictor.threshold if args.threshold is None else args.threshold
        each = " (one for each species)" if args.threshold is None and len(set(predictor.thresholds)) > 1 else ""
        log(f"threshold {mean:.2f}{each}; journal {args.journal}")
        if args.threshold is None and any(bundle.threshold_source == "default" for bundle in bundles):
            log("the threshold is the unfitted default: run evaluate.py on the run, or choose one with --threshold")
        listener = Listener(source, predictor, threshold, hop_seconds, journal, recorder)
        try:
            listener.run(stop, args.duration)
        finally:
            log(listener.summary())
        if args.input and source.fault:
            log(f"{args.input}: {source.fault}")
            return 1
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line, checked as far as it can be without opening anything."""
    description, _, commands = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog="examples:\n" + commands, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--model",
        type=Path,
        action="append",
        metavar="PATH",
        help="bundle, fold or run (all its folds); repeat it for an ensemble",
    )
    add("--device", metavar="NAME", help="part of the microphone's name; the default input if not given")
    add("--list-devices", action="store_true", help="print the microphones (* is the default) and end")
    add(
        "--sample-rate",
        type=int,
        metavar="HZ",
        help="of the microphone; the model's, or the microphone's own if it refuses",
    )
    add("--channels", type=int, metavar="N", help="of the microphone, analysed as their mean; 1")
    add("--hop", type=float, metavar="SECONDS", help="from one window to the next; the model's")
    add("--threshold", type=float, metavar="P", help="least probability of a detection; the model's")
    add("--journal", type=Path, default=JOURNAL, metavar="PATH", help="SQLite file; journal.sqlite beside listen.py")
    add("--input", type=Path, metavar="FILE", help="play a recording instead of listening to a microphone")
    add("--speed", type=float, metavar="N", help="of --input: 1 is real time (default), 0 as fast as it goes")
    add("--record", type=Path, metavar="FILE.wav", help="keep what is heard, as float32 at the microphone's rate")
    add("--duration", type=float, metavar="SECONDS", help="stop after so much audio")
    add("--threads", type=int, default=1, metavar="N", help="of the model; %(default)s")
    args = parser.parse_args()

    if not args.model and not args.list_devices:
        parser.error("--model is needed: a bundle, a fold or a run that train.py wrote")
    if args.input and (args.device or args.sample_rate or args.channels):
        parser.error("--device, --sample-rate and --channels are a microphone's: not with --input")
    if args.speed is not None and not args.input:
        parser.error("--speed is for --input")
    for name in ("sample_rate", "channels", "hop", "duration", "threads"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            parser.error(f"--{name.replace('_', '-')} must be a number above 0, not {value:g}")
    if args.speed is not None and not args.speed >= 0:
        parser.error(f"--speed must be 0 or more, not {args.speed:g}")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f"--threshold must lie in [0, 1], not {args.threshold:g}")
    if args.record and args.record.suffix.lower() != ".wav":
        parser.error(f"--record writes a .wav file, not {args.record.name}")
    if args.record and args.input and args.record.resolve() == args.input.resolve():
        parser.error("--record would overwrite --input")
    if args.record and args.record.exists():
        parser.error(f"--record {args.record}: is there already; name a new file")
    return args


def chosen_hop(hop: float | None, recipe: Recipe) -> float:
    """--hop or the recipe's, in seconds. Raises UserError for one that leaves audio out or is no sample long."""
    hop = recipe.hop_seconds if hop is None else hop
    if not 1 / recipe.sample_rate <= hop <= recipe.window_seconds:
        raise UserError(
            f"--hop {hop:g} must lie between a sample and the model's window of {recipe.window_seconds:g} s"
        )
    return hop


def stop_on_signals() -> threading.Event:
    """An event that Ctrl-C and `kill` set, in place of ending the program where it stands."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    return stop


def log(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_script(main)
