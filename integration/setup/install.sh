#!/usr/bin/env bash
# Installs what is missing on a Debian-like machine: install.sh postgresql [pgbouncer …].
# python-drivers, python-tools and node-drivers go into target/drivers, by pip and npm.
# Does nothing where it is there already.
set -euo pipefail

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    echo "install.sh: needs root or sudo for: $*" >&2
    exit 1
  fi
}

install_package() {
  if ! command -v apt-get >/dev/null; then
    echo "install.sh: $1 is missing, and this is no Debian-like machine; install it yourself" >&2
    exit 1
  fi
  echo "installing $1"
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get -q -o Acquire::Retries=3 update
  as_root apt-get -q -y --no-install-recommends install "$1"
}

# PostgreSQL 15 or newer: the server, on PATH or in the distribution's versioned folder.
has_postgresql() {
  local initdb major
  for initdb in "$(command -v initdb || true)" /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb; do
    [ -x "$initdb" ] || continue
    major=$("$initdb" --version | sed -E 's/.*\(PostgreSQL\) ([0-9]+).*/\1/')
    [ "$major" -ge 15 ] && return 0
  done
  return 1
}

has_pgbouncer() {
  command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ]
}

has_etcd() {
  command -v etcd >/dev/null
}

has_valgrind() {
  command -v valgrind >/dev/null
}

has_sqlsmith() {
  command -v sqlsmith >/dev/null
}

drivers=$(dirname "$0")/../../target/drivers

has_python_drivers() {
  "$drivers/python/bin/python" -c 'import asyncpg, psycopg, psycopg_pool' 2>/dev/null
}

install_python_drivers() {
  mkdir -p "$drivers"
  python3 -m venv --clear "$drivers/python"
  "$drivers/python/bin/pip" install --quiet --disable-pip-version-check \
    'psycopg[binary,pool]==3.*' 'asyncpg==0.*'
}

has_python_tools() {
  "$drivers/tools/bin/python" -c 'import alembic, django, psycopg, sqlalchemy' 2>/dev/null
}

install_python_tools() {
  mkdir -p "$drivers"
  python3 -m venv --clear "$drivers/tools"
  "$drivers/tools/bin/pip" install --quiet --disable-pip-version-check \
    'psycopg[binary]==3.*' 'alembic==1.*' 'sqlalchemy==2.*' 'django>=5.2'
}

has_node_drivers() {
  [ -d "$drivers/node/node_modules/pg" ] && [ -d "$drivers/node/node_modules/pg-copy-streams" ]
}

install_node_drivers() {
  mkdir -p "$drivers/node"
  npm install --silent --no-fund --no-audit --prefix "$drivers/node" pg@8 pg-copy-streams@7
}

has_java_driver() {
  [ -e /usr/share/java/postgresql.jar ]
}

for what in "$@"; do
  case $what in
    python-drivers | python-tools | node-drivers)
      # Tests ask for them at the same time.
      mkdir -p "$drivers"
      exec 9>"$drivers/lock"
      flock 9
      "has_${what/-/_}" || "install_${what/-/_}"
      continue
      ;;
    java-driver)
      has_java_driver || install_package libpostgresql-jdbc-java
      continue
      ;;
    etcd)
      has_etcd || install_package etcd-server
      continue
      ;;
    postgresql | pgbouncer | valgrind | sqlsmith) ;;
    *)
      echo "install.sh: knows postgresql, pgbouncer, etcd, valgrind, sqlsmith, python-drivers, python-tools, node-drivers and java-driver, not $what" >&2
      exit 2
      ;;
  esac
  "has_$what" && continue
  install_package "$what"
  "has_$what" || {
    echo "install.sh: the package $what of this distribution is too old; see https://wiki.postgresql.org/wiki/Apt" >&2
    exit 1
  }
done
