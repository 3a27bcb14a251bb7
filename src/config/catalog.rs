//! Where the catalog is kept: in the data folder, or in etcd for several proxies.

use std::time::Duration;

use super::access::read_file;
use super::nodes::{PASSWORD_KEYS, read_password};
use super::section::{Cursor, Fields};
use crate::backend::TlsFiles;
use crate::catalog::EtcdConfig;

/// The keys of the catalog.
const KEYS: [&str; 1] = ["etcd"];
/// The keys of a cluster of etcd.
pub(super) const ETCD_KEYS: [&str; 9] = [
    "endpoints",
    "prefix",
    "lease_ms",
    "serve",
    "user",
    PASSWORD_KEYS[0],
    PASSWORD_KEYS[1],
    PASSWORD_KEYS[2],
    "tls",
];
/// Who serves of the proxies that share a catalog.
const ONE: &str = "one";
const ALL: &str = "all";
/// The keys of TLS to its members.
const TLS_KEYS: [&str; 3] = ["ca_file", "certificate_file", "key_file"];
/// How long a leader that is not heard of stays the leader, in milliseconds.
pub(super) const LEASE_MS: u64 = 5_000;
/// What keys begin with.
pub(super) const PREFIX: &str = "foreshard/";

/// Reads where the catalog is; `None`: in the data folder.
pub(super) fn read_catalog(place: &Cursor<'_>) -> Option<EtcdConfig> {
    let fields = place.fields(&KEYS);
    fields.required("etcd").and_then(read_etcd)
}

fn read_etcd(place: &Cursor<'_>) -> Option<EtcdConfig> {
    let fields = place.fields(&ETCD_KEYS);
    let endpoints = fields.required("endpoints").map(read_endpoints).unwrap_or_default();
    let mut prefix = fields.or("prefix", PREFIX.to_owned());
    if !prefix.ends_with('/') {
        prefix.push('/');
    }
    let lease_ms = fields.or("lease_ms", LEASE_MS);
    if !(2_000..=300_000).contains(&lease_ms) {
        let at = fields.optional("lease_ms").unwrap_or(place);
        at.fault("must be 2000 to 300000");
    }
    let config = EtcdConfig::new(endpoints, prefix, Duration::from_millis(lease_ms));
    let mut config = config.map_err(|error| place.fault(error)).ok()?;
    config.all_serve = match fields.or("serve", ONE.to_owned()).as_str() {
        ONE => false,
        ALL => true,
        other => {
            let at = fields.optional("serve").unwrap_or(place);
            at.fault(format!("is {other:?}; it must be {ONE:?} or {ALL:?}"));
            false
        }
    };
    let (user, password) =
        (fields.optional("user").and_then(Cursor::text), read_password(place, &fields));
    if user.is_some() != password.is_some() {
        place.fault(format!("user and one of {} belong together", PASSWORD_KEYS.join(", ")));
    }
    config.user = user.zip(password);
    let Some(files) = read_tls(place, &fields, &config.endpoints) else { return Some(config) };
    config.with_tls(files).map_err(|error| place.fault(error)).ok()
}

fn read_endpoints(place: &Cursor<'_>) -> Vec<String> {
    let read = |item: &Cursor<'_>| {
        let text = item.text()?;
        let url = text.trim_end_matches('/');
        let host = url.strip_prefix("https://").or(url.strip_prefix("http://"));
        if host.is_none_or(|host| host.is_empty() || host.contains('/')) {
            item.fault(format!("{text:?} is no member of etcd; write http://host:2379"));
        }
        Some(url.to_owned())
    };
    let found: Vec<String> = place.one_or_more().iter().filter_map(read).collect();
    if found.is_empty() {
        place.fault("must name a member of etcd at least");
    }
    found
}

fn read_tls(place: &Cursor<'_>, fields: &Fields<'_>, endpoints: &[String]) -> Option<TlsFiles> {
    let by_tls = endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
    let Some(tls) = fields.optional("tls") else {
        if by_tls {
            place.fault(
                "https needs tls with a ca_file: the authority of the members' certificates",
            );
        }
        return None;
    };
    let files = tls.fields(&TLS_KEYS);
    let file = |key| files.optional(key).and_then(read_file).unwrap_or_default();
    let authorities = files.required("ca_file").and_then(read_file)?;
    if files.optional("certificate_file").is_some() != files.optional("key_file").is_some() {
        tls.fault("certificate_file and key_file belong together");
    }
    let (certificate, key) = (file("certificate_file"), file("key_file"));
    Some(TlsFiles { authorities, revoked: Vec::new(), certificate, key })
}

#[cfg(test)]
mod tests {
    use crate::config::Serve;

    #[test]
    fn a_catalog_in_etcd_is_read_and_what_is_wrong_with_it_is_said() {
        let file = std::env::temp_dir().join(format!("foreshard-etcd-{}.yaml", std::process::id()));
        let load = |etcd: &str| {
            let text =
                format!("nodes: [{{name: n1, host: db1}}]\ncatalog: {{ etcd: {{ {etcd} }} }}\n");
            std::fs::write(&file, text).unwrap();
            Serve::load(&file).map_err(|faults| faults.to_string())
        };
        let good = load(
            "endpoints: [http://e1:2379, http://e2:2379/], prefix: shop, user: u, password: p",
        );
        let faults = [
            ("endpoints: e1:2379", "is no member of etcd"),
            ("endpoints: []", "must name a member"),
            ("endpoints: https://e1:2379", "https needs tls"),
            ("endpoints: http://e1:2379, lease_ms: 10", "must be 2000 to 300000"),
            ("endpoints: http://e1:2379, user: u", "belong together"),
            ("endpoints: http://e1:2379, serve: two", "must be \"one\" or \"all\""),
            ("prefix: x", "endpoints is missing"),
        ];
        let told = faults.map(|(etcd, wanted)| (load(etcd).unwrap_err(), wanted));
        std::fs::remove_file(&file).unwrap();
        let etcd = good.unwrap().catalog.unwrap();
        assert_eq!(etcd.endpoints, ["http://e1:2379", "http://e2:2379"]);
        assert_eq!((etcd.prefix.as_str(), etcd.lease.as_millis()), ("shop/", 5_000));
        for (told, wanted) in told {
            assert!(told.contains(wanted), "{told}");
        }
    }
}
