use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;

use super::*;

fn roots(ca: &Made) -> Arc<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&ca.cert).unwrap()).unwrap();
    Arc::new(roots)
}

fn client_verifier(ca: &Made) -> Arc<dyn ClientCertVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiClientVerifier::builder_with_provider(roots(ca), provider)
        .build()
        .unwrap()
}

fn uris(cert: &Path) -> Vec<String> {
    let der = CertificateDer::from_pem_file(cert).unwrap();
    let (_, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
    let names = cert.subject_alternative_name().unwrap().unwrap();
    names
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::URI(uri) => (*uri).to_owned(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn gateway() -> Identity {
    Identity::Gateway {
        name: "gw1".to_owned(),
        roles: vec![Role::Lmtp, Role::Imap],
    }
}

#[test]
fn identities_stand_in_the_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let ca = make_ca(dir.path(), "mail.example").unwrap();
    assert_eq!(uris(&ca.cert), ["spiffe://mail.example"]);
    let leaf = |identity| {
        uris(
            &make_leaf(dir.path(), &dir.path().join(format!("{identity:?}")), &identity)
                .unwrap()
                .cert,
        )
    };
    assert_eq!(leaf(Identity::Node(NodeId(3))), ["spiffe://mail.example/node/3"]);
    assert_eq!(
        leaf(Identity::Operator("anne".into())),
        ["spiffe://mail.example/operator/anne"]
    );
    assert_eq!(
        leaf(gateway()),
        [
            "spiffe://mail.example/gateway/gw1",
            "spiffe://mail.example/role/lmtp",
            "spiffe://mail.example/role/imap"
        ]
    );
}

#[test]
fn a_node_serves_and_calls_a_gateway_only_calls() {
    let dir = tempfile::tempdir().unwrap();
    let ca = make_ca(dir.path(), "mail.example").unwrap();
    let node = make_leaf(dir.path(), &dir.path().join("node"), &Identity::Node(NodeId(1))).unwrap();
    let gateway = make_leaf(dir.path(), &dir.path().join("gw"), &gateway()).unwrap();
    let other_dir = tempfile::tempdir().unwrap();
    let other = make_ca(other_dir.path(), "mail.example").unwrap();

    let verifier = client_verifier(&ca);
    let as_client = |made: &Made| {
        let der = CertificateDer::from_pem_file(&made.cert).unwrap();
        verifier.verify_client_cert(&der, &[], UnixTime::now()).is_ok()
    };
    assert!(as_client(&node) && as_client(&gateway));
    let der = CertificateDer::from_pem_file(&node.cert).unwrap();
    assert!(
        client_verifier(&other)
            .verify_client_cert(&der, &[], UnixTime::now())
            .is_err(),
        "of another authority"
    );

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = WebPkiServerVerifier::builder_with_provider(roots(&ca), provider)
        .build()
        .unwrap();
    let as_server = |made: &Made| {
        let der = CertificateDer::from_pem_file(&made.cert).unwrap();
        let name = ServerName::try_from("node.malle").unwrap();
        match server.verify_server_cert(&der, &[], &name, &[], UnixTime::now()) {
            // Names are not in these certificates: getting as far as the name means that the chain and the use are right.
            Err(rustls::Error::InvalidCertificate(error)) => format!("{error:?}").contains("NotValidForName"),
            other => panic!("{other:?}"),
        }
    };
    assert!(as_server(&node));
    assert!(!as_server(&gateway), "a gateway's key must not serve as a node's");
}

#[test]
fn keys_fit_their_certificates_and_are_their_owners_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ca = make_ca(dir.path(), "mail.example").unwrap();
    let leaf = make_leaf(dir.path(), &dir.path().join("anne"), &Identity::Operator("anne".into())).unwrap();
    for made in [&ca, &leaf] {
        assert_eq!(
            std::fs::metadata(&made.key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let chain = vec![CertificateDer::from_pem_file(&made.cert).unwrap()];
        let key = PrivateKeyDer::from_pem_file(&made.key).unwrap();
        let provider = rustls::crypto::ring::default_provider();
        rustls::sign::CertifiedKey::from_der(chain, key, &provider)
            .unwrap()
            .keys_match()
            .unwrap();
    }
    // The client crate takes what was made here.
    let endpoints = ["127.0.0.1:1".to_owned()];
    malle_client::Config::from_files(&endpoints, &ca.cert, &leaf.cert, &leaf.key).unwrap();
}

#[test]
fn nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let ca = make_ca(dir.path(), "mail.example").unwrap();
    let before = std::fs::read(&ca.key).unwrap();
    let error = make_ca(dir.path(), "mail.example").unwrap_err();
    assert_eq!(Exit::of(&error), Exit::Refused);
    assert_eq!(std::fs::read(&ca.key).unwrap(), before);
}

#[test]
fn names_that_would_break_out_of_the_uri_or_the_directory_are_usage_errors() {
    let dir = tempfile::tempdir().unwrap();
    make_ca(dir.path(), "mail.example").unwrap();
    for bad in ["", "a/b", "..", "a b", "Anne", "é", "-x"] {
        let error = make_leaf(dir.path(), &dir.path().join("out"), &Identity::Operator(bad.into())).unwrap_err();
        assert_eq!(Exit::of(&error), Exit::Usage, "{bad:?}");
    }
    let error = make_leaf(&dir.path().join("none"), &dir.path().join("out"), &gateway()).unwrap_err();
    assert!(error.to_string().contains("malle cert ca"), "{error}");
}
