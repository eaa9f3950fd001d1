# Everything a fresh machine needs: Python 3.11 and make. The lock pins every version.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test coverage rounds check docs wheel lock release format clean benchmarks benchmarks-all

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock requirements-torch.txt pyproject.toml
	command -v $(PYTHON) >/dev/null && $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python tools/install.py
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-torch.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: install
	$(BIN)/delineate demo --out demo

# Two processes with one thread each: threads of two processes on two cores wait for each other.
# A file's tests run in one of them, because they share what is made once, such as trainings.
# Compiled modules are kept, because tests start many processes.
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test: install
	$(PYTEST) -n 2 --dist loadfile -m "not rounds"

# The same tests, and whether they cover enough. Only the files of tests/measured.txt are measured.
coverage: install
	$(PYTEST) -n 2 --dist loadfile -m "not rounds" --cov --cov-report= -p tests.measured
	$(BIN)/python tools/coverage_limits.py

rounds: install
	$(BIN)/python -m pytest -m rounds

check: install
	$(BIN)/ruff format --check src tests benchmarks tools docs/*.py docs/tutorials/*.ipynb
	$(BIN)/ruff check src tests benchmarks tools docs/*.py docs/tutorials/*.ipynb
	$(BIN)/mypy

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# Comparisons with other packages on this machine, which must be idle: less than 40 minutes on two
# cores, or all of them; then docs/performance/MACHINE.md. The peers have an environment in build/.
# `make benchmarks-all OPTIONS="--resume --before COMMIT"` goes on after Ctrl-C.
benchmarks: install
	$(BIN)/python benchmarks/all_rows.py --quick $(OPTIONS)

benchmarks-all: install
	$(BIN)/python benchmarks/all_rows.py $(OPTIONS)

# Builds wheel and sdist, installs the wheel into a bare environment, and runs a short demo there.
wheel: install
	$(BIN)/python tools/wheel.py

# Resolves all versions again; `make lock FREE="numpy scipy"` allows newer versions of these.
lock: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/python tools/lock.py $(FREE)

# Checks that this commit can be released, then tags it; pushing the tag publishes it.
release: check coverage wheel
	$(BIN)/python tools/release.py

format: install
	$(BIN)/ruff format src tests benchmarks tools docs/*.py docs/tutorials/*.ipynb
	$(BIN)/ruff check --fix src tests benchmarks tools docs/*.py docs/tutorials/*.ipynb

clean:
	rm -rf $(VENV) demo build *.egg-info
