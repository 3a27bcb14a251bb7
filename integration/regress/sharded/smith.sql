-- Tables of each kind, with few rows of many types; smith.py has the policy.
CREATE TABLE plans (id integer PRIMARY KEY, name text NOT NULL, price numeric(10, 2), tags text[]);
CREATE TABLE accounts (
  id bigint PRIMARY KEY, plan integer REFERENCES plans, name text NOT NULL, born date, active boolean,
  score double precision, uid uuid
);
CREATE TABLE orders (
  account_id bigint REFERENCES accounts, id integer, total numeric(12, 2), placed timestamptz,
  status varchar(10) DEFAULT 'new', details jsonb, PRIMARY KEY (account_id, id)
);
CREATE TABLE lines (
  account_id bigint, order_id integer, line smallint, amount real CHECK (amount >= 0), note text COLLATE "C",
  took interval, PRIMARY KEY (account_id, order_id, line),
  FOREIGN KEY (account_id, order_id) REFERENCES orders (account_id, id) ON DELETE CASCADE
);
CREATE TABLE days (
  day date, visitor integer, hits bigint, seen timestamp, at time, parts integer[], PRIMARY KEY (day, visitor)
);
CREATE TABLE places (
  region text, code char(4), at point, address inet, raw bytea, reach int4range, PRIMARY KEY (region, code)
);
CREATE TABLE pairs (a integer, b text, c bigint, d xml, e bit(8), UNIQUE (a, b));
CREATE TABLE notes (id integer PRIMARY KEY, account_id bigint, body text, written timestamptz);
CREATE VIEW bills AS
  SELECT o.account_id, a.name, count(*) AS orders, sum(o.total) AS total
  FROM orders o JOIN accounts a ON a.id = o.account_id GROUP BY 1, 2;
CREATE VIEW open_orders AS SELECT account_id, id, total, placed FROM orders WHERE status = 'new';
