//! What is known of the roles that clients want to be: from the configuration, or looked up on the
//! home node, whose stored verifiers go on working.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::admission::Admission;
use crate::backend::{CommandError, ConnectError, Password, Pool};
use crate::sql::Literal;
use crate::wire::{ScramVerifier, is_md5_verifier};

/// Roles that are remembered at the most, also of those that do not exist.
const REMEMBERED_MAX: usize = 10_000;

/// What is known of a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Role {
    pub secret: Secret,
    pub may_log_in: bool,
    pub superuser: bool,
    /// The roles that it is a member of, directly or not, and itself.
    pub member_of: Vec<String>,
}

/// What a role's password is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Secret {
    /// Nothing: no password fits.
    None,
    /// The configuration gives the password.
    Password(Password, ScramVerifier),
    /// What the home node has stored.
    Scram(ScramVerifier),
    /// What the home node has stored.
    Md5(Password),
}

/// What was asked of the home node, and what was derived from passwords.
#[derive(Debug)]
pub(super) struct Roles {
    /// Makes what unknown users are asked, so that they look like known ones.
    pub secret: MockSecret,
    looked_up: Mutex<HashMap<String, LookedUp>>,
    derived: Mutex<HashMap<String, Arc<Role>>>,
}

/// What the home node said of a role, and when.
type LookedUp = (Instant, Option<Arc<Role>>);

/// Known to this proxy alone.
#[derive(Clone)]
pub struct MockSecret(pub [u8; 32]);

impl std::fmt::Debug for MockSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MockSecret(***)")
    }
}

/// Why nothing is known of a role.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error("the home node can't be asked for a role")]
    Connect(#[from] ConnectError),
    #[error("the home node was asked for a role")]
    Ask(#[from] CommandError),
}

impl Roles {
    pub(super) fn new(secret: MockSecret) -> Self {
        Self { secret, looked_up: Mutex::default(), derived: Mutex::default() }
    }

    /// What is known of the role `user`; `None` if there is none. `home` is a pool of service
    /// connections to the home node.
    pub(super) async fn find(
        &self,
        user: &str,
        admission: &Admission,
        home: &Arc<Pool>,
    ) -> Result<Option<Arc<Role>>, LookupError> {
        if let Some(password) = admission.users.get(user) {
            return Ok(Some(self.of_password(user, password)));
        }
        let Some(believed) = admission.lookup else { return Ok(None) };
        self.look_up(user, believed, home).await
    }

    /// What was looked up of `user` is no longer believed: its password may be a new one.
    pub(super) fn forget(&self, user: &str) {
        self.looked_up.lock().remove(user);
    }

    /// Whether `user` is a superuser on the home node, as far as that is looked up.
    pub(super) async fn is_superuser(
        &self,
        user: &str,
        admission: &Admission,
        home: &Arc<Pool>,
    ) -> bool {
        let Some(believed) = admission.lookup else { return false };
        let role = self.look_up(user, believed, home).await;
        matches!(role, Ok(Some(role)) if role.superuser)
    }

    /// The roles that `user` is a member of on the home node; none if roles are not looked up.
    pub(super) async fn of_member(
        &self,
        user: &str,
        admission: &Admission,
        home: &Arc<Pool>,
    ) -> Result<Vec<String>, LookupError> {
        let Some(believed) = admission.lookup else { return Ok(Vec::new()) };
        let role = self.look_up(user, believed, home).await?;
        Ok(role.map(|role| role.member_of.clone()).unwrap_or_default())
    }

    fn of_password(&self, user: &str, password: &Password) -> Arc<Role> {
        if let Some(role) = self.derived.lock().get(user)
            && matches!(&role.secret, Secret::Password(known, _) if known == password)
        {
            return Arc::clone(role);
        }
        let salt = ScramVerifier::salt_of(user, &self.secret.0);
        let verifier = ScramVerifier::of_password(password.reveal(), salt);
        let secret = Secret::Password(password.clone(), verifier);
        let member_of = Vec::new();
        let role = Arc::new(Role { secret, may_log_in: true, superuser: false, member_of });
        self.derived.lock().insert(user.to_owned(), Arc::clone(&role));
        role
    }

    async fn look_up(
        &self,
        user: &str,
        believed: Duration,
        home: &Arc<Pool>,
    ) -> Result<Option<Arc<Role>>, LookupError> {
        if let Some((since, role)) = self.looked_up.lock().get(user)
            && since.elapsed() < believed
        {
            return Ok(role.clone());
        }
        let role = ask(user, home).await?.map(Arc::new);
        let mut looked_up = self.looked_up.lock();
        if looked_up.len() >= REMEMBERED_MAX {
            looked_up.retain(|_, (since, _)| since.elapsed() < believed);
            if looked_up.len() >= REMEMBERED_MAX {
                looked_up.clear();
            }
        }
        looked_up.insert(user.to_owned(), (Instant::now(), role.clone()));
        Ok(role)
    }
}

/// What is asked of a role. A superuser is a member only of what it was made one of.
const ROLE: &str = "SELECT rolpassword, rolcanlogin, rolsuper, \
     coalesce(rolvaliduntil < pg_catalog.now(), false), \
     (WITH RECURSIVE member (role) AS (SELECT a.oid UNION SELECT m.roleid \
     FROM pg_catalog.pg_auth_members m JOIN member ON m.member = member.role) \
     SELECT pg_catalog.json_agg(r.rolname) FROM pg_catalog.pg_roles r JOIN member \
     ON r.oid = member.role) FROM pg_catalog.pg_authid a";

/// Asks the home node.
async fn ask(user: &str, home: &Arc<Pool>) -> Result<Option<Role>, LookupError> {
    let sql = format!("{ROLE} WHERE rolname = {}", Literal(user));
    let mut home = home.checkout(&Arc::default()).await?;
    let answer = home.command(&sql).await?;
    let Some(row) = answer.rows.into_iter().next() else { return Ok(None) };
    let mut values = row.into_iter();
    let stored = values.next().flatten();
    let mut is_set = || values.next().flatten().as_deref() == Some("t");
    let (may_log_in, superuser, expired) = (is_set(), is_set(), is_set());
    let secret = match stored {
        Some(stored) if !expired => secret_of(stored),
        _ => Secret::None,
    };
    let member_of = values.next().flatten().unwrap_or_default();
    let member_of = serde_json::from_str(&member_of).unwrap_or_default();
    Ok(Some(Role { secret, may_log_in, superuser, member_of }))
}

fn secret_of(stored: String) -> Secret {
    if is_md5_verifier(&stored) {
        return Secret::Md5(Password::new(stored));
    }
    ScramVerifier::parse(&stored).map_or(Secret::None, Secret::Scram)
}
