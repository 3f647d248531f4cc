# make            what there is
# make demo       everything, small, on a laptop
PYTHON ?= python3
VENV   ?= .venv
VLLM   ?= .venv-vllm
JOBS   ?= 2
KILLS  ?= 20
SEED   ?= 0
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
# The interpreter itself, found before .venv is put on PATH; empty when it is missing or too old.
OUTER_PATH  := $(PATH)
BASE_PYTHON  = $(shell PATH='$(OUTER_PATH)' $(PYTHON) -c 'import sys; print(sys._base_executable if sys.version_info >= (3, 11) else "")' 2>/dev/null)

export PATH := $(abspath $(BIN)):$(PATH)
export PYTHONNOUSERSITE := 1
export TOKENIZERS_PARALLELISM := false
unexport PYTHONPATH PYTHONHOME PIP_USER PIP_TARGET PIP_PREFIX

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test test-slow slurm-test dvc-test container-test sample-test vllm-test images oracle exact bench chaos lint format clean

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.installed ## create .venv from the locks (PYTHON=python3.12 picks the interpreter)

# .installing stays behind when a set-up is interrupted: half-written packages may look complete, so the next try is from nothing.
$(VENV)/.installed: requirements/torch.txt requirements/lock.txt pyproject.toml
	@test -n '$(BASE_PYTHON)' || { echo "prefdist needs Python 3.11 or newer, and '$(PYTHON)' is older or missing: try make setup PYTHON=python3.11" >&2; exit 1; }
	@if test -e $(VENV)/.installing; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.installing
	$(BASE_PYTHON) -m venv $(VENV)
	$(PIP) install --quiet -c requirements/lock.txt -r requirements/torch.txt
	$(PIP) install --quiet --no-deps -r requirements/lock.txt
	$(PIP) install --quiet --no-deps --no-build-isolation -e .
	$(PIP) check
	@touch $@ && rm $(VENV)/.installing

$(VENV)/.oracle: requirements/oracle.txt $(VENV)/.installed
	$(PIP) install --quiet --no-deps -r requirements/oracle.txt
	$(PIP) check
	@touch $@

# vLLM wants other packages than training does, so it has an environment of its own; its lock is complete.
$(VLLM)/.installed: requirements/sample-cpu.txt $(VENV)/.installed
	@if test -e $(VLLM)/.installing; then rm -rf $(VLLM); fi
	@mkdir -p $(VLLM) && touch $(VLLM)/.installing
	$(BASE_PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip --disable-pip-version-check install --quiet --no-deps -r requirements/sample-cpu.txt
	@touch $@ && rm $(VLLM)/.installing

# Neither the demo nor a test may touch the hub.
demo test test-slow slurm-test dvc-test container-test sample-test vllm-test oracle: export HF_HUB_OFFLINE := 1
# One thread for each of the JOBS test processes.
test slurm-test container-test sample-test vllm-test: export OMP_NUM_THREADS := 1

demo: setup ## the whole workflow on the embedded testbed: no GPU, no downloads
	$(BIN)/prefdist demo

test: setup ## the fast tests
	$(BIN)/pytest -n $(JOBS) -m "not slow and not gpu and not oracle and not slurm and not dvc and not container and not sample and not vllm"

test-slow: setup ## the slow tests (no GPU)
	$(BIN)/pytest --durations=12 -m "slow and not gpu and not slurm and not dvc and not container and not sample and not vllm"

slurm-test: setup ## bring up a real Slurm on loopback, run the smallest suite through it, kill things (root, Debian's packages)
	$(BIN)/pytest -m slurm --durations=0

dvc-test: setup ## one ablation made, shared and changed through DVC; S3 and SSH servers, also ones that die
	$(BIN)/pytest -m dvc --durations=0

images: setup ## build the images of containers/ with Apptainer (BASE=image or folder)
	$(BIN)/python containers/build train $(if $(BASE),--base $(BASE))
	$(BIN)/python containers/build sample $(if $(BASE),--base $(BASE))

container-test: setup ## build the image and run the smallest suite in it, through Slurm too (root, Debian's packages)
	$(BIN)/pytest -m container --durations=0

sample-test: setup ## build the image with vLLM for CPUs and compare it with transformers
	$(BIN)/pytest -m sample

vllm-test: $(VLLM)/.installed ## the engine vllm against transformers, with a vLLM for CPUs in .venv-vllm
	PREFDIST_VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(BIN)/pytest -m vllm --durations=8

oracle: $(VENV)/.oracle ## compare with TRL, installing it first
	$(BIN)/pytest -m oracle

exact: setup ## the exact worlds: every theory table
	$(BIN)/snakemake exact

bench: $(VENV)/.oracle ## speed and memory, TRL beside it; cost of exact divergences
	$(BIN)/prefdist bench

chaos: setup ## kill the smallest suite at random and see that its tables come out the same (KILLS=20 SEED=0)
	$(BIN)/prefdist chaos --kills $(KILLS) --seed $(SEED)

lint: setup ## what the pre-commit hooks run
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/snakemake --lint

format: setup ## rewrite the code in the one style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/snakefmt Snakefile workflow

clean: ## remove artefacts, scratch and logs; results/ stays
	rm -rf artefacts scratch logs
