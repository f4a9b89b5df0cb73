# make demo    set everything up, do the whole road on a built-in sample (about 4 minutes after installation, two cores)
# make test    set everything up, run the tests
# make lint    ruff
# make test-arm64   the listener's tests on an emulated 64-bit ARM, and a real soundscape compared with this machine; root only
# make test-py39    the same on Python 3.9, and a Jetson's TensorFlow 2.7
# make clean   remove what the demo and the tests made; make distclean also removes the environment

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test test-arm64 test-py39 lint clean distclean

setup: $(VENV)/.ready

# The marker is written last: an interrupted installation is done again.
$(VENV)/.ready: requirements.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not here: install Python 3.11, or name one with make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

demo: setup
	$(BIN)/python -m src.demo

# Three at a time on two cores, since many wait for a microphone; each test file by one process, each with one thread.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests -n 3 --dist loadfile

# Not in CI: minutes, root's rights, and a Debian of their own in .roots/ (see tests/arm64/run.sh).
test-arm64: setup
	tests/arm64/run.sh arm64 bookworm

test-py39: setup
	tests/arm64/run.sh amd64 bullseye

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf input/sample input/prepared/sample runs/demo folds/sample.csv submissions/sample.csv submissions/sample.png
	find . -path ./$(VENV) -prune -o -path ./.roots -prune -o -name __pycache__ -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) .roots
