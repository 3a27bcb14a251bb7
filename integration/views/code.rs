//! Functions, triggers and rules of the home node that were made past the proxy.

use tokio_postgres::Client;

use super::{error, rows, shop};

/// A view that is new to the proxy makes it look at all that stands on tables of the policy.
async fn know(home: &Client, client: &Client, view: &str) {
    home.batch_execute(&format!("CREATE VIEW {view} AS SELECT id FROM tenants")).await.unwrap();
    assert_eq!(rows(client, &format!("SELECT count(*) FROM {view}")).await, ["40"]);
}

/// A database that is there already has its functions, triggers and rules.
#[tokio::test]
async fn code_that_would_change_one_copy_or_see_a_part_is_refused_wherever_it_was_made() {
    let (database, _proxy, client) = shop().await;
    let home = database.client(0).await;
    for sql in [
        "CREATE TABLE logged (id int); CREATE TABLE ruled (id int); CREATE TABLE plain (id int)",
        "CREATE FUNCTION writes() RETURNS int LANGUAGE plpgsql AS \
         $$ BEGIN UPDATE plans SET name = 'x'; RETURN 1; END $$",
        "CREATE FUNCTION reads() RETURNS bigint LANGUAGE plpgsql AS \
         $$ BEGIN RETURN (SELECT count(*) FROM plans); END $$",
        "CREATE FUNCTION through() RETURNS int LANGUAGE sql AS 'SELECT writes()'",
        "CREATE PROCEDURE called() LANGUAGE plpgsql AS $$ BEGIN PERFORM through(); END $$",
        "CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN new.id := (SELECT count(*) FROM tenants); RETURN new; END $$",
        "CREATE TRIGGER counts BEFORE INSERT ON logged FOR EACH ROW EXECUTE FUNCTION counts()",
        "CREATE FUNCTION told() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN new.id := reads(); RETURN new; END $$",
        "CREATE TRIGGER told BEFORE INSERT ON plain FOR EACH ROW EXECUTE FUNCTION told()",
        "CREATE RULE copied AS ON INSERT TO ruled DO ALSO UPDATE plans SET name = 'x'",
    ] {
        home.batch_execute(sql).await.unwrap();
    }
    know(&home, &client, "first").await;
    for sql in [
        "SELECT writes()",
        "SELECT through()",
        "CALL called()",
        "DO $$ BEGIN PERFORM through(); END $$",
        "INSERT INTO logged VALUES (1)",
        "WITH x AS (INSERT INTO logged VALUES (1) RETURNING id) SELECT * FROM x",
        "COPY logged FROM STDIN",
        "INSERT INTO ruled VALUES (1)",
    ] {
        assert_eq!(error(&client, sql).await, "0A000", "{sql}");
    }
    assert_eq!(rows(&client, "SELECT count(*) FROM logged").await, ["0"]);
    client.batch_execute("INSERT INTO plain VALUES (1)").await.unwrap();
    client.batch_execute("DO $$ BEGIN PERFORM reads(); END $$").await.unwrap();
    home.batch_execute("DROP TRIGGER counts ON logged").await.unwrap();
    know(&home, &client, "second").await;
    client.batch_execute("INSERT INTO logged VALUES (1)").await.unwrap();
}
