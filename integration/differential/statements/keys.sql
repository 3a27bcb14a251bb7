SELECT u.email, o.id FROM users u JOIN orders o ON o.tenant_id = u.tenant_id WHERE u.email = 'user5@example.jp';
SELECT o.id, u.email FROM orders o JOIN users u ON o.tenant_id = u.tenant_id WHERE u.score = 5;
SELECT count(*) FROM orders o, users u WHERE u.tenant_id = o.tenant_id AND u.score < 3;
SELECT u.email, o.id FROM users u LEFT JOIN orders o ON o.tenant_id = u.tenant_id AND o.total > 100 WHERE u.score = 5;
SELECT u.email, o.id FROM orders o RIGHT JOIN users u ON o.tenant_id = u.tenant_id WHERE u.email = 'user8@example.jp';
SELECT u.email, o.id, i.line FROM users u JOIN orders o ON o.tenant_id = u.tenant_id JOIN items i ON i.order_id = o.id WHERE u.email = 'user5@example.jp';
SELECT e.kind, o.note FROM events e JOIN orders o ON o.id = e.order_id WHERE e.day = 7;
SELECT e.kind, o.note FROM events e JOIN orders o ON e.order_id = o.id WHERE e.id = '8f14e45f-ceea-167a-5a36-dedd4bea2543';
-- parameters: user5@example.jp
SELECT u.email, o.id FROM users u JOIN orders o ON o.tenant_id = u.tenant_id WHERE u.email = $1;
SELECT u.email FROM users u JOIN orders o ON o.tenant_id = u.tenant_id WHERE u.email = 'nobody';
SELECT u.email, (SELECT count(*) FROM orders o JOIN users w ON w.tenant_id = o.tenant_id AND w.score = 5) FROM users u WHERE u.score = 5;
SELECT a.email, b.email FROM users a JOIN users b ON b.score = a.score WHERE a.email = 'user5@example.jp';
WITH x AS (SELECT o.id, u.email FROM users u JOIN orders o ON o.tenant_id = u.tenant_id WHERE u.score = 5) SELECT count(*), max(email) FROM x;
SELECT u.email, o.id FROM users u JOIN orders o ON o.tenant_id = u.tenant_id WHERE u.score = 5 AND o.note IS NULL;
SELECT u.email, 1 / (o.id - 501) FROM users u JOIN orders o ON o.tenant_id = u.tenant_id WHERE u.email = 'user5@example.jp';
SELECT u.email, o.id FROM users u JOIN orders o ON o.tenant_id = u.tenant_id WHERE u.email = 'user5@example.jp';
