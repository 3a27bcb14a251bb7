//! One service over the proxy's state; REST, `/metrics` and health are thin skins on it.
