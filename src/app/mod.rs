//! Composition root: builds, wires and drains; the command line.
