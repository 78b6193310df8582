# Names for what scripts/ does. ARGS goes through: make test ARGS="-k frames".
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-multidb test check bench docs conformance consistency fuzz soak clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## set up .venv for everything below
	@scripts/setup

demo: ## set up what the demo needs and serve it on http://127.0.0.1:5000
	@scripts/demo

demo-multidb: ## the same on PostgreSQL and a MongoDB wire server, both started for it
	@scripts/demo-multidb

test: ## set up what is missing and run every test
	@scripts/test $(ARGS)

check: ## lint, formatting, types, secrets in files, known vulnerabilities of what is locked
	@scripts/check

bench: ## measure against other servers, into bench/results/
	@scripts/bench $(ARGS)

docs: ## build the documentation into site/
	@scripts/docs

conformance: ## run the long conformance cases
	@scripts/test tests/conformance -m full $(ARGS)

consistency: ## kill servers and cut links while 10,000s of messages are sent, and look for any that is missing
	@scripts/test tests/consistency tests/integration/test_nodes.py -m full -s $(ARGS)

fuzz: ## fuzz the parsers for 10 minutes (FUZZ_SECONDS=60, FUZZ_RUNS=1000000, FUZZ_KEEP=1; ARGS="frames" for one)
	@scripts/fuzz $(ARGS)

soak: ## let 2,000 connections come and go for 10 minutes, and look for what grows (SOAK_SECONDS=3600, SOAK_SEED=1)
	@scripts/soak

clean: ## remove all that the other commands made, .venv too
	rm -rf .venv site dist build reports .hypothesis .mypy_cache .pytest_cache .ruff_cache tests/peers/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
