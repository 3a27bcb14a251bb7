"""Tables of each kind, with rows."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "v01", None
STATUS = sa.Enum("new", "paid", name="status")


def upgrade():
    plans = op.create_table("plans", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text))
    tenants = op.create_table(
        "tenants",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(20), nullable=False),
        sa.Column("plan", sa.Integer),
        sa.Column("old", sa.Text),
    )
    orders = op.create_table(
        "orders",
        sa.Column("tenant_id", sa.BigInteger, sa.ForeignKey("tenants.id", name="tenant"), primary_key=True),
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("total", sa.Integer),
        sa.Column("status", STATUS, server_default="new"),
        sa.Column("code", sa.String(8)),
        sa.Column("at", sa.Date),
    )
    items = op.create_table(
        "items",
        sa.Column("tenant_id", sa.BigInteger, primary_key=True),
        sa.Column("order_id", sa.Integer, primary_key=True),
        sa.Column("line", sa.SmallInteger, primary_key=True),
        sa.Column("name", sa.Text),
    )
    notes = op.create_table(
        "notes", sa.Column("id", sa.Integer, primary_key=True), sa.Column("body", sa.Text), sa.Column("kind", sa.Text)
    )
    op.bulk_insert(plans, [{"id": n, "name": f"plan {n}"} for n in range(1, 4)])
    op.bulk_insert(tenants, [{"id": n, "name": f"t{n}", "plan": n % 3 + 1, "old": str(n)} for n in range(1, 31)])
    op.bulk_insert(
        orders,
        [
            {"tenant_id": n % 30 + 1, "id": n, "total": n * 10, "code": f"c{n}", "status": ["new", "paid"][n % 2]}
            for n in range(120)
        ],
    )
    op.bulk_insert(items, [{"tenant_id": n % 30 + 1, "order_id": n, "line": 1, "name": "x"} for n in range(60)])
    op.bulk_insert(notes, [{"body": f"n{n}", "kind": "a"} for n in range(10)])


def downgrade():
    for table in ("notes", "items", "orders", "tenants", "plans"):
        op.drop_table(table)
    STATUS.drop(op.get_bind())
