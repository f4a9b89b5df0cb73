"""As much of Kaggle, on loopback, as this project uses: its API as the kaggle client speaks it, uploads and downloads.

    server = KaggleServer()                    # in a thread; server.env is what a program needs to use it
    server.uploads["code.zip"]                 # what was uploaded, by name
    server.asked                               # ["DatasetApiService/GetDatasetStatus", ..., "GET train.csv bytes=10-"]
    server.stop()

Things take two questions each: a dataset to be processed, a kernel to run, a submission to be scored.
"""

from __future__ import annotations

import base64
import http.server
import io
import json
import threading
import urllib.parse
import zipfile
from collections import Counter

USER, KEY, TOKEN = "alice", "secret", "KGAT_secret"
LOG = [{"stream_name": "stdout", "time": 1.0, "data": "the first line\n"}, {"data": "error: the last line\n"}]


class KaggleServer:
    """The server and what it holds.

    files: of the competition, by name, as bytes; served as they are, and all together as an archive
    fails: what is to go wrong: "kernel", "dataset", "submission", "rules", "upload" (of code.zip), "busy" (one answer of 503),
        "blink" (the same while a kernel is waited for)
    cut: by the name of a file, after how many bytes its next download breaks off
    ranges: whether a download may begin in the middle
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.fails: set[str] = set()
        self.cut: dict[str, int] = {}
        self.ranges = True
        self.asked: list[str] = []
        self.uploads: dict[str, bytes] = {}
        self.datasets: dict[str, list[dict]] = {}  # by owner/slug, what each version was created with
        self.kernels: dict[str, list[dict]] = {}
        self.submissions: list[dict] = []
        self._waited: Counter[str] = Counter()
        self._names: dict[str, str] = {}  # of uploads, by token
        handler = type("Handler", (_Handler,), {"kaggle": self})
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()

    @property
    def env(self) -> dict[str, str]:
        """The endpoint and credentials."""
        return {
            "BIRDCALL_KAGGLE_ENDPOINT": self.url,
            "KAGGLE_USERNAME": USER,
            "KAGGLE_KEY": KEY,
            "NO_PROXY": "127.0.0.1",
        }

    def stop(self) -> None:
        """End the thread."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def archive(self) -> bytes:
        """All files of the competition in one."""
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in self.files.items():
                archive.writestr(zipfile.ZipInfo(name), content)
        return packed.getvalue()

    def _second(self, what: str) -> bool:
        self._waited[what] += 1
        return self._waited[what] % 2 == 0

    def answer(self, method: str, request: dict) -> dict:
        """The answer to a call of the API. Raises RefusalError."""
        return getattr(self, f"_{method}")(request)

    # security.OAuthService

    def _IntrospectToken(self, request: dict) -> dict:  # noqa: N802
        return {"active": request["token"] == TOKEN, "username": USER}

    # blobs.BlobApiService

    def _StartBlobUpload(self, request: dict) -> dict:  # noqa: N802
        token = f"token{len(self._names)}"
        self._names[token] = request["name"]
        return {"token": token, "createUrl": f"{self.url}/upload/{token}"}

    def upload(self, token: str, content: bytes) -> None:
        """Keep what was put to an upload's address. Raises RefusalError."""
        name = self._names[token]
        if "upload" in self.fails and name == "code.zip":
            raise RefusalError(400, "no")
        self.uploads[name] = content

    # datasets.DatasetApiService

    def _GetDatasetStatus(self, request: dict) -> dict:  # noqa: N802
        self._dataset(request)
        if "dataset" in self.fails:
            return {"status": "FAILED"}
        return {"status": "READY" if self._second("dataset") else "BLOBS_RECEIVED"}

    def _GetDataset(self, request: dict) -> dict:  # noqa: N802
        return {"currentVersionNumber": len(self._dataset(request))}

    def _dataset(self, request: dict) -> list[dict]:
        name = f"{request['ownerSlug']}/{request['datasetSlug']}"
        if name not in self.datasets:
            raise RefusalError(403, "Permission 'datasets.get' was denied")
        return self.datasets[name]

    def _CreateDataset(self, request: dict) -> dict:  # noqa: N802
        self.datasets[f"{request['ownerSlug']}/{request['slug']}"] = [request]
        return {"status": "ok", "ref": request["slug"]}

    def _CreateDatasetVersion(self, request: dict) -> dict:  # noqa: N802
        self._dataset(request).append(request["body"])
        return {"status": "ok", "ref": request["datasetSlug"]}

    # kernels.KernelsApiService

    def _SaveKernel(self, request: dict) -> dict:  # noqa: N802
        versions = self.kernels.setdefault(request["slug"], [])
        versions.append(request)
        unknown = [name for name in request["datasetDataSources"] if name not in self.datasets]
        return {"ref": request["slug"], "versionNumber": len(versions), "invalidDatasetSources": unknown}

    def _GetKernelSessionStatus(self, request: dict) -> dict:  # noqa: N802
        if "blink" in self.fails:
            self.fails.remove("blink")
            raise RefusalError(503, "busy")
        if not self._second("kernel"):
            return {"status": "RUNNING"}
        if "kernel" in self.fails:
            return {"status": "ERROR", "failureMessage": "exit code 1"}
        return {"status": "COMPLETE"}

    def _ListKernelSessionOutput(self, request: dict) -> dict:  # noqa: N802
        return {"files": [], "log": json.dumps(LOG)}

    # competitions.CompetitionApiService

    def _CreateCodeSubmission(self, request: dict) -> dict:  # noqa: N802
        self.submissions.insert(0, {**request, "ref": 100 + len(self.submissions)})
        return {"message": "Successfully submitted", "ref": self.submissions[0]["ref"]}

    def _ListSubmissions(self, request: dict) -> dict:  # noqa: N802
        listed = []
        for each in self.submissions:
            row = {"ref": each["ref"], "fileName": each["fileName"], "date": "2026-11-01T12:00:00.000Z"}
            if not self._second("submission"):
                row["status"] = "PENDING"
            elif "submission" in self.fails:
                row.update(status="ERROR", errorDescription="Notebook Timeout")
            else:
                row.update(status="COMPLETE", publicScore="0.567", privateScore="0.612")
            listed.append(row)
        return {"submissions": listed}

    def _ListDataFiles(self, request: dict) -> dict:  # noqa: N802
        first, size = int(request.get("pageToken") or 0), 3  # Kaggle may give fewer than it is asked for
        names = list(self.files)[first : first + size]
        page = {"files": [{"name": name, "totalBytes": len(self.files[name])} for name in names]}
        return {**page, "nextPageToken": str(first + size)} if first + size < len(self.files) else page


class RefusalError(Exception):
    """An answer that is an error: HTTP status and text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class _Handler(http.server.BaseHTTPRequestHandler):
    kaggle: KaggleServer

    def log_message(self, *_: object) -> None:
        """Not on the tests' stderr."""

    def _send(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def do_POST(self) -> None:
        """A call of the API."""
        request = json.loads(self._body() or b"{}")
        service, method = self.path.removeprefix("/api/v1/").split("/")
        self.kaggle.asked.append(f"{service.split('.')[-1]}/{method}")
        expected = base64.b64encode(f"{USER}:{KEY}".encode()).decode()
        try:
            if self.headers.get("Authorization") not in (f"Basic {expected}", f"Bearer {TOKEN}"):
                raise RefusalError(401, "Unauthenticated")
            if "busy" in self.kaggle.fails:
                self.kaggle.fails.remove("busy")
                raise RefusalError(503, "busy")
            if method in ("DownloadDataFile", "DownloadDataFiles"):
                if "rules" in self.kaggle.fails:
                    raise RefusalError(403, "You must accept this competition's rules")
                name = request.get("fileName", "birdsong-recognition.zip")
                self._send(302, Location=f"{self.kaggle.url}/files/{urllib.parse.quote(name)}")
                return
            answer = self.kaggle.answer(method, request)
        except RefusalError as error:
            content = json.dumps({"code": error.status, "message": str(error)}).encode()
            self._send(error.status, content, Content_Type="application/json")
            return
        self._send(200, json.dumps(answer).encode(), Content_Type="application/json")

    def do_PUT(self) -> None:
        """An upload."""
        content = self._body()
        try:
            self.kaggle.upload(self.path.rsplit("/", 1)[1], content)
            self._send(200)
        except RefusalError as error:
            self._send(error.status)

    def do_GET(self) -> None:
        """A download, from a byte on if that is asked for and the file is still the same."""
        name = urllib.parse.unquote(self.path.removeprefix("/files/"))
        content = self.kaggle.files[name] if name in self.kaggle.files else self.kaggle.archive()
        etag = f'"{hash(content)}"'
        asked = self.headers.get("Range", "")
        self.kaggle.asked.append(f"GET {name} {asked}".strip())
        first, status = 0, 200
        if asked and self.kaggle.ranges and self.headers.get("If-Range") == etag:
            first, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - first))
        self.send_header("ETag", etag)
        if self.kaggle.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        last = self.kaggle.cut.pop(name, len(content)) if status == 206 or not asked else len(content)
        self.wfile.write(content[first:last])
        self.close_connection = True
