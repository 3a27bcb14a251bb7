//! Who may connect and how: the rules of authentication, and the files of TLS.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::section::{Cursor, Fields};
use crate::backend::{NodeTls, TlsFiles, TlsMode};
use crate::frontend::{
    Addresses, ClientCertificate, ConnectionKind, Method, Names, Rule, ServerTls,
};

/// The keys of a rule.
pub(super) const RULE_KEYS: [&str; 6] =
    ["type", "database", "user", "address", "method", "client_certificate"];
/// The keys of TLS towards clients.
pub(super) const TLS_KEYS: [&str; 4] =
    ["certificate_file", "key_file", "client_ca_file", "client_crl_file"];
/// The keys of TLS to a node.
pub(super) const NODE_TLS_KEYS: [&str; 5] =
    ["mode", "ca_file", "crl_file", "certificate_file", "key_file"];

/// Whether roles are looked up on the home node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserLookup {
    /// Roles that `users` does not name may log in with the password that the home node has stored.
    pub enabled: bool,
    /// How long what was looked up is believed, in milliseconds.
    pub cache_ms: u64,
}

impl Default for UserLookup {
    fn default() -> Self {
        Self { enabled: true, cache_ms: 5_000 }
    }
}

impl UserLookup {
    /// How long what was looked up is believed; `None` if nothing is looked up.
    pub fn believed(&self) -> Option<Duration> {
        self.enabled.then(|| Duration::from_millis(self.cache_ms))
    }
}

/// Reads `scram`, `trust` or a list of rules.
pub(super) fn read_rules(place: &Cursor<'_>) -> Vec<Rule> {
    if place.is_list() {
        let items = place.items();
        if items.is_empty() {
            place.fault("must have a rule at least");
        }
        return items.iter().filter_map(read_rule).collect();
    }
    match place.text().as_deref() {
        Some("scram") => Rule::for_all(Method::ScramSha256),
        Some("trust") => Rule::for_all(Method::Trust),
        Some(other) => {
            place.fault(format!("{other:?} is neither scram nor trust nor a list of rules"));
            Vec::new()
        }
        None => Vec::new(),
    }
}

fn read_rule(item: &Cursor<'_>) -> Option<Rule> {
    let fields = item.fields(&RULE_KEYS);
    let kind = fields.required("type").and_then(|kind| {
        let kinds = [
            ("local", ConnectionKind::Local),
            ("host", ConnectionKind::Host),
            ("hostssl", ConnectionKind::HostSsl),
            ("hostnossl", ConnectionKind::HostNoSsl),
        ];
        one_of(kind, &kinds)
    });
    let method = fields.required("method").and_then(|method| {
        let methods = [
            ("trust", Method::Trust),
            ("reject", Method::Reject),
            ("scram-sha-256", Method::ScramSha256),
            ("md5", Method::Md5),
            ("cert", Method::Cert),
            ("peer", Method::Peer),
        ];
        one_of(method, &methods)
    });
    let certificate = fields.optional("client_certificate").and_then(|certificate| {
        let levels = [
            ("verify-ca", ClientCertificate::VerifyCa),
            ("verify-full", ClientCertificate::VerifyFull),
        ];
        one_of(certificate, &levels)
    });
    let names = |key| {
        let all = || vec![Names::All];
        fields.optional(key).map_or_else(all, |names| read_names(names, key == "database"))
    };
    let (databases, users) = (names("database"), names("user"));
    let addresses = fields.optional("address");
    if kind == Some(ConnectionKind::Local) && addresses.is_some() {
        item.fault("a rule of type local has no address");
    }
    if method == Some(Method::Peer) && kind.is_some_and(|kind| kind != ConnectionKind::Local) {
        item.fault("method peer needs a rule of type local");
    }
    let needs_tls = method == Some(Method::Cert) || certificate.is_some();
    if needs_tls && kind.is_some_and(|kind| kind != ConnectionKind::HostSsl) {
        item.fault("a client certificate needs a rule of type hostssl");
    }
    Some(Rule {
        kind: kind?,
        databases,
        users,
        addresses: addresses.map_or(vec![Addresses::All], read_addresses),
        method: method?,
        certificate: certificate.unwrap_or(ClientCertificate::NotNeeded),
    })
}

fn one_of<T: Copy>(place: &Cursor<'_>, known: &[(&str, T)]) -> Option<T> {
    let text = place.text()?;
    let found = known.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
    if found.is_none() {
        let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
        place.fault(format!("{text:?} is none of {}", names.join(", ")));
    }
    found
}

/// Names, `all`, `+role`; of databases also `sameuser` and `samerole`, but no `+role`.
fn read_names(place: &Cursor<'_>, databases: bool) -> Vec<Names> {
    let read = |item: &Cursor<'_>| {
        let name = item.text()?;
        match name.as_str() {
            "all" => return Some(Names::All),
            "sameuser" if databases => return Some(Names::SameUser),
            "samerole" | "samegroup" if databases => return Some(Names::SameRole),
            _ => {}
        }
        if let Some(role) = name.strip_prefix('+').filter(|role| !databases && !role.is_empty()) {
            return Some(Names::Members(role.to_owned()));
        }
        if name.starts_with(['+', '/', '@']) || (databases && name == "replication") {
            item.fault(format!("{name:?}: patterns and files are not supported; give names"));
        }
        Some(Names::This(name))
    };
    place.one_or_more().iter().filter_map(read).collect()
}

fn read_addresses(place: &Cursor<'_>) -> Vec<Addresses> {
    let read = |item: &Cursor<'_>| {
        let text = item.text()?;
        let address = Addresses::parse(&text);
        if address.is_none() {
            item.fault(format!(
                "{text:?} is neither an address like 10.0.0.0/8 nor all or samehost"
            ));
        }
        address
    };
    place.one_or_more().iter().filter_map(read).collect()
}

/// Reads TLS towards clients.
pub(super) fn read_server_tls(place: &Cursor<'_>) -> Option<ServerTls> {
    let fields = place.fields(&TLS_KEYS);
    let certificate = fields.required("certificate_file").and_then(read_file);
    let key = fields.required("key_file").and_then(read_file);
    let optional = |key| fields.optional(key).map_or_else(|| Some(Vec::new()), read_file);
    let (authorities, revoked) = (optional("client_ca_file"), optional("client_crl_file"));
    if let Some(place) = fields.optional("client_crl_file")
        && fields.optional("client_ca_file").is_none()
    {
        place.fault("client_crl_file is looked at only with a client_ca_file");
    }
    let (certificate, key) = (certificate?, key?);
    let files = TlsFiles { certificate, key, authorities: authorities?, revoked: revoked? };
    ServerTls::new(&files).map_err(|error| place.fault(error)).ok()
}

/// Reads TLS to a node.
pub(super) fn read_node_tls(place: &Cursor<'_>) -> NodeTls {
    let fields = place.fields(&NODE_TLS_KEYS);
    let mode = fields.or("mode", TlsMode::VerifyFull);
    let file = |key| fields.optional(key).and_then(read_file).unwrap_or_default();
    let files = TlsFiles {
        authorities: file("ca_file"),
        revoked: file("crl_file"),
        certificate: file("certificate_file"),
        key: file("key_file"),
    };
    let verifies = matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull);
    check_node_tls(place, &fields, verifies);
    let complete = !verifies || !files.authorities.is_empty();
    if !complete {
        return NodeTls::default();
    }
    NodeTls::new(mode, files).map_err(|error| place.fault(error)).unwrap_or_default()
}

fn check_node_tls(place: &Cursor<'_>, fields: &Fields<'_>, verifies: bool) {
    let has = |key| fields.optional(key).is_some();
    if verifies && !has("ca_file") {
        place.fault(
            "verify-ca and verify-full need a ca_file: the authority of the node's certificate",
        );
    }
    for key in ["ca_file", "crl_file"] {
        if !verifies && has(key) {
            place.fault(format!("{key} is looked at only with mode verify-ca or verify-full"));
        }
    }
    if has("certificate_file") != has("key_file") {
        place.fault("certificate_file and key_file belong together");
    }
}

/// Reads the file that is named, in the folder of the configuration if the name is relative.
pub(super) fn read_file(place: &Cursor<'_>) -> Option<Vec<u8>> {
    let name = place.text()?;
    let folder = place.source().file().parent().unwrap_or(Path::new(""));
    let file = folder.join(name);
    std::fs::read(&file)
        .map_err(|error| place.fault(format!("{} can't be read: {error}", file.display())))
        .ok()
}

#[cfg(test)]
mod tests {
    use crate::config::Serve;
    use crate::frontend::Names;

    #[test]
    fn rules_name_members_of_roles_and_system_users_where_these_are_known() {
        let file =
            std::env::temp_dir().join(format!("foreshard-rules-{}.yaml", std::process::id()));
        let load = |rules: &str, rest: &str| {
            let nodes = "nodes: [{name: n1, host: db1}]";
            std::fs::write(&file, format!("{nodes}\nauthentication:\n{rules}{rest}")).unwrap();
            Serve::load(&file).map_err(|faults| faults.to_string())
        };
        let good =
            "  - {type: local, user: [+staff, root], database: [shop, samerole], method: peer}\n";
        let read = load(good, "").unwrap().authentication.remove(0);
        assert_eq!(
            read.users,
            [Names::Members("staff".to_owned()), Names::This("root".to_owned())]
        );
        assert_eq!(read.databases, [Names::This("shop".to_owned()), Names::SameRole]);
        let bad = "  - {type: host, user: /^a, method: peer}\n  - {type: host, database: +d, method: md5}\n";
        let (blind, bad) = (load(good, "user_lookup: {enabled: false}\n"), load(bad, ""));
        std::fs::remove_file(&file).unwrap();
        assert!(blind.unwrap_err().contains("+role or samerole need user_lookup"));
        let bad = bad.unwrap_err();
        for expected in ["peer needs a rule of type local", "\"/^a\": patterns", "\"+d\": patterns"]
        {
            assert!(bad.contains(expected), "{bad}");
        }
    }
}
