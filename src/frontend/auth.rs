//! A client proves who it is, in the way that the first rule for it says.

use std::sync::Arc;

use nix::unistd::User;

use super::admission::Admission;
use super::greeting::Startup;
use super::roles::{LookupError, Role, Roles, Secret};
use super::rules::{Applicant, ClientCertificate, Method, Origin, Rule, rule_for};
use crate::backend::{Credential, Password, Pool};
use crate::executor::{Client, ClientError};
use crate::wire::{
    Malformed, Reader, Reply, SCRAM, SCRAM_PLUS, ScramServer, ScramVerifier, ServerError, SqlState,
    body, md5_answer, md5_verifier,
};

/// Longest password message, as in PostgreSQL.
const PASSWORD_MAX: usize = 65_535;

/// What a client is checked against.
pub(super) struct Checker<'a> {
    pub admission: &'a Admission,
    pub roles: &'a Roles,
    /// Service connections to the home node.
    pub home: &'a Arc<Pool>,
}

/// Lets a client in, or says why not; an `Ok(Err(_))` is told to it, and its connection ends.
type Verdict<T> = Result<Result<T, ServerError>, ClientError>;

impl Checker<'_> {
    /// Lets a client prove who it is: with what it can be logged in at the nodes.
    pub(super) async fn check(
        &self,
        startup: &Startup,
        origin: &Origin,
        client: &mut Client,
    ) -> Verdict<Credential> {
        let rule = match self.rule(startup, origin).await {
            Ok(rule) => rule,
            Err(error) => return Ok(Err(error)),
        };
        if let Err(error) = check_certificate(rule, &startup.user, origin) {
            return Ok(Err(error));
        }
        if rule.method == Method::Peer
            && let Err(error) = check_peer(&startup.user, origin).await
        {
            return Ok(Err(error));
        }
        let found = self.roles.find(&startup.user, self.admission, self.home).await;
        let role = match found {
            Ok(role) => role,
            // Its password is not asked for, so there need not be one to check it against.
            Err(_) if matches!(rule.method, Method::Trust | Method::Cert | Method::Peer) => None,
            Err(error) => return Ok(Err(not_looked_up(&startup.user, &error))),
        };
        let proved = match rule.method {
            Method::Trust | Method::Cert | Method::Peer => Ok(stored_credential(role.as_deref())),
            Method::Reject => Err(denied(&startup.user)),
            Method::ScramSha256 => {
                self.scram(&startup.user, role.as_deref(), origin, client).await?
            }
            Method::Md5 => match role.as_deref().map(|role| &role.secret) {
                Some(Secret::Md5(stored)) => {
                    md5(&startup.user, stored, Credential::Md5(stored.clone()), client).await?
                }
                Some(Secret::Password(password, _)) => {
                    let stored = Password::new(md5_verifier(&startup.user, password.reveal()));
                    let credential = Credential::Password(password.clone());
                    md5(&startup.user, &stored, credential, client).await?
                }
                _ => self.scram(&startup.user, role.as_deref(), origin, client).await?,
            },
        };
        if proved.is_err() {
            self.roles.forget(&startup.user);
        }
        Ok(proved.and_then(|credential| match role {
            Some(role) if !role.may_log_in => {
                let message = format!("role \"{}\" is not permitted to log in", startup.user);
                Err(ServerError::fatal(SqlState::INVALID_AUTHORIZATION, message))
            }
            _ => {
                client.put(Reply::AuthenticationOk);
                Ok(credential)
            }
        }))
    }

    /// The rule for a client.
    async fn rule(&self, startup: &Startup, origin: &Origin) -> Result<&Rule, ServerError> {
        let rules = &self.admission.rules;
        let roles = if rules.iter().any(Rule::needs_roles) {
            let roles = self.roles.of_member(&startup.user, self.admission, self.home).await;
            roles.map_err(|error| not_looked_up(&startup.user, &error))?
        } else {
            Vec::new()
        };
        let Startup { user, database, .. } = startup;
        rule_for(rules, &Applicant { user, database, roles: &roles, origin })
    }

    async fn scram(
        &self,
        user: &str,
        role: Option<&Role>,
        origin: &Origin,
        client: &mut Client,
    ) -> Verdict<Credential> {
        let verifier = match role.map(|role| &role.secret) {
            Some(Secret::Password(_, verifier) | Secret::Scram(verifier)) => verifier.clone(),
            _ => ScramVerifier::mock(user, &self.roles.secret.0),
        };
        let end_point = origin.tls.as_ref().and_then(|tls| tls.end_point.as_deref());
        let offered: &[&str] = if end_point.is_some() { &[SCRAM_PLUS, SCRAM] } else { &[SCRAM] };
        client.put(Reply::Sasl(offered));
        let Some(first) = password_message(client).await? else { return Ok(Err(denied(user))) };
        let begun = ScramServer::begin(body(&first), verifier, end_point, rand::random());
        let (exchange, answer) = match begun {
            Ok(begun) => begun,
            Err(Malformed(what)) => {
                return Ok(Err(ServerError::fatal(
                    SqlState::PROTOCOL_VIOLATION,
                    "malformed SCRAM message",
                )
                .with_detail(format!("{what}."))));
            }
        };
        client.put(Reply::SaslContinue(answer));
        let Some(last) = password_message(client).await? else { return Ok(Err(denied(user))) };
        let Ok((answer, keys)) = exchange.finish(body(&last)) else {
            return Ok(Err(denied(user)));
        };
        client.put(Reply::SaslFinal(answer));
        Ok(Ok(match role.map(|role| &role.secret) {
            Some(Secret::Password(password, _)) => Credential::Password(password.clone()),
            _ => Credential::Scram(Box::new(keys)),
        }))
    }
}

/// What a client that need not prove anything can be logged in with.
fn stored_credential(role: Option<&Role>) -> Credential {
    match role.map(|role| &role.secret) {
        Some(Secret::Password(password, _)) => Credential::Password(password.clone()),
        Some(Secret::Md5(stored)) => Credential::Md5(stored.clone()),
        _ => Credential::Nothing,
    }
}

/// Checks an answer against what is stored; `credential` if it is right.
async fn md5(
    user: &str,
    stored: &Password,
    credential: Credential,
    client: &mut Client,
) -> Verdict<Credential> {
    let salt: [u8; 4] = rand::random();
    client.put(Reply::Md5(salt));
    let Some(message) = password_message(client).await? else { return Ok(Err(denied(user))) };
    let mut reader = Reader::new(body(&message));
    let answer = reader.cstr().ok().filter(|_| reader.end().is_ok());
    let expected = md5_answer(stored.reveal(), salt);
    let differs = |answer: &[u8]| {
        answer.iter().zip(expected.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) != 0
    };
    match answer {
        Some(answer) if answer.len() == expected.len() && !differs(answer) => Ok(Ok(credential)),
        _ => Ok(Err(denied(user))),
    }
}

/// Whether the client's certificate is what the rule asks for.
fn check_certificate(rule: &Rule, user: &str, origin: &Origin) -> Result<(), ServerError> {
    let by_method = match rule.method {
        Method::Cert => ClientCertificate::VerifyFull,
        _ => ClientCertificate::NotNeeded,
    };
    let needed = rule.certificate.max(by_method);
    if needed == ClientCertificate::NotNeeded {
        return Ok(());
    }
    let Some(client) = origin.tls.as_ref().and_then(|tls| tls.client.as_ref()) else {
        let message = "connection requires a valid client certificate";
        return Err(ServerError::fatal(SqlState::INVALID_AUTHORIZATION, message));
    };
    if needed == ClientCertificate::VerifyFull && client.common_name.as_deref() != Some(user) {
        let message = format!("certificate authentication failed for user \"{user}\"");
        return Err(ServerError::fatal(SqlState::INVALID_AUTHORIZATION, message));
    }
    Ok(())
}

/// Whether the client is the user of that name of the operating system.
async fn check_peer(user: &str, origin: &Origin) -> Result<(), ServerError> {
    if let Some(number) = origin.system_user {
        // It may take a service of the network to know the name.
        let asked = tokio::task::spawn_blocking(move || User::from_uid(number.into()));
        if let Ok(Ok(Some(known))) = asked.await
            && known.name == user
        {
            return Ok(());
        }
    }
    let message = format!("Peer authentication failed for user \"{user}\"");
    Err(ServerError::fatal(SqlState::INVALID_AUTHORIZATION, message))
}

/// What a client is told whose role is not known for now.
fn not_looked_up(user: &str, error: &LookupError) -> ServerError {
    let error: &dyn std::error::Error = error;
    tracing::error!(error, user, "a role could not be looked up");
    ServerError::fatal(SqlState::SYSTEM_ERROR, "the role could not be looked up on the home node")
        .with_hint("The proxy's log says why.")
}

/// The next frame, if it is a password message.
async fn password_message(client: &mut Client) -> Result<Option<bytes::BytesMut>, ClientError> {
    let Some(frame) = client.frame_within(PASSWORD_MAX).await? else { return Ok(None) };
    let message = client.take(frame.len);
    Ok((frame.tag == b'p').then_some(message))
}

fn denied(user: &str) -> ServerError {
    let message = format!("password authentication failed for user \"{user}\"");
    ServerError::fatal(SqlState::INVALID_PASSWORD, message)
}
