PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test lint types docs bench ledger retrain planted fooling coverage clean

help: ## Print the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/installed-demo ## Find a network that reads a watermark; prints the path of the page
	@$(BIN)/seewhy demo --out seewhy-demo

test: $(VENV)/installed-dev ## Run the whole test suite; prints the ten slowest tests
	@$(BIN)/python -m pytest

lint: $(VENV)/installed-dev ## Check style and formatting
	@$(BIN)/ruff check src tests benchmarks examples
	@$(BIN)/ruff format --check src tests benchmarks examples

types: $(VENV)/installed-dev ## Check types (mypy, strict)
	@$(BIN)/mypy

docs: $(VENV)/installed-dev ## Write the generated parts of docs/ again
	@$(BIN)/python tests/test_docs.py

bench: $(VENV)/installed-bench ## Measure against the peers; writes docs/benchmarks*.md (half an hour)
	@$(BIN)/python benchmarks/grad_cam.py
	@$(BIN)/python benchmarks/integrated_gradients.py
	@$(BIN)/python benchmarks/flipping.py
	@$(BIN)/python benchmarks/randomization.py
	@$(BIN)/python benchmarks/speed.py

retrain: $(VENV)/installed-dev ## ROAR and data randomization on CIFAR=FOLDER of photos; resumable; writes docs/benchmarks-roar.md
	@$(BIN)/python benchmarks/roar.py $(CIFAR)

ledger: $(VENV)/installed-dev ## The ledger under load and its writers killed, in a file and on PostgreSQL; writes docs/benchmarks-ledger.md
	@$(BIN)/python benchmarks/ledger.py

planted: $(VENV)/installed-bench ## The audit against planted truth, PHOTOS=FOLDERS beside; resumable; writes docs/benchmarks-planted.md (hours)
	@$(BIN)/python benchmarks/planted.py $(if $(PHOTOS),--photos $(PHOTOS))

fooling: $(VENV)/installed-demo ## Move lite0's Grad-CAM, on PHOTOS=FOLDER; writes docs/benchmarks-fooling.md and docs/attack.png (minutes)
	@$(BIN)/python benchmarks/fooling.py $(PHOTOS)

coverage: $(VENV)/installed-dev ## Examine every architecture; resumable; writes docs/coverage.md (most of an hour)
	@$(BIN)/python benchmarks/coverage.py

clean: ## Remove the virtual environment and every cache
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/installed-%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "seewhy needs Python 3.11 or newer; 'make PYTHON=python3.12 ...' chooses another one" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing seewhy[$*] into $(VENV); torch is large, this takes minutes the first time" >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
