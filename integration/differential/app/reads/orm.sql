-- parameters: 7
SELECT "accounts".* FROM "accounts" WHERE "accounts"."id" = $1 LIMIT 1;
-- parameters: 7 | 1
SELECT "members"."email" FROM "members" WHERE "members"."account_id" = $1 ORDER BY "members"."email" ASC LIMIT $2;
SELECT "tasks"."id", "tasks"."title" FROM "tasks" INNER JOIN "projects" ON "projects"."account_id" = "tasks"."account_id" AND "projects"."id" = "tasks"."project_id" WHERE "projects"."deleted_at" IS NULL AND "tasks"."state" = 'active' ORDER BY "tasks"."id" DESC LIMIT 10 OFFSET 5;
-- parameters: active | 11
SELECT t.id, t.title FROM tasks t WHERE t.state = $1::task_state AND t.account_id = $2;
-- parameters: active
SELECT count(*) FROM tasks WHERE state = $1;
SELECT COUNT(*) AS "__count" FROM "tasks" WHERE NOT ("tasks"."state" = 'done' AND "tasks"."state" IS NOT NULL);
SELECT (1) AS "a" FROM "members" WHERE "members"."email" = 'm1@a7.example' LIMIT 1;
SELECT "accounts"."id", "accounts"."name", COUNT("tasks"."id") AS "n" FROM "accounts" LEFT OUTER JOIN "tasks" ON ("accounts"."id" = "tasks"."account_id") GROUP BY "accounts"."id" HAVING COUNT("tasks"."id") > 3 ORDER BY "n" DESC, "accounts"."id" ASC;
SELECT "accounts"."id", (SELECT U0."email" FROM "members" U0 WHERE U0."account_id" = ("accounts"."id") ORDER BY U0."email" ASC LIMIT 1) AS "first" FROM "accounts" ORDER BY 1;
SELECT "accounts"."id" FROM "accounts" WHERE EXISTS(SELECT 1 AS "a" FROM "invoices" U0 WHERE (U0."account_id" = ("accounts"."id") AND U0."paid" IS NULL) LIMIT 1) ORDER BY 1;
SELECT "accounts"."id" FROM "accounts" WHERE NOT ("accounts"."id" IN (SELECT U0."account_id" FROM "projects" U0 WHERE U0."budget" > 500)) ORDER BY 1;
SELECT t0.id, t0.name FROM public.accounts AS t0 LEFT JOIN public.plans AS j0 ON (j0.id) = (t0.plan_id) WHERE (j0.code = 'team' AND (NOT j0.id IS NULL)) ORDER BY t0.id ASC LIMIT 5 OFFSET 0;
-- parameters: 1 | 2 | 3 | 4
SELECT "public"."members"."id", "public"."members"."account_id" FROM "public"."members" WHERE "public"."members"."account_id" IN ($1, $2, $3, $4) ORDER BY 2, 1 OFFSET 0;
-- parameters: {3,5,8}
SELECT id, name FROM accounts WHERE id = ANY ($1) ORDER BY id;
-- parameters: {3,5,8}
SELECT account_id, count(*) FROM tasks WHERE account_id = ANY ($1::bigint[]) GROUP BY 1 ORDER BY 1;
-- parameters: {m1@a7.example,m2@a9.example}
SELECT account_id, email FROM members WHERE email = ANY ($1::text[]) ORDER BY 1, 2;
SELECT a.* FROM accounts a INNER JOIN unnest(ARRAY[5, 2, 9]::bigint[]) WITH ORDINALITY AS w(id, ord) ON w.id = a.id ORDER BY w.ord;
-- parameters: {5,2,9,2}
SELECT w.ord, a.name FROM unnest($1::bigint[]) WITH ORDINALITY AS w(id, ord) LEFT JOIN accounts a ON a.id = w.id ORDER BY w.ord;
SELECT a.id, v.label FROM accounts a JOIN (VALUES (3, 'three'), (4, 'four'), (99, 'none')) AS v(id, label) ON v.id = a.id ORDER BY 1;
SELECT v.label, a.id FROM (VALUES (3::bigint, 'three'), (99, 'none')) AS v(id, label) LEFT JOIN accounts a ON a.id = v.id ORDER BY 1;
SELECT id, account_id, written FROM comments WHERE (written, id) < ('2024-05-20 00:00', 300000) ORDER BY written DESC, id DESC LIMIT 10;
-- parameters: 2024-05-10 | 500
SELECT id, written FROM comments WHERE (written, id) > ($1::timestamp, $2::bigint) ORDER BY written ASC, id ASC LIMIT 15;
-- parameters: 11 | 11000
SELECT id FROM tasks WHERE account_id = $1 AND (priority, id) > (1, $2) ORDER BY priority, id LIMIT 3;
SELECT id FROM accounts WHERE (id, name) IN ((1, 'Account A1'), (2, 'Account X'), (40, 'Account N40')) ORDER BY id;
SELECT id FROM accounts WHERE id NOT IN (SELECT parent FROM accounts) ORDER BY id;
SELECT id FROM accounts WHERE id NOT IN (SELECT parent FROM accounts WHERE parent IS NOT NULL) ORDER BY id;
SELECT name FROM accounts a WHERE NOT EXISTS (SELECT FROM accounts c WHERE c.parent = a.id) AND a.id < 9 ORDER BY id;
SELECT name FROM accounts WHERE (plan_id = 2 OR plan_id IS NULL) AND lower(name) LIKE 'account %' ORDER BY id LIMIT 5;
SELECT id FROM accounts WHERE name ILIKE '%b%' OR name SIMILAR TO 'Account (C|D)%' ORDER BY id;
SELECT id FROM accounts WHERE name ~* 'account [x-z]' ORDER BY id;
SELECT id, created AT TIME ZONE 'Europe/Berlin' FROM accounts WHERE created BETWEEN '2023-06-01' AND '2023-09-01' ORDER BY created;
SELECT id FROM accounts WHERE created > now() - interval '1 year' ORDER BY id;
SELECT count(*) FROM tasks WHERE due < CURRENT_DATE;
SELECT id, (home).city FROM accounts WHERE (home).city = 'Paris' ORDER BY id;
SELECT (home).*, id FROM accounts WHERE id IN (5, 6) ORDER BY id;
SELECT home FROM accounts WHERE id < 5 ORDER BY id;
SELECT ROW(id, name)::text, (a).id FROM accounts a WHERE id IN (1, 2, 3) ORDER BY id;
SELECT a FROM accounts a WHERE id < 3 ORDER BY id;
SELECT to_jsonb(a) - 'settings' FROM accounts a WHERE id < 4 ORDER BY id;
SELECT row_to_json(t) FROM (SELECT id, title FROM tasks WHERE account_id = 9) t ORDER BY t.id;
SELECT row_to_json(t.*) FROM (SELECT account_id, count(*) AS n FROM tasks GROUP BY 1) t ORDER BY t.account_id;
SELECT a.id, COALESCE(json_agg(t.title ORDER BY t.id) FILTER (WHERE t.id IS NOT NULL), '[]') AS tasks FROM accounts a LEFT JOIN tasks t ON t.account_id = a.id AND t.priority = 4 GROUP BY a.id ORDER BY a.id;
SELECT a.id, coalesce((SELECT json_agg(x) FROM (SELECT p.id, p.title FROM projects p WHERE p.account_id = a.id ORDER BY p.id) x), '[]'::json) FROM accounts a ORDER BY a.id;
SELECT (SELECT coalesce(json_agg(row_to_json(r)), '[]') FROM (SELECT id, name FROM accounts ORDER BY id LIMIT 3) r) AS data;
SELECT m.full_name, m.roles FROM members m WHERE 'admin' = ANY (m.roles) AND m.active ORDER BY m.account_id, m.email;
SELECT m.email, r.role FROM members m CROSS JOIN LATERAL unnest(m.roles) AS r(role) WHERE m.account_id < 9 ORDER BY 1, 2;
SELECT u.role, count(*) FROM members, unnest(roles) AS u(role) GROUP BY 1 ORDER BY 1;
SELECT unnest(roles) AS role, count(*) FROM members GROUP BY 1 ORDER BY 2 DESC, 1;
SELECT email FROM members WHERE roles && ARRAY['billing', 'owner'] AND NOT roles @> '{admin}' ORDER BY 1;
SELECT l.agent, m.email FROM logins l JOIN members m ON m.account_id = l.account_id AND m.id = l.member ORDER BY l.expires, m.email LIMIT 12;
SELECT l.token FROM logins l WHERE l.token = md5('l5')::uuid;
-- parameters: 3c28c5a2-0b8a-4f2c-9e3a-1f2b3c4d5e6f
SELECT * FROM logins WHERE token = $1;
SELECT l.token, a.name FROM logins l, accounts a WHERE l.account_id = a.id AND l.expires > '2024-05-10' AND a.plan_id = 3 ORDER BY 1;
SELECT f.name, a.name FROM flags f JOIN accounts a ON a.id = ANY (f.accounts) WHERE f.enabled ORDER BY 1, a.id;
SELECT a.id FROM accounts a WHERE a.id IN (SELECT unnest(accounts) FROM flags WHERE name = 'f4') ORDER BY 1;
SELECT t.id FROM open_tasks t JOIN accounts a ON a.id = t.account_id WHERE t.due < '2024-05-20' AND a.plan_id = 1 ORDER BY t.due, t.id;
SELECT a.id, b.id FROM accounts a LEFT JOIN accounts b ON b.id = a.parent WHERE a.id > 30 ORDER BY 1;
SELECT i.number FROM invoices i NATURAL JOIN invoice_lines l WHERE l.item = 'support' ORDER BY i.account_id, 1;
SELECT count(*) FROM invoices i FULL JOIN projects p ON p.account_id = i.account_id AND p.budget = i.total;
SELECT i.number, l.line, l.unit, l.unit * l.quantity FROM invoices i JOIN invoice_lines l USING (account_id, number) WHERE account_id = 14 ORDER BY 1, 2;
SELECT sum(unit * quantity) FROM invoice_lines;
SELECT item, max(unit), min(unit) FROM invoice_lines GROUP BY item ORDER BY item;
SELECT meta->>'po' FROM invoices WHERE account_id = 3 ORDER BY number;
SELECT net(total), net(total, 0.07), net(gross => total) FROM invoices WHERE account_id = 8 ORDER BY number;
SELECT sum(net(total)) FROM invoices;
SELECT id, title FROM tasks WHERE title COLLATE "C" > 'W' ORDER BY title COLLATE "C", id LIMIT 5;
SELECT state FROM tasks WHERE state > 'active' GROUP BY state ORDER BY state DESC;
SELECT min(state), max(state) FROM tasks;
SELECT max(budget), sum(budget), avg(budget) FROM projects;
SELECT priority, array_agg(DISTINCT state ORDER BY state) FROM tasks GROUP BY priority ORDER BY priority;
SELECT sum(estimate), max(estimate), avg(estimate) FROM tasks;
SELECT project_id, sum(estimate) FROM tasks WHERE account_id < 12 GROUP BY project_id ORDER BY 1;
SELECT DISTINCT tags FROM tasks ORDER BY tags;
SELECT id FROM tasks WHERE tags IS NOT DISTINCT FROM '{}' AND account_id BETWEEN 3 AND 7 ORDER BY id;
SELECT greatest(max(priority), 3), least(min(due), '2024-01-01') FROM tasks;
SELECT 'x' AS kind, id::text FROM accounts WHERE id = 3 UNION SELECT 'y', number FROM invoices WHERE account_id = 3 ORDER BY 1, 2;
SELECT EXISTS (SELECT * FROM accounts WHERE name = 'Account A1'), EXISTS (SELECT FROM tasks WHERE priority > 100);
SELECT * FROM (SELECT account_id, id, title FROM projects WHERE deleted_at IS NULL) p WHERE p.account_id = 11 OR p.account_id = 15 ORDER BY 2;
SELECT id FROM accounts WHERE CASE WHEN plan_id = 1 THEN id > 20 ELSE id < 5 END ORDER BY id;
SELECT id FROM accounts WHERE settings @> '{"theme": "dark"}' AND id = 4 OR id = 6 ORDER BY id;
TABLE plans ORDER BY id;
TABLE counters;
SELECT ALL id FROM accounts WHERE id = 3;
SELECT account_id, array_agg(value) FROM (SELECT * FROM counters ORDER BY name) c GROUP BY account_id ORDER BY 1;
SELECT pg_typeof(total)::text, pg_typeof(state)::text FROM invoices, tasks WHERE invoices.account_id = 3 AND tasks.account_id = 3 LIMIT 1;
