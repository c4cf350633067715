# meshctl: `make demo` runs the main job, `make test` all tests. Python >= 3.11 and make are all they need.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help setup demo test check format docs bench soak clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make the virtual environment

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("meshctl needs Python >= 3.11, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## bring the example shop up and place orders through it
	@$(BIN)/python scripts/demo.py

test: $(READY) ## run all tests, those on real Envoy included
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

check: $(READY) ## lint, types, layers, generated documents
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/gen_docs.py --check

format: $(READY) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## write the generated documents anew
	$(BIN)/python scripts/gen_docs.py

bench: $(READY) ## measure cost and speed against bare Envoys
	$(BIN)/python -m benchmarks.run

soak: $(READY) ## ten thousand orders while payment fails and instances are killed (nine minutes)
	$(BIN)/python -m benchmarks.soak

clean: ## remove the virtual environment and caches
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
