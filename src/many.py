"""All folds of several models: train.py once for each, in a process of its own, some at once.

What each prints goes to runs/<model>/fold<k>/train.log; what became of them is printed as a table at the end.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from src import backbones, folds, paths
from src.errors import UserError

LOGGED_SECONDS = 30  # between two states of a progress bar in a log


def train(script: Path, argv: list[str], arguments: argparse.Namespace) -> int:
    """Run `script` for each fold and model that `arguments` name, with the other options as they are in argv.

    returns: 1 if any of them failed. Raises UserError if what they are to train on is not there.
    """
    if arguments.jobs < 1:
        raise UserError(f"--jobs must be 1 or more, not {arguments.jobs}")
    numbers = sorted(set(folds.read_folds(arguments.folds).fold))
    wanted = numbers if arguments.fold == "all" else [int(arguments.fold)]
    several = len(arguments.model) > 1
    names = [backbones.get(model, arguments.sample_rate, arguments.window_seconds).name for model in arguments.model]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"--model: two of them are called {name}, and would share a folder; train them one by one with -o"
            )
    tasks = []
    for model, name in zip(arguments.model, names):
        run = arguments.output or paths.RUNS / name
        run = run / name if several and arguments.output else run
        tasks += [
            (name, fold, [*without(argv), "--model", model, "--fold", str(fold), "-o", str(run)], run)
            for fold in wanted
        ]
    failed = 0
    with ThreadPoolExecutor(arguments.jobs) as pool, tqdm(total=len(tasks), unit="fold", desc="training") as bar:
        running = {pool.submit(_run, script, options, run, fold): (name, fold) for name, fold, options, run in tasks}
        try:
            for done in as_completed(running):
                name, fold = running[done]
                status, said, seconds = done.result()
                failed += status != 0
                tqdm.write(f"{name} fold {fold}: {said} ({seconds:.0f} s)")
                bar.update(1)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)  # the processes have had the same Ctrl-C
            raise
    print(f"{len(tasks) - failed} of {len(tasks)} trained")
    return int(failed > 0)


def _run(script: Path, options: list[str], run: Path, fold: int) -> tuple[int, str, float]:
    """(exit status, the last thing worth telling, seconds)."""
    started = time.perf_counter()
    folder = paths.fold_folder(run, fold)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "train.log"
    environment = {"TQDM_MININTERVAL": str(LOGGED_SECONDS), **os.environ}
    with open(log, "a", encoding="utf-8") as file:  # a run that goes on keeps what its first part said
        before = file.tell()
        command = [sys.executable, str(script), *options]
        done = subprocess.run(command, stdout=file, stderr=file, env=environment, check=False)
    lines = [line for line in log.read_bytes()[before:].decode(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("error:", f"fold {fold}:")) or "is trained already" in line]
    said = told[-1] if told else f"ended with status {done.returncode}; see {log}"
    return done.returncode, said, time.perf_counter() - started


def without(argv: list[str]) -> list[str]:
    """The options but --fold, --model, -o and --jobs with their values."""
    own = {"--fold", "--model", "-o", "--output", "--jobs"}
    kept, dropping = [], False
    for word in argv:
        if word.startswith("-") and not word.lstrip("-")[:1].isdigit():
            dropping = word.split("=")[0] in own
        if not dropping:
            kept.append(word)
    return kept
