# `make` lists what there is. Everything sets itself up in .venv; nothing needs root or a GPU.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo up test test-cluster coverage lint bench modes study image kind-up kind-test kind-down clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.installed  ## install fedcore and its tools into .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# What is imported is compiled then; most of what comes along never is.
	$(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup  ## train a model across four simulated hospitals; e.g. ARGS="--baselines --json"
	$(BIN)/fedcore demo $(ARGS)

up: setup  ## start S3 and Prefect with the demo's hospitals, and serve the flows to Prefect's UI
	$(BIN)/fedcore up $(ARGS)

test: setup  ## run all tests; e.g. ARGS="-k exchange"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

coverage: setup  ## run all tests, and say which lines none of them reaches (takes half as long again)
	$(MAKE) test ARGS="--cov --cov-report=term-missing:skip-covered $(ARGS)"

test-cluster: setup  ## run the tests that need a cluster: KUBECONFIG=… FEDCORE_TEST_IMAGE=…
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m cluster -p no:threadexception -v -rs tests/cluster $(ARGS)

lint: setup  ## ruff, mypy --strict, and the layers of the design
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup  ## measure, and leave benchmarks/results.json
	$(BIN)/python -m benchmarks

modes: setup  ## run the demo in each secure mode, and leave benchmarks/modes.json; e.g. ARGS="--rounds 3"
	$(BIN)/python -m benchmarks.modes $(ARGS)

study: setup  ## what privacy costs and whether it holds (AUC by epsilon, audits), into studies/results.json
	OMP_NUM_THREADS=1 $(BIN)/python -m studies $(ARGS)

# PyTorch without CUDA; `make image TORCH_INDEX=` builds with it, for GPUs.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# What the images have beside: `make image EXTRAS=agent,ckks` for plans that encrypt.
EXTRAS ?= agent
KINDS := client server demo

image:  ## build the images fedcore-client, -site, -server, -demo (tag dev); for GPUs: TORCH_INDEX=
	for kind in $(KINDS) site; do \
	  docker build --target $$kind --build-arg TORCH_INDEX="$(TORCH_INDEX)" \
	    --build-arg EXTRAS="$(EXTRAS)" --tag fedcore-$$kind:dev . || exit 1; \
	done

kind-up kind-test: export KUBECONFIG ?= $(CURDIR)/fedcore-work/kind.kubeconfig

kind-up: image  ## a cluster in Docker (kind), with the images on its worker
	mkdir -p fedcore-work
	kind create cluster --config k8s/kind/cluster.yaml --wait 3m
	kind load docker-image --name fedcore --nodes fedcore-worker $(KINDS:%=fedcore-%:dev)

kind-test: setup  ## run a federation on that cluster, or on the one that KUBECONFIG names
	$(BIN)/python k8s/kind/test.py

kind-down:  ## delete that cluster
	kind delete cluster --name fedcore

clean:  ## remove .venv, caches and the demo's folder
	rm -rf $(VENV) fedcore-work .pytest_cache .mypy_cache .ruff_cache .coverage* build *.egg-info
