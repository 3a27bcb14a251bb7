//! The client's side: listener, startup, authentication, session, cancel.
