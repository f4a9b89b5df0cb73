"""What the guide tells a field biologist to type, typed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT

GUIDE = ROOT / "docs/your-own-birds.md"
# The built-in sample in small stands for the whole one, with fewer recordings, which the tests have made already.
SHORTER = dict.fromkeys(("--epochs 14", "--epochs 3"), "--epochs 1 --steps-per-epoch 2 --batch-size 16")
SHORTER["evaluate.py runs/own"] = "evaluate.py runs/own --minutes 2 --bootstrap 20"
SHORTER["--folds folds/own.csv --keep-going"] = "--folds folds/own.csv --keep-going --n-folds 3"
EXIT = {"explore.py": 1}  # the guide says so


def commands() -> list[str]:
    """The indented lines of the guide that begin with python."""
    return [line.strip() for line in GUIDE.read_text().splitlines() if re.match(r" {4}python ", line)]


def test_the_guide_s_commands_run_in_its_order_and_end_with_detections(small_sample, tmp_path):
    (tmp_path / "input").mkdir()
    (tmp_path / "input/sample").symlink_to(small_sample)
    made, *rest = commands()
    assert made == "python -m src.sample -o input/sample"
    assert len(rest) == 9
    for command in rest:
        for long, short in SHORTER.items():
            command = command.replace(long, short)
        _, script, *arguments = shlex.split(command)
        line = [sys.executable, str(ROOT / script), *arguments]
        done = subprocess.run(
            line, cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert done.returncode == EXIT.get(script, 0), f"{command}\n{done.stderr}"
        assert "Traceback" not in done.stderr
    detections = pd.read_csv(tmp_path / "detections.csv")
    # So short a training finds nothing: that it is a table of detections is all that can be said.
    assert list(detections.columns) == ["file", "start_s", "end_s", "species", "probability", "start_utc"]
    assert (tmp_path / "own.png").is_file()
    assert (tmp_path / "input/explored/train_audio/index.html").is_file()
    timed = next((tmp_path / "input/prepared/test_audio").iterdir())
    assert (pd.read_parquet(timed / "index.parquet").others != "").any(), "several species in one window"


@pytest.mark.parametrize(
    "path", [GUIDE, ROOT / "docs/a-box-in-the-forest.md", ROOT / "README.md"], ids=lambda path: path.name
)
def test_every_option_that_is_named_is_one_of_the_script_s(path):
    from conftest import run

    helps: dict[str, str] = {}
    text = path.read_text().replace("\\\n", " ")
    for line in text.splitlines():
        found = re.match(r" {4}python ((?:edge/|submissions/kernel/)?\w+\.py|tests/bench/\w+\.py) (.*)", line)
        if not found or not (ROOT / found[1]).is_file():
            continue
        script = found[1]
        helps.setdefault(script, run(script, "--help").stdout)
        for option in re.findall(r"(?<!\S)(--[a-z-]+)", found[2].split(" #")[0]):
            assert option in helps[script], f"{Path(script).name} has no {option}: {line}"
    assert helps
