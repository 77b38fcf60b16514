use super::{Parsed, PkiError, Validity, authority::RcgenKey};
use crate::sign::{SigningKey, VerifyingKey};
use data_encoding::BASE64;
use palmgate_protocol::{Name, Secret};
use rcgen::{CertificateParams, DistinguishedName};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

/// Bytes of one certificate, at most.
pub(crate) const MAX_CERTIFICATE_BYTES: usize = 4096;

/// A private key with its certificate and the certificate of the authority that issued it.
///
/// ```compile_fail,E0277
/// fn print(identity: &palmgate_seal::pki::Identity) {
///     println!("{identity:?}");
/// }
/// ```
pub struct Identity {
    key: SigningKey,
    chain: [CertificateDer<'static>; 2],
    name: Name,
    serial: Vec<u8>,
    validity: Validity,
}

/// A private key that waits for its certificate.
pub struct PendingIdentity {
    /// The private key, to be kept sealed until the certificate arrives.
    pub key: SigningKey,
}

impl Identity {
    /// A new private key, without a certificate yet.
    pub fn generate() -> PendingIdentity {
        PendingIdentity { key: SigningKey::generate() }
    }

    /// Reads what [`Identity::chain_pem`] and [`Identity::key_pem`] wrote.
    ///
    /// # Errors
    /// [`PkiError`] when either is malformed or they do not belong together.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, PkiError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|_| PkiError::Pem("a private key"))?;
        let key = SigningKey::from_pkcs8(key.secret_pkcs8_der())?;
        let chain = CertificateDer::pem_slice_iter(cert_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| PkiError::Pem("certificates"))?;
        PendingIdentity { key }.certified(chain)
    }

    /// The private key in PEM form, to be kept sealed.
    pub fn key_pem(&self) -> Secret<String> {
        Secret::new(pem("PRIVATE KEY", self.key.pkcs8().expose()))
    }

    /// The private key in the older form of PKCS#8 (RFC 5208), without the public key: what
    /// OpenSSL before 3.2, and so an external broker, can read.
    pub fn plain_key_pem(&self) -> Secret<String> {
        // SEQUENCE { version 0, { Ed25519 }, OCTET STRING { OCTET STRING seed } } (RFC 8410, 7).
        const HEAD: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        let whole = self.key.pkcs8();
        let seed = &whole.expose()[HEAD.len()..HEAD.len() + 32];
        let plain = Secret::new([HEAD.as_slice(), seed].concat());
        Secret::new(pem("PRIVATE KEY", plain.expose()))
    }

    /// The certificate, then the authority's, in PEM form.
    pub fn chain_pem(&self) -> String {
        self.chain.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect()
    }

    /// The certificate's common name.
    pub fn name(&self) -> Name {
        self.name.clone()
    }

    /// The certificate's serial number, as its DER encoding has it.
    pub fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// From when until when the certificate holds.
    pub const fn validity(&self) -> Validity {
        self.validity
    }

    /// The certificate.
    pub const fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// The certificate of the authority that issued it.
    pub const fn authority_der(&self) -> &CertificateDer<'static> {
        &self.chain[1]
    }

    /// The public key in the certificate.
    pub fn verifying_key(&self) -> VerifyingKey {
        self.key.public()
    }

    /// A second copy of the private key, wiped on its own.
    pub fn signing_key(&self) -> SigningKey {
        SigningKey::from_pkcs8(self.key.pkcs8().expose()).expect("the same bytes were read before")
    }

    /// The chain as it is sent in a TLS handshake: pairing needs the authority's certificate too.
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.to_vec()
    }

    pub(super) fn tls_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.pkcs8().expose().clone()).into()
    }
}

impl PendingIdentity {
    /// The certificate request (PKCS#10) for the authority, which decides the name.
    pub fn csr_der(&self) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .serialize_request(&RcgenKey::from(&self.key))
            .expect("a request without names can always be encoded")
            .der()
            .to_vec()
    }

    /// Completes the identity with the certificate and, after it, the authority's.
    ///
    /// # Errors
    /// [`PkiError`] when there are not these two, or the certificate is for another key. Whether
    /// the authority is the right one is checked by whoever the chain is shown to.
    pub fn certified(self, chain_der: Vec<CertificateDer<'static>>) -> Result<Identity, PkiError> {
        let chain: [CertificateDer<'static>; 2] = chain_der
            .try_into()
            .map_err(|_| PkiError::Certificate("must be followed by the authority's, no more"))?;
        if chain.iter().any(|certificate| certificate.len() > MAX_CERTIFICATE_BYTES) {
            return Err(PkiError::Certificate("is too long"));
        }
        let leaf = Parsed::from_der(&chain[0])?;
        if leaf.key != self.key.public() {
            return Err(PkiError::KeyMismatch);
        }
        let Parsed { name, serial, validity, .. } = leaf;
        Ok(Identity { key: self.key, chain, name, serial, validity })
    }
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let encoded = Secret::new(BASE64.encode(der));
    let mut text = String::with_capacity(encoded.expose().len() * 65 / 64 + 80);
    text.extend(["-----BEGIN ", label, "-----\n"]);
    for line in encoded.expose().as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text.extend(["-----END ", label, "-----\n"]);
    text
}
