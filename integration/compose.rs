//! docker-compose.yml can't be run everywhere; what it mounts and names is checked instead.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use foreshard::config::Serve;
use serde_yaml::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn yaml(path: &str) -> Value {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let mut value: Value = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"));
    value.apply_merge().unwrap();
    value
}

/// Source and destination of each file or folder that a service mounts from here.
fn mounts(service: &Value) -> Vec<(String, String)> {
    let volumes = service["volumes"].as_sequence().into_iter().flatten();
    let parts = volumes.map(|volume| volume.as_str().unwrap().split(':').collect::<Vec<_>>());
    let own = parts.filter(|parts| parts[0].starts_with("./"));
    own.map(|parts| (parts[0].to_owned(), parts[1].to_owned())).collect()
}

#[test]
fn every_file_that_the_services_mount_is_there() {
    let compose = yaml("docker-compose.yml");
    let services = compose["services"].as_mapping().unwrap();
    let names: BTreeSet<_> = services.keys().map(|name| name.as_str().unwrap()).collect();
    for name in ["n1", "n2", "n3", "etcd", "foreshard", "prometheus", "grafana"] {
        assert!(names.contains(name), "no service {name}");
    }
    let mut count = 0;
    for (name, service) in services {
        for (source, _) in mounts(service) {
            assert!(root().join(&source).is_file(), "{name:?} mounts {source}");
            count += 1;
        }
    }
    assert!(count >= 10, "only {count} mounts were found");
    let dockerfile = compose["services"]["foreshard"]["build"]["dockerfile"].as_str().unwrap();
    assert!(root().join(dockerfile).is_file());
}

#[test]
fn the_mounted_configuration_loads_and_names_the_services() {
    let path = root().join("config/docker/foreshard.yaml");
    let serve = Serve::load(&path).unwrap_or_else(|faults| panic!("{faults}"));
    let compose = yaml("docker-compose.yml");
    let services = &compose["services"];
    for node in &serve.nodes {
        let command = services[node.host.as_str()]["command"].as_sequence().unwrap();
        assert!(command.iter().any(|word| word == "wal_level=logical"), "{}", node.host);
    }
    let etcd = serve.catalog.as_ref().unwrap().endpoints[0].clone();
    let names_it =
        |(name, _): (&Value, &Value)| etcd.contains(&format!("/{}:", name.as_str().unwrap()));
    assert!(services.as_mapping().unwrap().iter().any(names_it), "{etcd} is no service");
    let own = |service: &str| services[service]["volumes"].as_sequence().unwrap().last().cloned();
    assert_ne!(own("foreshard"), own("standby"), "each has a data folder of its own");
    let mounted = mounts(&services["foreshard"]);
    let destination = |source: &str| {
        let found = mounted.iter().find(|(from, _)| from == source).map(|(_, to)| Path::new(to));
        found.unwrap_or_else(|| panic!("{source} is not mounted"))
    };
    let config = destination("./config/docker/foreshard.yaml");
    let command = services["foreshard"]["command"].as_sequence().unwrap();
    assert_eq!(command.last().unwrap().as_str(), config.to_str());
    let password = destination("./config/docker/postgres-password");
    assert_eq!(password.parent(), config.parent(), "password_file stands beside the configuration");
}

#[test]
fn alerts_and_dashboard_name_metrics_that_the_proxy_has() {
    let mut known = BTreeSet::new();
    collect_metrics(&root().join("src"), &mut known);
    let alerts = yaml("config/docker/alerts.yml");
    let rules = alerts["groups"][0]["rules"].as_sequence().unwrap();
    let mut expressions: Vec<String> =
        rules.iter().map(|rule| rule["expr"].as_str().unwrap().to_owned()).collect();
    let text =
        std::fs::read_to_string(root().join("config/docker/grafana-dashboard.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap().iter();
        expressions.extend(targets.map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    let mut checked = 0;
    for expression in expressions {
        let words = expression.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for word in words.filter(|word| word.starts_with("foreshard_")) {
            let metric = word.strip_suffix("_bucket").unwrap_or(word);
            assert!(known.contains(metric), "{expression}: there is no metric {metric}");
            checked += 1;
        }
    }
    assert!(checked >= 8, "only {checked} metrics were found");
}

/// Every text in the sources that begins as a metric's name does.
fn collect_metrics(folder: &Path, known: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect_metrics(&path, known);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let literals = text.split("\"foreshard_").skip(1);
        known.extend(
            literals.filter_map(|rest| Some(format!("foreshard_{}", rest.split('"').next()?))),
        );
    }
}
