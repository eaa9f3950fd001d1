# Everything a fresh machine needs: Python 3.11 and make. The lock pins every version.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test rounds check docs format clean

install: $(VENV)/.installed

$(VENV)/.installed: requirements.lock pyproject.toml
	command -v $(PYTHON) >/dev/null && $(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: install
	$(BIN)/delineate demo --out demo

test: install
	$(BIN)/python -m pytest -m "not rounds"

rounds: install
	$(BIN)/python -m pytest -m rounds

check: install
	$(BIN)/ruff format --check src tests benchmarks docs/hooks.py
	$(BIN)/ruff check src tests benchmarks docs/hooks.py
	$(BIN)/mypy

docs: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: install
	$(BIN)/ruff format src tests benchmarks docs/hooks.py
	$(BIN)/ruff check --fix src tests benchmarks docs/hooks.py

clean:
	rm -rf $(VENV) demo build *.egg-info
