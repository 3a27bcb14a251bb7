"""Rows: changed in batches, moved between tables, taken out."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "v05", "v04"
orders = sa.table("orders", sa.column("tenant_id"), sa.column("id"), sa.column("total"), sa.column("number"))


def upgrade():
    bind = op.get_bind()
    op.execute("UPDATE tenants SET email = lower(title) || '@example.org'")
    last = (0, -1)
    while True:
        # The next ones by the primary key.
        key = sa.tuple_(orders.c.tenant_id, orders.c.id)
        batch = bind.execute(
            sa.select(orders).where(key > last).order_by(orders.c.tenant_id, orders.c.id).limit(25)
        ).fetchall()
        if not batch:
            break
        for row in batch:
            bind.execute(
                orders.update()
                .where(orders.c.tenant_id == row.tenant_id, orders.c.id == row.id)
                .values(number=f"{row.number}-{row.total}"[:8])
            )
        last = (batch[-1].tenant_id, batch[-1].id)
    while bind.execute(
        sa.text(
            "UPDATE items SET name = 'y' WHERE (tenant_id, order_id, line) IN"
            " (SELECT tenant_id, order_id, line FROM items WHERE name = 'x' LIMIT 20)"
        )
    ).rowcount:
        pass
    op.execute("INSERT INTO notes (body) SELECT title FROM tenants WHERE id < 4 ORDER BY id")
    op.execute("UPDATE tenants SET old = (SELECT count(*) FROM orders o WHERE o.tenant_id = tenants.id)")
    op.execute("UPDATE orders SET total = total + p.id FROM tenants t JOIN plans p ON p.id = t.plan WHERE t.id = tenant_id")
    op.execute("DELETE FROM items USING orders o WHERE o.tenant_id = items.tenant_id AND o.id = order_id AND o.total > 500")
    op.execute("UPDATE plans SET price = price * 2")


def downgrade():
    op.execute("UPDATE plans SET price = price / 2")
    op.execute("DELETE FROM notes WHERE body LIKE 't%'")
    op.execute("UPDATE tenants SET email = NULL")
    op.execute("UPDATE items SET name = 'x'")
