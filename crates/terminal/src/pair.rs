//! Pairing: a device with a code becomes a terminal with a certificate.

use crate::{
    Invitation, Paired, TerminalError, clock,
    link::{reason, tls_error},
    paired::Settings,
};
use palmgate_protocol::{
    Name, decode, encode,
    pairing::{MAX_PAIRING_BYTES, MEDIA_TYPE, PATH, PairAnswer, PairRequest},
    topic::GATEWAY,
};
use palmgate_seal::{
    pairing::{PairingCode, pinned_client_config},
    pki::{self, Identity, PendingIdentity},
};
use reqwest::{Client, Response, StatusCode, Url, header::CONTENT_TYPE, redirect::Policy};
use rustls::pki_types::CertificateDer;
use serde::Deserialize;
use std::{path::Path, time::Duration};

/// Limit of the whole exchange: pairing is done by a person who waits.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Characters of a problem's texts that are shown.
const MAX_TEXT: usize = 300;

impl Paired {
    /// As [`Paired::pair`], with what the gateway's QR code says.
    ///
    /// # Errors
    /// As [`Paired::pair`].
    ///
    /// ```no_run
    /// use palmgate_terminal::{Invitation, Paired};
    /// use std::path::Path;
    ///
    /// # async fn example(scanned: &str) -> Result<(), palmgate_terminal::TerminalError> {
    /// let invitation: Invitation = scanned.parse()?;
    /// let paired = Paired::accept(&invitation, Path::new("/var/lib/till/palmgate")).await?;
    /// println!("{} now belongs to {}", paired.name(), paired.store());
    /// # Ok(()) }
    /// ```
    pub async fn accept(invitation: &Invitation, directory: &Path) -> Result<Self, TerminalError> {
        let (url, code) = (invitation.gateway_url(), invitation.code());
        Self::pair(&url, code, invitation.name(), directory).await
    }

    /// Makes this device a terminal called `name`: draws a key, asks the gateway for its
    /// certificate and keeps both in `directory`, which it creates with mode 0700. The gateway
    /// shows `code` to the person who installs the terminal; its secret is sent only to the
    /// gateway that the code names.
    ///
    /// `gateway_url` is `https://host:port`; the scheme may be left out.
    ///
    /// # Errors
    /// [`TerminalError`] says whether the address, the network, the code or the directory is at
    /// fault. Nothing is kept when pairing fails.
    ///
    /// ```no_run
    /// use palmgate_terminal::{Paired, PairingCode, TerminalError};
    /// use std::path::Path;
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let code = PairingCode::parse("0123-4567-89AB-CDEF-GHJK-MNPQ")?;
    /// let directory = Path::new("/var/lib/till/palmgate");
    /// let name = "till-1".parse()?;
    /// let paired = Paired::pair("https://box.store.example", &code, &name, directory).await?;
    /// println!("{} now belongs to {}", paired.name(), paired.store());
    /// # Ok(()) }
    /// ```
    pub async fn pair(
        gateway_url: &str,
        code: &PairingCode,
        name: &Name,
        directory: &Path,
    ) -> Result<Self, TerminalError> {
        if name.as_str() == GATEWAY {
            return Err(TerminalError::ReservedName(name.to_string()));
        }
        let address = Address::parse(gateway_url)?;
        Self::prepare(directory)?;
        let pending = Identity::generate();
        let request =
            PairRequest { secret: *code.secret(), name: name.clone(), csr_der: pending.csr_der() };
        let body = address.ask(code, encode(&request)).await?;
        let clock = clock::now().wall;
        let answer: PairAnswer =
            decode(&body).map_err(|error| TerminalError::Incompatible(error.to_string()))?;
        let identity = certified(pending, &answer, code, name)?;
        Self::create(
            directory,
            &Settings {
                terminal: name.clone(),
                store: answer.store,
                tenant: answer.tenant,
                broker_host: answer.broker_host,
                broker_port: answer.broker_port,
            },
            &identity,
            clock.distance(answer.gateway_time),
        )
    }
}

/// Checks what the gateway gave against what was asked for. The gateway's clock counts: this
/// terminal's may not be set yet.
fn certified(
    pending: PendingIdentity,
    answer: &PairAnswer,
    code: &PairingCode,
    name: &Name,
) -> Result<Identity, TerminalError> {
    let incompatible = |error: pki::PkiError| TerminalError::Incompatible(error.to_string());
    let authority = CertificateDer::from(answer.authority_der.as_slice());
    let chain = answer.chain_der.iter().map(|der| CertificateDer::from(der.to_vec())).collect();
    let identity = pending.certified(chain).map_err(incompatible)?;
    if !code.pins(&authority) || identity.authority_der() != &authority {
        let why = "it gave a certificate of another authority than the code names";
        return Err(TerminalError::Incompatible(why.into()));
    }
    let named = pki::verify(identity.certificate_der(), &authority, answer.gateway_time)
        .map_err(incompatible)?;
    if named != *name {
        let why = format!("it gave the certificate of {named} to {name}");
        return Err(TerminalError::Incompatible(why));
    }
    if answer.broker_host.is_empty() || answer.broker_port == 0 {
        return Err(TerminalError::Incompatible("it did not say where the broker is".into()));
    }
    Ok(identity)
}

/// Where the gateway takes pairing requests.
struct Address {
    url: Url,
    host: String,
    port: u16,
}

impl Address {
    fn parse(given: &str) -> Result<Self, TerminalError> {
        let wrong = |why: &str| TerminalError::Address { given: given.into(), why: why.into() };
        let full = if given.contains("://") { given.into() } else { format!("https://{given}") };
        let mut url = Url::parse(&full).map_err(|error| wrong(&error.to_string()))?;
        if url.scheme() != "https" {
            return Err(wrong("pairing works over https only"));
        }
        if url.path() != "/" || url.query().is_some() || !url.username().is_empty() {
            return Err(wrong("nothing may follow or precede host and port"));
        }
        let host = url.host_str().ok_or_else(|| wrong("it has no host"))?.to_owned();
        let port = url.port_or_known_default().ok_or_else(|| wrong("it has no port"))?;
        url.set_path(PATH);
        Ok(Self { url, host, port })
    }

    /// Sends the request and reads the answer, both bounded.
    async fn ask(&self, code: &PairingCode, body: Vec<u8>) -> Result<Vec<u8>, TerminalError> {
        let client = Client::builder()
            .tls_backend_preconfigured(pinned_client_config(code))
            .https_only(true)
            .no_proxy()
            .redirect(Policy::none())
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| TerminalError::Keys(reason(&error)))?;
        let request = client.post(self.url.clone()).header(CONTENT_TYPE, MEDIA_TYPE).body(body);
        let response = request.send().await.map_err(|error| self.failed(&error))?;
        let status = response.status();
        let body = self.read(response).await?;
        if status.is_success() { Ok(body) } else { Err(refusal(status, &body)) }
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, TerminalError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.failed(&error))? {
            if body.len() + chunk.len() > MAX_PAIRING_BYTES {
                return Err(TerminalError::Incompatible("it is too long".into()));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn failed(&self, error: &reqwest::Error) -> TerminalError {
        let (host, port) = (self.host.clone(), self.port);
        match tls_error(error) {
            Some(tls @ rustls::Error::InvalidCertificate(_)) => {
                TerminalError::NotTheGateway { host, port, why: tls.to_string() }
            }
            Some(tls) => TerminalError::Unreachable { host, port, why: tls.to_string() },
            None if error.is_timeout() => {
                let why = format!("nothing came for {} s", TIMEOUT.as_secs());
                TerminalError::Unreachable { host, port, why }
            }
            None => TerminalError::Unreachable { host, port, why: reason(error) },
        }
    }
}

/// What a refusal says about itself (RFC 9457, `application/problem+json`).
#[derive(Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

fn refusal(status: StatusCode, body: &[u8]) -> TerminalError {
    if matches!(status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
        return TerminalError::Busy;
    }
    let problem = serde_json::from_slice(body).unwrap_or(Problem { title: None, detail: None });
    let unnamed = || status.canonical_reason().unwrap_or("no reason given").to_owned();
    TerminalError::PairingRefused {
        status: status.as_u16(),
        title: problem.title.map_or_else(unnamed, |title| printable(&title)),
        detail: problem.detail.map(|detail| printable(&detail)),
    }
}

/// Text from the network, fit for a screen and a log.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::Timestamp;
    use palmgate_seal::pki::{Authority, Role};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
    const YEAR: Duration = Duration::from_hours(365 * 24);

    fn answer(authority: &Authority, pending: &PendingIdentity, named: &str) -> PairAnswer {
        let named = named.parse().unwrap();
        let leaf = authority.issue(&pending.csr_der(), &named, Role::Client, NOW, YEAR).unwrap();
        let authority_der = authority.certificate_der().to_vec();
        PairAnswer {
            chain_der: vec![leaf.der.to_vec().into(), authority_der.clone().into()],
            authority_der,
            broker_host: "box.store.example".into(),
            broker_port: 8883,
            gateway_time: NOW,
            store: "lyon".parse().unwrap(),
            tenant: "grocer".parse().unwrap(),
        }
    }

    fn refused(
        change: impl FnOnce(&mut PairAnswer),
        issuer: &Authority,
        pinned: &Authority,
    ) -> String {
        let pending = Identity::generate();
        let mut answer = answer(issuer, &pending, "till-1");
        change(&mut answer);
        let code = PairingCode::generate(pinned.certificate_der());
        match certified(pending, &answer, &code, &"till-1".parse().unwrap()) {
            Ok(_) => panic!("accepted"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_certificate_must_be_ours_and_of_the_authority_that_the_code_names() {
        let [ours, other] = ["store", "other"].map(|name| Authority::generate(name, NOW).unwrap());
        let code = PairingCode::generate(ours.certificate_der());
        let pending = Identity::generate();
        let good = answer(&ours, &pending, "till-1");
        let name: Name = "till-1".parse().unwrap();
        assert_eq!(certified(pending, &good, &code, &name).unwrap().name(), name);
        assert!(refused(|_| (), &other, &ours).contains("another authority"));
        let swap = |a: &mut PairAnswer| a.authority_der = ours.certificate_der().to_vec();
        assert!(refused(swap, &other, &ours).contains("another authority"));
        let foreign = |a: &mut PairAnswer| *a = answer(&ours, &Identity::generate(), "till-1");
        assert!(refused(foreign, &ours, &ours).contains("not the one in the certificate"));
        let late = |a: &mut PairAnswer| a.gateway_time = NOW.after(2 * YEAR);
        assert!(!refused(late, &ours, &ours).is_empty());
        assert!(!refused(|a| a.chain_der.truncate(1), &ours, &ours).is_empty());
        assert!(refused(|a| a.broker_port = 0, &ours, &ours).contains("broker"));
    }

    #[test]
    fn a_certificate_with_another_name_is_refused() {
        let ours = Authority::generate("store", NOW).unwrap();
        let pending = Identity::generate();
        let other = answer(&ours, &pending, "till-2");
        let code = PairingCode::generate(ours.certificate_der());
        let refused = certified(pending, &other, &code, &"till-1".parse().unwrap());
        assert!(refused.err().unwrap().to_string().contains("till-2"));
    }

    #[test]
    fn a_refusal_shows_the_problem_and_nothing_that_harms_a_screen() {
        let body =
            br#"{"title":"Pairing code expired","detail":"Ask for\u001b[2J a new one","x":1}"#;
        let text = refusal(StatusCode::FORBIDDEN, body).to_string();
        assert!(text.contains("Pairing code expired: Ask for[2J a new one (HTTP 403)"), "{text}");
        let text = refusal(StatusCode::NOT_FOUND, b"<html>").to_string();
        assert!(text.contains("Not Found (HTTP 404)"), "{text}");
        assert!(matches!(refusal(StatusCode::SERVICE_UNAVAILABLE, b""), TerminalError::Busy));
    }

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let address = Address::parse("box.store.example").unwrap();
        assert_eq!(address.url.as_str(), "https://box.store.example/v1/pair");
        assert_eq!((address.host.as_str(), address.port), ("box.store.example", 443));
        assert_eq!(Address::parse("https://10.0.0.2:8443/").unwrap().port, 8443);
        for bad in ["http://box", "https://", "https://box/x", "https://a@box", "ftp://box", ""] {
            assert!(matches!(Address::parse(bad), Err(TerminalError::Address { .. })), "{bad:?}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_gateway_leaves_nothing_behind_and_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("till-1");
        let ours = Authority::generate("store", NOW).unwrap();
        let code = PairingCode::generate(ours.certificate_der());
        let url = format!("https://127.0.0.1:{port}");
        let name = "till-1".parse().unwrap();
        let failed = Paired::pair(&url, &code, &name, &directory).await.err().unwrap();
        assert!(failed.to_string().contains(&format!("127.0.0.1:{port}")), "{failed}");
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
        let reserved = Paired::pair(&url, &code, &"gateway".parse().unwrap(), &directory).await;
        assert!(matches!(reserved, Err(TerminalError::ReservedName(_))));
    }
}
