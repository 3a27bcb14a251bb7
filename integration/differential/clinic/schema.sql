CREATE TYPE urgency AS ENUM ('routine', 'soon', 'now');
CREATE DOMAIN dose AS numeric(8,3) CHECK (VALUE > 0);
CREATE DOMAIN code AS text CHECK (VALUE ~ '^[A-Z]{2}[0-9]+$');
CREATE TYPE span AS (low int, high int);
CREATE TABLE drugs (id int PRIMARY KEY, name text UNIQUE NOT NULL, unit dose NOT NULL, class text, aliases text[]);
CREATE TABLE tariffs (class text NOT NULL, valid daterange NOT NULL, price numeric(8,2) NOT NULL, PRIMARY KEY (class, valid));
CREATE TABLE settings (name text PRIMARY KEY, value jsonb, weight int);
CREATE TABLE log (id bigserial PRIMARY KEY, clinic_id bigint, what text, amount numeric);
CREATE TABLE clinics (id bigint PRIMARY KEY, name text NOT NULL, city text COLLATE "C", opened date, beds int, head bigint, tags text[] NOT NULL DEFAULT '{}');
CREATE TABLE patients (clinic_id bigint NOT NULL REFERENCES clinics (id), id bigint NOT NULL, first text, last text,
  full_name text GENERATED ALWAYS AS (coalesce(first, '?') || ' ' || last) STORED, born date, code code, height span, meta jsonb NOT NULL DEFAULT '{}',
  PRIMARY KEY (clinic_id, id));
CREATE TABLE visits (clinic_id bigint NOT NULL, id bigint NOT NULL, patient_id bigint NOT NULL, urgency urgency NOT NULL DEFAULT 'routine',
  during tsrange, started timestamp, minutes int, drug_id int, amount dose, state text NOT NULL DEFAULT 'open', PRIMARY KEY (clinic_id, id),
  FOREIGN KEY (clinic_id, patient_id) REFERENCES patients (clinic_id, id) ON DELETE CASCADE);
CREATE UNIQUE INDEX visits_one_open ON visits (clinic_id, patient_id) WHERE state = 'open';
CREATE TABLE bills (clinic_id bigint NOT NULL, id bigint NOT NULL, patient_id bigint, net numeric(10,2) NOT NULL, rate numeric(4,3) NOT NULL DEFAULT 0.19,
  gross numeric(12,2) GENERATED ALWAYS AS (round(net * (1 + rate), 2)) STORED, issued date, paid boolean NOT NULL DEFAULT false, PRIMARY KEY (clinic_id, id));
CREATE TABLE stock (clinic_id bigint NOT NULL, drug_id int NOT NULL REFERENCES drugs (id), amount int NOT NULL CHECK (amount >= 0), touched int NOT NULL DEFAULT 0,
  PRIMARY KEY (clinic_id, drug_id));
CREATE TABLE shifts (clinic_id bigint NOT NULL, nurse text NOT NULL, days int4multirange NOT NULL, hours numeric[], PRIMARY KEY (clinic_id, nurse));
CREATE TABLE tallies (clinic_id bigint NOT NULL, what text NOT NULL, n bigint NOT NULL DEFAULT 0, PRIMARY KEY (clinic_id, what));
CREATE TABLE secrets (clinic_id bigint NOT NULL, id int NOT NULL, owner text, body text, PRIMARY KEY (clinic_id, id));
CREATE TABLE samples (day date NOT NULL, probe int NOT NULL, value double precision, flags bit(4), PRIMARY KEY (day, probe));
CREATE TABLE depots (region text NOT NULL, id int NOT NULL, name text, place point, PRIMARY KEY (region, id));
CREATE TABLE parcels (region text NOT NULL, id bigint NOT NULL, depot_id int, weight real, sent timestamptz, history jsonb, PRIMARY KEY (region, id));
CREATE TABLE badges (id uuid PRIMARY KEY, clinic_id bigint, holder text, until timestamptz);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON stock FOR EACH ROW WHEN (OLD.amount IS DISTINCT FROM NEW.amount) EXECUTE FUNCTION touch();
CREATE VIEW open_visits AS SELECT clinic_id, id, patient_id, urgency FROM visits WHERE state = 'open';
CREATE VIEW bill_sums AS SELECT clinic_id, count(*) AS n, sum(gross) AS gross, bool_and(paid) AS all_paid FROM bills GROUP BY clinic_id;
