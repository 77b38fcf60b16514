//! Pairing against a gateway's door: real TLS, one request, one answer.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use palmgate_protocol::{
    DAY, Name, Timestamp, decode, encode,
    pairing::{PairAnswer, PairRequest},
};
use palmgate_seal::pki::{self, Authority, ClientAuth, Identity, Role};
use palmgate_terminal::{Paired, PairingCode, TerminalError};
use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Timestamp::from_millis(since.as_millis() as i64)
}

fn identity(authority: &Authority, name: &str) -> Identity {
    let (pending, name) = (Identity::generate(), name.parse::<Name>().unwrap());
    let role = Role::Both { hosts: vec!["127.0.0.1".into()] };
    let leaf = authority.issue(&pending.csr_der(), &name, role, now(), DAY).unwrap();
    pending.certified(vec![leaf.der, authority.certificate_der().clone()]).unwrap()
}

/// What the door saw: the request's body, or nothing when the handshake failed.
type Seen = JoinHandle<Option<Vec<u8>>>;

/// Serves one connection with the response that `respond` makes of the body.
async fn door(
    authority: &Authority,
    respond: impl FnOnce(&[u8]) -> Vec<u8> + Send + 'static,
) -> (String, Seen) {
    let config = pki::server_config(&identity(authority, "gateway"), ClientAuth::None).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let seen = tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut tls = TlsAcceptor::from(Arc::new(config)).accept(tcp).await.ok()?;
        let body = read_request(&mut tls).await?;
        tls.write_all(&respond(&body)).await.unwrap();
        tls.shutdown().await.unwrap();
        Some(body)
    });
    (url, seen)
}

/// Reads an HTTP/1.1 request as far as a pairing request needs it.
async fn read_request(tls: &mut TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    loop {
        if tls.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        assert!(head.starts_with("post /v1/pair http/1.1\r\n"), "{head}");
        assert!(head.contains("content-type: application/cbor"), "{head}");
        let (_, length) = head.split_once("content-length: ").unwrap();
        let length: usize = length.lines().next().unwrap().parse().unwrap();
        if bytes.len() >= end + 4 + length {
            return Some(bytes[end + 4..end + 4 + length].to_vec());
        }
    }
}

fn http(status: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// The store's gateway as it should be: certifies whoever asks.
fn certify(authority: &Authority, body: &[u8], clock: Timestamp) -> Vec<u8> {
    let request: PairRequest = decode(body).unwrap();
    let leaf = authority.issue(&request.csr_der, &request.name, Role::Client, now(), DAY).unwrap();
    let authority_der = authority.certificate_der().to_vec();
    let answer = PairAnswer {
        chain_der: vec![leaf.der.to_vec().into(), authority_der.clone().into()],
        authority_der,
        broker_host: "127.0.0.1".into(),
        broker_port: 8883,
        gateway_time: clock,
        store: "lyon".parse().unwrap(),
        tenant: "grocer".parse().unwrap(),
    };
    http("200 OK", "application/cbor", &encode(&answer))
}

async fn pair(url: &str, code: &PairingCode, directory: &Path) -> Result<Paired, TerminalError> {
    Paired::pair(url, code, &"till-1".parse().unwrap(), directory).await
}

#[tokio::test]
async fn a_paired_terminal_has_all_it_needs_in_private_files() {
    let authority = Arc::new(Authority::generate("store", now()).unwrap());
    let code = PairingCode::generate(authority.certificate_der());
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("till-1");
    let (issuer, ahead) = (Arc::clone(&authority), now().after(DAY / 24));
    let (url, seen) = door(&authority, move |body| certify(&issuer, body, ahead)).await;

    let paired = pair(&url, &code, &directory).await.unwrap();
    assert_eq!((paired.name().as_str(), paired.store().as_str()), ("till-1", "lyon"));
    assert!(paired.clock_error() > Duration::from_mins(59), "the gateway's clock is ahead");
    let request: PairRequest = decode(&seen.await.unwrap().unwrap()).unwrap();
    assert_eq!(&request.secret, code.secret());

    for file in std::fs::read_dir(&directory).unwrap() {
        let mode = file.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert!(matches!(Paired::open(&directory), Err(TerminalError::InUse(_))));
    drop(paired);
    assert_eq!(Paired::open(&directory).unwrap().tenant().as_str(), "grocer");
    let again = pair(&url, &code, &directory).await;
    assert!(matches!(again, Err(TerminalError::AlreadyPaired(_))));
}

#[tokio::test]
async fn an_impostor_learns_nothing_and_is_named() {
    let [store, impostor] =
        ["store", "impostor"].map(|name| Authority::generate(name, now()).unwrap());
    let code = PairingCode::generate(store.certificate_der());
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("till-1");
    let (url, seen) = door(&impostor, |_| Vec::new()).await;

    let refused = pair(&url, &code, &directory).await.err().unwrap();
    assert!(matches!(refused, TerminalError::NotTheGateway { .. }), "{refused}");
    assert!(refused.to_string().starts_with(&url["https://".len()..]), "{refused}");
    assert!(seen.await.unwrap().is_none(), "no request was sent");
    assert!(matches!(Paired::open(&directory), Err(TerminalError::NotPaired(_))));
}

#[tokio::test]
async fn a_refusal_is_shown_in_the_gateways_words() {
    let authority = Authority::generate("store", now()).unwrap();
    let code = PairingCode::generate(authority.certificate_der());
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("till-1");
    let problem = br#"{"title":"Pairing code expired","detail":"Show a new one on the box."}"#;
    let (url, _) =
        door(&authority, |_| http("403 Forbidden", "application/problem+json", problem)).await;

    let refused = pair(&url, &code, &directory).await.err().unwrap().to_string();
    assert!(refused.contains("Pairing code expired: Show a new one on the box."), "{refused}");
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let authority = Authority::generate("store", now()).unwrap();
    let code = PairingCode::generate(authority.certificate_der());
    let root = tempfile::tempdir().unwrap();
    let (url, _) = door(&authority, |_| http("200 OK", "application/cbor", &vec![0; 20_000])).await;

    let refused = pair(&url, &code, &root.path().join("till-1")).await.err().unwrap();
    assert!(refused.to_string().contains("too long"), "{refused}");
}
