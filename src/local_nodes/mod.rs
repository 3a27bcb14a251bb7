//! PostgreSQL nodes on this machine: `initdb`, start, stop. For `foreshard dev` and the tests.
