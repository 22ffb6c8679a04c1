# `make help` lists what there is. Each target prepares what it needs by itself.
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/impair.testbed
export PATH := $(CACHE)/venv/bin:$(PATH)
export PYTHONPYCACHEPREFIX := $(CACHE)/pyc

.DEFAULT_GOAL := help
SETUP := scripts/setup --quiet
.PHONY: help setup prepared demo lab_up triage probes lab_down check lint sanity unit molecule integration test test-boards test-long test-sources test-usb kernel qemu rtt bench fidelity build lock clean

help: ## this list
	@sed -n 's/^\([a-z_-]*\):.*## /  make \1|/p' Makefile | awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

setup: SETUP := scripts/setup
setup: prepared ## Debian packages, Python environment, the collection's link (only what is missing)

prepared:
	@$(SETUP)

demo: prepared ## a virtual lab of three nodes, impaired as the inventory asks, and measured
	@scripts/demo

lab_up: prepared ## start the virtual lab
	@ansible-playbook playbooks/lab_up.yml -i inventories/virtual

triage: prepared ## a chain of routers: what it carries routed, by ESP and by IP-TFS; `make kernel` first, minutes once
	@scripts/stages kernel
	@ansible-playbook playbooks/triage.yml -i inventories/chain -e lab_node_kernel=built

rtt: prepared ## round trips to guests with and without a virtual function of their host's network card, under QEMU
	@scripts/fetch-qemu
	@ansible-playbook playbooks/rtt.yml -i inventories/sriov

probes: prepared ## a client, a server, and a line that delays and loses: latencies, retransmissions, system calls, seen by BPF
	@ansible-playbook playbooks/probes.yml -i inventories/probes

lab_down: prepared ## stop the virtual lab, leave nothing behind
	@ansible-playbook playbooks/lab_down.yml -i inventories/virtual

check: prepared ## lint, ansible-test sanity, unit tests: two minutes at most
	@scripts/stages lint sanity unit

lint: prepared ## ruff, mypy, shellcheck, yamllint, ansible-lint, changelog fragments
	@scripts/stages lint

sanity: prepared ## ansible-test sanity on the modules
	@scripts/stages sanity

unit: prepared ## unit tests only
	@scripts/stages unit

molecule: prepared ## the molecule scenarios
	@scripts/stages molecule

integration: SETUP := scripts/setup --quiet --with=boards
integration: prepared ## tests against real kernels: network namespaces and the virtual lab
	@scripts/stages integration

test: SETUP := scripts/setup --quiet --with=boards
test: prepared ## lint, sanity, molecule, unit tests, network namespaces, the virtual lab and emulated boards: nearly half an hour on two cores
	@scripts/stages checks tests

test-boards: SETUP := scripts/setup --quiet --with=boards
test-boards: prepared ## emulated boards: flashed, booted from a card and from the network, and over the serial console; ten minutes
	@scripts/stages boards

test-long: SETUP := scripts/setup --quiet --with=boards --with=long
test-long: prepared ## thousands of random trees and other kernels, ten minutes; a board with all of Debian, seven; once as many for `make kernel` and its image
	@scripts/stages kernel long

test-sources: prepared ## the other testbeds, brought up and measured
	@scripts/stages sources

test-usb: prepared ## USB over the network between nodes under QEMU, and usb_stress by every way: about half an hour
	@scripts/stages usb

kernel: prepared ## the lab's own kernel, in which time can travel, and what it can do; minutes, once
	@scripts/stages kernel

qemu: prepared ## a QEMU whose network card has virtual functions, into the cache, where the machine's has none
	@scripts/fetch-qemu

bench: prepared ## ratios against tc, pyroute2, tcconfig and ping, side by side; SIZES="10 1000" for fewer; ten minutes
	@SIZES="$(SIZES)" PARTS="$(PARTS)" scripts/bench

fidelity: prepared ## asked against got on two kernels, written to docs/fidelity.md; about ten minutes
	@scripts/fidelity

build: prepared ## the collection as a tarball in artifacts/
	@ansible-galaxy collection build --force --output-path artifacts

lock: prepared ## renew requirements.lock from requirements.txt and requirements-dev.txt
	@scripts/lock

clean: ## what this project made in the checkout and in the cache; asks nothing, leaves a running lab alone
	@rm -rf .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache artifacts
	@rm -rf "$(CACHE)"/venv "$(CACHE)"/venv-* "$(CACHE)"/sanity* "$(CACHE)"/bench-* "$(CACHE)"/uml-* "$(CACHE)"/kernel "$(CACHE)"/qemu
	@rm -rf "$(CACHE)"/pyc 2>/dev/null || sudo rm -rf "$(CACHE)"/pyc
