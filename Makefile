# The few commands this project is worked on with. Each can be run on a fresh Debian that has Rust (rustup) and Node.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
# A recipe is one script.
.ONESHELL:
.DEFAULT_GOAL := test
.PHONY: test test-producer-web test-consumer-node prepare packages nextest real-data truth lint fmt bench

# What the tests call: the compiler's linker, curl, a browser, and the programs of the file systems they mount (as root
# alone).
PACKAGES := gcc:g++ make:make curl:curl chromium:chromium mkfs.xfs:xfsprogs xfs_io:xfsprogs mkfs.ext4:e2fsprogs mount:mount \
  python3:python3-venv
export PATH := $(PATH):/usr/sbin:/sbin:$(HOME)/.cargo/bin

test: prepare
	cargo build --workspace --locked
	cargo nextest run --workspace --locked
	cargo nextest run --locked --features simulated-time -E 'test(/^query_day::/)'
	cargo test --workspace --locked --doc
	$(MAKE) --no-print-directory test-producer-web
	$(MAKE) --no-print-directory test-consumer-node

# The browser producer in Chromium, against the broker that was just built.
test-producer-web: producer-web/node_modules/.package-lock.json
	cargo build --locked --bin eddyline
	cd producer-web && EDDYLINE_BIN="$${EDDYLINE_BIN:-$(CURDIR)/target/debug/eddyline}" npm test

producer-web/node_modules/.package-lock.json: producer-web/package.json producer-web/package-lock.json
	npm ci --prefix producer-web --no-audit --no-fund --loglevel=error
	@touch $@

# The Node clients against the broker that was just built.
test-consumer-node: consumer-node/node_modules/.package-lock.json
	cargo build --locked --bin eddyline
	cd consumer-node && EDDYLINE_BIN="$${EDDYLINE_BIN:-$(CURDIR)/target/debug/eddyline}" npm test

consumer-node/node_modules/.package-lock.json: consumer-node/package.json consumer-node/package-lock.json
	npm ci --prefix consumer-node --no-audit --no-fund --loglevel=error
	@touch $@

prepare: packages nextest real-data truth

packages:
	@missing=()
	for pair in $(PACKAGES); do
	  command -v "$${pair%%:*}" > /dev/null || missing+=("$${pair##*:}")
	done
	if [ "$${#missing[@]}" -gt 0 ]; then
	  if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
	    apt-get update -qq
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$${missing[@]}"
	  else
	    echo "missing: $${missing[*]} (install these packages; tests that need them are left out or fail)" >&2
	  fi
	fi

nextest:
	@command -v cargo-nextest > /dev/null || cargo install --locked cargo-nextest

# Real events for the tests to read.
real-data: tests/node_modules/.package-lock.json

tests/node_modules/.package-lock.json: tests/package.json tests/package-lock.json
	npm ci --prefix tests --no-audit --no-fund --loglevel=error
	@touch $@

# DuckDB, to compute what queries must come to.
truth: tests/venv/bin/duckdb.installed

tests/venv/bin/duckdb.installed:
	python3 -m venv tests/venv
	tests/venv/bin/pip install --quiet --disable-pip-version-check duckdb==1.4.1
	@touch $@

lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --all-targets --locked --features simulated-time -- -D warnings

fmt:
	cargo fmt --all

# Inner loops, briefly: to see that they run, not to quote them.
bench:
	cargo bench --locked --bench '*' -- --warm-up-time 0.5 --measurement-time 1 --sample-size 10
