//! Plain tables that are not imported.

/// What keeps a table from being imported, what is said of it, and how it is mended.
pub(super) const REFUSED: [(&str, &str, &str); 18] = [
    (
        "ALTER TABLE entries DROP CONSTRAINT entries_pkey, ADD PRIMARY KEY (id)",
        "the primary key \"entries_pkey\" of \"public\".\"entries\" lacks the shard key: ALTER TABLE \
         \"public\".\"entries\" DROP CONSTRAINT \"entries_pkey\", ADD PRIMARY KEY (\"tenant_id\", \"id\")",
        "ALTER TABLE \"public\".\"entries\" DROP CONSTRAINT \"entries_pkey\", \
         ADD PRIMARY KEY (\"tenant_id\", \"id\")",
    ),
    ("CREATE UNIQUE INDEX u ON entries (id)", "the unique index \"u\"", "DROP INDEX u"),
    ("CREATE TABLE kid () INHERITS (entries)", "takes part in inheritance", "DROP TABLE kid"),
    (
        "CREATE TABLE x (id bigint REFERENCES accounts)",
        "foreign key x_id_fkey of \"public\".\"x\" references \"public\".\"accounts\", but",
        "DROP TABLE x",
    ),
    (
        "CREATE TABLE x (id int PRIMARY KEY); ALTER TABLE entries ADD CONSTRAINT to_x \
         FOREIGN KEY (writer) REFERENCES x NOT VALID",
        "no table of the group",
        "DROP TABLE x CASCADE",
    ),
    (
        "ALTER TABLE entries ADD CONSTRAINT odd FOREIGN KEY (n) REFERENCES accounts",
        "without the shard key",
        "ALTER TABLE entries DROP CONSTRAINT odd",
    ),
    (
        "CREATE FUNCTION f(entries) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "uses the row type of public.entries",
        "DROP FUNCTION f",
    ),
    (
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM entries",
        "depends on public.entries itself",
        "DROP MATERIALIZED VIEW m",
    ),
    (
        "CREATE PUBLICATION everything FOR ALL TABLES",
        "publication everything publishes",
        "DROP PUBLICATION everything",
    ),
    (
        "CREATE RULE r AS ON DELETE TO accounts DO ALSO NOTHING",
        "depends on public.accounts itself",
        "DROP RULE r ON accounts",
    ),
    (
        "ALTER TABLE accounts ADD CONSTRAINT later CHECK (version < 5) NOT VALID",
        "is not validated",
        "ALTER TABLE accounts DROP CONSTRAINT later",
    ),
    ("ALTER TABLE entries SET UNLOGGED", "is unlogged", "ALTER TABLE entries SET LOGGED"),
    (
        "CREATE TABLE log (tenant_id bigint); CREATE FUNCTION logs() RETURNS trigger LANGUAGE plpgsql \
         AS $$ BEGIN INSERT INTO log VALUES (NEW.tenant_id); RETURN NEW; END $$; \
         CREATE TRIGGER logs AFTER INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION logs()",
        "which other nodes do not have",
        "DROP FUNCTION logs CASCADE; DROP TABLE log",
    ),
    (
        "CREATE FUNCTION names() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE NOTICE '%', TG_TABLE_NAME; RETURN NEW; END $$; \
         CREATE TRIGGER names AFTER INSERT ON accounts FOR EACH ROW EXECUTE FUNCTION names()",
        "trigger names of public.accounts calls public.names(), which asks for its table's name",
        "DROP FUNCTION names CASCADE",
    ),
    (
        "CREATE EXTENSION refint; CREATE TRIGGER looks BEFORE INSERT ON accounts FOR EACH ROW \
         EXECUTE FUNCTION check_primary_key('tenant_id', 'entries', 'tenant_id')",
        "trigger looks of public.accounts calls public.check_primary_key(), which would look for rows",
        "DROP EXTENSION refint CASCADE",
    ),
    (
        "CREATE FUNCTION tells() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; \
         CREATE TRIGGER tells AFTER DELETE ON accounts FOR EACH STATEMENT EXECUTE FUNCTION tells()",
        "trigger tells of public.accounts is FOR EACH STATEMENT",
        "DROP FUNCTION tells CASCADE",
    ),
    (
        "CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$; \
         CREATE TRIGGER counts AFTER INSERT ON accounts REFERENCING NEW TABLE AS made FOR EACH ROW \
         EXECUTE FUNCTION counts()",
        "trigger counts of public.accounts is FOR EACH STATEMENT, or has transition tables",
        "DROP FUNCTION counts CASCADE",
    ),
    (
        "CREATE TYPE mood AS ENUM ('fine'); ALTER TABLE accounts ADD COLUMN mood mood",
        "node n2 can't have the tables",
        "ALTER TABLE accounts DROP COLUMN mood; DROP TYPE mood",
    ),
];
