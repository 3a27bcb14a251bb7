//! Ports that nobody listens on.

use std::net::{Ipv4Addr, TcpListener};

/// The first `count` free ports of 127.0.0.1 from `first` upwards; fewer if there are not as many.
/// Another program can still take one before it is used.
pub fn free_ports(first: u16, count: usize) -> Vec<u16> {
    (first..=u16::MAX).filter(|port| is_free(*port)).take(count).collect()
}

/// Whether this process could listen on `port` of 127.0.0.1 now.
pub(super) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{free_ports, is_free};

    #[test]
    fn a_port_with_a_listener_is_not_offered() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap().port();
        assert!(!is_free(taken));
        assert!(!free_ports(taken, 3).contains(&taken));
    }
}
