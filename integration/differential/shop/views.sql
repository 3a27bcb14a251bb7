CREATE VIEW tenant_names AS SELECT id, name, country FROM tenants;
CREATE VIEW paid (tenant, order_no, amount) AS
  SELECT tenant_id, id, total FROM orders WHERE status = 'paid' OR status IS NULL;
CREATE VIEW order_lines AS SELECT o.tenant_id, o.id, o.status, o.placed, i.line, i.sku, i.quantity * i.price AS cost
  FROM orders o JOIN items i ON i.tenant_id = o.tenant_id AND i.order_id = o.id;
CREATE VIEW totals AS SELECT tenant_id, count(*) AS orders, sum(total) AS total, max(placed) AS latest
  FROM orders GROUP BY tenant_id;
CREATE VIEW rich AS SELECT t.name, x.total FROM tenant_names t JOIN totals x ON x.tenant_id = t.id
  WHERE x.total > 1000;
CREATE VIEW sales.everybody AS SELECT email AS who, score FROM users
  UNION ALL SELECT name, id::int FROM tenants;
CREATE VIEW latest AS SELECT DISTINCT ON (tenant_id) tenant_id, id, placed FROM orders
  ORDER BY tenant_id, placed DESC;
CREATE VIEW first_orders AS SELECT tenant_id, id FROM orders ORDER BY tenant_id, id LIMIT 10;
CREATE VIEW ranked AS SELECT tenant_id, id, rank() OVER (PARTITION BY tenant_id ORDER BY total DESC NULLS LAST, id) AS place
  FROM orders;
CREATE VIEW with_settings AS SELECT t.id, t.name, s.value FROM tenants t JOIN settings s ON s.tenant_id = t.id;
CREATE VIEW with_country AS SELECT t.id, t.name, c.name AS country FROM tenants t LEFT JOIN countries c ON c.code = t.country;
CREATE VIEW plain_countries AS SELECT code, upper(name) AS name FROM countries;
