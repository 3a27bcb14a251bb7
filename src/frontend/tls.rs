//! TLS towards clients: the proxy's certificate, and the handshake.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

use super::rules::{ClientName, TlsOrigin};
use crate::backend::{
    Stream, TlsFiles, authorities, certificates, common_name, end_point, revocations,
};

/// What a client that speaks TLS from its first byte must say that it wants.
const PROTOCOL: &[u8] = b"postgresql";

/// TLS towards clients. Cheap to clone.
#[derive(Clone)]
pub struct ServerTls {
    acceptor: TlsAcceptor,
    files: Arc<TlsFiles>,
    end_point: Option<Vec<u8>>,
    checks_clients: bool,
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls")
            .field("checks_clients", &self.checks_clients)
            .finish_non_exhaustive()
    }
}

impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        self.files == other.files
    }
}

impl Eq for ServerTls {}

impl ServerTls {
    /// With this certificate and key. With authorities, a client may show a certificate of theirs;
    /// one of another authority ends the handshake. Why the files are of no use.
    pub fn new(files: &TlsFiles) -> Result<Self, String> {
        let provider = Arc::new(ring::default_provider());
        let chain = certificates(&files.certificate, "the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&files.key)
            .map_err(|error| format!("the key can't be read: {error}"))?;
        let end_point = chain.first().and_then(|certificate| end_point(certificate));
        let checks_clients = !files.authorities.is_empty();
        let clients = if checks_clients {
            let roots = Arc::new(authorities(&files.authorities, "the clients' authority")?);
            WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
                .with_crls(revocations(&files.revoked)?)
                .enforce_revocation_expiration()
                .allow_unauthenticated()
                .build()
                .map_err(|error| format!("the clients' authority is of no use: {error}"))?
        } else {
            Arc::new(NoClientAuth)
        };
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|error| format!("the certificate and its key are of no use: {error}"))?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, files: Arc::new(files.clone()), end_point, checks_clients })
    }

    /// Whether certificates of clients are asked for and checked.
    pub fn checks_clients(&self) -> bool {
        self.checks_clients
    }

    /// Shakes hands. A client that did not ask for TLS first is `direct`, and has to name the
    /// protocol: else what speaks another one could be sent here.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
        direct: bool,
    ) -> io::Result<(Stream, TlsOrigin)> {
        let stream = self.acceptor.accept(stream).await?;
        let session = stream.get_ref().1;
        if direct && session.alpn_protocol() != Some(PROTOCOL) {
            return Err(io::Error::other("a client began TLS without naming the protocol"));
        }
        let client = session.peer_certificates().and_then(<[_]>::first);
        let origin = TlsOrigin {
            end_point: self.end_point.clone(),
            client: client.map(|certificate| ClientName { common_name: common_name(certificate) }),
        };
        Ok((Stream::Tls(Box::new(TlsStream::Server(stream))), origin))
    }
}
