"""Listen to a microphone and name the birds, for an hour at a desk or a month in a forest.

    python edge/listen.py --model runs/b6/fold0/bundle                       # the default microphone, until Ctrl-C
    python edge/listen.py --list-devices
    python edge/listen.py --model runs/b6 -o /data/pond --device usb --hop 2.5      # all folds of a run; a microphone by name
    python edge/listen.py --model runs/b6/fold0 --input dawn.flac --speed 0  # a recording, or a folder, as fast as it goes
    python edge/listen.py --model runs/b6/fold0 --input rtsp://camera/audio  # a stream; http:// too
    python edge/listen.py --model runs/b6/fold0 --schedule dawn,dusk --latitude 18.3 --longitude -65.8
    python edge/listen.py --model runs/b6/fold0 --mqtt 192.168.1.10 --privacy speech.tflite --keep-gb 20
    python edge/listen.py --model runs/b6/fold0 --duration 60 --record heard.wav    # for predict.py to answer again

The record is a folder: journal.sqlite (events, gaps, health; edge/journal.py writes it as CSV, edge/page.py shows it), clips/ and
listener.log. A microphone that is not there, dies or hangs is tried again until it is heard. An event is a line on standard
output once it is over and in the journal; all else goes to standard error and the log.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from src.errors import UserError, run_script

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from edge.folder import RecordFolder
    from edge.journal import Journal
    from edge.keeper import Keeper
    from edge.live import LiveWriter
    from edge.privacy import SpeechDetector
    from edge.publishing import Sink
    from edge.source import Source
    from src.bundle import Bundle
    from src.predictor import Predictor
    from src.recipe import Recipe

RECORD = Path(__file__).resolve().parent / "record"
GB = 1e9
SPEECH_HZ = 300.0  # a high-pass above takes from speech what it is known by
FILE_WAITS_SECONDS = 60.0  # a recording that is played waits for a slow disk, a bird does not


def main() -> int:
    args = parse_arguments()
    stop = Stop()

    # Only now, so that --help answers at once.
    from edge.capture import Capture
    from edge.folder import RecordFolder
    from edge.journal import Journal
    from edge.listener import Listener
    from edge.player import Recordings
    from edge.portaudio import describe_devices
    from edge.publishing import publishing
    from edge.recorder import Recorder
    from edge.schedule import Schedule
    from src.bundle import find
    from src.predictor import Predictor

    if args.list_devices:
        print(describe_devices())
        return 0

    # All that can be wrong with the arguments, before the record is touched.
    schedule = Schedule(args.schedule, args.latitude, args.longitude) if args.schedule else None
    sinks = made_sinks(args)
    recordings = Recordings(Path(args.input), args.speed, args.channel) if is_file(args.input) else None
    bundles = find(args.model)

    with contextlib.ExitStack() as first:
        predictor = Predictor(bundles, args.threads, networks=opened_networks(args.network, bundles, first))
        recipe = predictor.recipe
        hop_seconds = chosen_hop(args.hop, recipe)
        threshold = chosen_thresholds(args.threshold, args.species, predictor)
        speech = opened_speech(args.privacy, predictor)
        folder = RecordFolder(args.output)
        first.enter_context(folder.held())
        first.enter_context(folder.logged())

        if args.clip_seconds:
            make_room(folder.clips, args.free_gb * GB)
        journal = first.enter_context(Journal(folder.journal))
        journal.resume(time.time())
        first.enter_context(publishing(folder.journal, sinks, log))
        first.callback(lambda: journal.suspend(time.time(), stop.why))
        say_what(predictor, bundles, args, hop_seconds)

        try:
            with contextlib.ExitStack() as parts:
                listener: Listener | None = None
                parts.callback(lambda: listener and log(listener.summary()))  # at the very end, the last clips kept
                keeper = opened_keeper(args, folder, journal, recipe, bool(recordings), parts)
                live = opened_live(folder.path, parts)
                recorder = parts.enter_context(Recorder(args.record)) if args.record else None
                open_source = recordings.next if recordings else live_source(args, recipe)
                capture = parts.enter_context(Capture(open_source, journal, log))
                listener = Listener(
                    capture,
                    predictor,
                    threshold,
                    hop_seconds,
                    journal,
                    keeper=keeper,
                    speech=speech,
                    schedule=schedule,
                    live=live,
                    recorder=recorder,
                    say=log,
                )
                listener.run(stop.event, args.duration)
        except Exception as error:
            stop.why = f"ended by a fault: {error}"
            raise
    return int(bool(recordings and recordings.faults))


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
    add("-o", "--output", type=Path, default=RECORD, metavar="FOLDER", help="of the record; record beside listen.py")
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
    add("--schedule", metavar="HOURS", help="day, night, dawn, dusk or 04:30-09:00 (UTC), and commas between; always")
    add("--latitude", type=float, metavar="DEGREES", help="north of the equator; for --schedule by the sun")
    add("--longitude", type=float, metavar="DEGREES", help="east of Greenwich")

    add = parser.add_argument_group("what is kept").add_argument
    add("--clip-seconds", type=float, default=11.0, metavar="S", help="of an event's clip; %(default)g; 0: no clips")
    add("--keep-gb", type=float, default=8.0, metavar="GB", help="all clips take at most this; %(default)g")
    add("--free-gb", type=float, default=1.0, metavar="GB", help="clips leave so much of the disk free; %(default)g")
    add("--privacy", type=Path, metavar="FILE", help="speech model: windows with speech, and beside it, are withheld")
    add("--record", type=Path, metavar="FILE.wav", help="keep all that is heard, as float32 at the source's rate")

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
    if args.speed is not None and not is_file(args.input):
        parser.error("--speed is for recordings: with --input FILE or FOLDER")
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
        if args.record.exists():
            parser.error(f"--record {args.record}: is there already; name a new file")


def channel(text: str) -> str | int:
    """What --channel takes."""
    if text != "mean" and not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"must be mean, or a number from 1 on, not {text!r}")
    return text if text == "mean" else int(text)


def is_file(where: str | None) -> bool:
    """Is --input a recording or a folder of them? Else it is a stream, or not given."""
    return where is not None and "://" not in where


def chosen_hop(hop: float | None, recipe: Recipe) -> float:
    """--hop or the recipe's, in seconds. Raises UserError for one that leaves audio out or is no sample long."""
    hop = recipe.hop_seconds if hop is None else hop
    if not 1 / recipe.sample_rate <= hop <= recipe.window_seconds:
        raise UserError(
            f"--hop {hop:g} must lie between a sample and the model's window of {recipe.window_seconds:g} s"
        )
    return hop


def chosen_thresholds(threshold: float | None, species: Path | None, predictor: Predictor) -> np.ndarray:
    """Least probability of a detection of each label: --threshold or the bundles', infinite for what --species leaves out."""
    import numpy as np

    from src.soundscape import read_species

    thresholds = np.array(predictor.thresholds if threshold is None else [threshold] * len(predictor.labels), float)
    if species:
        allowed = read_species(species, predictor.labels)
        thresholds[~np.isin(predictor.labels, allowed)] = math.inf
    return thresholds


def opened_networks(command: str | None, bundles: list[Bundle], opened: contextlib.ExitStack) -> list:
    """What runs the networks in place of LiteRT: none, or the program of --network."""
    if not command:
        return []
    from edge.network_process import NetworkProcess

    if len(bundles) > 1:
        raise UserError(f"--network runs one network, and --model names {len(bundles)} bundles; name one of them")
    return [opened.enter_context(NetworkProcess(command, bundles[0]))]


def opened_speech(path: Path | None, predictor: Predictor) -> SpeechDetector | None:
    """What hears speech. Raises UserError for no speech model, and where speech cannot be heard in the windows."""
    if path is None:
        return None
    from edge.privacy import SpeechDetector

    recipe = predictor.recipe
    if recipe.highpass_hz > SPEECH_HZ:
        raise UserError(
            f"--privacy: {predictor.name} hears nothing below {recipe.highpass_hz:g} Hz, too little of speech"
        )
    return SpeechDetector(path, recipe.sample_rate)


def make_room(clips: Path, free_bytes: float) -> None:
    """Have clips give way to the journal, which else could not be opened on a full disk: the keeper comes after it."""
    from edge.shelf import free_the_disk

    try:
        deleted = free_the_disk(clips, free_bytes)
    except OSError as error:
        log(f"{clips}: no room can be made there: {error.strerror}")
    else:
        if deleted:
            log(f"{clips}: {deleted} clips were deleted, for {free_bytes:.3g} bytes free on the disk")


def opened_keeper(
    args: argparse.Namespace,
    folder: RecordFolder,
    journal: Journal,
    recipe: Recipe,
    waits: bool,
    opened: contextlib.ExitStack,
) -> Keeper | None:
    """What keeps clips; None: none are wanted. It waits for a slow disk where the source waits for us."""
    if not args.clip_seconds:
        return None
    from edge.keeper import Keeper

    return opened.enter_context(
        Keeper(
            folder.clips,
            journal,
            recipe.window_seconds,
            args.clip_seconds,
            keep_bytes=args.keep_gb * GB,
            free_bytes=args.free_gb * GB,
            wait_seconds=FILE_WAITS_SECONDS if waits else 0.0,
            say=log,
        )
    )


def made_sinks(args: argparse.Namespace) -> list[Sink]:
    """Where events go besides the record. Raises UserError for what is no address."""
    sinks: list[Sink] = []
    if args.mqtt:
        from edge.mqtt import MqttSink

        password = os.environ.get("BIRDCALL_MQTT_PASSWORD")
        sinks.append(MqttSink(args.mqtt, args.mqtt_user, password, args.mqtt_topic))
    if args.webhook:
        from edge.webhook import WebhookSink

        sinks.append(WebhookSink(args.webhook, log))
    return sinks


def live_source(args: argparse.Namespace, recipe: Recipe) -> Callable[[], Source]:
    """What opens the microphone, or the stream, whenever there is none."""
    from edge.microphone import Microphone
    from edge.streams import Stream

    if args.input:
        return lambda: Stream(args.input, args.channel)
    return lambda: Microphone(args.device, args.channel, args.sample_rate, recipe.sample_rate)


def opened_live(folder: Path, opened: contextlib.ExitStack) -> LiveWriter | None:
    """The live spectrogram; None, and a word, where it cannot be: a picture is no reason not to listen."""
    from edge.live import LiveWriter, live_path

    try:
        return opened.enter_context(LiveWriter(live_path(folder)))
    except UserError as error:
        log(f"{error}; listening goes on without it")
        return None


def say_what(predictor: Predictor, bundles: list[Bundle], args: argparse.Namespace, hop_seconds: float) -> None:
    """What is listened for, and where it is kept."""
    recipe = predictor.recipe
    log(f"{predictor.name}: {len(predictor.labels)} species in {recipe.window_seconds:g} s every {hop_seconds:g} s")
    mean = predictor.threshold if args.threshold is None else args.threshold
    each = " (one for each species)" if args.threshold is None and len(set(predictor.thresholds)) > 1 else ""
    log(f"threshold {mean:.2f}{each}; record {args.output}")
    if args.threshold is None and any(bundle.threshold_source == "default" for bundle in bundles):
        log("the threshold is the unfitted default: run evaluate.py on the run, or choose one with --threshold")


class Stop:
    """An event that Ctrl-C and `kill` set, in place of ending the program where it stands; and why the listener ends."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.why = "all was heard that was asked for"
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._set)

    def _set(self, number: int, _: object) -> None:
        self.why = f"stopped by {signal.Signals(number).name}"
        self.event.set()


def log(text: str) -> None:
    """A line on standard error, and in the log once there is one."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_script(main)
