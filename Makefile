# Two commands: `make demo` hears every task, `make test` checks everything.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test lint types unit browser-test docs clean

setup: $(VENV)/ready

$(VENV)/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[evaluation,training,dev]'
	$(BIN)/pip install --quiet --no-deps aisfx resemblyzer
	touch $@

demo: setup
	$(BIN)/unison-audio demo -o demo

test: setup lint types unit

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/vulture

types: setup
	$(BIN)/mypy

unit: setup
	$(BIN)/python -m pytest

# Needs Chromium and npm; CHROMIUM names a browser that is not at /usr/bin/chromium.
browser-test: setup .axe/package/axe.min.js
	$(BIN)/pip install --quiet playwright
	AXE_JS=$(CURDIR)/.axe/package/axe.min.js $(BIN)/python -m pytest -m browser tests/server

.axe/package/axe.min.js:
	mkdir -p .axe
	cd .axe && npm pack --silent axe-core@4.14.1 && tar xzf axe-core-4.14.1.tgz

docs: setup
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python dev/include.py
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) .axe demo site .mypy_cache .pytest_cache .ruff_cache
