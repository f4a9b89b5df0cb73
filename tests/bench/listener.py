"""The listener's figures, each by a command: how soon it answers, what it takes of the machine, whether it hears everything.

    python tests/bench/listener.py latency                    # end of a window to its event, on one core; 5 minutes
    python tests/bench/listener.py memory                     # resident memory over a day at 60 times its speed; 25 minutes
    python tests/bench/listener.py cpu                        # share of a core in real time; 5 minutes
    python tests/bench/listener.py hour --seconds 3600        # samples lost and windows dropped in a real-time hour
    python tests/bench/listener.py ring                       # the ring buffer against a deque of samples; seconds
    python tests/bench/listener.py cpu --model runs/b6 -- --privacy speech.tflite     # the rest is for listen.py

Without --model the bundle is as large as EfficientNet B0 and untrained, for 264 species: what it costs does not depend on its
weights. So that there are events, each of 128 species is also found where its mel band is loud, which whistles are. Each
command prints its figure beside the limit that the project has set itself and ends with 1 where that is missed; the figures
are those of the journal's own health rows, without the first minute's. Other work on the machine spoils them: the load is
printed, too, and how long the disk takes to keep a page (fsync), which each event waits for; --scratch /dev/shm leaves that out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/bench")]

from microphone import VirtualMicrophone  # noqa: E402
from untrained import untrained_model, write_run  # noqa: E402

from edge.ring import RingBuffer  # noqa: E402
from edge.tables import read_only, utc_seconds  # noqa: E402

RATE = 32000
HOP_SECONDS = 2.5
LATENCY_SECONDS, MEMORY_BYTES, GROWTH_BYTES, CPU_SHARE = 0.150, 200 * 2**20, 5 * 2**20, 0.08
SETTLED_ROWS = 5  # memory is held against what it is when so many minutes are over
WHISTLES_PER_SECOND = 0.03  # 2,600 a day
LOUD_DB = 20.0  # of a mel band, with a whistle in it, which has up to 25; those of the noise are below 0
MIB = 2**20


def main() -> int:
    """Make what is needed, listen, print the figure; 1 if it misses its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands: dict[str, Callable[[argparse.Namespace, Path], bool]]
    commands = {"latency": latency, "memory": memory, "cpu": cpu, "hour": hour, "ring": ring}
    parser.add_argument("figure", choices=commands)
    parser.add_argument("--model", type=Path, help="bundle, fold or run instead of an untrained one")
    parser.add_argument("--seconds", type=float, help="of the microphone: 300; of hour: 3600")
    parser.add_argument("--hours", type=int, default=24, help="of the day that is played")
    parser.add_argument("--speed", type=float, default=60.0, help="at which it is")
    parser.add_argument("--scratch", type=Path, help="where the record and all else lies meanwhile; a temporary folder")
    ours = sys.argv[1 : sys.argv.index("--")] if "--" in sys.argv else sys.argv[1:]
    arguments = parser.parse_args(ours)
    arguments.listen = sys.argv[len(ours) + 2 :]  # after --: more arguments of listen.py
    # Short: a Unix socket lies in it.
    with tempfile.TemporaryDirectory(prefix="bench", dir=arguments.scratch) as scratch:
        good = commands[arguments.figure](arguments, Path(scratch))
        print(fsync_told(Path(scratch)))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return int(not good)


# The figures.


def latency(arguments: argparse.Namespace, folder: Path) -> bool:
    """End of a window to its event in the journal: the worst 95 % of any minute, all of the listener on one core."""
    core = max(os.sched_getaffinity(0))
    rows, _ = heard_live(arguments, folder, arguments.seconds or 300, core)
    found = [row["latency_p95_s"] for row in rows if row["latency_p95_s"] is not None]
    print(f"windows answered {total(rows, 'analysed')}, dropped {total(rows, 'dropped')}, in {len(rows)} minutes")
    usual = statistics.median(row["latency_p50_s"] for row in rows if row["latency_p50_s"] is not None)
    print(f"end of window to event: median {usual:.3f} s")
    return told("end of window to event, p95 of the worst minute", max(found), LATENCY_SECONDS, "{:.3f} s")


def cpu(arguments: argparse.Namespace, folder: Path) -> bool:
    """Share of one core at a hop of 2.5 s, helpers of the listener with it."""
    rows, _ = heard_live(arguments, folder, arguments.seconds or 300)
    print(f"windows answered {total(rows, 'analysed')} in {len(rows)} minutes")
    return told("share of a core", statistics.mean(row["cpu_share"] for row in rows), CPU_SHARE, "{:.1%}")


def memory(arguments: argparse.Namespace, folder: Path) -> bool:
    """Resident memory over a day of recordings; the greatest, and how far it rises above that of the fifth minute."""
    model = arguments.model or lively_b0(folder / "run")
    recording = write_forest(folder / "day/00.flac", 3600)
    for number in range(1, arguments.hours):
        os.link(recording, folder / f"day/{number:02d}.flac")
    options = ["--input", folder / "day", "--speed", arguments.speed, "--keep-gb", 1, *options_of(arguments, model)]
    with listening(folder, options, dict(os.environ)) as process:
        status = process.wait()
    rows = health_rows(folder)
    resident = [row["resident_bytes"] for row in rows]
    if status or len(resident) <= SETTLED_ROWS:
        print(
            f"listen.py ended with {status} after {len(resident)} minutes, of which more than {SETTLED_ROWS} are needed"
        )
        return False
    print(
        f"{arguments.hours} h of audio in {len(rows)} minutes, {total(rows, 'analysed')} windows, {events(folder)} events"
    )
    print("memory minute by minute, MiB: " + " ".join(f"{each / MIB:.0f}" for each in resident))
    # Of ten minutes each: at this speed up to 16 clips, of 0.7 MB, wait to be written at the moment of a row.
    later = resident[SETTLED_ROWS - 1 :]
    medians = [statistics.median(later[start : start + 10]) / MIB for start in range(0, max(1, len(later) - 9), 10)]
    print(f"from minute {SETTLED_ROWS} on between {min(later) / MIB:.1f} and {max(later) / MIB:.1f} MiB")
    small = told("resident memory at most", max(resident) / MIB, MEMORY_BYTES / MIB, "{:.1f} MiB")
    rise = max(medians) - medians[0]
    return (
        told(f"its rise after minute {SETTLED_ROWS}, medians of ten", rise, GROWTH_BYTES / MIB, "{:.1f} MiB") and small
    )


def hour(arguments: argparse.Namespace, folder: Path) -> bool:
    """Samples that were lost, windows that were dropped, and gaps, on the virtual microphone."""
    rows, all_rows = heard_live(arguments, folder, arguments.seconds or 3600)
    with contextlib.closing(read_only(folder / "record/journal.sqlite")) as journal:
        for gap in journal.execute("select utc_start, utc_end, cause, detail from gaps"):
            print("gap: " + ", ".join(str(value) for value in gap))
    print(f"samples received {total(all_rows, 'received')}, events {events(folder)}")
    # The virtual sound card goes by the system's clock, so what nobody counts as lost would be missing here.
    passed = utc_seconds(rows[-1]["utc"]) - utc_seconds(rows[0]["utc_start"])
    complete = told("seconds that passed unheard", passed - total(rows, "received") / RATE, 0.5, "{:.3f} s")
    lost = sum(total(all_rows, name) for name in ("lost", "overflows"))
    return all(
        [
            told("samples lost, and overflows", lost, 0, "{}"),
            told("windows dropped", total(all_rows, "dropped"), 0, "{}"),
            complete,
        ]
    )


def ring(arguments: argparse.Namespace, folder: Path) -> bool:
    """CPU time of an hour in blocks of 1024 frames, read as windows of 5 s every 2.5 s: our ring and a deque of samples."""
    blocks = [block[:, None] for block in np.random.default_rng(0).normal(0, 0.1, (64, 1024)).astype(np.float32)]
    seconds, window, hop = 3600, 5 * RATE, round(HOP_SECONDS * RATE)

    def with_ring() -> None:
        buffer = RingBuffer(30 * RATE, 1)
        held = np.zeros((window, 1), np.float32)
        for number in range(seconds * RATE // 1024):
            buffer.write(blocks[number % 64])
            if buffer.waiting >= hop:
                _, frames = buffer.read()
                held = np.concatenate([held, frames])[-window:]

    def with_deque() -> None:
        samples: deque[float] = deque(maxlen=window)
        unread = 0
        for number in range(seconds * RATE // 1024):
            samples.extend(blocks[number % 64][:, 0])
            unread += 1024
            if unread >= hop:
                np.array(samples, np.float32)
                unread = 0

    cost = {}
    for name, run in (("ring buffer", with_ring), ("deque", with_deque)):
        began = time.process_time()
        run()
        cost[name] = time.process_time() - began
        print(f"{name}: {cost[name]:.2f} CPU s for an hour of audio")
    return told("CPU of the ring buffer, in that of the deque", cost["ring buffer"] / cost["deque"], 1.0, "{:.4f}")


# What they are made with.


def heard_live(
    arguments: argparse.Namespace, folder: Path, seconds: float, core: int | None = None
) -> tuple[list[sqlite3.Row], list[sqlite3.Row]]:
    """Listen to the virtual microphone for so long: the health rows without the first minute's, and all of them.

    core: the only one that the listener may use
    """
    model = arguments.model or lively_b0(folder / "run")
    forest = write_forest(folder / "forest.wav", 600)
    options = ["--device", VirtualMicrophone.device, "--duration", seconds, *options_of(arguments, model)]
    (folder / "microphone").mkdir()
    microphone = VirtualMicrophone(folder / "microphone")
    ended = threading.Event()
    playing = threading.Thread(target=play_on, args=(microphone, forest, ended), daemon=True)
    try:
        playing.start()
        with listening(folder, options, microphone.env, core) as process:
            status = process.wait()
    finally:
        ended.set()
        microphone.stop()
    rows = health_rows(folder)
    if status or len(rows) < 2:
        sys.exit(f"listen.py ended with {status} after {len(rows)} health rows: nothing to measure")
    return rows[1:], rows


def play_on(microphone: VirtualMicrophone, recording: Path, ended: threading.Event) -> None:
    """Play a recording again and again."""
    while not ended.is_set():
        microphone.play(recording).wait()


@contextlib.contextmanager
def listening(
    folder: Path, options: list[object], environment: dict[str, str], core: int | None = None
) -> Iterator[subprocess.Popen]:
    """listen.py with its record in the folder; its words go to a file there, and are shown if it fails."""
    command = [sys.executable, ROOT / "edge/listen.py", "-o", folder / "record", *options]
    if core is not None:
        command = ["taskset", "-c", core, *command]
    with open(folder / "said", "w") as said:
        process = subprocess.Popen(list(map(str, command)), env=environment, stdout=said, stderr=said)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait()
        if process.returncode:
            print((folder / "said").read_text()[-2000:], file=sys.stderr)


def options_of(arguments: argparse.Namespace, model: Path) -> list[object]:
    """What listen.py is told in every case; a threshold only for a model that nobody fitted one for."""
    options = ["--model", model, "--hop", HOP_SECONDS, *arguments.listen]
    return options if arguments.model else [*options, "--threshold", 0.5]


def lively_b0(run: Path) -> Path:
    """An untrained run as large as B0, in which whistles are events."""
    import keras

    model, recipe, labels = untrained_model("b0")
    loudest = keras.ops.max(model.get_layer("front_end").output, axis=2)  # (batch, mels), in dB
    found = keras.ops.sigmoid((loudest - LOUD_DB) / 2)
    padded = keras.ops.pad(found, [[0, 0], [0, len(labels) - recipe.n_mels]])
    lively = keras.Model(model.input, keras.layers.Maximum()([model.output, padded]))
    return write_run(run, "lively", lively, recipe, labels)


def write_forest(path: Path, seconds: float) -> Path:
    """Noise that swells and ebbs, and a whistle or another now and then: mono, 16 bits, 32 kHz, a second at a time."""
    generator = np.random.default_rng(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(RATE) / RATE
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        for second in range(round(seconds)):
            swell = 0.01 * (1.5 + np.sin(2 * np.pi * second / 47))
            sound = generator.normal(0, swell, RATE)
            if generator.random() < WHISTLES_PER_SECOND:
                pitch_hz, trill_hz = generator.uniform(1500, 8000), generator.uniform(2, 20)
                sound += 0.2 * np.sin(2 * np.pi * pitch_hz * time_s + 20 * np.sin(2 * np.pi * trill_hz * time_s))
            file.write(sound.astype(np.float32))
    return path


def health_rows(folder: Path) -> list[sqlite3.Row]:
    """The journal's health, in order."""
    with contextlib.closing(read_only(folder / "record/journal.sqlite")) as journal:
        return journal.execute("select * from health order by id").fetchall()


def events(folder: Path) -> int:
    """How many events are in the journal."""
    with contextlib.closing(read_only(folder / "record/journal.sqlite")) as journal:
        return journal.execute("select count(*) from events").fetchone()[0]


def total(rows: list[sqlite3.Row], column: str) -> int:
    """The sum of a column; what is not known counts nothing."""
    return sum(row[column] or 0 for row in rows)


def fsync_told(folder: Path) -> str:
    """How long the disk takes to keep a page."""
    seconds = []
    with open(folder / "page", "wb", buffering=0) as file:
        for _ in range(40):
            file.write(bytes(4096))
            began = time.monotonic()
            os.fsync(file.fileno())
            seconds.append(time.monotonic() - began)
            time.sleep(0.05)
    median, slow = np.percentile(seconds, [50, 95])
    return f"the disk keeps a page in {1000 * median:.0f} ms (median), 95 % within {1000 * slow:.0f} ms"


def told(what: str, figure: float, limit: float, form: str) -> bool:
    """Print a figure and its limit; is it kept?"""
    kept = figure <= limit
    print(f"{what}: {form.format(figure)} ({'within' if kept else 'MISSES'} {form.format(limit)})")
    return kept


if __name__ == "__main__":
    sys.exit(main())
