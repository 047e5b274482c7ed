# make train | test | lint | data | bench: each makes .venv by itself when it is missing.
PYTHON ?= python3
VENV   ?= .venv
SCRIPT ?= chapter07/cnn_cifar10.py
JOBS   ?= 2

bin := $(VENV)/bin
# One stamp per requirements file: made again when the file changes.
run_stamp     := $(VENV)/.installed
dev_stamp     := $(VENV)/.installed-dev
cluster_stamp := $(VENV)/.installed-cluster
bench_stamp   := $(VENV)/.installed-bench

.DEFAULT_GOAL := help
.PHONY: help train test lint data bench cluster latest clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

train: $(run_stamp)  ## train chapter 7's CNN on the shipped sample (a minute or two with set-up)
	$(bin)/python $(SCRIPT) --data sample --epochs 12

test: $(dev_stamp)  ## run every test (quick part only: make test ARGS='-m "not slow"')
	$(bin)/python -m pytest --numprocesses $(JOBS) --dist loadgroup $(ARGS)

lint: $(dev_stamp)  ## ruff and shellcheck
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/shellcheck setup_gpu.sh .ci/run

data: $(run_stamp)  ## fetch every real set that needs no login; SETS="eeg glove" picks some
	$(bin)/python data/fetch.py $(or $(SETS),--all)

bench: $(bench_stamp)  ## time the hot paths against the book's way and PyTorch (about 40 minutes)
	$(bin)/python benchmarks/run_all.py

cluster: $(cluster_stamp)  ## add JAX, for KERAS_BACKEND=jax

latest:  ## the newest allowed versions of everything, and the quick tests: run it now and then
	$(MAKE) VENV=.venv-latest clean
	$(MAKE) VENV=.venv-latest test ARGS='-m "not slow"'

clean:  ## remove the virtual environment and the caches (runs/ and data/ stay)
	rm -rf $(VENV) .pytest_cache .ruff_cache

$(bin)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null || { \
	    echo "error: Python 3.10 to 3.13 is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	         "Install one and name it: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "error: this Python has no venv module. On Debian or Ubuntu:" \
	         "sudo apt-get install python3-venv, then make $(MAKECMDGOALS) again" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(run_stamp): requirements.txt | $(bin)/python
	$(bin)/python -m pip install --quiet --requirement requirements.txt
	@touch $@

$(dev_stamp): requirements.txt requirements-dev.txt | $(bin)/python
	$(bin)/python -m pip install --quiet --requirement requirements-dev.txt
	@touch $(run_stamp) $@

$(cluster_stamp): requirements-cluster.txt $(run_stamp)
	$(bin)/python -m pip install --quiet --requirement requirements-cluster.txt
	@touch $@

$(bench_stamp): requirements-bench.txt $(cluster_stamp)
	$(bin)/python -m pip install --quiet --requirement requirements-bench.txt
	@touch $@
