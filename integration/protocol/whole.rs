//! Exchanges on one key whose messages come together.

use super::*;

const POLICY: &str = "
groups:
  shop:
    key: bigint
    shards: 6
    tables:
      tenants: id
";
const SETUP: [&str; 2] = [
    "CREATE TABLE tenants (id bigint PRIMARY KEY, name text)",
    "INSERT INTO tenants SELECT i, 'tenant ' || i FROM generate_series(1, 100) i",
];

/// An exchange on one key: with its Parse, its Describe, or without.
fn exchange(parsed: Option<&str>, name: &str, values: &[Option<&str>], described: bool) -> Step {
    let mut messages: Vec<Vec<u8>> = parsed.iter().map(|sql| parse(name, sql)).collect();
    messages.push(bind("", name, values));
    messages.extend(described.then(|| describe_portal("")));
    messages.extend([execute("", 0), sync()]);
    (messages, 1)
}

type Step = (Vec<Vec<u8>>, usize);

/// What goes to its node in one go is answered as by one server, whatever comes of it.
#[tokio::test]
async fn exchanges_whose_messages_come_together_are_answered_as_by_one_server() {
    let (database, proxy, _client) = TestProxy::over_three(POLICY, &SETUP).await;
    let plain = TestDatabase::create(1).await;
    plain.client(0).await.batch_execute(&SETUP.join("; ")).await.unwrap();
    let select = Some("SELECT name, id FROM tenants WHERE id = $1");
    let divide = Some("SELECT 1 / ($2::int - 3) FROM tenants WHERE id = $1");
    let update = Some("UPDATE tenants SET name = $2 WHERE id = $1 RETURNING name");
    let (seven, eight) = (Some("7"), Some("8"));
    let named = |sql: &str| (vec![parse("a", sql), sync()], 1);
    let later = |name: &str| (vec![bind("", name, &[eight]), execute("", 0), sync()], 1);
    let steps: Vec<Step> = vec![
        exchange(select, "", &[seven], true),
        exchange(select, "", &[eight], false),
        exchange(select, "", &[None], true),
        exchange(select, "", &[Some("x7")], true),
        exchange(select, "", &[seven, eight], true),
        // The unnamed statement is still there.
        later(""),
        exchange(divide, "", &[seven, Some("3")], true),
        exchange(divide, "", &[seven, Some("4")], true),
        exchange(Some("SELECT nothing FROM tenants WHERE id = $1"), "", &[seven], true),
        exchange(update, "", &[seven, Some("new")], true),
        exchange(select, "", &[seven], true),
        named("SELECT name FROM tenants WHERE id = $1"),
        exchange(None, "a", &[seven], true),
        exchange(None, "a", &[seven], false),
        exchange(None, "a", &[eight], true),
        exchange(None, "a", &[seven, eight], true),
        exchange(None, "a", &[], true),
        exchange(None, "none", &[seven], true),
        // Several at once, and one that the next has not all of.
        (
            [exchange(None, "a", &[seven], true).0, exchange(select, "", &[eight], true).0]
                .concat(),
            2,
        ),
        (vec![query("BEGIN")], 1),
        exchange(None, "a", &[eight], true),
        // Its portal lives on in the block.
        (vec![describe_portal(""), execute("", 0), sync()], 1),
        exchange(divide, "", &[eight, Some("3")], true),
        exchange(None, "a", &[eight], true),
        (vec![query("ROLLBACK")], 1),
        exchange(None, "a", &[eight], true),
        (vec![describe_portal(""), sync()], 1),
        (vec![close_statement("a"), sync()], 1),
        exchange(None, "a", &[eight], true),
    ];
    // Twice: then the connections have the statements.
    let steps = [steps.clone(), steps].concat();
    let mut address = database.nodes[0].clone();
    address.port = proxy.proxy.address.port();
    let ours = answers_of(&address, &database.name, &steps).await;
    let theirs = answers_of(&plain.nodes[0], &plain.name, &steps).await;
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let [ours, theirs] = [ours, theirs]
            .map(|answers| answers.iter().map(|answer| without_source(answer)).collect::<Vec<_>>());
        assert_eq!(ours, theirs, "step {at}");
    }
}
