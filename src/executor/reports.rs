//! What a client is told of its settings: at the end of what it has sent, right before `ReadyForQuery`,
//! and only of those that are others than it knows, as PostgreSQL has done it since 14.

use bytes::BytesMut;

use crate::wire::Reply;

/// A reported setting that has another value than the client knows.
#[derive(Debug)]
pub(super) struct Unreported {
    pub name: String,
    pub value: String,
    /// What the client knows; `None` if nothing.
    pub before: Option<String>,
}

/// Settings that have changed since the last `ReadyForQuery`.
#[derive(Debug, Default)]
pub(super) struct Reports(Vec<Unreported>);

impl Reports {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A setting has a value, and had the other one `before`.
    pub(super) fn note(&mut self, name: &str, value: &str, before: Option<&str>) {
        if let Some(report) = self.0.iter_mut().find(|report| report.name == name) {
            value.clone_into(&mut report.value);
            return;
        }
        let (name, value) = (name.to_owned(), value.to_owned());
        self.0.push(Unreported { name, value, before: before.map(str::to_owned) });
    }

    /// Appends a `ParameterStatus` for each that is not what it was; by name, as PostgreSQL 15 has them.
    pub(super) fn put(&mut self, out: &mut BytesMut) {
        self.0.retain(|report| report.before.as_ref() != Some(&report.value));
        self.0.sort_by_cached_key(|report| report.name.to_ascii_lowercase());
        for report in self.0.drain(..) {
            Reply::ParameterStatus(&report.name, &report.value).put(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::Reports;

    #[test]
    fn only_what_is_another_value_in_the_end_is_told_and_once() {
        let mut reports = Reports::default();
        reports.note("TimeZone", "UTC", Some("GMT"));
        reports.note("DateStyle", "German", Some("ISO, MDY"));
        reports.note("application_name", "x", None);
        reports.note("TimeZone", "Asia/Tokyo", Some("UTC"));
        reports.note("DateStyle", "ISO, MDY", Some("German"));
        let mut out = BytesMut::new();
        reports.put(&mut out);
        assert_eq!(&out[..], b"S\0\0\0\x17application_name\0x\0S\0\0\0\x18TimeZone\0Asia/Tokyo\0");
        assert!(reports.is_empty());
    }
}
