//! The nodes and users of a serve configuration, and where their passwords come from.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::access::read_node_tls;
use super::section::{Cursor, Fields};
use crate::backend::{NodeAddress, Password, TlsMode};

/// The keys that give a password, of which one at the most may stand.
pub(super) const PASSWORD_KEYS: [&str; 3] = ["password", "password_file", "password_env"];

/// Reads the list of nodes.
pub(super) fn read_nodes(nodes: &Cursor<'_>) -> Vec<NodeAddress> {
    let items = nodes.items();
    let mut names = HashSet::new();
    let mut addresses = HashMap::new();
    let mut found = Vec::new();
    for item in &items {
        let Some(node) = read_node(item) else { continue };
        if !names.insert(node.name.clone()) {
            item.fault(format!("there is a node {:?} already", node.name));
        }
        let other = addresses.insert((node.host.clone(), node.port), node.name.clone());
        if let Some(other) = other {
            item.fault(format!("is the same server as node {other:?}"));
        }
        found.push(node);
    }
    if items.is_empty() {
        nodes.fault("must name a node at least");
    }
    found
}

fn read_node(item: &Cursor<'_>) -> Option<NodeAddress> {
    let [password, password_file, password_env] = PASSWORD_KEYS;
    let known = ["name", "host", "port", "user", password, password_file, password_env, "tls"];
    let fields = item.fields(&known);
    let name = fields.required("name").and_then(Cursor::text);
    let host = fields.required("host").and_then(Cursor::text);
    let port = fields.or("port", 5432u16);
    if port == 0 {
        item.fault("port: must be from 1 to 65535");
    }
    let user = fields.optional("user").and_then(Cursor::text);
    let password = read_password(item, &fields);
    let user = user.unwrap_or_else(|| "postgres".to_owned());
    let tls = fields.optional("tls").map(read_node_tls).unwrap_or_default();
    let host = host?;
    if host.starts_with('/') && tls.mode() != TlsMode::Disable {
        item.fault("tls: a Unix socket has none, and needs none");
    }
    Some(NodeAddress { name: name?, host, port, user, password, tls, fence: None })
}

/// Reads the map of users who log in with a password.
pub(super) fn read_users(users: &Cursor<'_>) -> BTreeMap<String, Password> {
    let mut found = BTreeMap::new();
    for (name, user) in users.entries() {
        let password = read_password(&user, &user.fields(&PASSWORD_KEYS));
        match password {
            Some(password) => drop(found.insert(name.to_owned(), password)),
            None if user.is_map() && user.entries().is_empty() => {
                user.fault(format!("needs one of {}", PASSWORD_KEYS.join(", ")));
            }
            None => {}
        }
    }
    found
}

/// The password, if a key gives one: in the file itself, in a file of its own, or in a variable of
/// the environment.
pub(super) fn read_password(owner: &Cursor<'_>, fields: &Fields<'_>) -> Option<Password> {
    let given: Vec<_> =
        PASSWORD_KEYS.iter().filter_map(|key| Some((*key, fields.optional(key)?))).collect();
    if given.len() > 1 {
        owner.fault(format!("only one of {} may be given", PASSWORD_KEYS.join(", ")));
    }
    let (key, place) = given.first()?;
    let text = place.text()?;
    let secret = match *key {
        "password" => Ok(text),
        "password_file" => {
            let folder = place.source().file().parent().map(|folder| folder.join(&text));
            let file = folder.unwrap_or_else(|| text.clone().into());
            std::fs::read_to_string(&file)
                .map(|secret| secret.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| format!("{} can't be read: {error}", file.display()))
        }
        _ => std::env::var(&text)
            .map_err(|_| format!("there is no variable {text:?} in the environment")),
    };
    match secret {
        Ok(secret) if secret.is_empty() => place.fault("the password is empty"),
        Ok(secret) => return Some(Password::new(secret)),
        Err(message) => place.fault(message),
    }
    None
}
