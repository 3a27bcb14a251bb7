# Sourced: PostgreSQL's source of the installed version, and its test library, in the folder WORK.
# Sets work, bin and major.
mkdir -p "${WORK:=target/regress}"
work=$(realpath "$WORK")

fail() {
  echo "regress: $1" >&2
  [ -z "${2:-}" ] || tail -n 20 "$2" >&2
  exit 1
}

bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | head -n 1)
[ -x "$bin/initdb" ] || fail "PostgreSQL is not installed"
major=$("$bin/pg_config" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/')
version=$(dpkg-query -W -f '${Version}' "postgresql-$major")
PATH=$bin:$PATH

# The distribution's source of the very version that is installed, and the headers to build the
# test library with; neither is installed into the system.
fetch() {
  local lists=$work/apt
  mkdir -p "$lists"/{lists,archives}/partial
  cat >"$lists/sources.list" <<'LIST'
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
LIST
  local apt=(apt-get -q -o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o "Dir::State::lists=$lists/lists" -o "Dir::Cache::archives=$lists/archives"
    -o APT::Sandbox::User=root -o Acquire::Retries=3)
  (
    cd "$work"
    "${apt[@]}" update
    "${apt[@]}" source --download-only "postgresql-$major=$version"
    "${apt[@]}" download "postgresql-server-dev-$major=$version"
    dpkg -x postgresql-server-dev-"$major"_*.deb headers
    mkdir -p source
    tar -xf postgresql-"$major"_*.orig.tar.* -C source --strip-components=1
  ) >"$work/fetch.log" 2>&1 || fail "the source can't be fetched" "$work/fetch.log"
}

# The functions in C that the tests call.
build() {
  local source=$work/source name
  mkdir -p "$work/lib"
  local include=(-I "$work/headers/usr/include/postgresql/$major/server" -I /usr/include/postgresql
    -I /usr/include/postgresql/internal)
  for name in src/test/regress/regress contrib/spi/refint contrib/spi/autoinc; do
    cc -shared -fPIC -O1 -D_GNU_SOURCE -DREFINT_VERBOSE -w "${include[@]}" "$source/$name.c" -o "$work/lib/$(basename "$name").so"
  done >"$work/build.log" 2>&1 || fail "the test library can't be built" "$work/build.log"
}

[ -d "$work/source/src/test/regress" ] || fetch
[ -f "$work/lib/autoinc.so" ] || build
