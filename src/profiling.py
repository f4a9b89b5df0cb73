"""Where the CPU time of a run of predict.py goes, stage by stage: its own functions, timed by Python's profiler.

    with profiled(sys.stderr, ("src.detecting", "src.outputs")):
        ...                                   # what predict.py does, in this process

Seconds are of the processor, all threads of this process together, so LiteRT's are in them.
"""

from __future__ import annotations

import cProfile
import importlib
import pstats
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

# A stage is some functions: (end of the file's name, function); what they call is in it. No stage calls another.
STAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "model: checksums, LiteRT": (("src/bundle.py", "find"), ("src/batch.py", "_core")),
    "decode": (("src/audio.py", "blocks"),),
    "resample, cut windows": (("src/audio.py", "push"),),
    "log-mel and network": (("src/predictor.py", "each"),),
    "decide": (("src/soundscape.py", "accepted"),),
    "clips and pictures": (("src/detecting.py", "_make"),),
    "write tables": (("src/outputs.py", "write_tables"), ("src/outputs.py", "write_submission")),
}


@contextmanager
def profiled(out: TextIO, modules: Sequence[str]) -> Iterator[None]:
    """Run the block under the profiler, then print a line for each stage that took time.

    modules: what the block will import. Imported before it, since the profiler makes imports look twice as dear as they are.
    """
    before = time.process_time()  # Python's own start, and what was imported until here
    for name in modules:
        importlib.import_module(name)
    imported = time.process_time() - before
    profiler = cProfile.Profile(time.process_time, builtins=False)
    try:
        with profiler:
            yield
    finally:
        total = time.process_time()
        found = {"Python and arguments": before, "imports": imported, **stages(profiler)}
        found["all else"] = total - sum(found.values())
        print("CPU seconds", file=out)
        for name, seconds in found.items():
            if seconds >= 0.001:
                print(f"  {name:26} {seconds:8.3f}  {seconds / total:4.0%}", file=out)
        print(f"  {'together':26} {total:8.3f}", file=out)


def stages(profiler: cProfile.Profile) -> dict[str, float]:
    """CPU seconds of each of STAGES."""
    stats = pstats.Stats(profiler).stats  # (file, line, function) -> (..., own seconds, whole seconds, callers)
    found = {}
    for name, functions in STAGES.items():
        keys = [key for key in stats if any(key[0].endswith(file) and key[2] == called for file, called in functions)]
        whole = sum(stats[key][3] for key in keys)
        # One function of a stage may call another: what its resampler and high-pass took is in WindowStream's own time, too.
        inner = sum(stats[key][4][caller][3] for key in keys for caller in stats[key][4] if caller in keys)
        found[name] = whole - inner
    return found
