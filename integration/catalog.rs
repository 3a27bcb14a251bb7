//! Constraints that stand on partitions, and the system catalog as applications see it through the
//! proxy: psql, pg_dump, SQLAlchemy with Alembic, Django.
#![allow(unreachable_pub, reason = "what the parts of this test share")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by a panic"
)]

#[path = "catalog/constraints.rs"]
mod constraints;
#[path = "catalog/dump.rs"]
mod dump;
#[path = "catalog/migrations.rs"]
mod migrations;
#[path = "catalog/psql.rs"]
mod psql;
mod support;
#[path = "catalog/tools.rs"]
mod tools;
mod write_support;
