"""The command line of listen.py, and what can be told of it without opening anything.

args = parse_arguments(__doc__)
is_file(args.input)                      # a recording or a folder of them, or a microphone or a stream?
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

RECORD = Path(__file__).resolve().parent / "record"


def parse_arguments(text: str) -> argparse.Namespace:
    """The command line, checked as far as it can be without opening anything. text: listen.py's docstring"""
    description, _, commands = text.partition("\n\n")
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
    add("-o", "--output", type=named, default=RECORD, metavar="FOLDER", help="of the record; record beside listen.py")
    add("--hop", type=float, metavar="SECONDS", help="from one window to the next; the model's")
    add("--threshold", type=float, metavar="P", help="least probability of a detection; the model's")
    add("--species", type=Path, metavar="FILE", help="the only species to report, a code a line")
    add("--threads", type=int, default=1, metavar="N", help="of the model; %(default)s")
    add("--network", metavar="COMMAND", help="a program that runs the model's network, as edge/jetson.py does on a GPU")
    add("--duration", type=float, metavar="SECONDS", help="stop after so much audio")

    add = parser.add_argument_group("where the audio comes from").add_argument
    add("--device", metavar="NAME", help="part of the microphone's name; the default input if not given")
    add("--list-devices", action="store_true", help="print the microphones (* is the default) and end")
    add(
        "--sample-rate",
        type=int,
        metavar="HZ",
        help="of the microphone; the model's, or the microphone's own if it refuses",
    )
    add(
        "--channel", type=channel, default="mean", metavar="N", help="mean (of all channels, the default), or 1, 2, ..."
    )
    add("--input", metavar="WHERE", help="a recording, a folder of them, or a stream (rtsp://, http://) instead")
    add("--speed", type=float, metavar="N", help="of recordings: 1 is real time (default), 0 as fast as it goes")
    add(
        "--utc-offset",
        type=float,
        metavar="HOURS",
        help="of recorders whose names tell a local time, as -4 in Puerto Rico",
    )
    add("--schedule", metavar="HOURS", help="day, night, dawn, dusk or 04:30-09:00 (UTC), and commas between; always")
    add("--latitude", type=float, metavar="DEGREES", help="north of the equator; for --schedule by the sun")
    add("--longitude", type=float, metavar="DEGREES", help="east of Greenwich")

    add = parser.add_argument_group("what is kept").add_argument
    add("--clip-seconds", type=float, default=11.0, metavar="S", help="of an event's clip; %(default)g; 0: no clips")
    add("--keep-gb", type=float, default=8.0, metavar="GB", help="all clips take at most this; %(default)g")
    add("--free-gb", type=float, default=1.0, metavar="GB", help="clips leave so much of the disk free; %(default)g")
    add("--privacy", type=Path, metavar="FILE", help="speech model: windows with speech, and beside it, are withheld")
    add(
        "--record",
        type=Path,
        metavar="FILE.wav",
        help="keep all that is heard, float32 at the source's rate; next, FILE-2.wav",
    )

    add = parser.add_argument_group("where events are sent").add_argument
    add("--mqtt", metavar="HOST[:PORT]", help="MQTT broker; mqtts://HOST for TLS")
    add("--mqtt-user", metavar="NAME", help="its password is taken from $BIRDCALL_MQTT_PASSWORD")
    add("--mqtt-topic", default="birdcall", metavar="TOPIC", help="what its topics begin with; %(default)s")
    add("--webhook", metavar="URL", help="each event is posted there as JSON")
    args = parser.parse_args()
    check_arguments(parser, args)
    return args


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End with a sentence and status 2 where arguments make no sense, alone or together; set the speed."""
    if not args.model and not args.list_devices:
        parser.error("--model is needed: a bundle, a fold or a run that train.py wrote")
    if args.input and (args.device or args.sample_rate):
        parser.error("--device and --sample-rate are a microphone's: not with --input")
    for name in ("speed", "utc_offset"):
        if getattr(args, name) is not None and not is_file(args.input):
            parser.error(f"--{name.replace('_', '-')} is for recordings: with --input FILE or FOLDER")
    if args.utc_offset is not None and not -12 <= args.utc_offset <= 14:
        parser.error("--utc-offset is in hours, from -12 to 14")
    if args.input == "":
        parser.error("--input is empty: a variable that is not set?")
    args.speed = 1.0 if args.speed is None else args.speed
    for name in ("sample_rate", "hop", "duration", "threads", "keep_gb"):
        value = getattr(args, name)
        if value is not None and not 0 < value < math.inf:
            parser.error(f"--{name.replace('_', '-')} must be a number above 0, not {value:g}")
    for name in ("speed", "clip_seconds", "free_gb"):
        value = getattr(args, name)
        if not 0 <= value < math.inf:
            parser.error(f"--{name.replace('_', '-')} must be a number, 0 or more, not {value:g}")
    if args.threshold is not None and not 0 <= args.threshold <= 1:
        parser.error(f"--threshold must lie in [0, 1], not {args.threshold:g}")
    if args.mqtt_user and not args.mqtt:
        parser.error("--mqtt-user is for --mqtt")
    if args.record:
        if args.privacy:
            parser.error("--record keeps all that is heard, speech too: not with --privacy")
        if args.record.suffix.lower() != ".wav":
            parser.error(f"--record writes a .wav file, not {args.record.name}")
        if is_file(args.input) and args.record.resolve() == Path(args.input).resolve():
            parser.error("--record would overwrite --input")


def named(text: str) -> Path:
    """What -o takes."""
    if not text:
        raise argparse.ArgumentTypeError("is empty: a variable that is not set?")
    return Path(text)


def channel(text: str) -> str | int:
    """What --channel takes."""
    if text != "mean" and not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be mean, or a number from 1 on, not {text!r}")
    return text if text == "mean" else int(text)


def is_file(where: str | None) -> bool:
    """Is --input a recording or a folder of them? Else it is a stream, or not given."""
    return where is not None and "://" not in where
