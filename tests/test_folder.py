"""The record folder: one listener at a time, and what it says on stderr in a log that does not grow without end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from edge import folder as folder_module
from edge.folder import RecordFolder
from src.errors import UserError

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (.*)")


def logged_lines(path: Path) -> list[str]:
    """The lines of a log, without their times, each of which must be there."""
    return [LINE.fullmatch(line)[1] for line in path.read_text().splitlines()]


def test_what_is_said_on_stderr_is_on_the_terminal_as_it_is_and_in_the_log_with_its_time(tmp_path, capsys):
    folder = RecordFolder(tmp_path)
    with folder.logged():
        print("amecro  0.93", file=sys.stderr)
        print("in two ", end="", file=sys.stderr)
        print("parts\nand two lines", file=sys.stderr)
        print("no end", end="", file=sys.stderr)
    print("later", file=sys.stderr)
    assert capsys.readouterr().err == "amecro  0.93\nin two parts\nand two lines\nno endlater\n"
    assert logged_lines(folder.log) == ["amecro  0.93", "in two parts", "and two lines", "no end"]


def test_a_terminal_that_is_gone_ends_neither_the_listener_nor_its_log_which_has_the_tracebacks_of_threads(tmp_path):
    script = (
        "import sys, threading; from pathlib import Path; from edge.folder import RecordFolder\n"
        "with RecordFolder(Path(sys.argv[1])).logged():\n"
        "    for number in range(100): print('line', number, file=sys.stderr)\n"
        "    thread = threading.Thread(target=lambda: 1 / 0)\n"
        "    thread.start(); thread.join()\n"
        "    print('still there', file=sys.stderr)\n"
    )
    reader, terminal = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], cwd=ROOT, stderr=terminal)
    os.close(terminal)
    assert done.returncode == 0
    lines = logged_lines(RecordFolder(tmp_path).log)
    assert lines[:100] == [f"line {number}" for number in range(100)]
    assert "ZeroDivisionError: division by zero" in lines and lines[-1] == "still there"


def test_the_log_is_rotated_and_the_newest_five_are_kept_beside_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folder_module, "LOG_BYTES", 1000)
    folder = RecordFolder(tmp_path)
    with folder.logged():
        for number in range(500):
            print(f"line {number}", file=sys.stderr)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["listener.log", *(f"listener.log.{number}" for number in range(1, 6))]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    newest_last = [tmp_path / name for name in [*reversed(names[1:]), names[0]]]
    lines = [line for path in newest_last for line in logged_lines(path)]
    assert lines == [f"line {number}" for number in range(500 - len(lines), 500)] and len(lines) > 100


def test_the_log_goes_on_from_run_to_run(tmp_path, capsys):
    folder = RecordFolder(tmp_path)
    for number in range(3):
        with folder.logged():
            print(f"run {number}", file=sys.stderr)
    assert logged_lines(folder.log) == ["run 0", "run 1", "run 2"]


def test_within_a_process_a_folder_is_held_once_and_free_again_after_it(tmp_path):
    folder = RecordFolder(tmp_path / "new/record")
    with folder.held(), pytest.raises(UserError, match="another listener"), folder.held():
        raise AssertionError
    with folder.held():
        assert (tmp_path / "new/record/listener.lock").read_text() == str(os.getpid())


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    sentence = r"file/record: the record cannot be kept there: Not a directory; choose another folder"
    with pytest.raises(UserError, match=sentence), RecordFolder(tmp_path / "file/record").held():
        raise AssertionError
