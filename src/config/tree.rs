//! A YAML document as a tree, and the line of each of its values.
//!
//! The parser tells a position only with an error. So a position is found by reading the document
//! again up to the value in question and failing there: exact for every form that YAML has, and
//! only faults pay for it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_yaml::Value;

/// A value of a document; maps keep their order and their duplicates.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tree {
    /// Null, a boolean, a number or a string.
    Leaf(Value),
    /// A sequence.
    List(Vec<Tree>),
    /// A mapping.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// Reads a document; an empty one is an empty map.
    pub(super) fn parse(text: &str) -> Result<Self, serde_yaml::Error> {
        let tree = serde_yaml::from_str(text)?;
        Ok(if tree == Self::Leaf(Value::Null) { Self::Map(Vec::new()) } else { tree })
    }

    /// The same value for `serde`. Of duplicate keys the first counts.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Leaf(value) => value.clone(),
            Self::List(items) => Value::Sequence(items.iter().map(Self::to_value).collect()),
            Self::Map(entries) => {
                let entries = entries.iter().rev();
                let entries = entries.map(|(key, tree)| (key.as_str().into(), tree.to_value()));
                Value::Mapping(entries.collect())
            }
        }
    }
}

/// One step from a value to one inside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Into a map's entry, by its place in the map.
    Entry(usize),
    /// Into a sequence's item.
    Item(usize),
    /// To the key of a map's entry; only as the last step.
    Key(usize),
}

/// Line and column of what `steps` lead to, from 1.
pub(super) fn position(text: &str, steps: &[Step]) -> Option<(usize, usize)> {
    let document = serde_yaml::Deserializer::from_str(text);
    let location = Probe { steps }.deserialize(document).err()?.location()?;
    Some((location.line(), location.column()))
}

/// Reads up to where its steps lead, and fails there.
struct Probe<'a> {
    steps: &'a [Step],
}

impl<'de> DeserializeSeed<'de> for Probe<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

/// With no steps left nothing that can be visited is right: the error bears the position.
impl<'de> Visitor<'de> for Probe<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("something else")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((Step::Item(index), rest)) = self.steps.split_first() else {
            return Err(de::Error::custom("here"));
        };
        for _ in 0..*index {
            items.next_element::<IgnoredAny>()?;
        }
        items.next_element_seed(Probe { steps: rest }).map(drop)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let (index, rest, key) = match self.steps.split_first() {
            Some((Step::Entry(index), rest)) => (*index, rest, false),
            Some((Step::Key(index), rest)) => (*index, rest, true),
            _ => return Err(de::Error::custom("here")),
        };
        for _ in 0..index {
            entries.next_entry::<IgnoredAny, IgnoredAny>()?;
        }
        if key {
            return entries.next_key_seed(Probe { steps: rest }).map(drop);
        }
        entries.next_key::<IgnoredAny>()?;
        entries.next_value_seed(Probe { steps: rest })
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TreeVisitor)
    }
}

struct TreeVisitor;

impl<'de> Visitor<'de> for TreeVisitor {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, a list, a text, a number, true, false or null")
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf(Value::Null))
    }

    fn visit_none<E: de::Error>(self) -> Result<Tree, E> {
        self.visit_unit()
    }

    fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Tree::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Tree::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, Tree, position};

    #[test]
    fn positions_are_exact_in_every_form_of_yaml() {
        let text = "a: 1\nb:\n  - x\n  - {c: [1, two], \"d\": &anchor 5}\n\ne: *anchor # comment\n";
        let cases: [(&[Step], (usize, usize)); 8] = [
            (&[Step::Entry(0)], (1, 4)),
            (&[Step::Key(1)], (2, 1)),
            (&[Step::Entry(1), Step::Item(0)], (3, 5)),
            (&[Step::Entry(1), Step::Item(1)], (4, 5)),
            (&[Step::Entry(1), Step::Item(1), Step::Entry(0), Step::Item(1)], (4, 13)),
            (&[Step::Entry(1), Step::Item(1), Step::Key(1)], (4, 19)),
            (&[Step::Key(2)], (6, 1)),
            (&[], (1, 1)),
        ];
        for (steps, expected) in cases {
            assert_eq!(position(text, steps), Some(expected), "{steps:?}");
        }
    }

    #[test]
    fn an_empty_document_is_an_empty_map() {
        for text in ["", "# nothing\n", "---\n", "{}"] {
            assert_eq!(Tree::parse(text).unwrap(), Tree::Map(Vec::new()), "{text:?}");
        }
    }
}
