"""All that is asked of PortAudio, in a process of its own: edge/microphone.py starts it and reads the ring that it fills.

    python edge/portaudio.py '{"device": "usb", "channel": "mean", "rate": null, "wanted_rate": 32000, ...}'

PortAudio sees new devices only where it is initialised anew, and each of its calls hangs for good while a sound server
does: opening, closing, initialising itself. A process that can be killed and started again is the way out of both. It
writes a line of JSON when the stream runs, and one when there is none or it has ended. No NumPy here: see edge/ring.py.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any, Callable

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edge.ring import RingBuffer, shared_ring
from src.errors import UserError

WATCH_SECONDS = 0.1
MOST_CHANNELS = (
    8  # of a device that is one; a sound server offers 32 or 64, and mixes its microphone's into one if asked
)
INVALID_CHANNEL_COUNT, INVALID_SAMPLE_RATE = -9998, -9997
CARD = re.compile(r" *\(hw:\d+,\d+\)")  # the place that ALSA gave a card, which changes from one plug to the next


class NotThereError(Exception):
    """There is no such microphone now: it may come."""


def main() -> None:
    """Open the microphone that the first argument asks for, and fill the ring until its stream ends."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # systemd sends it to us, too; the listener ends us when it is ready
    report = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # for what the libraries print
    ask = json.loads(sys.argv[1])
    try:
        stream, opened = open_stream(ask)
        tell(report, **opened)
        while stream.active:
            time.sleep(WATCH_SECONDS)
        tell(
            report,
            fault=f"microphone {opened['name']!r} has stopped: unplugged, or the sound server ended",
            mendable=True,
        )
    except UserError as error:
        tell(report, fault=str(error), mendable=False)
    except NotThereError as error:
        tell(report, fault=str(error), mendable=True)
    except (
        Exception
    ) as error:  # PortAudioError, or whatever else a driver leads to: the listener says it and tries again
        tell(report, fault=f"microphone {ask['device'] or 'default'!r} cannot be opened: {error}", mendable=True)
    os._exit(0)  # without closing anything: that may hang


def tell(report: Any, **words: object) -> None:
    """A line of JSON to the listener."""
    print(json.dumps(words), file=report, flush=True)


def open_stream(ask: dict[str, Any]) -> tuple[Any, dict[str, object]]:
    """A stream that runs, and what the listener needs to know of it. Raises UserError, NotThereError or PortAudioError."""
    sounddevice = import_sounddevice()
    info = find_device(input_devices(sounddevice), sounddevice.default.device[0], ask["device"])
    rate, channels = agree(sounddevice, info, ask["channel"], ask["rate"], ask["wanted_rate"])
    capacity = round(ask["ring_seconds"] * rate)
    stream = sounddevice.RawInputStream(
        samplerate=rate,
        device=info["index"],
        channels=channels,
        dtype="float32",
        callback=filler(shared_ring(ask["ring"], capacity, channels)),
    )
    stream.start()
    return stream, {"name": info["name"], "rate": rate, "channels": channels, "capacity": capacity}


def filler(ring: RingBuffer) -> Callable[..., None]:
    """The callback: it copies into the ring, and does nothing else."""

    def callback(block: Any, frames: int, times: Any, status: Any) -> None:
        ring.write(block, status.input_overflow)

    return callback


def agree(
    sounddevice: Any, info: dict[str, Any], channel: str | int, rate: int | None, wanted_rate: int
) -> tuple[int, int]:
    """The sample rate in Hz and the number of channels to open a device with.

    rate: what must be had; None for `wanted_rate`, or the device's own where it refuses that

    Raises UserError for what the device does not have.
    """
    name, most, own = info["name"], info["max_input_channels"], round(info["default_samplerate"])
    if channel == "mean":
        counts = [most if most <= MOST_CHANNELS else 1]
    elif channel <= most:
        # Some cards give all of their channels or none; asked for one, a sound server would mix all into it.
        counts = [channel, most] if most <= MOST_CHANNELS else [max(channel, 2)]
    else:
        raise UserError(f"microphone {name!r} has {most} channel(s): --channel {channel} is none of them")
    for hertz in [rate] if rate else [wanted_rate, own]:
        for count in counts:
            try:
                sounddevice.check_input_settings(info["index"], count, "float32", samplerate=hertz)
            except sounddevice.PortAudioError as error:
                if error.args[1:2] not in [(INVALID_CHANNEL_COUNT,), (INVALID_SAMPLE_RATE,)]:
                    raise
            else:
                return hertz, count
    raise UserError(f"microphone {name!r} does not take {rate or wanted_rate} Hz; its own rate is {own} Hz")


def find_device(devices: list[dict[str, Any]], default: int, name: str | None) -> dict[str, Any]:
    """The input device whose name is or holds `name`, upper or lower case, on whatever card it is now; None: the default.

    Raises NotThereError, or UserError where several are meant.
    """
    names = ", ".join(repr(info["name"]) for info in devices)
    if name is None:
        found = [info for info in devices if info["index"] == default]
        if not found:
            raise NotThereError(f"there is no default microphone; choose one with --device: {names}")
        return found[0]

    def matching(alike: Callable[[str], bool]) -> list[dict[str, Any]]:
        return [info for info in devices if alike(info["name"].lower())]

    wanted, anywhere = name.lower(), CARD.sub("", name.lower())
    found = matching(lambda other: other == wanted)
    found = found or matching(lambda other: wanted in other)
    found = found or matching(lambda other: anywhere in CARD.sub("", other))
    if not found:
        raise NotThereError(f"no microphone is called {name!r}; there are {names}")
    if len(found) > 1:
        alike = ", ".join(repr(info["name"]) for info in found)
        raise UserError(f"several microphones are called {name!r}: {alike}; name one in full with --device")
    return found[0]


def input_devices(sounddevice: Any) -> list[dict[str, Any]]:
    """What PortAudio knows of each input device. Raises NotThereError where there is none."""
    devices = [info for info in sounddevice.query_devices() if info["max_input_channels"] > 0]
    if not devices:
        raise NotThereError(
            "no microphone: PortAudio sees no input device; plug one in, or play a recording with --input FILE"
        )
    return devices


def describe_devices() -> str:
    """A line for each input device: its name, channels and own sample rate. Raises UserError where there is none."""
    sounddevice = import_sounddevice()
    default = sounddevice.default.device[0]
    lines = []
    try:
        for info in input_devices(sounddevice):
            mark = "*" if info["index"] == default else " "
            lines.append(
                f"{mark} {info['name']}  {info['max_input_channels']} channels  {info['default_samplerate']:g} Hz"
            )
    except NotThereError as error:
        raise UserError(str(error)) from error
    return "\n".join(lines)


def import_sounddevice() -> Any:
    """sounddevice, which initialises PortAudio. Raises UserError where either is not installed."""
    try:
        import sounddevice
    except ImportError as error:
        raise UserError("a microphone needs sounddevice: pip install -r edge/requirements.txt") from error
    except OSError as error:
        raise UserError(
            "a microphone needs PortAudio, which is not installed: sudo apt-get install libportaudio2"
        ) from error
    return sounddevice


if __name__ == "__main__":
    main()
