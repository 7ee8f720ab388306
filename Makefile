# Everything runs in an environment of its own, made on first use from pinned, hashed packages.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DIST_VENV ?= .venv-dist
# Compiled once, even where the environment says not to: tests start hundreds of interpreters.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-postgres test-adapters test-dist proof proof-calls soak valgrind check lint types dist \
	bench bench-recall bench-peers bench-postgres constraints constraints-adapters constraints-peers clean

demo: $(READY) ## Pour a conversation into a memory, ask it, see what it costs
	@$(BIN)/elytron demo

test: $(READY) ## Run the tests, two at a time
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-postgres: $(READY) ## All that run on PostgreSQL, more than `test` has (CITUS_DSN names a server, POSTGRES_PROGRAMS a version's bin)
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal --postgres -k postgres

dist: $(READY) ## Build the wheel and the sdist; a test shows that the sdist makes the same wheel
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist

test-dist: dist ## Install the wheel, and run the sdist's tests on it, with src/ removed
	rm -rf $(DIST_VENV)
	$(PYTHON) -m venv $(DIST_VENV)
	echo '*' > $(DIST_VENV)/.gitignore
	$(DIST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r constraints.txt
	$(DIST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps dist/*.whl
	mkdir $(DIST_VENV)/tree
	tar -xf dist/*.tar.gz -C $(DIST_VENV)/tree --strip-components 1
	rm -r $(DIST_VENV)/tree/src
	cd $(DIST_VENV)/tree && ../bin/python -m pytest --numprocesses 2 --dist worksteal $(DIST_TESTS)

proof: $(READY) ## Kills and damaged files, as many as docs/performance.md says; half an hour
	$(BIN)/python -m pytest --proof -s tests/test_proof_*.py

# All else that takes --proof: what `make test` tries at a few places, tried at each.
PROOF_CALLS := $(sort $(wildcard tests/test_every_call_*.py)) tests/test_leaks.py tests/test_postgres_model.py \
	tests/test_postgres_store_faults.py tests/test_postgres_together.py

proof-calls: $(READY) ## Each call of each verb failed, one after the other, and what else takes --proof; hours
	$(BIN)/python -m pytest --proof --numprocesses 2 --dist worksteal $(PROOF_CALLS)

soak: $(READY) ## A store at its limits under load, and what grows meanwhile (MINUTES=10)
	$(BIN)/python bench/soak.py --minutes $(or $(MINUTES),10)

valgrind: $(READY) ## The graph's worker under memcheck
	$(BIN)/python bench/valgrind.py

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
	@for script in $(filter-out bench/postgres%.py bench/recall%.py bench/messages.py bench/screenshots.py bench/soak%.py bench/valgrind.py, $(wildcard bench/*.py)); do \
		echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-recall: $(READY) ## How much of what answers a question is among the first hits
	$(BIN)/python bench/recall.py --per-kind

bench-postgres: $(READY) ## A store on PostgreSQL: ten minutes, with nothing else running
	$(BIN)/python bench/postgres.py

bench-peers: $(READY) ## Elytron beside what one would otherwise pick: twenty minutes, with nothing else running
	$(BIN)/python bench/peers/run.py

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

constraints-peers: $(READY) ## Pin the peers anew
	for name in chroma kuzu langgraph langgraph-vectors mem0 plots; do \
		$(BIN)/python -m piptools compile --quiet --generate-hashes --allow-unsafe --strip-extras \
			--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-header --no-annotate \
			--output-file bench/peers/requirements-$$name.txt bench/peers/requirements-$$name.in || exit 1; done

clean:
	rm -rf $(VENV) $(DIST_VENV) .venv-adapters .venv-peers dist data/demo
