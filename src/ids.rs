//! Newtypes for everything that is counted or pointed at, so that a shard is never taken for a node.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// A shard, unique over all groups; also the suffix of its leaf tables (`orders_s3`).
    ShardId(u32)
);
id!(
    /// A node: its index in the shard map's list of nodes.
    NodeId(u16)
);
id!(
    /// A group of co-located tables: its index in the shard map's list of groups.
    GroupId(u16)
);
id!(
    /// One move of one shard, from request to clean-up.
    MoveId(u64)
);
id!(
    /// Something else than a move that an operator asked the mover for.
    JobId(u64)
);
id!(
    /// The version of the shard map; grows by one with each change.
    Epoch(u64)
);

impl ShardId {
    /// The position of this shard in lists that hold an element a shard.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl NodeId {
    /// The position of this node in lists that hold an element a node.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl GroupId {
    /// The position of this group in lists that hold an element a group.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A position in a node's write-ahead log, in bytes; `16/B374D848` in text.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl std::str::FromStr for Lsn {
    type Err = InvalidLsn;

    fn from_str(text: &str) -> Result<Self, InvalidLsn> {
        let invalid = || InvalidLsn(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(invalid)?;
        let high = u32::from_str_radix(high, 16).map_err(|_| invalid())?;
        let low = u32::from_str_radix(low, 16).map_err(|_| invalid())?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

/// A text that is not two hexadecimal numbers with a slash between them.
#[derive(Debug, thiserror::Error)]
#[error("invalid WAL position {0:?}")]
pub struct InvalidLsn(String);

#[cfg(test)]
mod tests {
    use super::Lsn;

    #[test]
    fn an_lsn_reads_back_as_it_was_printed() {
        let lsn: Lsn = "16/B374D848".parse().unwrap();
        assert_eq!(lsn.0, 0x16_B374_D848);
        assert_eq!(lsn.to_string(), "16/B374D848");
        assert!("16B374D848".parse::<Lsn>().is_err());
        assert!("16/XYZ".parse::<Lsn>().is_err());
    }
}
