//! Rules like those of `pg_hba.conf`: the first one that fits a connection says how it has to prove
//! who it is (<https://www.postgresql.org/docs/15/auth-pg-hba-conf.html>).

use std::net::IpAddr;

use crate::wire::{ServerError, SqlState};

/// How clients of a rule prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// They need not.
    Trust,
    /// They may not connect.
    Reject,
    /// By SCRAM-SHA-256; over TLS bound to the connection where the client can.
    ScramSha256,
    /// By an MD5 hash where that is what is stored, else by SCRAM-SHA-256.
    Md5,
    /// By a client certificate whose common name is the user's name.
    Cert,
    /// By being the user of that name of the operating system; through the Unix socket.
    Peer,
}

/// Which connections a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionKind {
    /// Through the Unix socket.
    Local,
    /// By TCP, with or without TLS.
    Host,
    /// By TCP with TLS.
    HostSsl,
    /// By TCP without TLS.
    HostNoSsl,
}

/// Databases or users; a rule has a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Any.
    All,
    /// Of databases: the one with the user's name.
    SameUser,
    /// Of databases: those with the name of a role that the user is a member of.
    SameRole,
    /// Of users: the members of this role, directly or not, and itself.
    Members(String),
    /// This.
    This(String),
}

/// Addresses of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Any.
    All,
    /// Those of this machine.
    SameHost,
    /// Those that begin with the first bits of an address.
    Range(IpAddr, u8),
}

/// What a client's certificate has to say, beside the method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientCertificate {
    /// There need not be one.
    NotNeeded,
    /// It comes from the configured authority.
    VerifyCa,
    /// And its common name is the user's name.
    VerifyFull,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which connections it is for.
    pub kind: ConnectionKind,
    /// The databases that it is for.
    pub databases: Vec<Names>,
    /// The users that it is for.
    pub users: Vec<Names>,
    /// The addresses that it is for; meaningless for [`ConnectionKind::Local`].
    pub addresses: Vec<Addresses>,
    /// How they prove who they are.
    pub method: Method,
    /// What is asked of their certificate.
    pub certificate: ClientCertificate,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// The client's address and that of the socket that it reached; `None` for the Unix socket.
    pub(super) addresses: Option<(IpAddr, IpAddr)>,
    /// What is known by TLS.
    pub(super) tls: Option<TlsOrigin>,
    /// The number of the operating system's user at the other end of the Unix socket.
    pub(super) system_user: Option<u32>,
}

/// What is known of a connection by TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsOrigin {
    /// The hash of the proxy's certificate, for channel binding.
    pub(super) end_point: Option<Vec<u8>>,
    /// The client has shown a certificate of the configured authority.
    pub(super) client: Option<ClientName>,
}

/// Whom a client's certificate names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ClientName {
    /// The common name, if there is one.
    pub(super) common_name: Option<String>,
}

/// Who wants what, from where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Applicant<'a> {
    pub user: &'a str,
    pub database: &'a str,
    /// The roles that the user is a member of, itself among them; asked for only if a rule needs them.
    pub roles: &'a [String],
    pub origin: &'a Origin,
}

impl Rule {
    /// For every connection from anywhere.
    pub fn for_all(method: Method) -> Vec<Self> {
        [ConnectionKind::Local, ConnectionKind::Host]
            .map(|kind| Self {
                kind,
                databases: vec![Names::All],
                users: vec![Names::All],
                addresses: vec![Addresses::All],
                method,
                certificate: ClientCertificate::NotNeeded,
            })
            .to_vec()
    }

    /// Whether its clients need a certificate.
    pub fn needs_certificate(&self) -> bool {
        self.method == Method::Cert || self.certificate != ClientCertificate::NotNeeded
    }

    /// Whether it takes to know which roles a user is a member of.
    pub fn needs_roles(&self) -> bool {
        let names = self.databases.iter().chain(&self.users);
        names.into_iter().any(|name| matches!(name, Names::SameRole | Names::Members(_)))
    }

    /// Whether it is for this connection.
    fn fits(&self, applicant: &Applicant<'_>) -> bool {
        let origin = applicant.origin;
        let kind = match (self.kind, origin.addresses.is_some()) {
            (ConnectionKind::Local, by_tcp) => !by_tcp,
            (ConnectionKind::Host, by_tcp) => by_tcp,
            (ConnectionKind::HostSsl, by_tcp) => by_tcp && origin.tls.is_some(),
            (ConnectionKind::HostNoSsl, by_tcp) => by_tcp && origin.tls.is_none(),
        };
        let address = match origin.addresses {
            None => true,
            Some((from, to)) => self.addresses.iter().any(|range| range.holds(from, to)),
        };
        let holds = |names: &[Names], name| names.iter().any(|it| it.hold(name, applicant));
        kind && address
            && holds(&self.users, applicant.user)
            && holds(&self.databases, applicant.database)
    }
}

impl Names {
    fn hold(&self, name: &str, applicant: &Applicant<'_>) -> bool {
        match self {
            Self::All => true,
            Self::SameUser => name == applicant.user,
            Self::SameRole => applicant.roles.iter().any(|role| role == name),
            Self::Members(of) => applicant.roles.contains(of),
            Self::This(known) => known == name,
        }
    }
}

impl Addresses {
    /// Reads an address, alone or with the number of its bits that count.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "all" => return Some(Self::All),
            "samehost" => return Some(Self::SameHost),
            _ => {}
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        (bits <= all).then_some(Self::Range(address, bits))
    }

    fn holds(self, from: IpAddr, to: IpAddr) -> bool {
        let from = from.to_canonical();
        match self {
            Self::All => true,
            Self::SameHost => from.is_loopback() || from == to.to_canonical(),
            Self::Range(IpAddr::V4(range), bits) => {
                let IpAddr::V4(from) = from else { return false };
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                (from.to_bits() ^ range.to_bits()) & mask == 0
            }
            Self::Range(IpAddr::V6(range), bits) => {
                let IpAddr::V6(from) = from else { return false };
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                (from.to_bits() ^ range.to_bits()) & mask == 0
            }
        }
    }
}

/// The rule for a connection; what its client is told if there is none.
pub(super) fn rule_for<'a>(
    rules: &'a [Rule],
    applicant: &Applicant<'_>,
) -> Result<&'a Rule, ServerError> {
    let place = || {
        let Applicant { user, database, origin, .. } = applicant;
        let address = origin.addresses.map(|(from, _)| from.to_canonical().to_string());
        let host = address.map_or("[local]".to_owned(), |address| format!("host \"{address}\""));
        let tls = if origin.tls.is_some() { "SSL encryption" } else { "no encryption" };
        format!("{host}, user \"{user}\", database \"{database}\", {tls}")
    };
    let fatal = |message| Err(ServerError::fatal(SqlState::INVALID_AUTHORIZATION, message));
    match rules.iter().find(|rule| rule.fits(applicant)) {
        None => fatal(format!("no authentication rule of the proxy for {}", place())),
        Some(rule) if rule.method == Method::Reject => {
            fatal(format!("an authentication rule of the proxy rejects connection for {}", place()))
        }
        Some(rule) => Ok(rule),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Addresses, Applicant, ClientCertificate, ConnectionKind, Method, Names, Origin, Rule,
        TlsOrigin, rule_for,
    };

    fn rule(kind: ConnectionKind, method: Method, address: &str) -> Rule {
        Rule {
            kind,
            databases: vec![Names::All],
            users: vec![Names::All],
            addresses: vec![Addresses::parse(address).unwrap()],
            method,
            certificate: ClientCertificate::NotNeeded,
        }
    }

    fn from(address: &str) -> Origin {
        let address = address.parse().unwrap();
        let addresses = Some((address, "192.0.2.1".parse().unwrap()));
        Origin { addresses, ..Origin::default() }
    }

    #[test]
    fn ranges_hold_what_begins_like_them() {
        let cases = [
            ("10.0.0.0/8", "10.200.3.4", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.1.2.3", "10.1.2.3", true),
            ("10.1.2.3", "10.1.2.4", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.0/8", "::ffff:10.0.0.1", true),
            ("2001:db8::/33", "2001:db8:7fff::1", true),
            ("2001:db8::/33", "2001:db8:8000::1", false),
            ("::/0", "::1", true),
            ("all", "::1", true),
            ("samehost", "127.0.0.9", true),
            ("samehost", "192.0.2.1", true),
            ("samehost", "192.0.2.2", false),
        ];
        for (range, address, expected) in cases {
            let rule = rule(ConnectionKind::Host, Method::Trust, range);
            let origin = from(address);
            let applicant = Applicant { user: "u", database: "d", roles: &[], origin: &origin };
            assert_eq!(rule.fits(&applicant), expected, "{range} {address}");
        }
        for bad in ["", "10.0.0.0/33", "::/129", "localhost", "10.0.0.0/-1", "10.0.0/8"] {
            assert_eq!(Addresses::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let mut rules = vec![
            rule(ConnectionKind::HostSsl, Method::Cert, "all"),
            rule(ConnectionKind::HostNoSsl, Method::Reject, "10.0.0.0/8"),
            rule(ConnectionKind::Host, Method::ScramSha256, "10.0.0.0/7"),
            rule(ConnectionKind::Local, Method::Trust, "all"),
        ];
        rules[2].users = vec![Names::This("app".to_owned())];
        rules[2].databases = vec![Names::SameUser];
        let tls = Origin { tls: Some(TlsOrigin::default()), ..from("10.0.0.1") };
        let found = |user, database, origin: &Origin| {
            rule_for(&rules, &Applicant { user, database, roles: &[], origin })
                .map(|rule| rule.method)
                .map_err(|error| error.message)
        };
        assert_eq!(found("app", "app", &tls), Ok(Method::Cert));
        assert_eq!(found("app", "app", &Origin::default()), Ok(Method::Trust));
        assert_eq!(found("app", "app", &from("11.0.0.1")), Ok(Method::ScramSha256));
        for (user, database) in [("app", "other"), ("other", "other")] {
            let error = found(user, database, &from("11.0.0.1")).unwrap_err();
            assert!(error.contains("no authentication rule"), "{error}");
        }
        let error = found("app", "app", &from("10.0.0.1")).unwrap_err();
        assert!(
            error.contains("rejects connection for host \"10.0.0.1\", user \"app\""),
            "{error}"
        );
    }
    #[test]
    fn members_of_a_role_are_told_from_others() {
        let mut rules = vec![
            rule(ConnectionKind::Local, Method::Trust, "all"),
            rule(ConnectionKind::Local, Method::Md5, "all"),
        ];
        assert!(!rules[0].needs_roles());
        rules[0].users = vec![Names::This("root".to_owned()), Names::Members("staff".to_owned())];
        rules[1].databases = vec![Names::This("shop".to_owned()), Names::SameRole];
        assert!(rules.iter().all(Rule::needs_roles));
        let roles = ["ann", "staff"].map(str::to_owned);
        let found = |user, database, roles| {
            let origin = Origin::default();
            let applicant = Applicant { user, database, roles, origin: &origin };
            rule_for(&rules, &applicant).map(|rule| rule.method).ok()
        };
        assert_eq!(found("ann", "any", &roles), Some(Method::Trust));
        assert_eq!(found("root", "any", &[]), Some(Method::Trust));
        assert_eq!(found("bob", "shop", &roles[..1]), Some(Method::Md5));
        assert_eq!(found("ann", "ann", &roles[..1]), Some(Method::Md5));
        assert_eq!(found("ann", "staff", &roles[..1]), None);
    }
}
