//! A third stranger's set: clinics, their visits, bills and stock, in statements of forms that the other
//! sets don't have.

use super::app::{Files, assert_all_right};

const FILES: Files = Files { folder: "clinic" };

#[tokio::test]
async fn what_a_clinic_reads_gives_what_one_postgresql_gives() {
    assert_all_right(&FILES.reads(&["fresh"]).await);
}

#[tokio::test]
async fn what_a_clinic_writes_gives_what_one_postgresql_gives() {
    assert_all_right(&FILES.script("fresh").await);
}

#[tokio::test]
async fn what_a_clinic_makes_in_a_block_and_uses_there_gives_what_one_postgresql_gives() {
    assert_all_right(&FILES.script("blocks").await);
    assert_all_right(&FILES.script("own").await);
}

#[tokio::test]
async fn whether_rows_of_an_upsert_are_new_is_what_one_postgresql_says() {
    assert_all_right(&FILES.script("inserted").await);
}

#[tokio::test]
async fn what_a_clinic_is_refused_says_why_and_what_would_work() {
    FILES.refused().await;
}
