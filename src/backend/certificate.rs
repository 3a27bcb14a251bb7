//! What the proxy reads of a certificate: whose it is, and what a login is bound to.

use ring::digest::{SHA256, SHA384, SHA512, digest};
use x509_certificate::{CapturedX509Certificate, SignatureAlgorithm};

/// The hash of a server's certificate to which SCRAM binds a login (`tls-server-end-point`, RFC
/// 5929); `None` for kinds of signature that have none there.
pub fn end_point(certificate_der: &[u8]) -> Option<Vec<u8>> {
    let certificate = CapturedX509Certificate::from_der(certificate_der).ok()?;
    let algorithm = match certificate.signature_algorithm()? {
        SignatureAlgorithm::RsaSha1
        | SignatureAlgorithm::RsaSha256
        | SignatureAlgorithm::EcdsaSha256 => &SHA256,
        SignatureAlgorithm::RsaSha384 | SignatureAlgorithm::EcdsaSha384 => &SHA384,
        SignatureAlgorithm::RsaSha512 => &SHA512,
        SignatureAlgorithm::Ed25519 | SignatureAlgorithm::NoSignature(_) => return None,
    };
    Some(digest(algorithm, certificate_der).as_ref().to_vec())
}

/// The common name of the certificate's subject.
pub fn common_name(certificate_der: &[u8]) -> Option<String> {
    CapturedX509Certificate::from_der(certificate_der).ok()?.subject_common_name()
}
