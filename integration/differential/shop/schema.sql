CREATE SCHEMA sales;
CREATE TABLE countries (code text PRIMARY KEY, name text NOT NULL, population bigint);
CREATE TABLE settings (name text PRIMARY KEY, value jsonb, tenant_id bigint);
CREATE TABLE tenants (id bigint PRIMARY KEY, name text NOT NULL, country text, active boolean,
  since date, rating numeric(4,2));
CREATE TABLE orders (tenant_id bigint NOT NULL, id bigint NOT NULL, status varchar(12),
  placed timestamp, shipped timestamptz, total numeric(12,2), discount double precision,
  tags text[], note text COLLATE "C", PRIMARY KEY (tenant_id, id));
CREATE TABLE items (tenant_id bigint NOT NULL, order_id bigint NOT NULL, line int NOT NULL,
  sku text, quantity smallint, price numeric, props jsonb, PRIMARY KEY (tenant_id, order_id, line));
CREATE TABLE users (email text PRIMARY KEY, "Full Name" text, born date, tenant_id bigint,
  score int, data bytea);
CREATE TABLE sales.visits (email text NOT NULL, at timestamptz NOT NULL, path text, took interval,
  PRIMARY KEY (email, at));
CREATE TABLE events (id uuid PRIMARY KEY, kind text, order_id bigint, payload jsonb, weight real,
  day int);
