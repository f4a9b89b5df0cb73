"""What build.py made goes to Kaggle: dataset, kernel, submission, score, each waited for.

    push = Push(logged_in(), Path("submissions/kernel/built"), "alice", poll_seconds=30, limit_seconds=4 * 3600)
    push.dataset()                          # created, or a new version of it; waits until Kaggle has processed it
    version = push.kernel()                 # pushed; waits until it has run
    scores = push.submit(version, "b6")     # waits until it is scored

All through Kaggle's client (`kaggle datasets create|version --dir-mode zip`, `kernels push`, `competitions submit -k -v`).
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from src.errors import UserError
from src.files import write_json
from src.kaggle_client import COMPETITION, UnansweredError, asking, check_user, spoken, status_of

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi

OUTPUT_FILE = "submission.csv"
LOG_LINES = 30
# A new version can be ready before Kaggle counts it; and the same files again may make none.
COUNTING_SECONDS = 600.0


class Scores(NamedTuple):
    """Of a submission; "" where Kaggle does not give one."""

    public: str
    private: str


class Push:
    """One build on its way.

    folder: holds dataset/ and kernel/; their metadata get `user` as the owner
    poll_seconds: between two questions; limit_seconds: for each thing that is waited for

    Every method raises UserError for what Kaggle refuses, for what fails there, and for what does not end in time.
    """

    def __init__(
        self, api: KaggleApi, folder: Path, user: str, poll_seconds: float = 30.0, limit_seconds: float = 4 * 3600.0
    ) -> None:
        self._api, self._folder = api, folder
        self._poll_seconds, self._limit_seconds = poll_seconds, limit_seconds
        dataset, kernel = self._read("dataset/dataset-metadata.json"), self._read("kernel/kernel-metadata.json")
        for described in (dataset, kernel):
            described["id"] = f"{check_user(user)}/{described['id'].split('/')[-1]}"
        kernel["dataset_sources"] = [dataset["id"]]
        write_json(folder / "dataset/dataset-metadata.json", dataset)
        write_json(folder / "kernel/kernel-metadata.json", kernel)
        self.dataset_id, self.kernel_id = dataset["id"], kernel["id"]

    def _read(self, name: str) -> dict:
        path = self._folder / name
        try:
            described = json.loads(path.read_text(encoding="utf-8"))
            str(described["id"])
        except FileNotFoundError as error:
            raise UserError(f"{path}: not there; run python submissions/kernel/build.py --model MODEL first") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: is damaged ({error}); run build.py again") from error
        return described

    def dataset(self, notes: str = "") -> None:
        """Create the dataset, private, or make a new version of it, and wait until it can be used."""
        before = self._dataset_state()
        folder = str(self._folder / "dataset")
        with asking(f"the dataset {self.dataset_id}"), spoken() as heard:
            if before is None:
                response = self._api.dataset_create_new(folder, public=False, dir_mode="zip")
            else:
                response = self._api.dataset_create_version(folder, notes or "a new build", dir_mode="zip")
        # The client goes on without what it could not upload, and only prints so.
        lost = [line for line in heard.getvalue().splitlines() if "unsuccessful" in line.lower()]
        if response.error or lost:
            raise UserError(
                f"the dataset {self.dataset_id}: {response.error or '; '.join(lost)}; run the same command again"
            )
        print(f"dataset {self.dataset_id}: {'created' if before is None else 'new version'} uploaded", file=sys.stderr)
        version = 0 if before is None else before[1]
        uploaded = time.monotonic()

        def ready() -> bool:
            state, found = self._dataset_state() or ("unknown", 0)
            if state in ("failed", "deleted"):
                raise UserError(f"the dataset {self.dataset_id}: Kaggle says {state}; see {self._url('datasets')}")
            if state != "ready":
                return False
            return found > version or time.monotonic() - uploaded > min(COUNTING_SECONDS, self._limit_seconds / 2)

        self._wait(ready, f"dataset {self.dataset_id} to be processed")

    def _dataset_state(self) -> tuple[str, int] | None:
        """Its status and version; None if there is no such dataset (Kaggle says 403 for what is nobody's)."""
        try:
            with asking(f"the dataset {self.dataset_id}"):
                described = json.loads(self._api.dataset_status(self.dataset_id, format="json"))
        except UserError as error:
            if status_of(error.__cause__) in (403, 404):
                return None
            raise
        return described["status"], int(described["current_version_number"] or 0)

    def kernel(self) -> int:
        """Push the kernel and wait until it has run; returns its version. One that fails is told with its log's end."""
        with asking(f"the kernel {self.kernel_id}"), spoken():
            response = self._api.kernels_push(str(self._folder / "kernel"))
        wrong = [response.error] if response.error else []
        for what in ("dataset", "competition"):
            refused = getattr(response, f"invalid_{what}_sources")
            wrong += [f"Kaggle has no {what} {name} for it" for name in refused or []]
        if wrong:
            raise UserError(f"the kernel {self.kernel_id}: {'; '.join(wrong)}")
        version = int(response.version_number or 1)
        print(f"kernel {self.kernel_id}: version {version} pushed", file=sys.stderr)

        def finished() -> bool:
            with asking(f"the kernel {self.kernel_id}"):
                session = self._api.kernels_status(self.kernel_id)
            state = session.status.name
            if state in ("ERROR", "CANCEL_ACKNOWLEDGED"):
                print(self._log_end(), file=sys.stderr)
                reason = session.failure_message or state.lower().replace("_", " ")
                raise UserError(
                    f"the kernel {self.kernel_id} failed ({reason}); its log's end is above, all of it at {self._url('code')}"
                )
            return state == "COMPLETE"

        self._wait(finished, f"kernel {self.kernel_id} to run")
        return version

    def _log_end(self) -> str:
        """The last lines that the kernel wrote. Kaggle's log is JSON, [{"stream_name", "time", "data"}, ...]."""
        with asking(f"the log of {self.kernel_id}"):
            log = self._api.kernels_logs(self.kernel_id)
        with contextlib.suppress(ValueError, KeyError, TypeError):  # else as it is
            log = "".join(entry["data"] for entry in json.loads(log))
        return "\n".join(log.splitlines()[-LOG_LINES:])

    def submit(self, version: int, message: str) -> Scores:
        """Submit what a version of the kernel wrote, and wait for the score."""
        what = f"a submission to {COMPETITION}"
        with asking(what), spoken():
            before = {each.ref for each in self._api.competition_submissions(COMPETITION) or []}
            response = self._api.competition_submit_code(OUTPUT_FILE, message, COMPETITION, self.kernel_id, version)
        print(f"submitted {self.kernel_id} version {version}: {response.message}", file=sys.stderr)
        scores = Scores("", "")

        def scored() -> bool:
            nonlocal scores
            with asking(what):
                newest_first = self._api.competition_submissions(COMPETITION) or []
            for each in newest_first:
                if each.ref == response.ref or (not response.ref and each.ref not in before):
                    break
            else:
                return False
            if each.status.name == "ERROR":
                reason = each.error_description or "Kaggle gives no reason; a kernel that passes its time limit is one"
                raise UserError(f"{what} failed: {reason}; see https://www.kaggle.com/c/{COMPETITION}/submissions")
            scores = Scores(each.public_score, each.private_score)
            return each.status.name == "COMPLETE"

        self._wait(scored, "the score")
        return scores

    def _url(self, kind: str) -> str:
        return f"https://www.kaggle.com/{kind}/{self.dataset_id if kind == 'datasets' else self.kernel_id}"

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        from tqdm import tqdm

        deadline = time.monotonic() + self._limit_seconds
        with tqdm(desc=f"waiting for {what}", bar_format="{desc}: {elapsed}", leave=False) as bar:
            while True:
                try:
                    if done():
                        return
                except UnansweredError as error:  # hours of waiting outlive a broken line
                    bar.write(f"{error} (asked again in {self._poll_seconds:g} s)", file=sys.stderr)
                if time.monotonic() >= deadline:
                    raise UserError(
                        f"waited {self._limit_seconds / 60:.0f} min for {what}, which goes on at Kaggle; wait longer with "
                        "--limit-hours"
                    )
                time.sleep(self._poll_seconds)
                bar.update()
