//! First contact of a terminal with its gateway: a code that a person carries from one screen to
//! the other.
//!
//! The code's last five bytes are a secret, the first ten pin the gateway's authority: 80 bits of
//! SHA-256 over secret and certificate. The secret is only ever sent over the connection pinned in
//! this way, so that nobody learns it by listening, answering or searching offline; and who has not
//! seen the code knows neither pin nor secret, so that there is no certificate to search for, either.

use crate::{
    labelled,
    pki::{accepts_server, provider, roots},
    random, sha256,
};
use data_encoding::{Encoding, Specification};
use palmgate_protocol::Secret;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, PeerIncompatible,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::verify_tls13_signature,
    pki_types::{CertificateDer, ServerName, UnixTime},
    version::TLS13,
};
use std::{
    fmt,
    sync::{Arc, LazyLock},
};

const LABEL: &str = "pairing";
const PIN_BYTES: usize = 10;
const SECRET_BYTES: usize = 5;
/// Characters of a code without its hyphens.
const SYMBOLS: usize = (PIN_BYTES + SECRET_BYTES) * 8 / 5;

/// Crockford's base 32, read without regard to case and with the letters people confuse.
static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification = Specification::new();
    specification.symbols.push_str("0123456789ABCDEFGHJKMNPQRSTVWXYZ");
    specification.translate.from.push_str("abcdefghjkmnpqrstvwxyzOoIiLl");
    specification.translate.to.push_str("ABCDEFGHJKMNPQRSTVWXYZ001111");
    specification.ignore.push_str(" -\t\r\n");
    specification.encoding().expect("the alphabet is well-formed")
});

/// A pairing code: six groups of four letters and digits, with hyphens between them.
///
/// ```compile_fail,E0277
/// fn print(code: &palmgate_seal::pairing::PairingCode) {
///     println!("{code:?}");
/// }
/// ```
pub struct PairingCode {
    pin: [u8; PIN_BYTES],
    secret: Secret<[u8; SECRET_BYTES]>,
}

/// The text is no pairing code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a pairing code: 24 letters and digits, as the gateway shows them")]
pub struct InvalidCode;

impl PairingCode {
    /// A new code for terminals of this authority.
    pub fn generate(authority_der: &CertificateDer<'_>) -> Self {
        let secret = Secret::new(random::bytes());
        Self { pin: pin(&secret, authority_der), secret }
    }

    /// The code as people read it.
    pub fn text(&self) -> Secret<String> {
        let bytes = Secret::new([self.pin.as_slice(), self.secret.expose()].concat());
        let symbols = Secret::new(BASE32.encode(bytes.expose()));
        let mut text = String::with_capacity(SYMBOLS + SYMBOLS / 4);
        for (index, symbol) in symbols.expose().chars().enumerate() {
            if index > 0 && index % 4 == 0 {
                text.push('-');
            }
            text.push(symbol);
        }
        Secret::new(text)
    }

    /// Reads a code as people type it: any case, spaces or hyphens anywhere, O for 0, I or L for 1.
    ///
    /// # Errors
    /// [`InvalidCode`] when it is none.
    pub fn parse(text: &str) -> Result<Self, InvalidCode> {
        if text.len() > 4 * SYMBOLS {
            return Err(InvalidCode);
        }
        let bytes = BASE32.decode(text.as_bytes()).map(Secret::new).map_err(|_| InvalidCode)?;
        let (pin, secret) = bytes.expose().split_first_chunk().ok_or(InvalidCode)?;
        let secret = secret.try_into().map_err(|_| InvalidCode)?;
        Ok(Self { pin: *pin, secret: Secret::new(secret) })
    }

    /// The part that proves to the gateway that a person let this terminal in.
    pub const fn secret(&self) -> &[u8; SECRET_BYTES] {
        self.secret.expose()
    }

    /// Whether the code pins this authority: a terminal checks it before it keeps the authority.
    pub fn pins(&self, authority_der: &CertificateDer<'_>) -> bool {
        self.pin == pin(&self.secret, authority_der)
    }
}

/// TLS 1.3 that accepts only a server whose handshake carries the authority that `code` pins, and
/// whose certificate that authority issued to a server; the host that is dialled does not matter.
pub fn pinned_client_config(code: &PairingCode) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has cipher suites for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedAuthority {
            code: PairingCode { pin: code.pin, secret: Secret::new(*code.secret()) },
        }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    config
}

fn pin(secret: &Secret<[u8; SECRET_BYTES]>, authority_der: &CertificateDer<'_>) -> [u8; PIN_BYTES] {
    let bytes = Secret::new(labelled(LABEL, &[secret.expose(), authority_der]));
    let mut pin = [0; PIN_BYTES];
    pin.copy_from_slice(&sha256(bytes.expose())[..PIN_BYTES]);
    pin
}

struct PinnedAuthority {
    code: PairingCode,
}

/// rustls wants it; nothing of the code is in it.
impl fmt::Debug for PinnedAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinnedAuthority(…)")
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| self.code.pins(certificate))
            .ok_or(CertificateError::UnknownIssuer)?;
        let roots = roots(authority).map_err(|_| CertificateError::BadEncoding)?;
        accepts_server(&roots, end_entity, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = provider().signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
