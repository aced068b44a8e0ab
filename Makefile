# Every task of a developer. `make help` lists them; the first use of one makes .venv by itself.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV

PYTHON ?=
STATE ?= .opsmap
WEB_PORT ?=
FREE_PORTS ?=
ARGS ?=
YES ?=
UPGRADE ?=

environment := PYTHON='$(PYTHON)' deploy/embedded/environment.sh
python := .venv/bin/python
embedded := $(python) -m deploy.embedded
compile := .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

.PHONY: help run test check fix docs smoke chaos packages lock clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / { sub("%", "<name>", $$1); printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Everything on this machine, until Ctrl-C (WEB_PORT=8001, FREE_PORTS=1, STATE=folder)
	@$(environment) base
	@exec $(embedded) run --state '$(STATE)' $(if $(WEB_PORT),--web-port '$(WEB_PORT)') $(if $(FREE_PORTS),--free-ports)

test: ## All tests, with services of their own (ARGS="apps/maps -k cycle")
	@$(environment) dev
	@deploy/embedded/browser.sh
	@deploy/embedded/host_tools.sh
	@exec $(embedded) services --state .opsmap/test -- $(python) -m pytest $(ARGS)

check: ## Every static check; changes nothing, reports every failure
	@$(environment) dev
	@exec $(python) -m deploy.embedded.checks

fix: ## Format, and repair what the linter can
	@$(environment) dev
	@.venv/bin/ruff format .
	@.venv/bin/ruff check --fix .

docs: ## Write the generated parts of the documentation
	@$(environment) dev
	@exec $(embedded) services --state .opsmap/check -- $(python) -m opsmap.generated_docs

smoke: ## The whole product once, from start to end, in a temporary place
	@$(environment) dev
	@exec $(python) -m tests.smoke $(ARGS)

chaos: ## Kill everything at every step, and count what was lost (ARGS="--seed 7 --only kill-link"; --list)
	@$(environment) dev
	@exec $(python) -m tests.chaos $(ARGS)

bench-%: ## bench/<name>.py, with fresh services unless it starts its own; its last line is JSON
	@$(environment) dev
	@script='bench/$(subst -,_,$*).py'; \
	[[ -f $$script ]] || { echo "opsmap: there is no $$script." >&2; exit 2; }; \
	if grep -qE 'deploy\.embedded|tests\.world' "$$script"; then exec $(python) "$$script" $(ARGS); fi; \
	trap '$(embedded) clean --state .opsmap/bench --yes >/dev/null' EXIT; \
	$(embedded) services --state .opsmap/bench -- $(python) "$$script" $(ARGS)

packages: ## What hosts install: zipapps, a deb, an rpm, in dist/ (ARGS="deb --machine aarch64")
	@$(environment) dev
	@exec $(python) -m deploy.packaging $(ARGS)

lock: ## Write requirements/*.txt from *.in (UPGRADE=1 takes newer versions)
	@$(environment) base
	@$(compile) requirements/bootstrap.in -o requirements/bootstrap.txt
	@$(compile) requirements/base.in -o requirements/base.txt
	@$(compile) -c requirements/base.txt requirements/dev.in -o requirements/dev.txt
	@$(compile) -c requirements/base.txt agent/pyproject.toml -o requirements/agent.txt

clean: ## Remove the data under .opsmap, and what root keeps of it elsewhere (asks; YES=1 does not)
	@$(environment) base
	@exec $(embedded) clean --state '$(STATE)' $(if $(YES),--yes)
