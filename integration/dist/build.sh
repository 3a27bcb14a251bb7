#!/usr/bin/env bash
# Builds target/dist/foreshard, as it is installed. It is built twice: how often what runs under load
# (train.sh), counted by the first one, tells the compiler what to keep together in the second. Both have
# one profile of cargo's: in another one functions have other names, and the counts would be nobody's.
# Without PostgreSQL, or the compiler's llvm-profdata, it is built once and says so.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
host=$(rustc -vV | sed -n 's/^host: //p')
profile=$(realpath -m "$target/profile")
merge() { "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" "$@"; }

# Only what is built for the host counts and not what runs while building, so the host is named.
build() { # $1: flags of the compiler, then arguments of cargo
  RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --locked --bin foreshard --target "$host" "${@:2}"
}

why=
if ! merge --version >/dev/null 2>&1; then
  rustup component add llvm-tools >/dev/null 2>&1 || why='llvm-profdata of this compiler is missing (rustup component add llvm-tools)'
fi
if [ -z "$(command -v pgbench || ls /usr/lib/postgresql/*/bin/pgbench 2>/dev/null)" ]; then
  why='PostgreSQL is not installed'
fi

flags=
if [ -z "$why" ]; then
  counting=$target/counting/$host/release/foreshard
  build "-Cprofile-generate=$profile" --release --target-dir "$target/counting"
  if [ ! "$profile/merged" -nt "$counting" ]; then
    rm -rf "$profile"
    mkdir -p "$profile"
    bash integration/dist/train.sh "$(realpath "$counting")"
    merge merge -o "$profile/merged" "$profile"/*.profraw
  fi
  flags="-Cprofile-use=$profile/merged"
fi
build "$flags" --release
mkdir -p "$target/dist"
cp "$target/$host/release/foreshard" "$target/dist/foreshard"
if [ -n "$why" ]; then
  echo "target/dist/foreshard was built without a profile: $why" >&2
fi
