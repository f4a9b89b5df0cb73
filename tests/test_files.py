"""Files are there whole or not at all, and nothing that is no file is ever replaced."""

from __future__ import annotations

import os
import threading

import pytest

from src.errors import UserError
from src.files import write_json, write_text, written_whole


def test_a_file_that_fails_half_way_leaves_the_old_one_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(RuntimeError), written_whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("ha")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_folders_and_devices_are_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(UserError, match="not a file that can be replaced"):
            write_text(path, "x")
    assert (tmp_path / "pipe").is_fifo()


def test_not_a_number_is_no_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_two_threads_that_write_one_file_do_not_disturb_each_other(tmp_path):
    with written_whole(tmp_path / "a.txt") as first:
        first.write_text("first")
        other = threading.Thread(target=write_text, args=(tmp_path / "a.txt", "second"))
        other.start()
        other.join()
        assert first.read_text() == "first"
    assert (tmp_path / "a.txt").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
