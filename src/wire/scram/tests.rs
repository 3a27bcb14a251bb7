//! Both sides with each other, and with the example of RFC 7677.

use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

use super::{SCRAM, SCRAM_PLUS, ScramClient, ScramKeys, ScramSecret, ScramServer, ScramVerifier};

const END_POINT: &[u8] = b"a certificate's hash";

fn initial(mechanism: &str, first: &str) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_slice(mechanism.as_bytes());
    body.put_u8(0);
    body.put_u32(u32::try_from(first.len()).unwrap());
    body.put_slice(first.as_bytes());
    body
}

/// Runs an exchange; what the server knows after it.
fn exchange(
    secret: ScramSecret<'_>,
    verifier: &ScramVerifier,
    ends: (Option<&[u8]>, Option<&[u8]>),
) -> Result<ScramKeys, String> {
    let offered: &[&str] = if ends.1.is_some() { &[SCRAM_PLUS, SCRAM] } else { &[SCRAM] };
    let mut client = ScramClient::begin(offered, ends.0, [1; 18])?;
    let body = initial(client.mechanism(), &client.first());
    let (server, first) = ScramServer::begin(&body, verifier.clone(), ends.1, [2; 18])
        .map_err(|error| error.to_string())?;
    let last = client.prove(first.as_bytes(), secret)?;
    let (last, keys) = server.finish(last.as_bytes()).map_err(|_| "denied".to_owned())?;
    client.verify(last.as_bytes())?;
    Ok(keys)
}

#[test]
fn a_client_with_the_password_gets_in_and_its_keys_open_the_same_door_elsewhere() {
    let verifier = ScramVerifier::of_password("päss", [7; 16]);
    for end in [None, Some(END_POINT)] {
        let keys = exchange(ScramSecret::Password("päss"), &verifier, (end, end)).unwrap();
        exchange(ScramSecret::Keys(&keys), &verifier, (end, end)).unwrap();
        let other = ScramVerifier::of_password("päss", [8; 16]);
        let error = exchange(ScramSecret::Keys(&keys), &other, (end, end)).unwrap_err();
        assert!(error.contains("another verifier"), "{error}");
    }
}

#[test]
fn a_wrong_password_another_certificate_and_a_mock_deny() {
    let verifier = ScramVerifier::of_password("secret", [7; 16]);
    let wrong = exchange(ScramSecret::Password("guess"), &verifier, (None, None));
    assert_eq!(wrong, Err("denied".to_owned()));
    let ends = (Some(&b"the man in the middle's"[..]), Some(END_POINT));
    let bound = exchange(ScramSecret::Password("secret"), &verifier, ends);
    assert_eq!(bound, Err("denied".to_owned()));
    let mock = ScramVerifier::mock("nobody", &[3; 32]);
    assert_eq!(mock, ScramVerifier::mock("nobody", &[3; 32]), "it never changes");
    let mocked = exchange(ScramSecret::Password(""), &mock, (None, None));
    assert_eq!(mocked, Err("denied".to_owned()));
}

#[test]
fn a_verifier_reads_back_as_it_was_written() {
    let verifier = ScramVerifier::of_password("secret", [7; 16]);
    assert_eq!(ScramVerifier::parse(&verifier.text()), Some(verifier.clone()));
    for bad in ["", "md5abc", "SCRAM-SHA-256$0:AA==$A:A", "SCRAM-SHA-256$4096:AA==$AA==:AA=="] {
        assert_eq!(ScramVerifier::parse(bad), None, "{bad}");
    }
    assert!(!format!("{verifier:?}").contains('7'));
}

/// <https://www.rfc-editor.org/rfc/rfc7677#section-3>
#[test]
fn the_example_of_the_rfc_comes_out() {
    let stored = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    let verifier = ScramVerifier::parse(stored).unwrap();
    let first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    let (mut server, _) =
        ScramServer::begin(&initial(SCRAM, first), verifier, None, [0; 18]).unwrap();
    server.nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned();
    server.transcript = format!(
        "n=user,r=rOprNGfwEbeRWgbNEkqO,r={},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
        server.nonce
    );
    let last = format!("c=biws,r={},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", server.nonce);
    let (answer, _) = server.finish(last.as_bytes()).unwrap();
    assert_eq!(answer, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let verifier = ScramVerifier::of_password("secret", [7; 16]);
    let begin = |mechanism, first, end| {
        ScramServer::begin(&initial(mechanism, first), verifier.clone(), end, [2; 18]).is_ok()
    };
    let cases: [(&str, &str, Option<&[u8]>, bool); 9] = [
        (SCRAM, "n,,n=,r=abc", None, true),
        (SCRAM, "y,,n=,r=abc", None, true),
        (SCRAM, "y,,n=,r=abc", Some(END_POINT), false),
        (SCRAM, "p=tls-server-end-point,,n=,r=abc", Some(END_POINT), false),
        (SCRAM_PLUS, "n,,n=,r=abc", Some(END_POINT), false),
        (SCRAM_PLUS, "p=tls-unique,,n=,r=abc", Some(END_POINT), false),
        (SCRAM_PLUS, "p=tls-server-end-point,,n=,r=abc", Some(END_POINT), true),
        (SCRAM_PLUS, "p=tls-server-end-point,,n=,r=abc", None, false),
        (SCRAM, "n,a=root,n=,r=abc", None, false),
    ];
    for (mechanism, first, end, expected) in cases {
        assert_eq!(begin(mechanism, first, end), expected, "{mechanism} {first}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(first: Vec<u8>, last: Vec<u8>) {
        let verifier = ScramVerifier::mock("u", &[0; 32]);
        drop(ScramServer::begin(&first, verifier.clone(), None, [0; 18]));
        let (server, _) =
            ScramServer::begin(&initial(SCRAM, "n,,n=,r=x"), verifier, None, [0; 18]).unwrap();
        prop_assert!(server.finish(&last).is_err());
        let mut client = ScramClient::begin(&[SCRAM], None, [0; 18]).unwrap();
        drop(client.prove(&first, ScramSecret::Password("p")));
        prop_assert!(client.verify(&last).is_err());
    }
}
