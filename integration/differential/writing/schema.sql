CREATE TABLE plans (id bigint PRIMARY KEY, name text NOT NULL, seats bigint NOT NULL DEFAULT 3, note text);
CREATE TABLE settings (name text PRIMARY KEY, value bigint, note text DEFAULT 'set');
CREATE TABLE journal (id bigserial PRIMARY KEY, account bigint, what text DEFAULT 'made');
CREATE TABLE tenants (id bigint PRIMARY KEY, name text DEFAULT 'new', plan_id bigint REFERENCES plans (id),
  score int DEFAULT 1, tags text[], since date);
CREATE TABLE orders (tenant_id bigint NOT NULL REFERENCES tenants (id) ON DELETE CASCADE, id bigint, status text DEFAULT 'open',
  total numeric(10,2) DEFAULT 0 CHECK (total >= 0), placed date, touched int NOT NULL DEFAULT 0, PRIMARY KEY (tenant_id, id));
CREATE TABLE items (tenant_id bigint NOT NULL, order_id bigint, line bigint, sku text, quantity int DEFAULT 1 CHECK (quantity < 100000),
  PRIMARY KEY (tenant_id, order_id, line),
  FOREIGN KEY (tenant_id, order_id) REFERENCES orders (tenant_id, id) ON DELETE CASCADE);
CREATE TABLE notes (tenant_id bigint NOT NULL, id bigint, order_id bigint, body text DEFAULT 'none',
  size int GENERATED ALWAYS AS (length(body)) STORED, PRIMARY KEY (tenant_id, id),
  FOREIGN KEY (tenant_id, order_id) REFERENCES orders (tenant_id, id) ON DELETE SET NULL (order_id));
CREATE TABLE users (tenant_id bigint NOT NULL REFERENCES tenants ON DELETE CASCADE, id bigint, email text, city text,
  score int DEFAULT 1, PRIMARY KEY (tenant_id, id));
CREATE TABLE gone (tenant_id bigint NOT NULL, order_id bigint, status text);
CREATE TABLE parcels (code text PRIMARY KEY, id bigserial, tenant_id bigint, weight numeric(8,2), sent date);
CREATE TABLE devices (org int, serial text, model text DEFAULT 'alpha', level bigint, PRIMARY KEY (org, serial));
CREATE TABLE readings (org int, serial text, at bigint, value bigint DEFAULT 5, taken date, PRIMARY KEY (org, serial, at));
CREATE TABLE metrics (day date, device bigint, hits bigint DEFAULT 0, label text, PRIMARY KEY (day, device));
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.touched := OLD.touched + 1; RETURN NEW; END $$;
CREATE TRIGGER touched BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch();
CREATE FUNCTION small() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.status := lower(NEW.status); RETURN NEW; END $$;
CREATE TRIGGER small BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION small();
CREATE VIEW open_orders AS SELECT tenant_id, id, total, placed FROM orders WHERE status = 'open';
CREATE VIEW sizes AS SELECT t.id AS tenant_id, t.name, (SELECT count(*) FROM orders o WHERE o.tenant_id = t.id) AS orders FROM tenants t;
