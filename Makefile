# What a person and CI type. Each recipe is a script that can be run alone; see there.
SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
PREFIX ?= $(or $(HOME),/usr/local)/.local
DCLUSTER ?= $(TARGET)/release/dcluster
export DCLUSTER

.DEFAULT_GOAL := help
.PHONY: help demo demo-slurm demo-sge test soak bench compare build install lint docs clean

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: build ## real data, a pile of files and a picture, on this machine
	@tests/demo local

demo-slurm: build ## the same on a real Slurm (as root: started for it and stopped again)
	@tests/demo slurm

demo-sge: build ## the same on a real Grid Engine
	@tests/demo sge

test: ## everything that CI runs
	@tests/run

soak: build ## the simulation over 1,000 seeds, then 20 minutes of real kills (SOAK='--minutes 1' for less)
	@tests/soak $(SOAK)

bench: build ## dcluster and its peers in one run: prints tables, writes docs/benchmarks.md (30 min)
	@benches/run

compare: build ## the rules that size a cluster, in simulation: the table and figures of docs/adaptive.md (1 min)
	@benches/compare --write docs/adaptive.md

build: ## the release binary
	@tests/need --compiler
	cargo build --release --locked

install: build ## the binary into PREFIX/bin (PREFIX=~/.local)
	install -D -m 755 "$(TARGET)/release/dcluster" "$(DESTDIR)$(PREFIX)/bin/dcluster"

lint: ## format, clippy, shellcheck
	@tests/run lint

docs: ## the pages of the Rust code, and a check of all links
	@tests/run docs

clean: ## remove what was built here, the demo included
	cargo clean
