//! What clients say of themselves: how it is read, how far it is believed, and what it may do.
//!
//! A false announcement must not do more harm than none. So all that clients without a record say
//! changes a forecast by a tenth together, however many they are; a client that was right time and
//! again may change it by more, and loses that by being wrong. And placement does nothing for an
//! announcement's sake that would do harm if nothing came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::calendar::Event;

/// How much all clients without a record change a forecast together.
const UNPROVEN_MAX: f64 = 1.1;
/// How much a client of the best record changes it, and all clients together.
const PROVEN_MAX: f64 = 1.6;
/// From this trust on a client has a record, and with this one the best.
const RECORD: (f64, f64) = (0.7, 0.9);
/// Each older outcome counts this much less.
const MEMORY: f64 = 0.9;
/// A claim of less than this (in logarithms) teaches nothing.
const CLAIM_MIN: f64 = 0.05;
/// A factor of nothing is announced as this.
const FACTOR_MIN: f64 = 0.05;

/// How right a client's announcements have been.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Credit {
    /// Its name.
    pub client: String,
    /// The sum of how right it was, each time from 0 to 1, older times counting less.
    pub right: f64,
    /// Of so many times.
    pub resolved: f64,
}

impl Credit {
    /// Nothing is known of it.
    pub fn of(client: &str) -> Self {
        Self { client: client.to_owned(), ..Self::default() }
    }

    /// How far it is believed, from 0 to 1; half, to begin with.
    pub fn trust(&self) -> f64 {
        (1.0 + self.right) / (2.0 + self.resolved)
    }

    /// How much it may change a forecast.
    pub fn bound(&self) -> f64 {
        let (from, to) = RECORD;
        let record = ((self.trust() - from) / (to - from)).clamp(0.0, 1.0);
        UNPROVEN_MAX + (PROVEN_MAX - UNPROVEN_MAX) * record
    }

    fn has_record(&self) -> bool {
        self.trust() > RECORD.0
    }

    /// Takes note of what was announced and what came, both relative to what was expected without
    /// it. Right is what came as announced; wrong, if nothing of it came, or twice as much.
    pub fn learn(&mut self, announced: f64, came: f64) {
        let claim = announced.max(FACTOR_MIN).ln();
        if claim.abs() < CLAIM_MIN {
            return;
        }
        let off = (came.max(FACTOR_MIN).ln() - claim).abs() / claim.abs();
        self.right = MEMORY * self.right + (1.0 - off).clamp(0.0, 1.0);
        self.resolved = MEMORY * self.resolved + 1.0;
    }
}

/// The factor of all that is announced for one step, `(client, factor)` each.
pub(super) fn together<'a>(
    said: impl Iterator<Item = (&'a str, f64)>,
    credits: &BTreeMap<String, Credit>,
) -> f64 {
    let mut by_client: BTreeMap<&str, f64> = BTreeMap::new();
    for (client, factor) in said {
        *by_client.entry(client).or_default() += factor.max(FACTOR_MIN).ln();
    }
    let (mut unproven, mut proven) = (0.0, 0.0);
    for (client, sum) in by_client {
        let credit = credits.get(client);
        let trust = credit.map_or(0.5, Credit::trust);
        match credit.filter(|credit| credit.has_record()) {
            Some(credit) => proven += within(trust * sum, credit.bound()),
            None => unproven += trust * sum,
        }
    }
    // Less than usual is never planned for: nothing is won by it, and much can be lost.
    within(within(unproven, UNPROVEN_MAX) + proven, PROVEN_MAX).max(0.0).exp()
}

/// A logarithm, between those of a bound and of its inverse.
fn within(logarithm: f64, bound: f64) -> f64 {
    logarithm.clamp(-bound.ln(), bound.ln())
}

/// What a client announces, as it writes it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Who it is; of one that has logged in, which part of it.
    client: Option<String>,
    /// Where it is.
    location: Option<String>,
    /// Tells several announcements of a client apart; a new one of the same name replaces the old.
    #[serde(default)]
    name: String,
    /// In UTC; now, if that is missing.
    begins: Option<String>,
    lasts_minutes: u64,
    factor: Option<f64>,
    reads: Option<f64>,
    writes: Option<f64>,
    #[serde(default)]
    tables: Vec<String>,
    #[serde(default)]
    keys: Vec<String>,
}

impl Announcement {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|error| error.to_string())
    }

    /// The event that it is. The name of a client that has logged in begins with its `login`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn into_event(self, login: Option<&str>, now_unix_ms: u64) -> Result<Event, String> {
        // Who has logged in can't speak for others, only for parts of itself.
        let client = match (login, self.client) {
            (Some(login), Some(part)) => Some(format!("{login}/{part}")),
            (login, client) => login.map(str::to_owned).or(client),
        };
        let client = client.filter(|client| !client.is_empty());
        let client = client.ok_or("client is missing: say who announces it")?;
        let event = Event {
            name: format!("announced/{client}/{}", self.name),
            begins: self.begins.unwrap_or_else(|| (now_unix_ms / 1000).to_string()),
            lasts_minutes: self.lasts_minutes,
            factor: self.factor,
            reads: self.reads,
            writes: self.writes,
            tables: self.tables,
            keys: self.keys,
            client: Some(client),
            location: self.location,
            ..Event::default()
        };
        event.fault().map_or(Ok(event), Err)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Announcement, Credit, PROVEN_MAX, UNPROVEN_MAX, together};

    /// A client that was right, or wrong, so many times.
    fn client(name: &str, right: u32, wrong: u32) -> (String, Credit) {
        let mut credit = Credit::of(name);
        (0..right).for_each(|_| credit.learn(2.0, 2.0));
        (0..wrong).for_each(|_| credit.learn(2.0, 1.0));
        (name.to_owned(), credit)
    }

    #[test]
    fn trust_is_earned_slowly_and_lost_fast() {
        let trust = |right, wrong| client("a", right, wrong).1.trust();
        assert!((trust(0, 0) - 0.5).abs() < 1e-9);
        assert!(trust(3, 0) > trust(1, 0) && trust(10, 0) > 0.85);
        assert!(trust(10, 4) < 0.65 && trust(0, 5) < 0.2);
        let mut twice = Credit::of("a");
        twice.learn(2.0, 4.0);
        assert!(twice.trust() < 0.4, "twice what was announced is as wrong as nothing");
        let mut nothing = Credit::of("a");
        nothing.learn(1.01, 3.0);
        assert_eq!(nothing, Credit::of("a"), "who claims nothing earns nothing");
    }

    #[test]
    fn announcements_are_bounded_together_whoever_makes_them() {
        let credits: BTreeMap<String, Credit> =
            [client("good", 12, 0), client("fine", 12, 0), client("bad", 0, 5)].into();
        let of = |said: &[(&str, f64)]| together(said.iter().copied(), &credits);
        assert!((of(&[("new", 20.0), ("bad", 20.0), ("other", 20.0)]) - UNPROVEN_MAX).abs() < 1e-9);
        assert!((of(&[("new", 1.1)]) - 1.1f64.sqrt()).abs() < 1e-9, "half believed");
        let good = of(&[("good", 1.4)]);
        assert!(good > 1.3 && good < 1.4, "{good}");
        assert!(of(&[("good", 20.0), ("fine", 20.0), ("new", 20.0)]) < PROVEN_MAX + 1e-9);
        assert!((of(&[("good", 0.0), ("fine", 0.5)]) - 1.0).abs() < 1e-9, "less is not believed");
        assert!((of(&[("good", 2.0), ("good", 0.5)]) - 1.0).abs() < 1e-9);
    }

    #[test]
    fn an_announcement_is_read_and_named_after_its_client() {
        let text = r#"{"lasts_minutes": 10, "factor": 2, "tables": ["orders"], "location": "eu"}"#;
        let said = Announcement::parse(text).unwrap();
        let event = said.clone().into_event(Some("shop"), 5_000).unwrap();
        assert_eq!(event.name, "announced/shop/");
        assert_eq!((event.begins.as_str(), event.client.as_deref()), ("5", Some("shop")));
        let part = r#"{"client": "web", "lasts_minutes": 1, "factor": 2}"#;
        let part = Announcement::parse(part).unwrap().into_event(Some("shop"), 0).unwrap();
        assert_eq!(part.client.as_deref(), Some("shop/web"));
        assert!(said.into_event(None, 0).unwrap_err().contains("client is missing"));
        assert!(Announcement::parse(r#"{"lasts": 10}"#).unwrap_err().contains("unknown field"));
        let long = Announcement::parse(r#"{"lasts_minutes": 0, "factor": 2}"#).unwrap();
        assert!(long.into_event(Some("a"), 0).unwrap_err().contains("at least 1"));
    }
}
