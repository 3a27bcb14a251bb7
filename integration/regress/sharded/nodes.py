"""PostgreSQL nodes and a proxy in front of three of them; the fourth is the one to compare with."""

import os
import select
import shutil
import subprocess
import time

from psycopg import pq

OPTIONS = "-c intervalstyle=postgres_verbose"
FIRST_USER_OID = 16384
CONF = """
port={port}
listen_addresses='127.0.0.1'
unix_socket_directories=''
fsync=off
max_connections=120
max_prepared_transactions=20
wal_level=logical
lc_messages='C'
autovacuum=off
"""


class Dropped(Exception):
    """The server closed the connection, or did not let us in."""


class Hang(Exception):
    """There was no answer in time."""


class Connection:
    """One session, by the simple protocol."""

    def __init__(self, port, database="regression", user="postgres"):
        self.where = (port, database, user)
        self.notices = []
        dsn = f"host=127.0.0.1 port={port} dbname={database} user={user} connect_timeout=20"
        deadline = time.time() + 20
        while True:
            self.pg = pq.PGconn.connect(f"{dsn} client_encoding=utf8 options='{OPTIONS}'".encode())
            if self.pg.status == pq.ConnStatus.OK:
                break
            if time.time() > deadline:
                raise Dropped(self.pg.error_message.decode())
            time.sleep(0.1)
        self.pg.notice_handler = self._notice

    def _notice(self, result):
        field = lambda which: (result.error_field(which) or b"").decode()
        fields = pq.DiagnosticField
        self.notices.append((field(fields.SEVERITY), field(fields.MESSAGE_PRIMARY)))

    def run(self, sql, data=None, seconds=60):
        """The answers to a text: ("rows", columns, rows, tag), ("copy", None, rows), ("tag", tag),
        ("error", code, message, detail, hint) or ("empty",)."""
        self.notices.clear()
        try:
            self.pg.send_query(sql.encode())
        except Exception as error:
            raise Dropped(str(error)) from error
        answers, deadline = [], time.time() + seconds
        while True:
            while self.pg.flush():
                select.select([], [self.pg.socket], [], 1)
            self._wait(deadline)
            result = self.pg.get_result()
            if result is None:
                return answers
            if result.status == pq.ExecStatus.COPY_IN:
                self._put(data)
            else:
                answers.append(self._answer(result))
                if answers[-1][0] == "error" and self.pg.status != pq.ConnStatus.OK:
                    raise Dropped(str(answers[-1]))

    def _wait(self, deadline):
        while self.pg.is_busy():
            if not select.select([self.pg.socket], [], [], max(0, deadline - time.time()))[0]:
                raise Hang
            try:
                self.pg.consume_input()
            except Exception as error:
                raise Dropped(str(error)) from error

    def _put(self, data):
        if data is None:
            self.pg.put_copy_end(b"no data")
        else:
            self.pg.put_copy_data(data if isinstance(data, bytes) else data.encode())
            self.pg.put_copy_end(None)

    def _answer(self, result):
        tag = (result.command_status or b"").decode()
        if result.status == pq.ExecStatus.COPY_OUT:
            rows = []
            while True:
                length, row = self.pg.get_copy_data(0)
                if length <= 0:
                    return ("copy", None, rows)
                rows.append((bytes(row),))
        if result.status == pq.ExecStatus.FATAL_ERROR:
            of = pq.DiagnosticField
            wanted = (of.SQLSTATE, of.MESSAGE_PRIMARY, of.MESSAGE_DETAIL, of.MESSAGE_HINT)
            fields = ((result.error_field(field) or b"").decode("utf8", "replace") for field in wanted)
            return ("error", *fields)
        if result.status == pq.ExecStatus.TUPLES_OK:
            width = range(result.nfields)
            name = lambda at: (result.fname(at) or b"").decode()
            columns = [(name(at), min(result.ftype(at), FIRST_USER_OID), result.fmod(at)) for at in width]
            rows = [tuple(result.get_value(row, at) for at in width) for row in range(result.ntuples)]
            return ("rows", columns, rows, tag)
        return ("empty",) if result.status == pq.ExecStatus.EMPTY_QUERY else ("tag", tag)

    def status(self):
        return self.pg.transaction_status

    def is_idle(self):
        return self.status() == pq.TransactionStatus.IDLE

    def has_failed(self):
        return self.status() == pq.TransactionStatus.INERROR

    def again(self, user=None):
        """Another session at the same place."""
        port, database, before = self.where
        self.close()
        return Connection(port, database, user or before)

    def close(self):
        try:
            self.pg.finish()
        except Exception:
            pass


class Nodes:
    """Four nodes in a folder."""

    def __init__(self, folder, binaries, first_port):
        self.folder, self.binaries = folder, binaries
        self.ports = [first_port + at for at in range(4)]
        self.proxy_port, self.admin_port = first_port + 4, first_port + 5
        self.prefix = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []

    def _run(self, program, *words):
        command = [*self.prefix, f"{self.binaries}/{program}", *words]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if done.returncode:
            raise RuntimeError(f"{program}: {done.stderr.decode()}")

    def start(self):
        os.chmod(self.folder, 0o777)
        for at, port in enumerate(self.ports):
            data = f"{self.folder}/n{at}"
            self._run(
                "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N", "--locale=C", "--encoding=UTF8"
            )
            with open(f"{data}/postgresql.conf", "a", encoding="utf8") as conf:
                conf.write(CONF.format(port=port))
            self._run("pg_ctl", "-D", data, "-l", f"{data}.log", "-w", "start")

    def stop(self):
        for at in range(4):
            try:
                self._run("pg_ctl", "-D", f"{self.folder}/n{at}", "-m", "immediate", "stop")
            except RuntimeError:
                pass

    def clean(self):
        """The regression database is new on each."""
        for port in self.ports:
            postgres = Connection(port, "postgres")
            names = lambda connection, sql: [row[0].decode() for row in connection.run(sql)[0][2]]
            for name in names(postgres, "SELECT datname FROM pg_database WHERE datname = 'regression'"):
                database = Connection(port, name)
                for gid in names(database, "SELECT gid FROM pg_prepared_xacts"):
                    database.run(f"ROLLBACK PREPARED '{gid}'")
                database.close()
                postgres.run(f"DROP DATABASE {name} WITH (FORCE)")
            roles = "SELECT rolname FROM pg_roles WHERE rolname <> 'postgres' AND rolname !~ '^pg_'"
            for role in names(postgres, roles):
                postgres.run(f'DROP ROLE "{role}"')
            postgres.run("CREATE DATABASE regression TEMPLATE template0")
            for setting in ("bytea_output TO 'hex'", "timezone_abbreviations TO 'Default'"):
                postgres.run(f"ALTER DATABASE regression SET {setting}")
            postgres.close()

    def serve(self, foreshard, policy, log):
        """Starts a proxy in front of the first three, with an empty catalog."""
        shutil.rmtree(f"{self.folder}/catalog", ignore_errors=True)
        node = "{{name: n{}, host: 127.0.0.1, port: {}, user: postgres}}"
        nodes = ", ".join(node.format(at + 1, self.ports[at]) for at in range(3))
        indented = "".join(f"  {line}\n" for line in policy.split("\n"))
        with open(f"{self.folder}/foreshard.yaml", "w", encoding="utf8") as config:
            config.write(
                f"frontend: {{listen: '127.0.0.1:{self.proxy_port}'}}\n"
                f"admin_listen: 127.0.0.1:{self.admin_port}\n"
                f"data_folder: {self.folder}/catalog\nauthentication: trust\nnodes: [{nodes}]\n"
                f"policy:\n  database: regression\n  placement: {{mode: 'off'}}\n{indented}"
            )
        command = [foreshard, "serve", "--config", config.name]
        with open(log, "wb") as out:
            return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
