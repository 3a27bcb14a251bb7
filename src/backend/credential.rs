//! With what a connection proves at a node who it is.

use super::Password;
use crate::wire::ScramKeys;

/// With what a connection proves at a node who it is. `Debug` shows no secret.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Credential {
    /// With nothing: the node trusts, or takes the certificate of the connection.
    #[default]
    Nothing,
    /// With a password that the configuration gives.
    Password(Password),
    /// With the keys that the client's own login has shown; they fit only where the node has the
    /// same verifier as the home node.
    Scram(Box<ScramKeys>),
    /// With the MD5 hash that the home node has stored.
    Md5(Password),
}

impl From<Option<Password>> for Credential {
    fn from(password: Option<Password>) -> Self {
        password.map_or(Self::Nothing, Self::Password)
    }
}
