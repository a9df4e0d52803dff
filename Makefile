# SPDX-License-Identifier: Apache-2.0
# The commands of this repository. `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# Another name lets a second lab run beside the first: make lab SDN_LAB_NAME=other
SDN_LAB_NAME ?= sdn
export SDN_LAB_NAME

.PHONY: help setup lab lab-down test lint proto test-kernel bench clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install missing Debian packages and make the virtual environment
	@scripts/setup

lab: ## bring up a lab of three nodes, show that its pods reach each other, leave it running
	@scripts/need-root 'make lab'
	@scripts/setup
	@$(BIN)/sdnctl lab demo --name "$$SDN_LAB_NAME"
	@echo "sdnctl is $(CURDIR)/$(BIN)/sdnctl; to have it at hand:  export PATH=$(CURDIR)/$(BIN):\$$PATH"

lab-down: ## take the lab down, nothing is left behind
	@scripts/need-root 'make lab-down'
	@scripts/setup
	@$(BIN)/sdnctl lab down --name "$$SDN_LAB_NAME"

test: ## run every check and every test
	@scripts/need-root 'make test'
	@scripts/setup
	@scripts/run-tests

lint: ## ruff, mypy, import contracts, generated gRPC code
	@scripts/setup
	@scripts/lint

proto: ## generate sdn/v1 from proto/sdn/v1
	@scripts/setup
	@scripts/generate-proto

test-kernel: ## run the main job on the kernel datapath, in a virtual machine
	@scripts/need-root 'make test-kernel'
	@scripts/setup
	@$(BIN)/pytest -v tests/kernel

bench: ## measure beside the peers; results go to results/
	@scripts/need-root 'make bench'
	@scripts/setup
	@$(BIN)/python -m tests.bench

clean: ## remove what set-up and tests left in the tree
	@rm -rf $(VENV) .setup.lock build dist *.egg-info results
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
