//! What a node may send: nothing makes a reader of its frames panic.
#![no_main]

use foreshard::wire::{
    body, command_count, command_tag, frame_at, parameter_status, read_error,
    user_oids,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut at = 0;
    while let Some(rest) = bytes.get(at..)
        && let Ok(Some(frame)) = frame_at(rest)
        && let Some(whole) = rest.get(..frame.len)
    {
        let content = body(whole);
        drop((read_error(content), parameter_status(content)));
        let _rows = command_count(command_tag(content));
        for place in user_oids(whole).unwrap_or_default() {
            assert_eq!(whole[place.at..place.at + 4], place.oid.to_be_bytes());
        }
        at += frame.len;
    }
});
