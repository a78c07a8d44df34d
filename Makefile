# `make demo` and `make test` do all the set-up, from a fresh clone.
PYTHON ?= $(shell command -v python3.11 || echo python3)
VENV := .venv
BIN := $(VENV)/bin
# Versions that were tested together; make CONSTRAINTS= takes the newest that the package allows.
CONSTRAINTS ?= constraints.txt
# What is installed first and alone. Of another set (docs/reference/versions.md), with a VENV of its own and CONSTRAINTS=:
# make fast slow VENV=.venv-other CONSTRAINTS= VERSIONS="torch==2.14.1 torchvision==0.29.1 flwr==1.42.0"
VERSIONS ?= torch==2.13.0
# A further index of wheels, such as the one of PyTorch without CUDA.
TORCH_INDEX ?=
# In a terminal pip shows how far a download is (MAKE_TERMOUT is set there).
INSTALL = $(BIN)/pip install $(if $(MAKE_TERMOUT),,-q) $(if $(CONSTRAINTS),-c $(CONSTRAINTS)) \
  $(if $(TORCH_INDEX),--extra-index-url "$(TORCH_INDEX)")
# One thread a process: repeatable to the bit, and workers do not fight for cores.
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# What is compiled is kept, whatever the machine says: pytest rewrites 200 files of tests otherwise, in every process.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo results named docs test slow compose-test lint types fast clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

demo: $(VENV)/.installed  ## a small fleet on real images: the result table and a report; the first time, after some minutes of installing
	$(BIN)/fed-asi run experiments/fleets/demo.toml

results: named $(VENV)/.installed  ## a page of docs/results from its study: make results NAME=demo_budgets [DATA_DIR=... WEIGHTS_DIR=...]
	$(BIN)/fed-asi study experiments/studies/$(NAME).toml --results docs/results/$(NAME) \
	  $(if $(DATA_DIR),--data-dir "$(DATA_DIR)") $(if $(WEIGHTS_DIR),--weights-dir "$(WEIGHTS_DIR)")

docs: $(VENV)/.docs  ## the documentation as a site, build/docs/index.html; a broken link or a missing docstring fails
	$(BIN)/sphinx-build -q -W --keep-going -E -b html docs build/docs
	@echo "docs: build/docs/index.html"

named:
	@test -n "$(NAME)" || { echo "make: say which study: make results NAME=demo_budgets (experiments/studies/)"; exit 2; }

test: lint types fast  ## lint, types and the fast tests

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

fast: $(VENV)/.dev
	$(BIN)/pytest -q -n auto --dist worksteal -m "not slow and not compose"

slow: $(VENV)/.dev  ## the slow tests: Flower on Ray, killed processes, whole networks
	$(BIN)/pytest -q -n auto --dist worksteal -m "slow and computes" --timeout 900
	$(BIN)/pytest -q -m "slow and not computes" --timeout 900

compose-test: $(VENV)/.dev  ## the containers, for real (needs a container engine)
	FED_ASI_NEEDS_ENGINE=1 $(BIN)/pytest -q -m compose --timeout 1800

clean:  ## remove what the targets made, except runs/
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

# torch first and alone: with it in place, nothing else pulls in another build of it.
$(VENV)/.torch:
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or say make PYTHON=python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@echo "make: 1 of 2: installing PyTorch in $(VENV), which takes minutes"
	$(if $(TORCH_INDEX),,@echo "make: on Linux it comes with CUDA, 4.6 GB; for a far smaller one without, add TORCH_INDEX= and the CPU index that pytorch.org names")
	$(INSTALL) $(VERSIONS)
	@touch $@

$(VENV)/.installed: $(VENV)/.torch pyproject.toml $(CONSTRAINTS)
	@echo "make: 2 of 2: installing fed-asi with Flower, Ray and its other requirements, which takes minutes too"
	$(INSTALL) -e .
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(INSTALL) -e ".[docs]"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml $(CONSTRAINTS)
	$(INSTALL) -e ".[dev]"
	@touch $@ $(VENV)/.installed
