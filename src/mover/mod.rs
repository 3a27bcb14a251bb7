//! Performs a move: slot, copy, stream, verify, switch, clean up.
