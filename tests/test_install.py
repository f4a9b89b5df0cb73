"""Installing the listener on a box: install.sh for real, in a throw-away copy of this machine; the units; the images.

The copy is an overlay of this machine's files that a `chroot` sees and nobody else: what is written goes into a folder of
the test. systemd does not run in there; tests/arm64 and a booted container are where the units were seen at work.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, lacking

from edge import needed
from src.bundle import Bundle

ENVIRONMENT = ROOT / ".venv"
UNITS = ("birdcall-listen.service", "birdcall-page.service")
IN_THE_COPY = """
set -e
box=$1 repository=$2
shift 2
mount -t overlay -o "lowerdir=/,upperdir=$box/written,workdir=$box/work" overlay "$box/copy"
for folder in /proc /dev /tmp "$repository"; do # which may be of other file systems
    mount --rbind "$folder" "$box/copy$folder"
done
cd /
exec chroot "$box/copy" "$@"
"""


class Box:
    """A copy of this machine. What commands write in it is in the folder `written`, at the same path."""

    def __init__(self, folder: Path, repository: Path, like: Box | None = None) -> None:
        """folder: for what is written; repository: to install from; like: a box to begin from"""
        self.folder = folder
        self.written = folder / "written"
        self.script = repository / "edge/install.sh"
        for name in ("written", "work", "copy"):
            (folder / name).mkdir()
        if like:
            subprocess.run(["cp", "-a", f"{like.written}/.", str(self.written)], check=True)
        if (tried := self.run("true")).returncode:
            lacking(
                f"no copy of this machine: only root can make one, with unshare and overlayfs: {tried.stderr.strip()}"
            )

    def run(self, *command: object) -> subprocess.CompletedProcess:
        """Run a command in the copy, at its root; its output as text."""
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment["PATH"] = f"/usr/sbin:/sbin:{environment['PATH']}"
        # The folder above the repository, since an environment may be a link to one beside it.
        entered = ["unshare", "--mount", "bash", "-c", IN_THE_COPY, "_", self.folder, ROOT.parent, *command]
        return subprocess.run([str(word) for word in entered], capture_output=True, text=True, env=environment)

    def install(self, *arguments: object) -> subprocess.CompletedProcess:
        """Run install.sh with this repository's environment, so that nothing is downloaded."""
        return self.run(self.script, *arguments, "--venv", ENVIRONMENT)

    def read(self, path: str) -> str:
        """A file that was written in the copy."""
        return (self.written / path.lstrip("/")).read_text()

    def files(self) -> dict[str, tuple[int, bytes]]:
        """What was written in the copy: mode and content (of a link, its target) by path; not what Python compiled."""
        found = {}
        for path in self.written.rglob("*"):
            mode = path.lstat().st_mode
            if "__pycache__" in path.parts or stat.S_ISDIR(mode) or stat.S_ISCHR(mode):  # the latter: removed
                continue
            content = str(path.readlink()).encode() if stat.S_ISLNK(mode) else path.read_bytes()
            found["/" + str(path.relative_to(self.written))] = (stat.S_IMODE(mode), content)
        return found


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this one's edge/ and src/, which nobody edits meanwhile."""
    folder = tmp_path_factory.mktemp("repository")
    for name in needed.PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(*needed.MADE, "*.sqlite*"))
    return folder


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, repository: Path, tone_bundle: Bundle) -> Box:
    """A copy of this machine on which the listener was installed, to be copied."""
    box = Box(tmp_path_factory.mktemp("first"), repository)
    done = box.install("--model", tone_bundle.folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return box


@pytest.fixture
def box(tmp_path: Path, repository: Path) -> Box:
    """A copy of this machine on which nothing was installed."""
    return Box(tmp_path, repository)


@pytest.fixture
def installed(tmp_path: Path, repository: Path, first: Box) -> Box:
    """A copy of this machine on which the listener was installed."""
    return Box(tmp_path, repository, first)


def test_after_an_installation_the_services_the_user_and_private_secrets_are_there(installed):
    files = installed.files()
    system = {name for name in files if not name.startswith("/opt/birdcall/")}
    accounts = {name for name in system if re.fullmatch(r"/etc/(g?shadow|passwd|group)-?|/etc/\.pwd\.lock", name)}
    assert system - accounts == {
        *(f"/etc/systemd/system/{unit}" for unit in UNITS),
        *(f"/etc/systemd/system/multi-user.target.wants/{unit}" for unit in UNITS),
        *("/etc/birdcall/listen.conf", "/etc/birdcall/page.conf", "/etc/birdcall/secrets"),
        *("/etc/udev/rules.d/90-birdcall.rules", "/etc/sysusers.d/birdcall.conf"),
    }
    assert files["/etc/birdcall/secrets"][0] == 0o600
    user = installed.run("getent", "passwd", "birdcall").stdout.strip().split(":")
    assert user[5:] == ["/var/lib/birdcall", "/usr/sbin/nologin"]
    assert "audio" in installed.run("id", "-nG", "birdcall").stdout.split()
    assert installed.run("systemctl", "is-enabled", *UNITS).stdout.split() == ["enabled", "enabled"]


def test_what_was_installed_runs_by_itself_as_the_listener_s_user(installed):
    """Without the repository: a module that needed.py overlooked would be missed here."""
    code = "/opt/birdcall/code"
    modules = [path.with_suffix("").as_posix().replace("/", ".") for path in needed.modules(ROOT)]
    script = f"import sys; sys.path.insert(0, '{code}')\n" + "".join(f"import {name}\n" for name in modules)
    script += f"assert all(sys.modules[name].__file__.startswith('{code}/') for name in {modules!r})\n"
    script += "assert 'tensorflow' not in sys.modules"
    as_user = ["setpriv", "--reuid=birdcall", "--regid=birdcall", "--init-groups", "--"]
    python = [*as_user, "/opt/birdcall/venv/bin/python"]
    for arguments in (["-c", script], [f"{code}/edge/listen.py", "--help"], [f"{code}/edge/page.py", "--help"]):
        done = installed.run(*python, *arguments)
        assert done.returncode == 0, done.stderr
    answered = installed.run(*python, f"{code}/edge/try_bundle.py", "/opt/birdcall/model")
    assert re.match(r"tones: 3 species, \d\.\d+ s a window", answered.stdout), answered.stderr


def test_a_second_installation_changes_nothing_and_keeps_the_settings(installed, tone_bundle):
    settings = {"listen.conf": "LISTEN_OPTIONS='--hop 1'\n", "page.conf": "\n", "secrets": "BIRDCALL_PAGE_PASSWORD=x\n"}
    for name, text in settings.items():
        (installed.written / "etc/birdcall" / name).write_text(text)
    before = installed.files()
    done = installed.install("--model", tone_bundle.folder)
    assert done.returncode == 0, done.stderr
    assert installed.files() == before
    assert installed.read("/etc/birdcall/listen.conf") == settings["listen.conf"]


def test_an_upgrade_replaces_code_and_model_and_leaves_nothing_of_the_old(installed, tone_bundle, tmp_path):
    wanted = installed.files()
    code, model = (installed.written / "opt/birdcall" / name for name in ("code", "model"))
    (code / "src/predictor.py").write_text("raise SystemExit('old')")
    (code / "edge/gone.py").write_text("raise SystemExit('old')")
    (model / "old.tflite").write_text("old")
    unit = installed.written / "etc/systemd/system" / UNITS[0]
    unit.write_text(unit.read_text().replace("WatchdogSec=60", "WatchdogSec=1"))
    assert installed.install("--model", tone_bundle.folder).returncode == 0
    assert installed.files() == wanted


def test_a_run_of_several_folds_is_installed_as_the_ensemble_it_is(box, tone_bundle, tmp_path):
    for fold in (0, 1):
        shutil.copytree(tone_bundle.folder, tmp_path / f"run/fold{fold}/bundle")
        (tmp_path / f"run/fold{fold}/checkpoint_network.npz").write_text("of no use on a box")
    done = box.install("--model", tmp_path / "run", "--prefix", "/srv/birds")
    assert done.returncode == 0, done.stderr
    names = [path.name for path in tone_bundle.folder.iterdir()]
    models = {name for name in box.files() if name.startswith("/srv/birds/model/")}
    assert models == {f"/srv/birds/model/fold{fold}/bundle/{name}" for fold in (0, 1) for name in names}
    assert "ExecStart=/srv/birds/venv/bin/python /srv/birds/code/edge/listen.py --model /srv/birds/model " in box.read(
        f"/etc/systemd/system/{UNITS[0]}"
    )


def test_an_upgrade_to_a_damaged_model_is_refused_and_leaves_what_runs_as_it_was(installed, tone_bundle, tmp_path):
    before = installed.files()
    shutil.copytree(tone_bundle.folder, tmp_path / "damaged")
    with open(tmp_path / "damaged/model.tflite", "ab") as file:
        file.write(b"\0")
    done = installed.install("--model", tmp_path / "damaged")
    assert done.returncode == 1
    assert "its SHA-256 is not the one in bundle.json" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the model does not answer on this box")
    assert installed.files() == before


def test_uninstalling_by_the_installed_copy_keeps_record_and_settings_and_purging_keeps_nothing(installed):
    record = installed.written / "var/lib/birdcall"
    record.mkdir(parents=True)
    (record / "journal.sqlite").write_text("a month")
    changed = "/etc/systemd/system/birdcall-listen.service.d/override.conf"
    installed.run("install", "-D", "/dev/null", changed)
    done = installed.run("/opt/birdcall/code/edge/install.sh", "uninstall")
    assert done.returncode == 0, done.stderr
    kept = installed.files().keys()
    assert {"/var/lib/birdcall/journal.sqlite", "/etc/birdcall/listen.conf", "/etc/birdcall/secrets", changed} <= kept
    assert not [name for name in kept if name.startswith("/opt/") or name.endswith(".service") or "udev" in name]
    assert installed.run("getent", "passwd", "birdcall").returncode == 0, "the record is still the user's"

    assert installed.run(installed.script, "uninstall", "--purge").returncode == 0
    assert not [name for name in installed.files() if "birdcall" in name]
    assert installed.run("getent", "passwd", "birdcall").returncode == 2
    assert ENVIRONMENT.resolve().is_dir(), "an environment that was lent is not removed"
    again = installed.run(installed.script, "uninstall")
    assert (again.returncode, again.stdout) == (0, "nothing of the listener is installed here\n")


def test_a_dry_run_prints_every_step_changes_nothing_and_needs_no_root(box, tone_bundle):
    # Where anybody may read them: pytest's folders are their owner's alone.
    shutil.copytree(box.script.parent.parent, box.written / "srv/birdcall")
    shutil.copytree(tone_bundle.folder, box.written / "srv/model")
    (box.written / "srv/birdcall").chmod(0o755)
    before = box.files()
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    done = box.run(*nobody, "/srv/birdcall/edge/install.sh", "--model", "/srv/model", "--dry-run")
    assert done.returncode == 0, done.stderr
    for words in (
        "python3 -m venv /opt/birdcall/venv-",
        "-m pip install",
        "write /etc/systemd/system/birdcall-listen.service (mode 644)",
        "write /etc/birdcall/secrets (mode 600)",
        "systemd-sysusers /etc/sysusers.d/birdcall.conf",
        "systemctl enable",
        "nothing was changed",
    ):
        assert words in done.stdout
    assert box.files() == before


def test_a_dry_run_of_an_uninstallation_changes_nothing(installed):
    before = installed.files()
    done = installed.run(installed.script, "uninstall", "--purge", "--dry-run")
    assert done.returncode == 0 and "userdel birdcall" in done.stdout and "rm -rf /var/lib/birdcall" in done.stdout
    assert installed.files() == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "--model is needed the first time: a bundle, a fold or a run that train.py wrote"),
        (["--model", "/nosuch"], "/nosuch: no bundle there; give a bundle, a fold"),
        (["--model"], "--model needs a value; see --help"),
        (["--modell", "x"], "--modell is not known; see --help"),
        (["--prefix", "here"], "--prefix here: give a path that begins with /, and not / itself"),
        (["--prefix", "/"], "--prefix /: give a plain path"),
        (["--prefix", "/opt/bird call"], "--prefix /opt/bird call: give a plain path, such as /opt/birdcall"),
        (["--prefix", "/opt/../etc"], "--prefix /opt/../etc: give a plain path"),
        (["--prefix", "/opt/%h;x"], "--prefix /opt/%h;x: give a plain path"),
        (["--purge"], "--purge is for uninstall"),
        (["--python", "/bin/false", "--model", "BUNDLE"], " is too old: Python 3.9 or later is needed"),
        (["--python", "nosuch", "--model", "BUNDLE"], "nosuch is not here: apt-get install python3"),
        (
            ["--model", "BUNDLE", "--venv", "/etc"],
            "--venv /etc: there is no bin/python in it; python3 -m venv /etc makes",
        ),
    ],
)
def test_a_mistake_ends_in_a_sentence_and_changes_nothing(box, tone_bundle, arguments, sentence):
    done = box.run(box.script, *(tone_bundle.folder if word == "BUNDLE" else word for word in arguments))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ") and sentence in done.stderr.splitlines()[-1]
    assert box.files() == {}


def test_another_prefix_than_the_one_it_is_installed_in_and_another_user_than_root_are_refused(installed):
    done = installed.install("--prefix", "/srv/birds")
    assert done.returncode == 1 and "it is installed in /opt/birdcall; uninstall that before you choose" in done.stderr
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", "bash", "-s"],
        input=installed.script.read_text(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "only root may do this: use sudo, or --dry-run to see the steps" in done.stderr


def test_help_shows_commands_to_copy():
    done = subprocess.run([str(ROOT / "edge/install.sh"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "sudo edge/install.sh --model runs/" in done.stdout


def test_the_units_are_what_systemd_takes_without_a_remark(installed):
    done = installed.run("systemd-analyze", "verify", *(f"/etc/systemd/system/{unit}" for unit in UNITS))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_listener_s_unit_restarts_it_for_ever_when_it_dies_or_hangs_and_lets_it_hear():
    unit = (ROOT / "edge/systemd" / UNITS[0]).read_text()
    for line in (
        "Type=notify",
        "WatchdogSec=60",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "SupplementaryGroups=audio",
        "DeviceAllow=char-alsa rw",
        "ProtectSystem=strict",
    ):
        assert f"\n{line}\n" in unit
    assert "\nPrivateDevices=" not in unit, "it would take the sound cards away"
    assert "\nMemoryDenyWriteExecute=" not in unit, "PortAudio's callback could not be made"


def test_the_shell_scripts_are_clean_for_shellcheck():
    if shutil.which("shellcheck") is None:
        lacking("no shellcheck (apt-get install shellcheck)")
    done = subprocess.run(
        ["shellcheck", ROOT / "edge/install.sh", ROOT / "tests/arm64/run.sh"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_box_s_requirements_are_pinned_have_no_tensorflow_and_name_one_version_for_each_python():
    from packaging.requirements import Requirement

    lines = (ROOT / "edge/requirements.txt").read_text().splitlines()
    wanted = [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]
    names = {requirement.name for requirement in wanted}
    assert {"numpy", "ai-edge-litert"} <= names and not {"tensorflow", "keras", "scipy", "pandas", "librosa"} & names
    for name in names:
        for python in ("3.9", "3.10", "3.11", "3.12", "3.13"):
            mine = [each for each in wanted if each.name == name]
            mine = [each for each in mine if each.marker is None or each.marker.evaluate({"python_version": python})]
            assert [spec.operator for each in mine for spec in each.specifier] == ["=="], f"{name} on Python {python}"


BOX_MODULES = needed.modules(ROOT)


def test_what_a_box_needs_is_found_by_its_imports():
    names = {path.as_posix() for path in BOX_MODULES}
    assert {
        "edge/listen.py",
        "edge/page.py",
        "src/predictor.py",
        "src/litert.py",
        "src/quiet.py",
        "src/__init__.py",
    } <= names
    assert not {"src/classifier.py", "src/training.py", "src/runs.py"} & names


@pytest.mark.parametrize("path", BOX_MODULES, ids=str)
def test_what_runs_on_a_box_is_python_3_9(path):
    """By its grammar and its annotations; `make test-py39` runs it on a real Python 3.9."""
    tree = ast.parse((ROOT / path).read_text(), feature_version=(3, 9))
    if path.name == "jetson.py":  # for Python 3.6, which has no such import: tests/test_jetson.py
        return
    futures = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]
    annotated = any(getattr(node, "returns", None) or isinstance(node, ast.AnnAssign) for node in ast.walk(tree))
    assert futures or not annotated, "`X | Y` in an annotation is evaluated without from __future__ import annotations"
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = call.func.id if isinstance(call.func, ast.Name) else ""
        assert not (name == "zip" and any(word.arg == "strict" for word in call.keywords)), (
            "zip(strict=) came with 3.10"
        )
        assert not (name == "dataclass" and {word.arg for word in call.keywords} & {"slots", "kw_only"}), "3.10"
        assert not (name == "isinstance" and isinstance(call.args[1], ast.BinOp)), "isinstance(x, A | B) came with 3.10"


IMAGES = ("edge/Dockerfile", "edge/Dockerfile.jetson")


def instructions(path: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions and what they are given, comments left out and lines joined."""
    lines = [line for line in (ROOT / path).read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_copies_what_is_there_and_starts_the_listener_as_a_user(image):
    words = instructions(image)
    copied = [given.split()[:-1] for word, given in words if word == "COPY" and not given.startswith("--from")]
    for source in [each for sources in copied for each in sources]:
        assert (ROOT / source).exists(), source
    assert dict(words)["USER"] == "birdcall"
    started = json.loads(dict(words)["ENTRYPOINT"])
    assert started[1:6] == ["edge/listen.py", "--model", "/model", "-o", "/var/lib/birdcall"]
    ignored = (ROOT / f"{image}.dockerignore").read_text().splitlines()
    assert "*" in ignored and {"!edge", "!src"} <= set(ignored), "recordings and runs are not sent to Docker"


def test_the_jetson_s_image_says_that_it_has_not_been_run_on_a_board():
    for file in ("edge/Dockerfile.jetson", "edge/jetson.py"):
        assert "NOT RUN ON A BOARD" in (ROOT / file).read_text()
    words = dict(instructions("edge/Dockerfile.jetson"))
    assert words["FROM"] == "nvcr.io/nvidia/l4t-tensorflow:r32.7.1-tf2.7-py3"


def test_the_programs_know_every_option_that_units_settings_and_images_give_them():
    told = {"listen.py": set(), "page.py": set()}
    for path in [ROOT / "edge/systemd" / unit for unit in UNITS]:
        (command,) = re.findall(r"^ExecStart=.*/edge/(\S+\.py .*)$", path.read_text(), re.MULTILINE)
        told[command.split()[0]] |= set(re.findall(r"(?<= )--?[a-z][a-z-]*", command))
    for name, file in (("listen.py", "listen.conf"), ("page.py", "page.conf")):
        told[name] |= set(re.findall(r"(?<= )--[a-z][a-z-]*", (ROOT / "edge/systemd" / file).read_text())) - {"--help"}
    for image in IMAGES:
        words = json.loads(dict(instructions(image))["ENTRYPOINT"])
        told["listen.py"] |= {word for word in words if re.fullmatch(r"--?[a-z-]+", word)}
    for name, options in told.items():
        shown = subprocess.run(
            [str(ENVIRONMENT / "bin/python"), str(ROOT / "edge" / name), "--help"], capture_output=True
        )
        assert options
        assert options <= set(re.findall(r"(?<![a-z-])--?[a-z][a-z-]*", shown.stdout.decode())), name
