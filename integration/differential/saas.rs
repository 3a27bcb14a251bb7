//! A second stranger's set: tenants, users, orders, events, what their framework sends and how it
//! migrates.

use super::app::{Files, assert_all_right};

const FILES: Files = Files { folder: "saas" };

async fn script(name: &str) {
    assert_all_right(&FILES.script(name).await);
}

#[tokio::test]
async fn what_a_saas_application_reads_gives_what_one_postgresql_gives() {
    assert_all_right(&FILES.reads(&["reads", "analysts", "catalog"]).await);
}

#[tokio::test]
async fn what_a_saas_application_writes_gives_what_one_postgresql_gives() {
    script("writes").await;
    script("backoffice").await;
}

#[tokio::test]
async fn what_its_migrations_define_gives_what_one_postgresql_gives() {
    script("migrations").await;
}

#[tokio::test]
async fn writes_through_its_views_give_what_one_postgresql_gives() {
    script("views").await;
}

#[tokio::test]
async fn names_on_its_search_path_mean_what_they_mean_on_one_postgresql() {
    script("paths").await;
}

#[tokio::test]
async fn what_it_keeps_in_materialized_views_gives_what_one_postgresql_gives() {
    script("materialized").await;
}

#[tokio::test]
async fn tables_that_it_makes_of_queries_have_what_they_have_on_one_postgresql() {
    script("made").await;
}

#[tokio::test]
async fn what_the_grammar_lacks_gives_what_one_postgresql_gives() {
    script("grammar").await;
}
