//! What a client may send as SQL: nothing makes the reader panic, and spans lie inside of the text.
#![no_main]

use foreshard::sql::{Strings, hint, parse, role_password};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for strings in [Strings::Standard, Strings::Escaped] {
        for statement in parse(text, strings).statements {
            assert!(text.get(statement.span.clone()).is_some());
        }
    }
    if let Some(found) = role_password(text) {
        assert!(text.get(found.span).is_some());
    }
    drop(hint(text));
});
