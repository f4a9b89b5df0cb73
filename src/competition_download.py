"""Get the competition's data from Kaggle, through its own client. Run again, it goes on where it was.

    python -m src.competition download                                # all of it: 25 GB, and as much again while it is unpacked
    python -m src.competition download train.csv example_test_audio/*      # some files, folders or patterns
    python -m src.competition download --data /data/birdsong-recognition

Needs a Kaggle account that has accepted the competition's rules (https://www.kaggle.com/c/birdsong-recognition/rules), and a
token (https://www.kaggle.com/settings/api) in KAGGLE_API_TOKEN or ~/.kaggle/access_token. A file that is there with the right
size is not fetched again; one that was cut short goes on from where it stopped, and bears its name only when it is whole. More
files than Kaggle would be asked for one by one (--one-by-one 200) come as one archive.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from src.errors import UserError
from src.files import check_replaceable, written_whole
from src.kaggle_client import COMPETITION, UnansweredError, asking, logged_in, spoken

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi
    from requests import Response

PAGE_SIZE = 200  # files that Kaggle lists at once
ARCHIVE = f"{COMPETITION}.zip"
ATTEMPTS = 5  # for one file, each going on after the last


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m src.competition", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=["download"])
    parser.add_argument("files", nargs="*", metavar="FILE", help="of the competition, folder or pattern (default: all)")
    parser.add_argument("--data", type=Path, default=Path("input") / COMPETITION, help="folder (default: %(default)s)")
    parser.add_argument(
        "--one-by-one", type=int, default=200, metavar="N", help="if more are missing, get all in one archive (200)"
    )
    return parser.parse_intermixed_args(argv)  # files after options, too


def main(argv: list[str] | None = None) -> int:
    """Ask what there is, get what is missing."""
    arguments = parse(argv)
    from tqdm import tqdm

    api = logged_in()
    sizes = chosen(list_files(api), arguments.files)
    missing = [name for name, size in sizes.items() if not is_whole(arguments.data / name, size)]
    print(f"{len(sizes)} files, {len(sizes) - len(missing)} of them there already", file=sys.stderr)
    if len(missing) > arguments.one_by_one or (missing and any(map(zipfile.is_zipfile, archives(arguments.data)))):
        fetch_archive(api, arguments.data, missing)
    else:
        for name in tqdm(missing, unit="file", desc="downloading", disable=not missing):
            fetch(api, arguments.data / name, name, sizes[name])
    print(f"{arguments.data}: {len(sizes)} files, {sum(sizes.values()) / 1e9:.2f} GB")
    return 0


def list_files(api: KaggleApi) -> dict[str, int]:
    """The competition's files by their path, each with its size in bytes (0 where Kaggle does not say)."""
    sizes: dict[str, int] = {}
    token = None
    while True:
        with asking(f"the files of {COMPETITION}"):
            page = api.competition_list_files(COMPETITION, page_token=token, page_size=PAGE_SIZE)
        sizes.update((file.name, file.total_bytes or 0) for file in page.files)
        token = page.next_page_token
        if not token:
            break
    for name in sizes:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise UserError(f"{COMPETITION} lists a file that would lie outside the data's folder: {name}")
    if not sizes:
        raise UserError(f"Kaggle lists no files of {COMPETITION}; run the same command again later")
    return sizes


def chosen(sizes: dict[str, int], wanted: Sequence[str]) -> dict[str, int]:
    """Those files that are named, lie in a folder that is named, or match a pattern. Raises UserError if one names nothing."""
    if not wanted:
        return sizes
    found: dict[str, int] = {}
    for each in wanted:
        these = {
            name: size
            for name, size in sizes.items()
            if name == each or name.startswith(f"{each.rstrip('/')}/") or fnmatch.fnmatchcase(name, each)
        }
        if not these:
            near = ", ".join(sorted({name.split("/")[0] for name in sizes})[:20])
            raise UserError(f"{each}: {COMPETITION} has no such file; it has {near}")
        found.update(these)
    return found


def is_whole(path: Path, size: int) -> bool:
    """Whether a file is there with its size in bytes (0: unknown, any will do)."""
    return path.is_file() and (not size or path.stat().st_size == size)


def fetch(api: KaggleApi, path: Path, name: str, size: int) -> None:
    """Download one file of the competition to `path`; what is there of it already is gone on with, if it is still the same.

    name: its path in the competition, or ARCHIVE for all files in one; size: in bytes, 0: unknown. Raises UserError.
    """
    check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with asking(name), spoken():
                _download(api, name, partial)
            break
        except UnansweredError as error:
            if attempt == ATTEMPTS:
                raise
            print(f"{error} (tried again)", file=sys.stderr)
            time.sleep(2.0 ** (attempt - 1))
    zipped = size and partial.stat().st_size != size and zipfile.is_zipfile(partial) and not name.endswith(".zip")
    if zipped:  # Kaggle sends some of its tables so, under the name of the table
        with _archive(partial) as archive, written_whole(path) as temporary:
            _unpack(archive, archive.infolist()[0], temporary)
        partial.unlink()
        return
    if size and partial.stat().st_size != size:
        found = partial.stat().st_size
        partial.unlink()
        raise UserError(f"{path}: {found} bytes came where Kaggle lists {size}; run the same command again")
    os.replace(partial, path)


def _download(api: KaggleApi, name: str, partial: Path) -> None:
    """Ask for a file and write it. Each attempt asks anew, since the addresses that Kaggle sends to expire."""
    response = _request(api, name)
    try:
        # The client keeps the server's mark of the file beside the partial one, and goes on only if it still fits.
        api.download_file(response, str(partial), None, quiet=name != ARCHIVE, resume=True, max_retries=0)
    except ValueError:  # of another length than was promised: not to be gone on with
        partial.unlink(missing_ok=True)
        raise


def _request(api: KaggleApi, name: str) -> Response:
    """The answer to a request for a file, its body not read yet."""
    from kagglesdk.competitions.types.competition_api_service import (
        ApiDownloadDataFileRequest,
        ApiDownloadDataFilesRequest,
    )

    # Not competition_download_file, which names what it gets by the last part of its path, in one folder for all.
    with api.build_kaggle_client() as kaggle:
        client = kaggle.competitions.competition_api_client
        if name == ARCHIVE:
            request = ApiDownloadDataFilesRequest()
            request.competition_name = COMPETITION
            return client.download_data_files(request)
        request = ApiDownloadDataFileRequest()
        request.competition_name, request.file_name = COMPETITION, name
        return client.download_data_file(request)


def archives(data: Path) -> tuple[Path, Path]:
    """Where an archive of all files may lie: that of this module, and one that someone fetched in another way."""
    return data / f".{ARCHIVE}", data / ARCHIVE


def fetch_archive(api: KaggleApi, data: Path, missing: Sequence[str]) -> None:
    """Download all files in one archive, if there is none, and unpack those that are missing; one of ours is then deleted.

    Raises UserError for a damaged one.
    """
    from tqdm import tqdm

    own, _ = archives(data)
    path = next(filter(zipfile.is_zipfile, archives(data)), own)
    if not path.is_file():
        fetch(api, path, ARCHIVE, 0)
    with _archive(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        absent = [name for name in missing if name not in members]
        if absent:
            raise UserError(f"{path}: lacks {absent[0]} and {len(absent) - 1} others; delete it and run this again")
        for name in tqdm(missing, unit="file", desc="unpacking"):
            check_replaceable(data / name)
            with written_whole(data / name) as temporary:
                _unpack(archive, members[name], temporary)
    own.unlink(missing_ok=True)


def _archive(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise UserError(f"{path}: is no whole archive ({error}); delete it and run this again") from error


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    """Write a member of an archive, whose checksum is compared as it is read."""
    try:
        with archive.open(member) as packed, open(path, "wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
    except (zipfile.BadZipFile, EOFError) as error:
        raise UserError(
            f"{archive.filename}: {member.filename} is damaged in it; delete it and run this again"
        ) from error
