//! One verifier of a role's password for every node: PostgreSQL itself would take another salt on
//! each, and a client's own login could not be passed on to them.

use super::{Fault, Session};
use crate::ids::NodeId;
use crate::sql::{Literal, role_password};
use crate::wire::{ScramVerifier, is_md5_verifier};

impl Session {
    /// `sql` with a verifier in the place of a password in clear text. `made` is the verifier that
    /// an earlier node was given.
    pub(super) async fn with_one_verifier(
        &mut self,
        node: NodeId,
        mut sql: String,
        made: &mut Option<String>,
    ) -> Result<String, Fault> {
        let Some(password) = role_password(&sql).filter(|found| is_clear(&found.value)) else {
            return Ok(sql);
        };
        if made.is_none() {
            let asked = self.member(node).await?.guard.command("SHOW password_encryption");
            let encryption = asked.await?.rows.into_iter().flatten().flatten().next();
            if encryption.as_deref() != Some("scram-sha-256") {
                // MD5 hashes are the same on every node.
                return Ok(sql);
            }
            *made = Some(ScramVerifier::of_password(&password.value, rand::random()).text());
        }
        let verifier = made.as_deref().unwrap_or_default();
        sql.replace_range(password.span, &Literal(verifier).to_string());
        Ok(sql)
    }
}

/// Whether PostgreSQL would take it for a password, and not for a verifier of one.
fn is_clear(value: &str) -> bool {
    !value.is_empty() && !is_md5_verifier(value) && ScramVerifier::parse(value).is_none()
}
