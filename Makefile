# Every target makes what it needs. `make` alone lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?=
ARGS ?=
ONLY ?=
TARGET ?=
TO ?=
FROM ?=
export PROMPT

RUN := .venv/bin/python -m
USE := .venv/installed-to-use
DEVELOP := .venv/installed-to-develop
CLIENT := .venv/installed-as-client

.PHONY: help demo up down creds env status logs secrets backup restore test test-slow test-compose chaos fuzz lint format bench docs clean lock

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  PYTHON=…  the interpreter for .venv (3.11 or 3.12)    ARGS='…'  words for pytest or the command"

demo: $(if $(filter compose,$(TARGET)),$(CLIENT),$(USE)) ## start the stack, make a picture as a user of the API does, stop it (PROMPT='…', TARGET=compose: in Docker)
	@exec $(RUN) stack.demo $(if $(TARGET),--target $(TARGET)) $(if $(PROMPT),--prompt "$$PROMPT") $(ARGS)

up: $(USE) ## start the stack on this machine; Ctrl-C or `make down` ends it
	@exec $(RUN) stack up $(ARGS)

down: $(USE) ## end the stack
	@exec $(RUN) stack down

creds: $(USE) ## print what a client of the running stack needs, as JSON
	@exec $(RUN) stack creds

env: $(USE) ## print the same as variables for a shell: eval "$(make -s env)"
	@exec $(RUN) stack env

status: $(USE) ## show the stack's processes
	@exec $(RUN) stack status

logs: $(USE) ## show the end of the stack's logs (ARGS=inference: of one process)
	@exec $(RUN) stack logs $(ARGS)

secrets: ## write .env for docker compose: new secrets, readable by you alone
	@exec sh deploy/secrets.sh

backup: ## copy MongoDB and S3 of the stack in Docker into a folder (TO=FOLDER)
	@exec sh deploy/backup.sh "$(or $(TO),$(error say where to: make backup TO=FOLDER))"

restore: ## fill the empty stores of the stack in Docker with a backup (FROM=FOLDER)
	@exec sh deploy/restore.sh "$(or $(FROM),$(error say where from: make restore FROM=FOLDER))" $(ARGS)

test: $(DEVELOP) ## run the tests (ARGS="tests/users -k password" goes to pytest)
	@exec $(RUN) pytest -m "not slow and not chaos and not compose" $(ARGS)

test-slow: $(DEVELOP) ## run the tests that take minutes
	@exec $(RUN) pytest -m slow $(ARGS)

test-compose: $(DEVELOP) ## build and start docker-compose.yml as a project of its own, and try it (needs Docker)
	@exec $(RUN) pytest -m compose -s tests/compose $(ARGS)

chaos: $(DEVELOP) ## kill processes of a working stack at random, and look for lost jobs
	@report=$$(mktemp); status=0; \
	CHAOS_REPORT=$$report $(RUN) pytest -s -m chaos $(ARGS) || status=$$?; \
	cat "$$report"; rm -f "$$report"; exit $$status

fuzz: $(DEVELOP) ## send thousands of made-up requests to users and roles (schemathesis; FUZZ_CASES=2000)
	@FUZZ_CASES=$${FUZZ_CASES:-2000} $(RUN) pytest tests/fuzz -s $(ARGS)

lint: $(DEVELOP) ## check style and types
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@if [ -x .venv/bin/hadolint ]; then .venv/bin/hadolint --failure-threshold style */Dockerfile; fi

format: $(DEVELOP) ## put the code into the house style
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

docs: $(USE) ## write docs/configuration.md from the settings in the code
	@exec $(RUN) stack.configuration

bench: $(DEVELOP) ## run the benchmarks; one JSON object on a line for each (ONLY=NAME)
	@exec $(RUN) bench $(ONLY)

clean: ## end the stack, remove its data, the demonstration's pictures and caches
	@if [ -f $(USE) ]; then $(RUN) stack down; fi
	@rm -rf .stack demo-pictures .pytest_cache .mypy_cache .ruff_cache .hypothesis

lock: ## print how requirements.lock is made
	@echo "uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --no-header -o requirements.lock"

# Installation: once into .venv, and again only when pyproject.toml or requirements.lock change.

.venv/bin/python:
	@if [ -n "$(PYTHON)" ]; then candidates="$(PYTHON)"; else candidates="python3.11 python3.12 python3"; fi; \
	for python in $$candidates; do \
	    if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then \
	        echo "Making .venv with $$python …" >&2; \
	        if "$$python" -m venv .venv; then exit 0; fi; \
	        rm -rf .venv; \
	        echo "$$python cannot make a virtual environment: install its venv module (Debian: apt install python3-venv)." >&2; \
	        exit 1; \
	    fi; \
	done; \
	echo "sdfleet needs Python 3.11 or 3.12, found none of: $$candidates. Install one, or say PYTHON=/path/to/python." >&2; \
	exit 1

# One line that changes on a terminal, silence elsewhere; all that pip said when it fails.
define install
	@pip=(.venv/bin/python -m pip --disable-pip-version-check install -c requirements.lock -e '.[$(1)]'); \
	if [ -t 2 ]; then show() { awk '{ printf "\r\033[K%.100s", $$0 } END { printf "\r\033[K" }' >&2; }; \
	else show() { cat >/dev/null; }; fi; \
	if ! "$${pip[@]}" 2>&1 | tee .venv/install.log | show; then \
	    tail -n 25 .venv/install.log >&2; \
	    echo "pip could not install sdfleet's packages (the whole log: .venv/install.log)." >&2; \
	    exit 1; \
	fi
	@touch $@
endef

$(USE): pyproject.toml requirements.lock | .venv/bin/python
	@echo "Installing sdfleet with PyTorch, MongoDB, SeaweedFS, Redis and nginx into .venv, once: up to 3 GB to download …" >&2
	$(call install,services$(comma)worker$(comma)stack)

$(CLIENT): pyproject.toml requirements.lock | .venv/bin/python
	$(call install,cli)

$(DEVELOP): $(USE)
	@echo "Installing the tools for tests and checks into .venv, once: about 150 MB to download …" >&2
	$(call install,services$(comma)worker$(comma)stack$(comma)traces$(comma)test$(comma)lint)

comma := ,
