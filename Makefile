# make help shows what there is. Every target creates .venv and installs what is missing.
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
TWO := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal --durations=20

.PHONY: help install train test test-slow checks format lint types docs clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(INSTALLED)  ## create .venv and install fsl with what its development needs

$(INSTALLED): pyproject.toml
	@echo "Installing fsl, PyTorch and what else it needs into .venv: some minutes, the first time"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

train: $(INSTALLED)  ## meta-train the built-in default, two to four minutes
	$(BIN)/fsl train

test: $(INSTALLED)  ## the fast tests, two to three minutes on two cores
	$(TWO) -m "not slow"

test-slow: $(INSTALLED)  ## trainings, processes, kills, the wheel, real data
	$(TWO) -m "slow and not alone"
	$(BIN)/pytest --durations=20 -m "slow and alone"

checks: format lint types test  ## all that a commit must pass

format: $(INSTALLED)  ## put the code into ruff's format
	$(BIN)/ruff format --quiet .

lint: $(INSTALLED)  ## ruff's findings
	$(BIN)/ruff check .

types: $(INSTALLED)  ## mypy's findings
	$(BIN)/mypy fsl_cli

docs: $(INSTALLED)  ## the documentation in build/site, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean:  ## remove what was built, not what was trained
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
