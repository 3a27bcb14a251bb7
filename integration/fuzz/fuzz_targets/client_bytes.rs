//! What a client may send: nothing makes a decoder panic, and what is read back is what was there.
#![no_main]

use foreshard::wire::{
    Bind, FirstPacket, Parse, ScramServer, ScramVerifier, body, first_packet, frame_at, read_error,
    read_query, read_target,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((packet, len))) = first_packet(bytes) {
        assert!(len <= bytes.len() && len <= 10_000);
        if let FirstPacket::Startup { parameters, .. } = packet {
            assert!(parameters.iter().all(|(name, _)| !name.is_empty()));
        }
    }
    if let Ok(Some(frame)) = frame_at(bytes) {
        assert!(frame.len >= 5);
    }
    let content = body(bytes);
    drop((Parse::read(content), Bind::read(content), read_query(content), read_target(content)));
    drop(read_error(content));
    let verifier = ScramVerifier::mock("user", &[7; 32]);
    if let Ok((exchange, _)) = ScramServer::begin(bytes, verifier, None, [1; 18]) {
        assert!(exchange.finish(content).is_err(), "nobody can prove a password that is not there");
    }
});
