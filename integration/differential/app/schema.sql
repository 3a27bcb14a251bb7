CREATE TYPE task_state AS ENUM ('new', 'active', 'blocked', 'done');
CREATE DOMAIN positive AS numeric(12,2) CHECK (VALUE >= 0);
CREATE TYPE address AS (street text, city text, zip text);
CREATE TABLE plans (id int PRIMARY KEY, code text UNIQUE NOT NULL, price numeric(8,2), limits jsonb);
CREATE TABLE currencies (code char(3) PRIMARY KEY, name text, rate numeric);
CREATE TABLE flags (name text PRIMARY KEY, enabled boolean NOT NULL DEFAULT false, accounts bigint[], note text);
CREATE TABLE audit (id serial PRIMARY KEY, account_id bigint, what text, at timestamptz DEFAULT '2024-01-01 00:00+00');
CREATE TABLE accounts (id bigint PRIMARY KEY, name text NOT NULL, plan_id int REFERENCES plans (id), home address,
  created timestamptz NOT NULL, settings jsonb NOT NULL DEFAULT '{}', parent bigint, currency char(3));
CREATE TABLE members (account_id bigint NOT NULL REFERENCES accounts (id), id uuid NOT NULL, email text NOT NULL,
  full_name text GENERATED ALWAYS AS (first_name || ' ' || last_name) STORED, first_name text, last_name text,
  roles text[] NOT NULL DEFAULT '{}', last_seen timestamptz, active boolean NOT NULL DEFAULT true,
  PRIMARY KEY (account_id, id), CONSTRAINT members_email UNIQUE (account_id, email));
CREATE TABLE projects (account_id bigint NOT NULL, id bigint NOT NULL, title varchar(80) NOT NULL, lead uuid,
  span daterange, budget positive, deleted_at timestamptz, PRIMARY KEY (account_id, id));
CREATE TABLE tasks (account_id bigint NOT NULL, id bigint NOT NULL, project_id bigint, state task_state NOT NULL DEFAULT 'new',
  title text NOT NULL, priority smallint NOT NULL DEFAULT 0, due date, estimate interval, tags text[], parent_id bigint,
  position double precision, search tsvector GENERATED ALWAYS AS (to_tsvector('english', title)) STORED,
  PRIMARY KEY (account_id, id));
CREATE INDEX ON tasks USING gin (search);
CREATE UNIQUE INDEX tasks_open_title ON tasks (account_id, lower(title)) WHERE state = 'blocked';
CREATE TABLE comments (account_id bigint NOT NULL, id bigint NOT NULL, task_id bigint NOT NULL, author uuid, body text,
  written timestamp NOT NULL, PRIMARY KEY (account_id, id));
CREATE TABLE jobs (account_id bigint NOT NULL, id bigint NOT NULL, queue text NOT NULL DEFAULT 'default', status text NOT NULL DEFAULT 'new',
  attempts int NOT NULL DEFAULT 0, run_at timestamptz, payload jsonb, PRIMARY KEY (account_id, id));
CREATE TABLE invoices (account_id bigint NOT NULL, number text NOT NULL, issued date NOT NULL, paid date, currency char(3),
  total numeric(12,2), meta json, PRIMARY KEY (account_id, number));
CREATE TABLE invoice_lines (account_id bigint NOT NULL, number text NOT NULL, line int NOT NULL, item text, quantity int,
  unit money, amount numeric(12,2), PRIMARY KEY (account_id, number, line),
  FOREIGN KEY (account_id, number) REFERENCES invoices (account_id, number) ON DELETE CASCADE);
CREATE TABLE documents (account_id bigint NOT NULL, id bigint NOT NULL, body jsonb NOT NULL, xml text, ip inet, mac macaddr, bits bit(8),
  content bytea, PRIMARY KEY (account_id, id));
CREATE TABLE bookings (account_id bigint NOT NULL, room int NOT NULL, during tstzrange NOT NULL, seats int4range,
  PRIMARY KEY (account_id, room, during));
CREATE TABLE counters (account_id bigint NOT NULL, name text NOT NULL, value bigint NOT NULL DEFAULT 0, touched int NOT NULL DEFAULT 0,
  PRIMARY KEY (account_id, name));
CREATE TABLE devices (org int NOT NULL, serial text NOT NULL, model text, installed date, PRIMARY KEY (org, serial));
CREATE TABLE readings (org int NOT NULL, serial text NOT NULL, at timestamp NOT NULL, value real, PRIMARY KEY (org, serial, at));
CREATE TABLE metrics (day date NOT NULL, device int NOT NULL, hits bigint, ratio double precision, PRIMARY KEY (day, device));
CREATE TABLE stores (region text NOT NULL, id int NOT NULL, name text, PRIMARY KEY (region, id));
CREATE TABLE sales (region text NOT NULL, store_id int NOT NULL, sold date NOT NULL, product text NOT NULL, quantity int, amount numeric(10,2),
  PRIMARY KEY (region, store_id, sold, product));
CREATE TABLE logins (token uuid PRIMARY KEY, account_id bigint, member uuid, expires timestamptz, agent text);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON counters FOR EACH ROW EXECUTE FUNCTION touch();
CREATE FUNCTION net(gross numeric, rate numeric DEFAULT 0.19) RETURNS numeric LANGUAGE sql IMMUTABLE
  AS $$ SELECT round(gross / (1 + rate), 2) $$;
CREATE VIEW open_tasks AS SELECT account_id, id, title, state, due FROM tasks WHERE state <> 'done';
CREATE VIEW account_summary AS SELECT a.id, a.name, p.code AS plan, (SELECT count(*) FROM members m WHERE m.account_id = a.id) AS members,
  (SELECT count(*) FROM open_tasks t WHERE t.account_id = a.id) AS open FROM accounts a LEFT JOIN plans p ON p.id = a.plan_id;
CREATE VIEW monthly AS SELECT date_trunc('month', issued)::date AS month, currency, sum(total) AS total, count(*) AS invoices
  FROM invoices GROUP BY 1, 2;
CREATE FUNCTION stable_one(text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT $1 || count(*) FROM audit $$;
CREATE FUNCTION abs(bigint, int) RETURNS int LANGUAGE sql STABLE AS $$ SELECT count(*)::int FROM audit $$;
