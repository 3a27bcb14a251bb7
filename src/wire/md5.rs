//! PostgreSQL's old way to prove a password
//! (<https://www.postgresql.org/docs/15/auth-password.html>): for roles that still have such a hash.

/// What PostgreSQL stores: `md5` and the hash of password and user. Who has it can log in.
pub fn md5_verifier(user: &str, password: &str) -> String {
    format!("md5{:x}", md5::compute([password.as_bytes(), user.as_bytes()].concat()))
}

/// What a client answers to this salt: made from what is stored.
pub fn md5_answer(verifier: &str, salt: [u8; 4]) -> String {
    let inner = verifier.strip_prefix("md5").unwrap_or(verifier);
    format!("md5{:x}", md5::compute([inner.as_bytes(), &salt].concat()))
}

/// Whether `text` is an MD5 hash as PostgreSQL stores it.
pub fn is_md5_verifier(text: &str) -> bool {
    let hash = text.strip_prefix("md5");
    hash.is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::{is_md5_verifier, md5_answer, md5_verifier};

    #[test]
    fn the_answer_is_the_one_of_the_protocol_library() {
        let verifier = md5_verifier("user", "password");
        assert!(is_md5_verifier(&verifier));
        assert!(!is_md5_verifier("md5password"));
        let expected = postgres_protocol::authentication::md5_hash(b"user", b"password", *b"salt");
        assert_eq!(md5_answer(&verifier, *b"salt"), expected);
    }
}
