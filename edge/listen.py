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

from edge.listen_options import is_file, parse_arguments
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

GB = 1e9
SPEECH_HZ = 300.0  # a high-pass above takes from speech what it is known by
FILE_WAITS_SECONDS = 60.0  # a recording that is played waits for a slow disk, a bird does not


def main() -> int:
    args = parse_arguments(__doc__)
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
    recordings = None
    if is_file(args.input):
        recordings = Recordings(Path(args.input), args.speed, args.channel, args.utc_offset)
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
    return int(bool(recordings and recordings.faults) or bool(journal.lost_rows))


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
    if not path.is_file():
        raise UserError(f"--privacy {path}: no such file; python -m src.speech_model -o {path.name} makes it")
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
    least, most = min(predictor.thresholds), max(predictor.thresholds)
    if args.threshold is not None:
        least = most = args.threshold
    each = f" to {most:.2f}, one for each species" if least < most else ""
    log(f"threshold {least:.2f}{each}; record {args.output}")
    if args.threshold is None and any(bundle.threshold_source == "default" for bundle in bundles):
        log("the threshold is the unfitted default: run evaluate.py on the run, or choose one with --threshold")


class Stop:
    """An event that Ctrl-C, `kill` and a terminal that is closed set, in place of ending the program where it stands; and why."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.why = "all was heard that was asked for"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup has SIGHUP ignored, a script's & SIGINT
                signal.signal(number, self._set)

    def _set(self, number: int, _: object) -> None:
        self.why = f"stopped by {signal.Signals(number).name}"
        self.event.set()


def log(text: str) -> None:
    """A line on standard error, and in the log once there is one."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    run_script(main)
