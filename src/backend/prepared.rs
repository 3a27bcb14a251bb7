//! Which prepared statements a connection has: bounded, the least recently used go first.

use foldhash::HashMap;

/// The prepared statements of a connection, by the proxy's own numbers.
#[derive(Debug, Default)]
pub struct PreparedNumbers {
    /// When each was last used, by `clock`.
    used: HashMap<u64, u64>,
    clock: u64,
}

/// What using a statement asks of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// It has it.
    Already,
    /// It has to be given it; this other one has to be closed before, if any.
    New(Option<u64>),
}

impl PreparedNumbers {
    /// Takes note that the statement is used now; at most `max` are kept.
    pub fn give(&mut self, number: u64, max: usize) -> Given {
        self.clock += 1;
        if self.used.insert(number, self.clock).is_some() {
            return Given::Already;
        }
        if self.used.len() <= max.max(1) {
            return Given::New(None);
        }
        let oldest = self.used.iter().min_by_key(|(_, used)| **used).map(|(number, _)| *number);
        if let Some(oldest) = oldest {
            self.used.remove(&oldest);
        }
        Given::New(oldest)
    }

    /// Whether it has the statement; then it is used now.
    pub fn has(&mut self, number: u64) -> bool {
        let Some(used) = self.used.get_mut(&number) else { return false };
        self.clock += 1;
        *used = self.clock;
        true
    }

    /// Whether it has the statement, or room for one more among `max`.
    pub fn has_or_fits(&self, number: u64, max: usize) -> bool {
        self.used.len() < max || self.used.contains_key(&number)
    }

    /// It does not have the statement: its `Parse` failed.
    pub fn remove(&mut self, number: u64) {
        self.used.remove(&number);
    }

    /// It has none.
    pub fn clear(&mut self) {
        self.used.clear();
    }

    /// How many it has.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::{Given, PreparedNumbers};

    #[test]
    fn the_least_recently_used_goes_when_there_are_too_many() {
        let mut prepared = PreparedNumbers::default();
        assert_eq!(prepared.give(1, 2), Given::New(None));
        assert_eq!(prepared.give(2, 2), Given::New(None));
        assert_eq!(prepared.give(1, 2), Given::Already);
        assert_eq!(prepared.give(3, 2), Given::New(Some(2)));
        assert_eq!(prepared.give(2, 2), Given::New(Some(1)));
        assert_eq!(prepared.len(), 2);
        prepared.remove(2);
        assert_eq!(prepared.give(2, 2), Given::New(None));
        assert!(!prepared.has(1) && prepared.has(3));
        assert_eq!(prepared.give(4, 2), Given::New(Some(2)));
    }
}
