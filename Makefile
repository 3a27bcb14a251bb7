# The few commands of this project.

.PHONY: help setup build dist test check chaos demo bench bench-move fuzz regress regress-sharded sqlsmith forecast-eval

target = $(or $(CARGO_TARGET_DIR),target)

help:
	@echo 'make dist    target/dist/foreshard, as it is installed: built twice, by a profile of the first one under load'
	@echo 'make demo    see a predicted shard move under load (KEEP=1 leaves it running)'
	@echo 'make test    all tests; installs PostgreSQL and etcd if they are missing'
	@echo 'make check   format, lints, tests'
	@echo 'make forecast-eval  error of the forecasts on real load series, beside the baselines'
	@echo 'make regress PostgreSQL'\''s own regression suite through foreshard, compared with direct'
	@echo 'make regress-sharded the same SQL with its tables sharded over three nodes, beside one PostgreSQL (FILES="insert join")'
	@echo 'make sqlsmith statements that sqlsmith makes up, over sharded tables and on one PostgreSQL (COUNT=2000, SEED=1)'
	@echo 'make fuzz    random bytes and texts for all that reads them (FUZZ_SECONDS=60 a target)'
	@echo 'make chaos   shards move while everything fails at random (CHAOS_SECONDS=600, SEED=…)'
	@echo 'make bench-move  pauses of moves, and their rate beside COPY | COPY (MOVES=50)'
	@echo 'make bench   CPU time and instructions a query, latency, memory: foreshard, PgBouncer, direct; TPC-H; bench-move'

setup:
	@bash integration/setup/install.sh postgresql

build:
	cargo build --release

dist: setup
	bash integration/dist/build.sh

test: setup
	@bash integration/setup/install.sh etcd
	cargo test --no-fail-fast

check: setup
	@bash integration/setup/install.sh etcd
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo test

chaos: setup
	RUST_BACKTRACE=0 CHAOS_SECONDS='$(or $(CHAOS_SECONDS),600)' cargo test --test chaos -- --nocapture

bench-move: setup
	MOVES='$(or $(MOVES),50)' cargo test --release --test move_bench -- --ignored --nocapture

fuzz:
	FUZZ_SECONDS='$(or $(FUZZ_SECONDS),60)' bash integration/fuzz/run.sh

demo: setup
	cargo build --release --bin foreshard --example demo
	KEEP='$(KEEP)' $(target)/release/examples/demo

bench: export FORESHARD = $(target)/dist/foreshard
bench: dist
	@bash integration/setup/install.sh postgresql pgbouncer valgrind
	bash integration/bench/run.sh
	bash integration/bench/idle.sh
	bash integration/bench/instructions.sh
	cargo test --release --test differential -- --nocapture all_22_queries
	$(MAKE) --no-print-directory bench-move

forecast-eval: build
	bash integration/forecast/run.sh

regress: setup build
	bash integration/regress/run.sh

regress-sharded: setup build
	bash integration/regress/sharded/run.sh $(FILES)

sqlsmith: setup build
	@bash integration/setup/install.sh sqlsmith
	COUNT='$(COUNT)' SEED='$(SEED)' bash integration/regress/sharded/sqlsmith.sh
