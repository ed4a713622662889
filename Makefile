# Every target sets up what it needs in .venv, on a machine that has Python 3.11 or newer and nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# A folder with the programs `kafka` and `pubsub`, which start real servers: see "Tests" in the README.
TEST_SERVERS ?=

.PHONY: demo run test test-servers lint bench clean

demo: $(INSTALLED) ## the whole story once, in a minute
	@exec $(BIN)/python -m infra.local demo

run: $(INSTALLED) ## the local stack, until Ctrl-C
	@exec $(BIN)/python -m infra.local up --parent $$PPID

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-servers: $(INSTALLED) ## the integration tests against a real Kafka and a Pub/Sub that delivers badly
	TEST_SERVERS="$(TEST_SERVERS)" tests/integration/with_servers $(BIN)/python -m pytest tests/integration

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m infra.check

bench: $(INSTALLED) ## measures the goals and writes .local/bench.json
	@$(BIN)/python -m tests.bench

clean: ## forgets the local stack's state
	rm -rf .local

$(INSTALLED): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
