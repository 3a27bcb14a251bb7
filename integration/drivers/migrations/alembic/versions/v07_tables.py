"""Tables that come and go; identity columns; a view; triggers."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "v07", "v06"


def upgrade():
    op.create_table(
        "payments",
        sa.Column("tenant_id", sa.BigInteger, sa.ForeignKey("tenants.id")),
        sa.Column("id", sa.BigInteger, sa.Identity(always=False)),
        sa.Column("order_id", sa.Integer, nullable=False),
        sa.Column("paid", sa.Numeric(10, 2), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
        sa.ForeignKeyConstraint(["tenant_id", "order_id"], ["orders.tenant_id", "orders.id"], name="of_order"),
        sa.CheckConstraint("paid > 0", name="some"),
        sa.Index("paid_when", "tenant_id", "paid"),
        comment="what came in",
    )
    op.execute(
        "INSERT INTO payments (tenant_id, id, order_id, paid)"
        " SELECT tenant_id, id + 1000, id, total FROM orders WHERE status = 'settled' AND total > 0"
    )
    op.create_table("labels", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text, unique=True))
    op.execute("CREATE VIEW balances AS SELECT tenant_id, sum(paid) AS paid FROM payments GROUP BY tenant_id")
    op.execute(
        "CREATE FUNCTION tidy() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.number := upper(NEW.number); RETURN NEW; END $$"
    )
    op.execute("CREATE TRIGGER tidy BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION tidy()")
    op.execute("UPDATE orders SET total = total + 1 WHERE tenant_id < 9")
    op.drop_table("items")


def downgrade():
    op.create_table(
        "items",
        sa.Column("tenant_id", sa.BigInteger, primary_key=True),
        sa.Column("order_id", sa.Integer, primary_key=True),
        sa.Column("line", sa.Integer, primary_key=True),
        sa.Column("name", sa.Enum(name="kind", create_type=False), server_default="x"),
    )
    op.create_foreign_key(
        "order", "items", "orders", ["tenant_id", "order_id"], ["tenant_id", "id"], ondelete="CASCADE"
    )
    op.create_foreign_key("of_tenant", "items", "tenants", ["tenant_id"], ["id"])
    op.create_check_constraint("line", "items", "line > 0")
    op.execute("CREATE UNIQUE INDEX items_once ON items (tenant_id, order_id, line, name)")
    op.create_index("item_names", "items", ["name"])
    op.execute("INSERT INTO items SELECT tenant_id, id, 1 FROM orders WHERE id % 7 = 0")
    op.execute("DROP TRIGGER tidy ON orders")
    op.execute("DROP FUNCTION tidy()")
    op.execute("DROP VIEW balances")
    op.drop_table("labels")
    op.drop_table("payments")
