"""Constraints: checks, unique ones with the key, foreign keys to tables of each kind."""

from alembic import op

revision, down_revision = "v04", "v03"


def upgrade():
    op.create_check_constraint("positive", "orders", "total >= 0")
    op.create_check_constraint("short", "plans", "length(name) < 60")
    op.create_unique_constraint("number", "orders", ["tenant_id", "number", "at"])
    op.create_foreign_key("plan", "tenants", "plans", ["plan"], ["id"], ondelete="RESTRICT")
    op.create_foreign_key(
        "order", "items", "orders", ["tenant_id", "order_id"], ["tenant_id", "id"], ondelete="CASCADE"
    )
    op.execute("ALTER TABLE items ADD CONSTRAINT line CHECK (line > 0) NOT VALID")
    op.execute("ALTER TABLE items VALIDATE CONSTRAINT line")
    op.execute("ALTER TABLE items ADD CONSTRAINT of_tenant FOREIGN KEY (tenant_id) REFERENCES tenants (id) NOT VALID")
    op.execute("ALTER TABLE items VALIDATE CONSTRAINT of_tenant")
    op.execute("ALTER TABLE orders RENAME CONSTRAINT positive TO not_negative")
    op.execute("ALTER TABLE orders RENAME CONSTRAINT number TO one_a_day")
    op.drop_constraint("tenant", "orders", type_="foreignkey")
    op.create_foreign_key("tenant", "orders", "tenants", ["tenant_id"], ["id"], deferrable=True, initially="DEFERRED")
    # As an index that was made without blocking becomes a constraint.
    op.execute("CREATE UNIQUE INDEX items_once ON items (tenant_id, order_id, line, name)")


def downgrade():
    op.drop_index("items_once", "items")
    op.drop_constraint("tenant", "orders", type_="foreignkey")
    op.create_foreign_key("tenant", "orders", "tenants", ["tenant_id"], ["id"])
    op.execute("ALTER TABLE orders RENAME CONSTRAINT not_negative TO positive")
    for name, table in (("of_tenant", "items"), ("line", "items"), ("order", "items"), ("plan", "tenants")):
        op.drop_constraint(name, table)
    for name, table in (("one_a_day", "orders"), ("short", "plans"), ("positive", "orders")):
        op.drop_constraint(name, table)
