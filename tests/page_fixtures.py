"""Fixtures of the page's tests: `pytest_plugins = ["page_fixtures"]` in a test module gives it them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served import Listener

from edge.live import live_path


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where a record is to be; not there yet."""
    yield tmp_path / "record"
    live_path(tmp_path / "record").unlink(missing_ok=True)


@pytest.fixture
def listener(folder: Path) -> Iterator[Listener]:
    """Writes the record of `folder`, which is there from now on."""
    folder.mkdir()
    made = Listener(folder)
    yield made
    made.close()
