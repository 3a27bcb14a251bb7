//! What an application, its ORM and its reports send: a second schema with the types, keys, triggers
//! and views that they have. `DIFFERENTIAL_FILE` names a file of statements of one's own.

use super::compare::{Report, statements};
use super::fixture::Fixture;
use super::run;

/// The files of an application: schema, rows, policy and statements. They are read when the test runs,
/// so that a change of one needs no build.
pub struct Files {
    /// Their folder, beside this file.
    pub folder: &'static str,
}

/// The set of this room, with which others go on.
pub const APP: Files = Files { folder: "app" };

impl Files {
    fn text_of(&self, name: &str) -> String {
        let root = env!("CARGO_MANIFEST_DIR");
        let path = format!("{root}/integration/differential/{}/{name}", self.folder);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Both sides with schema and rows.
    pub async fn fixture(&self) -> Fixture {
        let fixture = Fixture::start(&self.text_of("policy.yaml")).await;
        fixture.define(&self.text_of("schema.sql")).await;
        fixture.fill(&self.text_of("rows.sql")).await;
        fixture
    }

    /// Statements that hang together: once by the simple protocol, and with the same rows again by the
    /// extended one.
    pub async fn script(&self, name: &str) -> Vec<Report> {
        let mut reports = Vec::new();
        for binary_only in [false, true] {
            let fixture = self.fixture().await;
            let mut report = Report::new(&format!("{name}, binary: {binary_only}"));
            (report.script, report.text_only, report.binary_only) =
                (true, !binary_only, binary_only);
            let mut pair = fixture.pair().await;
            for statement in statements(&self.text_of(&format!("scripts/{name}.sql"))) {
                report.add(&mut pair, &statement).await;
            }
            report.print();
            reports.push(report);
        }
        reports
    }

    /// Statements that change nothing, and those of the file that `DIFFERENTIAL_FILE` names.
    pub async fn reads(&self, names: &[&str]) -> Vec<Report> {
        let fixture = self.fixture().await;
        let mut reports = Vec::new();
        for name in names {
            reports.push(run(&fixture, name, &self.text_of(&format!("reads/{name}.sql"))).await);
        }
        if let Ok(path) = std::env::var("DIFFERENTIAL_FILE") {
            let text = std::fs::read_to_string(&path).unwrap();
            reports.push(run(&fixture, &path, &text).await);
        }
        reports
    }

    /// Statements that are refused: each says why, and what would work.
    pub async fn refused(&self) {
        let fixture = self.fixture().await;
        let (proxy, _) = fixture.clients().await;
        for statement in statements(&self.text_of("refused.sql")) {
            let done = proxy.batch_execute(&statement.sql).await;
            let Err(error) = done else { panic!("not refused: {}", statement.sql) };
            let error = error.as_db_error();
            let error = error.unwrap_or_else(|| panic!("{}: no answer", statement.sql));
            assert_eq!(error.code().code(), "0A000", "{}: {error:?}", statement.sql);
            assert!(error.detail().is_some() && error.hint().is_some(), "{error:?}");
        }
    }
}

async fn script(name: &str) -> Vec<Report> {
    APP.script(name).await
}

/// None is wrong and none refused.
pub fn assert_all_right(reports: &[Report]) {
    let wrong: Vec<&str> = reports.iter().flat_map(|it| &it.wrong).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    let refused: Vec<&str> =
        reports.iter().flat_map(|it| &it.refused).map(String::as_str).collect();
    assert!(refused.is_empty(), "{} refused:\n{}", refused.len(), refused.join("\n"));
}

#[tokio::test]
async fn what_is_refused_says_why_and_what_would_work() {
    APP.refused().await;
}

#[tokio::test]
async fn what_reports_and_orms_ask_gives_what_one_postgresql_gives() {
    let reports = APP.reads(&["bi", "orm", "kinds", "audit"]).await;
    assert_all_right(&reports);
}

#[tokio::test]
async fn what_applications_write_gives_what_one_postgresql_gives() {
    assert_all_right(&script("writes").await);
}

#[tokio::test]
async fn what_an_audit_asked_for_gives_what_one_postgresql_gives() {
    let mut reports = script("audit").await;
    reports.extend(script("definitions").await);
    assert_all_right(&reports);
}

#[tokio::test]
async fn tables_that_get_other_names_are_what_they_are_on_one_postgresql() {
    assert_all_right(&script("renames").await);
}

#[tokio::test]
async fn functions_that_users_made_give_what_one_postgresql_gives() {
    assert_all_right(&script("functions").await);
}

#[tokio::test]
async fn errors_and_settings_are_those_of_one_postgresql() {
    assert_all_right(&script("codes").await);
}

#[tokio::test]
async fn writes_in_steps_give_what_one_postgresql_gives() {
    assert_all_right(&script("steps").await);
}

#[tokio::test]
async fn rows_get_other_shard_keys_as_on_one_postgresql() {
    assert_all_right(&script("rekeys").await);
}

#[tokio::test]
async fn temporary_tables_are_read_beside_rows_of_several_nodes() {
    assert_all_right(&script("temporary").await);
}

#[tokio::test]
async fn upserts_and_merges_give_what_one_postgresql_gives() {
    assert_all_right(&script("upserts").await);
}

#[tokio::test]
async fn queues_and_locks_give_what_one_postgresql_gives() {
    assert_all_right(&script("locks").await);
}

#[tokio::test]
async fn sessions_give_what_one_postgresql_gives() {
    assert_all_right(&script("sessions").await);
}

#[tokio::test]
async fn texts_of_several_statements_give_what_one_postgresql_gives() {
    assert_all_right(&script("texts").await);
}

#[tokio::test]
async fn transaction_blocks_give_what_one_postgresql_gives() {
    assert_all_right(&script("blocks").await);
}

/// A partition's trigger sees the partition's name.
#[tokio::test]
async fn a_trigger_that_asks_for_its_tables_name_is_refused() {
    let fixture = APP.fixture().await;
    let (proxy, _) = fixture.clients().await;
    let function = |body: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN {body}; RETURN new; END $$"
        )
    };
    let trigger = |table: &str, arguments: &str| {
        format!(
            "CREATE OR REPLACE TRIGGER noted BEFORE INSERT ON {table} FOR EACH ROW \
             EXECUTE FUNCTION noted({arguments})"
        )
    };
    let refused = async |sql: &str| {
        let error = proxy.batch_execute(sql).await.unwrap_err();
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "0A000", "{sql}: {error:?}");
        assert!(error.detail().is_some() && error.hint().unwrap().contains("TG_ARGV"), "{error:?}");
    };
    let looks = "CREATE TRIGGER looks BEFORE DELETE ON accounts FOR EACH ROW EXECUTE FUNCTION \
                 check_foreign_key(1, 'cascade', 'id', 'members', 'account_id')";
    proxy.batch_execute("CREATE EXTENSION refint").await.unwrap();
    let error = proxy.batch_execute(looks).await.unwrap_err();
    assert_eq!(error.as_db_error().unwrap().hint(), Some("Declare a foreign key."), "{error:?}");
    let asks = function("new.name := TG_TABLE_NAME");
    let told = function("new.name := TG_ARGV[0]");
    proxy.batch_execute(&asks).await.unwrap();
    proxy.batch_execute(&trigger("flags", "")).await.unwrap();
    refused(&trigger("accounts", "")).await;
    proxy.batch_execute(&told).await.unwrap();
    proxy.batch_execute(&trigger("accounts", "'accounts'")).await.unwrap();
    refused(&asks).await;
    let insert = "INSERT INTO accounts (id, name, created) VALUES (900, 'x', now()) RETURNING name";
    let row = proxy.query_one(insert, &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "accounts");
}
