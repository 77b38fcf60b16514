use super::*;
use crate::{
    pairing::{InvalidCode, PairingCode, pinned_client_config},
    testing::{authority, expired, gateway, identity, name, now, serial, terminal},
};
use palmgate_protocol::DAY;
use proptest::prelude::*;
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::X509Certificate;

/// One connection over loopback: what the server read, once both sides have agreed.
async fn talk(server: ServerConfig, client: ClientConfig, host: &str) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let accept = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(stream).await?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        Ok::<_, std::io::Error>(heard)
    });
    let host = ServerName::try_from(host.to_owned()).unwrap();
    let connector = TlsConnector::from(Arc::new(client));
    let mut stream = connector.connect(host, TcpStream::connect(address).await?).await?;
    stream.write_all(b"hello").await?;
    stream.shutdown().await?;
    accept.await.unwrap()
}

fn required(authority: &Authority, revoked: &[Vec<u8>]) -> ClientAuth {
    ClientAuth::Required {
        authority_der: authority.certificate_der().clone(),
        revoked: Some(authority.revocation_list(revoked, 1, now())),
    }
}

#[tokio::test]
async fn terminals_and_gateway_meet_over_mutual_tls() {
    let ours = authority();
    let (host, till) = (gateway(&ours), terminal(&ours, "till-1"));
    for (dialled, revoked) in [("gateway", vec![]), ("127.0.0.1", vec![vec![0x55; 16]])] {
        let server = server_config(&host, required(&ours, &revoked)).unwrap();
        let client = client_config(Some(&till), ours.certificate_der()).unwrap();
        assert_eq!(talk(server, client, dialled).await.unwrap(), "hello");
    }
    let server = server_config(&host, ClientAuth::None).unwrap();
    let client = client_config(None, ours.certificate_der()).unwrap();
    assert_eq!(talk(server, client, "gateway").await.unwrap(), "hello");
}

#[tokio::test]
async fn a_client_without_a_good_certificate_is_refused() {
    let (ours, theirs) = (authority(), authority());
    let host = gateway(&ours);
    let revoked = terminal(&ours, "till-1");
    let expired = expired(&ours, "till-2", Role::Client);
    let server_only = identity(&ours, "till-3", Role::Server { hosts: vec![] });
    let foreign = terminal(&theirs, "till-4");
    for client in [None, Some(&revoked), Some(&expired), Some(&server_only), Some(&foreign)] {
        let server = server_config(&host, required(&ours, &[serial(&revoked)])).unwrap();
        let config = client_config(client, ours.certificate_der()).unwrap();
        let name = client.map(Identity::name);
        assert!(talk(server, config, "gateway").await.is_err(), "{name:?}");
    }
}

#[tokio::test]
async fn a_server_without_a_good_certificate_is_refused() {
    let (ours, theirs) = (authority(), authority());
    let till = terminal(&ours, "till-1");
    let expired = expired(&ours, "gateway", Role::Server { hosts: vec![] });
    let client_only = terminal(&ours, "gateway");
    let misnamed = identity(&ours, "other", Role::Server { hosts: vec!["10.0.0.1".into()] });
    for host in [&gateway(&theirs), &expired, &client_only, &misnamed] {
        let server = server_config(host, required(&ours, &[])).unwrap();
        let client = client_config(Some(&till), ours.certificate_der()).unwrap();
        assert!(talk(server, client, "gateway").await.is_err(), "{}", host.name());
    }
}

#[tokio::test]
async fn nothing_older_than_tls_1_3_is_spoken() {
    let ours = authority();
    let server = server_config(&gateway(&ours), ClientAuth::None).unwrap();
    let old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots(ours.certificate_der()).unwrap())
        .with_no_client_auth();
    assert!(talk(server, old, "gateway").await.is_err());
}

#[tokio::test]
async fn a_pairing_code_leads_to_its_own_gateway_only() {
    let (ours, theirs) = (authority(), authority());
    let code = PairingCode::generate(ours.certificate_der());
    let typed = PairingCode::parse(code.text().expose()).unwrap();
    let server = |host: &Identity| server_config(host, ClientAuth::None).unwrap();
    let dial = |server| talk(server, pinned_client_config(&typed), "palm.example");
    assert_eq!(dial(server(&gateway(&ours))).await.unwrap(), "hello");

    assert!(dial(server(&gateway(&theirs))).await.is_err());
    assert!(dial(server(&terminal(&ours, "till-1"))).await.is_err(), "a terminal poses as server");
    let expired = expired(&ours, "gateway", Role::Server { hosts: vec![] });
    assert!(dial(server(&expired)).await.is_err());
    // An impostor shows the pinned authority next to a certificate of its own.
    let pending = Identity::generate();
    let role = Role::Server { hosts: vec![] };
    let issued = theirs.issue(&pending.csr_der(), &name("gateway"), role, now(), DAY).unwrap();
    let chain = vec![issued.der, ours.certificate_der().clone()];
    assert!(dial(server(&pending.certified(chain).unwrap())).await.is_err());

    assert!(typed.pins(ours.certificate_der()) && !typed.pins(theirs.certificate_der()));
}

#[test]
fn a_pairing_code_is_read_as_people_type_it() {
    let ours = authority();
    for _ in 0..50 {
        let code = PairingCode::generate(ours.certificate_der());
        let text = code.text();
        let text = text.expose();
        assert_eq!(text.len(), 29);
        assert!(text.split('-').all(|group| group.len() == 4), "groups of four");
        let typed = [
            text.to_lowercase(),
            text.replace('-', " "),
            format!("  {} ", text.replace('-', "")),
            text.replace('0', "O").replace('1', "I"),
            text.replace('0', "o").replace('1', "l"),
            text.replace('1', "i").replace('-', "--"),
            text.replace('1', "L"),
        ];
        for typed in typed {
            let read = PairingCode::parse(&typed).unwrap();
            assert_eq!(read.secret(), code.secret());
            assert!(read.pins(ours.certificate_der()));
        }
    }
}

#[test]
fn what_is_no_pairing_code_is_refused() {
    let ours = authority();
    let text = PairingCode::generate(ours.certificate_der()).text();
    let text = text.expose();
    let short = &text[..28];
    let (long, u) = (format!("{text}7"), format!("U{}", &text[1..]));
    for bad in ["", "----", short, &long, &u, "é", &"0".repeat(1000)] {
        assert!(matches!(PairingCode::parse(bad), Err(InvalidCode)), "{bad}");
    }
}

#[test]
fn two_codes_of_one_authority_have_nothing_in_common() {
    let ours = authority();
    let (one, other) = (
        PairingCode::generate(ours.certificate_der()),
        PairingCode::generate(ours.certificate_der()),
    );
    assert_ne!(one.secret(), other.secret());
    assert_ne!(one.text().expose()[..19], other.text().expose()[..19], "not even the pin");
    assert!(one.pins(ours.certificate_der()) && other.pins(ours.certificate_der()));
}

#[test]
fn a_mistyped_code_pins_nobody() {
    let ours = authority();
    let text = PairingCode::generate(ours.certificate_der()).text();
    for (at, symbol) in text.expose().char_indices().filter(|(_, symbol)| *symbol != '-') {
        let other = if symbol == '0' { "1" } else { "0" };
        let mut typed = text.expose().clone();
        typed.replace_range(at..=at, other);
        let read = PairingCode::parse(&typed).unwrap();
        assert!(!read.pins(ours.certificate_der()), "symbol {at}");
    }
}

#[test]
fn the_authority_decides_the_name_and_the_use() {
    use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
    let ours = authority();
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let mut wishes = CertificateParams::new(vec!["gateway".into()]).unwrap();
    wishes.distinguished_name.push(rcgen::DnType::CommonName, "gateway");
    wishes.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    wishes.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign];
    let csr = wishes.serialize_request(&key).unwrap();
    let issued = ours.issue(csr.der(), &name("till-9"), Role::Client, now(), 30 * DAY).unwrap();
    assert_eq!(verify(&issued.der, ours.certificate_der(), now()).unwrap(), name("till-9"));
    let (_, parsed) = x509_parser::parse_x509_certificate(&issued.der).unwrap();
    assert!(!parsed.is_ca());
    assert_eq!(format!("{:?}", dns_names(&parsed)), r#"["till-9"]"#);
    let usage = parsed.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth);
    assert_eq!(parsed.raw_serial(), issued.serial);
    assert_eq!(issued.serial.len(), 16);
    assert_eq!(issued.not_after.distance(now().after(30 * DAY)).as_secs(), 0);
}

fn dns_names<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    use x509_parser::extensions::GeneralName::DNSName;
    let names = &certificate.subject_alternative_name().unwrap().unwrap().value.general_names;
    names.iter().map(|name| if let DNSName(name) = name { *name } else { "?" }).collect()
}

#[test]
fn a_faulty_request_is_refused() {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
    let ours = authority();
    let ask = |csr: &[u8], role| {
        ours.issue(csr, &name("till-1"), role, now(), DAY).map(|_| ()).unwrap_err()
    };
    let pending = Identity::generate();
    let good = pending.csr_der();
    let mut accepted = 0;
    for position in 0..good.len() {
        let mut changed = good.clone();
        changed[position] ^= 1 << (position % 8);
        match ours.issue(&changed, &name("till-1"), Role::Client, now(), DAY) {
            Err(refused) => assert!(matches!(refused, PkiError::Request(_)), "byte {position}"),
            // The name of the algorithm stands outside the signature, and is read leniently.
            Ok(issued) => {
                accepted += 1;
                assert_eq!(Parsed::from_der(&issued.der).unwrap().key, pending.key.public());
            }
        }
    }
    assert!(accepted < 5, "{accepted} changed requests were answered");
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let other = CertificateParams::default().serialize_request(&key).unwrap();
    assert!(matches!(ask(other.der(), Role::Client), PkiError::Request(_)));
    assert!(matches!(ask(&[0; 5000], Role::Client), PkiError::Request(_)));
    let role = Role::Server { hosts: vec!["not a host".into()] };
    assert!(matches!(ask(&good, role), PkiError::Host(_)));
}

#[test]
fn a_certificate_holds_under_its_authority_and_in_its_time_only() {
    let (ours, theirs) = (authority(), authority());
    let ca = ours.certificate_der();
    let till = terminal(&ours, "till-1");
    let leaf = till.certificate_der();
    assert_eq!(verify(leaf, ca, now()).unwrap(), name("till-1"));
    assert_eq!(verify(gateway(&ours).certificate_der(), ca, now()).unwrap(), name("gateway"));
    assert!(verify(leaf, theirs.certificate_der(), now()).is_err());
    assert!(verify(leaf, ca, now().after(2 * DAY)).is_err());
    let early = Timestamp::from_millis(now().as_millis() - 7_200_000);
    assert!(verify(leaf, ca, early).is_err());
    assert!(verify(leaf, ca, Timestamp::from_millis(i64::MIN)).is_err());
    assert!(verify(ca, ca, now()).is_err(), "an authority is no device");
    for position in 0..leaf.len() {
        let mut changed = leaf.to_vec();
        changed[position] ^= 1 << (position % 8);
        assert!(verify(&changed.into(), ca, now()).is_err(), "byte {position}");
    }
}

#[test]
fn authority_and_identity_survive_their_files() {
    let ours = authority();
    let again = Authority::from_parts(ours.certificate_pem(), ours.key_pkcs8().expose()).unwrap();
    let till = terminal(&again, "till-1");
    let read = Identity::from_pem(&till.chain_pem(), till.key_pem().expose()).unwrap();
    assert_eq!(read.name(), name("till-1"));
    assert_eq!(read.verifying_key(), till.signing_key().public());
    assert_eq!(read.authority_der(), ours.certificate_der());
    assert_eq!(verify(read.certificate_der(), ours.certificate_der(), now()).unwrap(), read.name());
}

#[test]
fn mismatched_files_are_refused() {
    let (ours, theirs) = (authority(), authority());
    let mixed = Authority::from_parts(ours.certificate_pem(), theirs.key_pkcs8().expose());
    assert!(matches!(mixed, Err(PkiError::KeyMismatch)));
    let till = terminal(&ours, "till-1");
    let other = terminal(&ours, "till-1");
    let mixed = Identity::from_pem(&till.chain_pem(), other.key_pem().expose());
    assert!(matches!(mixed, Err(PkiError::KeyMismatch)));
    let alone = till.chain_pem();
    let alone = &alone[..alone.find("-----END CERTIFICATE-----\n").unwrap() + 26];
    let short = Identity::from_pem(alone, till.key_pem().expose());
    assert!(matches!(short, Err(PkiError::Certificate(_))));
    let no_authority = Authority::from_parts(alone, till.signing_key().pkcs8().expose());
    assert!(matches!(no_authority, Err(PkiError::Certificate(_))));
    assert!(matches!(Identity::from_pem("", ""), Err(PkiError::Pem(_))));
    assert!(matches!(Authority::from_parts("", ours.key_pkcs8().expose()), Err(PkiError::Pem(_))));
    assert!(matches!(Authority::from_parts(ours.certificate_pem(), b""), Err(PkiError::Key(_))));
}

#[test]
fn a_revocation_list_takes_any_serial() {
    let ours = authority();
    let serials = [vec![], vec![0], vec![0xff; 20], vec![0, 0, 1]];
    let list = ours.revocation_list(&serials, u64::MAX, Timestamp::from_millis(i64::MAX));
    let required =
        ClientAuth::Required { authority_der: ours.certificate_der().clone(), revoked: Some(list) };
    assert!(server_config(&gateway(&ours), required).is_ok());
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic(
        position: usize, bytes: [u8; 5], noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let ours = authority();
        let change = |original: &[u8]| {
            let mut changed = original.to_vec();
            let position = position % (changed.len() - bytes.len());
            changed[position..position + bytes.len()].copy_from_slice(&bytes);
            changed
        };
        let ca = ours.certificate_der();
        let leaf = change(terminal(&ours, "till-1").certificate_der());
        drop(verify(&leaf.into(), ca, now()));
        drop(verify(&noise.clone().into(), ca, now()));
        drop(verify(ca, &noise.clone().into(), now()));
        drop(PairingCode::parse(&String::from_utf8_lossy(&noise)));
        let pending = Identity::generate();
        let csr = change(&pending.csr_der());
        drop(ours.issue(&csr, &name("till-1"), Role::Client, now(), DAY));
        prop_assert!(ours.issue(&noise, &name("a"), Role::Client, now(), DAY).is_err());
        prop_assert!(pending.certified(vec![noise.into(), ca.clone()]).is_err());
    }
}
