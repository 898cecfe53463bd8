# Needs python3 (3.11 or newer) with venv, and nothing else of ours. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo run test faults bench-digits bench-serving lint format secrets docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## nine digits learned one after another, none forgotten
	$(BIN)/anamnesis demo

run: $(STAMP) ## the service, until Ctrl-C
	$(BIN)/anamnesis up

test: $(STAMP) ## every test
	$(BIN)/python -m pytest

faults: $(STAMP) ## kill, cut and break real processes, for hours: SHARE=0.1 is a tenth of it
	$(BIN)/python -m tests.faults --share $(or $(SHARE),1) --output faults.json

bench-digits: $(STAMP) ## nine digits, five seeds, every arm: about ten minutes
	$(BIN)/python benchmarks/continual_digits.py --output benchmarks/results/digits.json

bench-serving: $(STAMP) ## requests a second beside a bare server and a naive one: three minutes, needs wrk
	$(BIN)/python benchmarks/serving.py --output benchmarks/results/serving.json

lint: $(STAMP) ## ruff, format check, mypy strict
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP) ## rewrite the sources as `make lint` wants them
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

secrets: ## keys for docker compose: an admin's, and one for Prometheus
	for name in admin-key metrics-key; do test -s deploy/secrets/$$name || openssl rand -hex 32 > deploy/secrets/$$name; done

docs: $(STAMP) ## rewrite the tables in docs/ that follow from the code
	$(BIN)/python docs/generate.py

clean: ## remove the environment and the caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

# Made anew when the dependencies change; a half-made one leaves no stamp.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
