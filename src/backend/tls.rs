//! TLS to the nodes: how much of a node's certificate is checked, and the handshake.
//! <https://www.postgresql.org/docs/15/libpq-ssl.html#LIBPQ-SSL-PROTECTION>

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How far a connection to a node is protected; the names are libpq's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TlsMode {
    /// No TLS.
    #[default]
    Disable,
    /// TLS where the node offers it; no protection from an active attacker.
    Prefer,
    /// TLS with whoever answers.
    Require,
    /// TLS with a certificate that the given authority has signed.
    VerifyCa,
    /// The same, and the certificate is that of the node's host.
    VerifyFull,
}

/// Files of TLS, read: PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that a node's certificate must come from.
    pub authorities: Vec<u8>,
    /// What these have revoked; if there is such a list, one of each authority must be in it.
    pub revoked: Vec<u8>,
    /// The certificate with which the proxy shows who it is, and those up to its authority.
    pub certificate: Vec<u8>,
    /// The key of that certificate.
    pub key: Vec<u8>,
}

impl fmt::Debug for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsFiles(***)")
    }
}

impl TlsFiles {
    /// How a client of TLS checks and shows certificates; why these files are of no use.
    pub fn client_config(&self, mode: TlsMode) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier::new(mode, self, provider)?));
        if self.certificate.is_empty() {
            return Ok(builder.with_no_client_auth());
        }
        let chain = certificates(&self.certificate, "the certificate")?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|error| format!("the key can't be read: {error}"))?;
        builder
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("the certificate and its key are of no use: {error}"))
    }
}

/// TLS to a node, or none. Cheap to clone.
#[derive(Clone, Default)]
pub struct NodeTls {
    mode: TlsMode,
    files: Arc<TlsFiles>,
    connector: Option<TlsConnector>,
}

impl fmt::Debug for NodeTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeTls").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl PartialEq for NodeTls {
    fn eq(&self, other: &Self) -> bool {
        (self.mode, &self.files) == (other.mode, &other.files)
    }
}

impl Eq for NodeTls {}

impl NodeTls {
    /// TLS in this mode with these files; why they are of no use.
    pub fn new(mode: TlsMode, files: TlsFiles) -> Result<Self, String> {
        if mode == TlsMode::Disable {
            return Ok(Self { mode, files: Arc::new(files), connector: None });
        }
        let mut config = files.client_config(mode)?;
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        let connector = Some(TlsConnector::from(Arc::new(config)));
        Ok(Self { mode, files: Arc::new(files), connector })
    }

    /// The files that it was made from.
    pub fn files(&self) -> &TlsFiles {
        &self.files
    }

    /// How far the connection is protected.
    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// Asks for TLS and shakes hands. `Err` of the socket where the node has none and does without.
    pub(super) async fn protect(
        &self,
        mut stream: TcpStream,
        host: &str,
    ) -> io::Result<Result<Box<TlsStream<TcpStream>>, TcpStream>> {
        let Some(connector) = &self.connector else { return Ok(Err(stream)) };
        stream.write_all(&crate::wire::TLS_REQUEST).await?;
        match stream.read_u8().await? {
            b'S' => {}
            b'N' if self.mode == TlsMode::Prefer => return Ok(Err(stream)),
            b'N' => return Err(io::Error::other("it does not offer TLS")),
            _ => return Err(io::Error::other("it did not answer the request for TLS")),
        }
        Ok(Ok(Box::new(shake_hands(connector.clone(), stream, host.to_owned()).await?)))
    }

    /// The connector, for `tokio_postgres`.
    pub(super) fn connector(&self) -> Option<&TlsConnector> {
        self.connector.as_ref()
    }
}

/// Shakes hands with the server at `host`.
pub(super) async fn shake_hands<S>(
    connector: TlsConnector,
    stream: S,
    host: String,
) -> io::Result<TlsStream<S>>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let name = ServerName::try_from(host)
        .map_err(|_| io::Error::other("its host is no name that a certificate can have"))?;
    connector.connect(name, stream).await
}

/// The certificates of a PEM file.
pub fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(found) if found.is_empty() => Err(format!("{what} has no CERTIFICATE in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("{what} can't be read: {error}")),
    }
}

/// The authorities of a PEM file.
pub fn authorities(pem: &[u8], what: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, what)? {
        roots.add(certificate).map_err(|error| format!("{what} is of no use: {error}"))?;
    }
    Ok(roots)
}

/// The lists of revoked certificates of a PEM file; none of an empty one.
pub fn revocations(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let what = "the list of revoked certificates";
    let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    let found = read.map_err(|error| format!("{what} can't be read: {error}"))?;
    if found.is_empty() && !pem.is_empty() {
        return Err(format!("{what} has no X509 CRL in it"));
    }
    Ok(found)
}

/// Checks a node's certificate as far as the mode says.
#[derive(Debug)]
struct Verifier {
    mode: TlsMode,
    /// Those that the configuration names: a server's own certificate may be among them.
    known: Vec<CertificateDer<'static>>,
    chains: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    fn new(mode: TlsMode, files: &TlsFiles, provider: Arc<CryptoProvider>) -> Result<Self, String> {
        let (mut known, mut chains) = (Vec::new(), None);
        if matches!(mode, TlsMode::VerifyCa | TlsMode::VerifyFull) {
            known = certificates(&files.authorities, "the authorities' file")?;
            let roots = Arc::new(authorities(&files.authorities, "the authorities' file")?);
            let verifier =
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider))
                    .with_crls(revocations(&files.revoked)?)
                    .enforce_revocation_expiration()
                    .build();
            chains = Some(verifier.map_err(|error| error.to_string())?);
        }
        Ok(Self { mode, known, chains, provider })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(chains) = &self.chains else { return Ok(ServerCertVerified::assertion()) };
        if self.known.iter().any(|known| known == end_entity) {
            if self.mode == TlsMode::VerifyFull {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verified =
            chains.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The chain is looked at before the name.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.mode == TlsMode::VerifyCa => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
