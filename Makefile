# The few commands of this project.

.PHONY: help setup build test check demo bench forecast-eval

help:
	@echo 'make demo    see a predicted shard move under load (KEEP=1 leaves it running)'
	@echo 'make test    all tests; installs PostgreSQL if it is missing'
	@echo 'make check   format, lints, tests'
	@echo 'make forecast-eval  error of the forecasts on real load series, beside the baselines'
	@echo 'make bench   CPU time a query, throughput, latency: foreshard, PgBouncer, direct'

setup:
	@bash integration/setup/install.sh postgresql

build:
	cargo build --release

test: setup
	cargo test

check: setup
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test

demo: setup
	cargo build --release --bin foreshard --example demo
	KEEP='$(KEEP)' target/release/examples/demo

bench: build
	@bash integration/setup/install.sh postgresql pgbouncer
	bash integration/bench/run.sh

forecast-eval: build
	bash integration/forecast/run.sh
