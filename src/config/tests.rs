//! Bad input gives every fault with its place; good input gives a map; a changed policy is judged.

use std::path::Path;

use super::{Policy, Serve};
use crate::ids::{Epoch, NodeId, ShardId};
use crate::shard_map::{Column, KeyType, MapParts, ShardMap, Standing};
use crate::sql::TableName;

const SHOP: &str = "
groups:
  shop:
    key: bigint
    shards: 4
    tables: {tenants: id, sales.orders: tenant_id}
reference_tables: [plans]
";

fn policy(text: &str) -> Policy {
    Policy::parse(Path::new("p.yaml"), text, None).unwrap_or_else(|faults| panic!("{faults}"))
}

fn faults(text: &str) -> Vec<String> {
    let nodes = ["n1".to_owned(), "n2".to_owned()];
    let faults = Policy::parse(Path::new("p.yaml"), text, Some(&nodes)).unwrap_err();
    faults.to_string().lines().map(str::to_owned).collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The policy's map, once its tables exist.
fn map(policy: &Policy, nodes: &[&str]) -> ShardMap {
    let mut parts = policy.shard_map(&names(nodes));
    for table in &mut parts.tables {
        table.columns.push(Column::default());
    }
    ShardMap::try_from(parts).unwrap()
}

#[test]
fn an_empty_policy_is_the_default() {
    assert_eq!(policy(""), Policy::default());
}

#[test]
fn a_policy_becomes_a_map_with_its_shards_round_robin() {
    let map = map(&policy(SHOP), &["n1", "n2", "n3"]);
    assert_eq!(map.epoch(), Epoch(1));
    assert_eq!(map.groups()[0].key, [KeyType::Int8]);
    let nodes: Vec<_> = map.shards().map(|(_, shard)| shard.node).collect();
    assert_eq!(nodes, [NodeId(0), NodeId(1), NodeId(2), NodeId(0)]);
    assert!(map.table(&TableName::new("sales", "orders")).is_some());
    assert!(map.table(&TableName::new("public", "plans")).is_some());
}

#[test]
fn all_faults_are_told_at_once_with_line_column_and_key_path() {
    let text = "\
databse: shop
home: n9
groups:
  shop:
    key: [bigint, jsonb]
    shards: 0
    tables:
      tenants: id
      orders: [tenant_id, id]
      orders: [tenant_id, id]
      public.tenants: [a, b]
  empty:
    key: uuid
    shards: many
    tables: {}
    colour: red
reference_tables: [plans, plans, a.b.c]
forecast:
  step_ms: soon
  horizon: 5
  day_ms: 1
placement: {node_capacities: {n7: 2.0}, mode: sometimes}
";
    let expected = [
        "p.yaml:1:1: databse: unknown key; did you mean database?",
        "p.yaml:2:7: home: there is no node \"n9\"; the nodes are n1, n2",
        "p.yaml:5:19: groups.shop.key[1]: \"jsonb\" can't be a shard key's type; known are \
         smallint, integer, bigint, text, varchar, uuid, date, timestamptz",
        "p.yaml:6:13: groups.shop.shards: must be from 1 to 4096",
        "p.yaml:8:16: groups.shop.tables.tenants: names 1 column(s), but the group's key has 2",
        "p.yaml:10:7: groups.shop.tables.orders: stands twice",
        "p.yaml:11:7: groups.shop.tables.public.tenants: the table stands twice in the policy",
        "p.yaml:14:13: groups.empty.shards: is of the wrong type: string \"many\", expected u32",
        "p.yaml:15:13: groups.empty.tables: must name a table at least",
        "p.yaml:16:5: groups.empty.colour: unknown key; known are key, method, shards, split_at, values, default, tables",
        "p.yaml:17:27: reference_tables[1]: the table stands twice in the policy",
        "p.yaml:17:34: reference_tables[2]: \"a.b.c\" is not a table's name; write orders or \
         sales.orders",
        "p.yaml:19:12: forecast.step_ms: is of the wrong type: string \"soon\", expected u64",
        "p.yaml:20:3: forecast.horizon: unknown key; did you mean horizon_ms?",
        "p.yaml:22:30: placement.node_capacities: there is no node \"n7\"; the nodes are n1, n2",
        "p.yaml:22:47: placement.mode: unknown variant `sometimes`, expected one of `off`, \
         `advise`, `approve`, `auto`",
    ];
    let found = faults(text);
    for line in expected {
        assert!(found.iter().any(|fault| fault == line), "missing: {line}\nin {found:#?}");
    }
    let forecast = |fault: &&String| fault.contains(" forecast.day_ms: ");
    assert!(found.iter().filter(forecast).count() >= 1, "{found:#?}");
    assert_eq!(found.iter().filter(|fault| !forecast(fault)).count(), expected.len(), "{found:#?}");
}

#[test]
fn odd_documents_give_a_fault_and_no_panic() {
    let cases = [
        ("a: [", "p.yaml:"),
        ("- a", "must be a map"),
        ("groups: 3", "groups: must be a map"),
        ("groups: {g: null}", "groups.g: must be a map"),
        ("groups: {g: {key: [], shards: 1, tables: {t: []}}}", "must name a type at least"),
        ("<<: {database: x}", "unknown key"),
        ("database: ''", "must not be empty"),
        ("database: 5", "wrong type"),
        ("? [a]\n: b", "p.yaml:"),
        ("a: !thing b", "p.yaml:"),
        ("\t", "p.yaml:"),
        ("a: b\n---\nc: d", "p.yaml:"),
    ];
    for (text, expected) in cases {
        let found = faults(text).join("\n");
        assert!(found.contains(expected), "{text:?}: {found}");
    }
    let error = Policy::load(Path::new("/nowhere/p.yaml"), None).unwrap_err().to_string();
    assert!(error.starts_with("/nowhere/p.yaml: can't be read: "), "{error}");
}

#[test]
fn a_policy_that_grew_is_added_to_the_stored_map() {
    let before = map(&policy(SHOP), &["n1", "n2"]).with_shard_on(ShardId(0), NodeId(1));
    assert_eq!(policy(SHOP).extend(&before, &names(&["n1", "n2"]), &[]), Ok(None));
    let grown = "
groups:
  shop: {key: bigint, shards: 4, tables: {tenants: id, sales.orders: tenant_id, items: t}}
  logs: {key: uuid, shards: 2, tables: {lines: id}}
reference_tables: [plans, countries]
";
    let grown = policy(grown).extend(&before, &names(&["n1", "n2", "n3"]), &[]).unwrap().unwrap();
    assert_eq!(grown.epoch, before.epoch().next());
    let map = ShardMap::try_from(grown).unwrap();
    assert_eq!(map.nodes().len(), 3);
    assert_eq!(map.node_of(ShardId(0)), NodeId(1), "what was moved stays moved");
    assert_eq!((map.shard_count(), map.tables().len()), (6, 6));
}

#[test]
fn a_policy_that_no_longer_fits_is_refused_with_every_reason() {
    let before = map(&policy(SHOP), &["n1", "n2"]);
    let changed = "
database: other
home: n2
groups:
  shop: {key: bigint, shards: 8, tables: {tenants: tenant}}
  plans: {key: text, shards: 1, tables: {plans: id}}
";
    let error = policy(changed).extend(&before, &names(&["n2"]), &[]).unwrap_err();
    let text = error.to_string();
    for reason in [
        "the database is \"postgres\", the policy says \"other\"",
        "the home node is \"n1\", the policy says \"n2\"",
        "node \"n1\" is not configured, but has 2 shards and copies of the reference tables (before a \
         node leaves: foreshard node drain n1)",
        "group \"shop\" has 4 shards, the policy says 8",
        "table public.tenants is sharded by (id) in group \"shop\", the policy says sharded by \
         (tenant) in group \"shop\"",
        "table sales.orders is in the map, not in the policy",
        "table public.plans is a reference table, the policy says sharded by (id)",
    ] {
        assert!(text.contains(reason), "missing: {reason}\nin {text}");
    }
    let other_key = "groups: {shop: {key: text, shards: 4, tables: {tenants: id}}}";
    let error =
        policy(other_key).extend(&before, &names(&["n1", "n2"]), &[]).unwrap_err().to_string();
    assert!(
        error.contains("the key of group \"shop\" is [Int8], the policy says [Text]"),
        "{error}"
    );
}

#[test]
fn a_group_with_another_key_stays_as_it_is_until_it_is_resharded() {
    let before = map(&policy(SHOP), &["n1", "n2"]);
    let same_tables = |key: &str| {
        format!(
            "groups: {{shop: {{{key}, tables: {{tenants: id, sales.orders: customer_id}}}}}}\n\
             reference_tables: [plans]"
        )
    };
    for key in [
        "key: bigint, shards: 9",
        "key: text, shards: 4",
        "key: bigint, method: range, split_at: [1]",
    ] {
        let changed = policy(&same_tables(key));
        assert_eq!(changed.waiting_keys(&before), ["shop"], "{key}");
        assert_eq!(changed.extend(&before, &names(&["n1", "n2"]), &[]), Ok(None), "{key}");
    }
    assert_eq!(policy(SHOP).waiting_keys(&before), [] as [&str; 0]);
}

#[test]
fn without_a_policy_every_table_is_a_home_table() {
    let parts: MapParts = Policy::default().shard_map(&names(&["n1", "n2"]));
    let map = ShardMap::try_from(parts).unwrap();
    assert_eq!((map.shard_count(), map.home()), (0, NodeId(0)));
}

#[test]
fn a_serve_configuration_takes_passwords_from_elsewhere_and_hides_them() {
    let folder = std::env::temp_dir().join(format!("foreshard-config-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("secret"), "from-file\n").unwrap();
    std::fs::write(folder.join("policy.yaml"), "home: n3\nreference_tables: plans").unwrap();
    let file = folder.join("serve.yaml");
    let good = "
nodes:
  - {name: n1, host: db1, port: 5433, password_file: secret}
  - {name: n2, host: /var/run/postgresql, user: fs, password: inline}
users: {app: {password: hidden}}
policy: {home: n2}
";
    std::fs::write(&file, good).unwrap();
    let serve = Serve::load(&file).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(serve.nodes[0].password.as_ref().unwrap().reveal(), "from-file");
    assert_eq!((serve.nodes[0].port, serve.nodes[1].port), (5433, 5432));
    assert_eq!(serve.users["app"].reveal(), "hidden");
    assert_eq!(serve.policy.home.as_deref(), Some("n2"));
    let shown = format!("{serve:?}");
    for secret in ["from-file", "inline", "hidden"] {
        assert!(!shown.contains(secret), "{shown}");
    }

    let bad = "
frontend: {listen: localhost}
nodes:
  - {name: n1, host: db1, password: a, password_env: FORESHARD_NO_SUCH_VARIABLE}
  - {name: n1, host: db1}
  - {host: db2, port: 70000}
users: {app: {}, other: {password_env: FORESHARD_NO_SUCH_VARIABLE}}
authentication: everywhere
backend: {pool_size: 0}
policy: policy.yaml
";
    std::fs::write(&file, bad).unwrap();
    let found = Serve::load(&file).unwrap_err().to_string();
    std::fs::remove_dir_all(&folder).unwrap();
    for expected in [
        "serve.yaml:2:20: frontend.listen: ",
        "serve.yaml:4:5: nodes[0]: only one of password",
        "serve.yaml:5:5: nodes[1]: there is a node \"n1\" already",
        "serve.yaml:5:5: nodes[1]: is the same server as node \"n1\"",
        "serve.yaml:6:5: nodes[2]: the key name is missing",
        "serve.yaml:6:23: nodes[2].port: ",
        "serve.yaml:7:14: users.app: needs one of",
        "serve.yaml:7:40: users.other.password_env: there is no variable",
        "serve.yaml:8:17: authentication: \"everywhere\" is neither scram nor trust",
        "serve.yaml:9:22: backend.pool_size: must be at least 1",
        "policy.yaml:1:7: home: there is no node \"n3\"; the nodes are n1, n1",
        "policy.yaml:2:19: reference_tables: must be a list",
    ] {
        assert!(found.contains(expected), "missing: {expected}\nin {found}");
    }
    assert!(!found.contains("nobody could log in"), "only the cause is told: {found}");
}

/// The values of every room in a document that `foreshard check` accepts.
fn rooms(serve: &Serve) -> [serde_yaml::Value; 8] {
    let policy = &serve.policy;
    [
        serde_yaml::to_value(&serve.frontend).unwrap(),
        serde_yaml::to_value(&serve.backend).unwrap(),
        serde_yaml::to_value(&serve.executor).unwrap(),
        serde_yaml::to_value(&policy.controller).unwrap(),
        serde_yaml::to_value(&policy.load).unwrap(),
        serde_yaml::to_value(&policy.forecast).unwrap(),
        serde_yaml::to_value(&policy.placement).unwrap(),
        serde_yaml::to_value(&policy.mover).unwrap(),
    ]
}

#[test]
fn the_example_has_every_key_with_its_default() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/foreshard.example.yaml");
    let example = Serve::load(&file).unwrap_or_else(|faults| panic!("{faults}"));
    let default = Serve::default();
    assert_eq!(rooms(&example), rooms(&default));
    assert_eq!(example.admin_listen, default.admin_listen);
    assert_eq!(example.data_folder, default.data_folder);
    assert_eq!(example.authentication, default.authentication);
    assert_eq!(example.policy.database, default.policy.database);

    let text: serde_yaml::Value =
        serde_yaml::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let sections = ["frontend", "backend", "executor"].map(|key| &text[key]);
    let sections = sections.into_iter().chain(
        ["controller", "load", "forecast", "placement", "mover"].map(|key| &text["policy"][key]),
    );
    for (section, room) in sections.zip(rooms(&default)) {
        let keys = |value: &serde_yaml::Value| {
            let keys =
                value.as_mapping().unwrap().keys().map(|key| key.as_str().unwrap().to_owned());
            keys.collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(keys(section), keys(&room));
    }
    let written = std::fs::read_to_string(&file).unwrap();
    for key in super::serve::KEYS.iter().chain(&super::policy::KEYS) {
        assert!(written.contains(&format!("{key}:")), "{key} is not in the example");
    }
}

#[test]
fn the_demo_policy_is_right() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/demo.yaml");
    let nodes = names(&["n1", "n2", "n3"]);
    let policy = Policy::load(&file, Some(&nodes)).unwrap_or_else(|faults| panic!("{faults}"));
    let map = ShardMap::try_from(policy.shard_map(&nodes)).unwrap();
    assert_eq!((map.shard_count(), map.tables().len()), (16, 4));
}

#[test]
fn trust_is_for_loopback_alone() {
    let file = std::env::temp_dir().join(format!("foreshard-trust-{}.yaml", std::process::id()));
    let nodes = "nodes: [{name: n1, host: db1}]\nauthentication: trust\n";
    let load = |listen: &str| {
        std::fs::write(&file, format!("{nodes}frontend: {{listen: '{listen}'}}\n")).unwrap();
        Serve::load(&file).map_err(|faults| faults.to_string())
    };
    let (inside, outside) = (load("[::1]:6432"), load("0.0.0.0:6432"));
    std::fs::remove_file(&file).unwrap();
    assert!(inside.is_ok(), "{inside:?}");
    assert!(outside.unwrap_err().contains("would let in anybody who reaches 0.0.0.0:6432"));
}

#[test]
fn a_new_node_is_to_join_and_a_drained_one_may_leave_and_come_back() {
    let standing = |map: &ShardMap, name: &str| {
        map.nodes().find(|(_, node)| node.name == name).unwrap().1.standing
    };
    let shop = policy(SHOP);
    let extend = |map: &ShardMap, nodes: &[&str]| {
        let parts = shop.extend(map, &names(nodes), &[]).unwrap().unwrap();
        ShardMap::try_from(parts).unwrap()
    };
    let map = map(&shop, &["n1", "n2"]);
    let map = extend(&map, &["n1", "n2", "n3"]);
    assert_eq!(standing(&map, "n3"), Standing::Joining);
    // One that never joined may be left out again.
    assert_eq!(standing(&extend(&map, &["n1", "n2"]), "n3"), Standing::Gone);
    let mut drained = map.with_standing(NodeId(1), Standing::Draining);
    assert!(shop.extend(&drained, &names(&["n1", "n3"]), &[]).is_err(), "it still has shards");
    for shard in 0..4 {
        drained = drained.with_shard_on(ShardId(shard), NodeId(0));
    }
    let without = extend(&drained, &["n1", "n3"]);
    assert_eq!(standing(&without, "n2"), Standing::Gone);
    let again = extend(&without, &["n1", "n2", "n3"]);
    assert_eq!(standing(&again, "n2"), Standing::Joining);
    assert_eq!(again.node_named("n2"), Some(NodeId(1)), "ids stay");
}

const BY_RANGE: &str = "
groups:
  days:
    key: [date, int]
    method: range
    split_at: [2024-01-01, [2024-06-01, 5]]
    tables: {visits: [day, visitor]}
  places:
    key: text
    method: list
    values: [[eu, uk], [us, null]]
    default: true
    tables: {places: region}
";

#[test]
fn ranges_and_lists_become_shards_whose_bounds_are_kept() {
    let policy = policy(BY_RANGE);
    let first = map(&policy, &["n1", "n2"]);
    let bounds: Vec<String> = first.shards().map(|(_, shard)| shard.bounds.for_values(2)).collect();
    assert_eq!(
        bounds[..5],
        [
            "FOR VALUES FROM (MINVALUE, MINVALUE) TO ('2024-01-01', MINVALUE)",
            "FOR VALUES FROM ('2024-01-01', MINVALUE) TO ('2024-06-01', '5')",
            "FOR VALUES FROM ('2024-06-01', '5') TO (MAXVALUE, MAXVALUE)",
            "FOR VALUES IN ('eu', 'uk')",
            "FOR VALUES IN ('us', NULL)",
        ]
    );
    assert_eq!(bounds[5], "DEFAULT");
    let parts: MapParts = first.clone().into();
    let stored = serde_json::to_string(&parts).unwrap();
    let read: MapParts = serde_json::from_str(&stored).unwrap();
    assert_eq!(ShardMap::try_from(read).unwrap(), first);
    assert_eq!(policy.extend(&first, &names(&["n1", "n2"]), &[]), Ok(None));
    let moved = self::policy(&BY_RANGE.replace("2024-01-01", "2024-01-02"));
    let error = moved.extend(&first, &names(&["n1", "n2"]), &[]).unwrap_err().to_string();
    assert!(error.contains("hold other keys than the policy says"), "{error}");
    let hashed = BY_RANGE.replace("method: range", "shards: 3").replace("split_at:", "# ");
    let hashed = self::policy(&hashed);
    assert_eq!(hashed.extend(&first, &names(&["n1", "n2"]), &[]), Ok(None));
    assert_eq!(hashed.waiting_keys(&first).len(), 1, "it waits for foreshard reshard");
}

#[test]
fn faults_in_ranges_and_lists_are_told_with_their_place() {
    for (wrong, message) in [
        ("key: int, method: range, split_at: [5, 5]", "split_at[1]: must be greater than"),
        ("key: int, method: range, split_at: [5, x]", "invalid input syntax for type integer"),
        ("key: int, method: range, split_at: [[1, 2]]", "as many values as the key columns: 1"),
        ("key: int, method: range, split_at: [null]", "must not be null"),
        ("key: int, method: range", "the key split_at is missing"),
        ("key: int, method: range, shards: 3, split_at: []", "has no meaning with method: range"),
        ("key: int, method: list, values: [[1], [2, 1]]", "values[1][1]: stands twice"),
        ("key: int, method: list, values: [[]]", "must have a value at least"),
        ("key: [int, int], method: list, values: [[1]]", "a list has a key of one column"),
        ("key: int, method: sorted, shards: 1", "must be hash, range or list"),
        ("key: date, method: range, split_at: [1 May]", "invalid input syntax for type date"),
    ] {
        let columns = if wrong.contains("[int, int]") { "[a, b]" } else { "a" };
        let found = faults(&format!("groups: {{g: {{{wrong}, tables: {{t: {columns}}}}}}}"));
        assert!(found.iter().any(|fault| fault.contains(message)), "{wrong}: {found:?}");
    }
}

const LOOKUPS: &str = "
groups:
  shop: {key: bigint, shards: 2, tables: {users: tenant_id}}
lookups:
  users_by_email: {table: users, column: email, type: text, unique: true, shards: 3}
";

#[test]
fn a_lookup_is_a_group_of_its_own_and_keeps_its_standing() {
    use crate::shard_map::LookupStanding;
    let (policy, nodes) = (policy(LOOKUPS), names(&["n1", "n2"]));
    let map = map(&policy, &["n1", "n2"]);
    assert_eq!(map.groups()[1].key, [KeyType::Text]);
    assert_eq!(map.shards().count(), 5);
    let name = TableName::new("public", "users_by_email");
    assert_eq!(map.lookup_columns(map.lookup(&name).unwrap()), ["email", "tenant_id"]);
    assert_eq!(policy.extend(&map, &nodes, &[]).unwrap(), None);
    let whole = map.with_standings(|_| LookupStanding::Whole);
    assert_eq!(policy.extend(&whole, &nodes, &[]).unwrap(), None);
    let other =
        Policy::parse(Path::new("p"), &LOOKUPS.replace("unique: true", "unique: false"), None);
    assert_eq!(other.unwrap().extend(&map, &nodes, &[]).unwrap_err().0.len(), 1);
    // What is to be imported takes its lookups with it.
    let without = policy.without(&names(&["shop"]), &[]);
    assert!(without.groups.is_empty() && without.lookups.is_empty());
}

#[test]
fn faults_of_lookups_are_told_with_their_places() {
    let text = "\
groups:
  shop: {key: bigint, shards: 2, tables: {users: tenant_id}}
lookups:
  a: {table: users, column: tenant_id, type: bigint, shards: 3}
  b: {table: orders, column: email, type: text, shards: 3}
  c: {table: users, column: email, type: timestamptz, shards: 0}
  users: {table: users, column: email, type: text, shards: 3}
  d: {column: email, type: text, size: 3}
";
    let faults = faults(text);
    let expected = [
        "lookups.a: \"tenant_id\" is the shard key",
        "lookups.b.table: ",
        "lookups.c.type: \"timestamptz\" can't be looked up",
        "lookups.c.shards: must be from 1",
        "lookups.users: the table stands twice",
        "lookups.d.size: unknown key",
        "lookups.d: the key table is missing",
        "lookups.d: the key shards is missing",
    ];
    for part in expected {
        assert!(faults.iter().any(|fault| fault.contains(part)), "{part}: {faults:#?}");
    }
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
}
