//! Who is let in, and how: a value that a reload replaces.

use std::collections::BTreeMap;
use std::time::Duration;

use super::config::Config;
use super::rules::{Method, Rule};
use super::tls::ServerTls;
use crate::backend::Password;

/// Who is let in, and how.
#[derive(Debug, Clone)]
pub struct Admission {
    /// In order; the first that fits a connection decides.
    pub rules: Vec<Rule>,
    /// Users whose passwords the configuration gives.
    pub users: BTreeMap<String, Password>,
    /// How long what the home node has stored of a role is believed; `None` if roles are not
    /// looked up there.
    pub lookup: Option<Duration>,
    /// TLS, if there is a certificate.
    pub tls: Option<ServerTls>,
    /// Limits on clients.
    pub limits: Config,
}

impl Admission {
    /// Anybody under any name.
    pub fn trust(limits: Config) -> Self {
        let rules = Rule::for_all(Method::Trust);
        Self { rules, users: BTreeMap::new(), lookup: None, tls: None, limits }
    }
}
