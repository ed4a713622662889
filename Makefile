# Every target sets up what it needs in .venv, on a machine that has Python 3.11 or newer and nothing else.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
# Installs uv, which installs the rest in half of pip's time. Where uv cannot reach the packages, pip installs them.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
# `make lock UPGRADE=--upgrade` takes the newest versions, `make lock UPGRADE="--upgrade-package NAME"` that of one.
UPGRADE ?=
# The lock files are for every Python from 3.11 on, and for every platform.
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--custom-compile-command "make lock" $(UPGRADE)
# A folder with the programs `kafka` and `pubsub`, which start real servers: see "Tests" in the README.
TEST_SERVERS ?=

.PHONY: demo run test test-servers lint bench lock clean

demo: $(INSTALLED) ## the whole story once, in a minute
	@exec $(BIN)/python -m infra.local demo

run: $(INSTALLED) ## the local stack, until Ctrl-C
	@exec $(BIN)/python -m infra.local up --parent $$PPID

test: $(INSTALLED)
	$(BIN)/python -m pytest -n auto --dist loadgroup --cov

test-servers: $(INSTALLED) ## the integration tests against a real Kafka and a Pub/Sub that delivers badly
	TEST_SERVERS="$(TEST_SERVERS)" tests/integration/with_servers $(BIN)/python -m pytest tests/integration

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m infra.check

bench: $(INSTALLED) ## measures the goals and writes .local/bench.json
	@$(BIN)/python -m tests.bench

lock: $(INSTALLED) ## pins what requirements.in and requirements-dev.in name, and all that it needs, with hashes
	$(LOCK) --output-file requirements.txt requirements.in
	$(LOCK) --output-file requirements-dev.txt requirements-dev.in

clean: ## forgets the local stack's state
	rm -rf .local

$(INSTALLED): requirements.txt requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv …"
	@awk '/^[^ ]/ { is_uv = /^uv==/ } is_uv' requirements-dev.txt | $(PIP) -r /dev/stdin
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python --require-hashes requirements-dev.txt \
		|| $(PIP) -r requirements-dev.txt
	@touch $@
