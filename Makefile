# Everything runs in an environment of its own, made on first use from pinned, hashed packages.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check lint types bench bench-recall constraints clean

demo: $(READY) ## Pour a conversation into a memory, ask it, see what it costs
	@$(BIN)/elytron demo

test: $(READY) ## Run the tests
	$(BIN)/python -m pytest

check: $(READY) lint types test ## What CI runs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

bench: $(READY) ## Measure; writes nothing, prints ratios
	@for script in $(filter-out bench/recall%.py bench/messages.py, $(wildcard bench/*.py)); do \
		echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-recall: $(READY) ## How much of what answers a question is among the first hits
	$(BIN)/python bench/recall.py --per-kind

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Elytron needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(READY)

constraints: $(READY) ## Pin anew, after a change of dependencies
	$(BIN)/python -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras \
		--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate \
		--output-file constraints.txt pyproject.toml requirements-dev.in

clean:
	rm -rf $(VENV) data/demo
