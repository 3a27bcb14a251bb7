"""SQLAlchemy makes the tables, and Alembic's autogenerate finds nothing to change."""

import sys

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import (
    BigInteger, Column, DateTime, ForeignKey, ForeignKeyConstraint, Index, Integer, MetaData,
    Numeric, String, Table, Text, UniqueConstraint, create_engine, func, inspect, text,
)

metadata = MetaData()
Table("plans", metadata, Column("id", Integer, primary_key=True), Column("name", Text))
Table(
    "tenants", metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(80), nullable=False, comment="as on the door"),
    Column("plan", Integer, ForeignKey("plans.id")),
)
Table(
    "orders", metadata,
    Column("tenant_id", BigInteger, ForeignKey("tenants.id"), primary_key=True),
    Column("id", BigInteger, primary_key=True),
    Column("total", Numeric(12, 2), nullable=False, server_default="0"),
    Column("number", String(20)),
    Column("at", DateTime(timezone=True), server_default=func.now()),
    Index("by_at", "tenant_id", "at"),
    UniqueConstraint("tenant_id", "number", name="number"),
)
Table(
    "items", metadata,
    Column("tenant_id", BigInteger, primary_key=True),
    Column("order_id", BigInteger, primary_key=True),
    Column("line", Integer, primary_key=True),
    ForeignKeyConstraint(
        ["tenant_id", "order_id"], ["orders.tenant_id", "orders.id"],
        ondelete="CASCADE",
    ),
)

engine = create_engine(sys.argv[1].replace("postgresql://", "postgresql+psycopg://"))
with engine.begin() as connection:
    metadata.create_all(connection)

with engine.connect() as connection:
    found = compare_metadata(MigrationContext.configure(connection), metadata)
    assert not found, found
    names = inspect(connection).get_table_names()
    assert sorted(names) == sorted(metadata.tables), names
    keys = inspect(connection).get_foreign_keys("items")
    assert [key["referred_table"] for key in keys] == ["orders"], keys
    connection.execute(text("ALTER TABLE orders ADD COLUMN note text"))
    connection.commit()

with engine.connect() as connection:
    found = compare_metadata(MigrationContext.configure(connection), metadata)
    found = found
    assert [change[0] for change in found] == ["remove_column"], found

print("ok")
