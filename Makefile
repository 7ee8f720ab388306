# Everything runs in an environment of its own, made on first use from pinned, hashed packages.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-adapters check lint types bench bench-recall constraints constraints-adapters clean

demo: $(READY) ## Pour a conversation into a memory, ask it, see what it costs
	@$(BIN)/elytron demo

test: $(READY) ## Run the tests, two files at a time: most of them wait for the disk
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

ADAPTERS := openai-agents langgraph llamaindex google-adk anthropic

test-adapters: $(ADAPTERS:%=test-adapter-%) ## Test each adapter with its framework, in an environment of its own

test-adapter-%: .venv-adapters/%/.ready
	.venv-adapters/$*/bin/python -m pytest tests_adapters/test_$(subst -,_,$*)*.py

.venv-adapters/%/.ready: pyproject.toml constraints/adapters-%.txt
	$(PYTHON) -m venv .venv-adapters/$*
	echo '*' > .venv-adapters/.gitignore
	.venv-adapters/$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r constraints/adapters-$*.txt
	.venv-adapters/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.PRECIOUS: .venv-adapters/%/.ready

check: $(READY) lint types test ## What CI runs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

bench: $(READY) ## Measure; writes nothing, prints ratios
	@for script in $(filter-out bench/recall%.py bench/messages.py bench/screenshots.py, $(wildcard bench/*.py)); do \
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

constraints-adapters: $(READY) ## Pin the frameworks anew
	for name in $(ADAPTERS); do \
		$(BIN)/python -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras \
			--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate \
			--output-file constraints/adapters-$$name.txt \
			pyproject.toml constraints/adapters-tests.in constraints/adapters-$$name.in || exit 1; done

clean:
	rm -rf $(VENV) .venv-adapters data/demo
