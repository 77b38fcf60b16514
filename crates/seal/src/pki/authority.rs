use super::{PkiError, public_key, seconds};
use crate::{
    random,
    sign::{SigningKey, VerifyingKey},
};
use palmgate_protocol::{DAY, Name, Secret, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams,
    CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyIdMethod, KeyUsagePurpose, PKCS_ED25519, PublicKeyData, RevokedCertParams,
    SerialNumber, SignatureAlgorithm,
};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, CertificateSigningRequestDer, pem::PemObject,
};
use std::time::Duration;

/// Bytes of a certificate request, at most.
const MAX_REQUEST_BYTES: usize = 4096;
/// How far a device's clock may be behind when it first checks a new certificate.
const BACKDATED: Duration = Duration::from_hours(1);
const AUTHORITY_LIFETIME: Duration = Duration::from_hours(20 * 366 * 24);
/// Revocation lists are made anew at every change and start; the date only has to exist.
const LIST_LIFETIME: Duration = Duration::from_secs(90 * DAY.as_secs());

/// A store's device authority, or the authority of the cloud: issues and revokes certificates.
///
/// ```compile_fail,E0277
/// fn print(authority: &palmgate_seal::pki::Authority) {
///     println!("{authority:?}");
/// }
/// ```
pub struct Authority {
    key: SigningKey,
    der: CertificateDer<'static>,
    pem: String,
}

/// What a certificate may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// To connect.
    Client,
    /// To be connected to.
    Server {
        /// DNS names or IP addresses, besides the certificate's own name.
        hosts: Vec<String>,
    },
    /// Both.
    Both {
        /// DNS names or IP addresses, besides the certificate's own name.
        hosts: Vec<String>,
    },
}

/// A certificate as issued.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// DER.
    pub der: CertificateDer<'static>,
    /// PEM.
    pub pem: String,
    /// Names it in a revocation list.
    pub serial: Vec<u8>,
    /// End of validity.
    pub not_after: Timestamp,
}

impl Authority {
    /// A new authority, valid for twenty years; `name` is for people to read.
    ///
    /// # Errors
    /// [`PkiError::Certificate`] when the name cannot stand in a certificate.
    pub fn generate(name: &str, now: Timestamp) -> Result<Self, PkiError> {
        let key = SigningKey::generate();
        let mut params = params(name, now, AUTHORITY_LIFETIME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params
            .self_signed(&RcgenKey::from(&key))
            .map_err(|_| PkiError::Certificate("of the authority cannot be made"))?;
        Ok(Self { der: certificate.der().clone(), pem: certificate.pem(), key })
    }

    /// Puts together what [`Authority::certificate_pem`] and [`Authority::key_pkcs8`] gave.
    ///
    /// # Errors
    /// [`PkiError`] when either is malformed, the certificate is no authority's, or they do not
    /// belong together.
    pub fn from_parts(cert_pem: &str, key_pkcs8: &[u8]) -> Result<Self, PkiError> {
        let key = SigningKey::from_pkcs8(key_pkcs8)?;
        let der = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|_| PkiError::Pem("a certificate"))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .map_err(|_| PkiError::Certificate("cannot be parsed"))?;
        if !parsed.is_ca() {
            return Err(PkiError::Certificate("is not an authority's"));
        }
        if public_key(&parsed)? != key.public() {
            return Err(PkiError::KeyMismatch);
        }
        Ok(Self { key, der, pem: cert_pem.into() })
    }

    /// The private key in PKCS#8 form, to be kept sealed.
    pub fn key_pkcs8(&self) -> Secret<Vec<u8>> {
        self.key.pkcs8()
    }

    /// The authority's own certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.pem
    }

    /// The authority's own certificate.
    pub const fn certificate_der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Issues a certificate for the key in `csr_der`, under `name` as common name and DNS name;
    /// every name and extension in the request itself is ignored.
    ///
    /// # Errors
    /// [`PkiError::Request`] when the request is too long, malformed, not signed by its own key or
    /// not for an Ed25519 key; [`PkiError::Host`] for a host that is none.
    pub fn issue(
        &self,
        csr_der: &[u8],
        name: &Name,
        role: Role,
        now: Timestamp,
        lifetime: Duration,
    ) -> Result<Certificate, PkiError> {
        let subject = requested_key(csr_der)?;
        let mut params = params(name.as_str(), now, lifetime);
        let hosts = role.apply(&mut params);
        params.subject_alt_names = alternative_names(name, hosts)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let certificate = params
            .signed_by(&subject, &self.issuer()?)
            .map_err(|_| PkiError::Request("cannot be answered"))?;
        Ok(Certificate {
            pem: certificate.pem(),
            der: certificate.into(),
            serial: params.serial_number.map(|serial| serial.to_bytes()).unwrap_or_default(),
            not_after: Timestamp::from_millis(params.not_after.unix_timestamp() * 1000),
        })
    }

    /// A list of the certificates that hold no more; `number` grows with each list (RFC 5280,
    /// 5.2.3).
    pub fn revocation_list(
        &self,
        serials: &[Vec<u8>],
        number: u64,
        now: Timestamp,
    ) -> CertificateRevocationListDer<'static> {
        // A list must end after it begins, even at the end of X.509 time.
        let end_of_time = seconds(Timestamp::from_millis(i64::MAX));
        let this_update = seconds(now).min(end_of_time - LIST_LIFETIME);
        let revoked = |serial: &Vec<u8>| RevokedCertParams {
            serial_number: SerialNumber::from_slice(serial),
            revocation_time: this_update,
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update,
            next_update: this_update + LIST_LIFETIME,
            crl_number: number.into(),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let issuer = self.issuer().expect("the authority's certificate was parsed before");
        list.signed_by(&issuer).expect("the authority may sign lists and the dates fit").into()
    }

    fn issuer(&self) -> Result<Issuer<'_, RcgenKey<'_>>, PkiError> {
        Issuer::from_ca_cert_der(&self.der, RcgenKey::from(&self.key))
            .map_err(|_| PkiError::Certificate("of the authority cannot be used"))
    }
}

impl Role {
    fn apply(self, params: &mut CertificateParams) -> Vec<String> {
        use ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
        let (usages, hosts) = match self {
            Self::Client => (vec![ClientAuth], Vec::new()),
            Self::Server { hosts } => (vec![ServerAuth], hosts),
            Self::Both { hosts } => (vec![ServerAuth, ClientAuth], hosts),
        };
        params.extended_key_usages = usages;
        hosts
    }
}

fn params(common_name: &str, now: Timestamp, lifetime: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.serial_number = Some(serial());
    let backdated = BACKDATED.min(lifetime).as_millis() as i64;
    let backdated = now.as_millis().saturating_sub(backdated);
    params.not_before = seconds(Timestamp::from_millis(backdated));
    params.not_after = seconds(now.after(lifetime));
    params
}

/// 16 random bytes of which the first makes the number positive and of full length.
fn serial() -> SerialNumber {
    let mut bytes = random::bytes::<16>();
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn requested_key(csr_der: &[u8]) -> Result<rcgen::PublicKey, PkiError> {
    if csr_der.len() > MAX_REQUEST_BYTES {
        return Err(PkiError::Request("is too long"));
    }
    let request =
        CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr_der))
            .map_err(|_| PkiError::Request("is malformed or not signed by its own key"))?;
    if request.public_key.algorithm() != &PKCS_ED25519 {
        return Err(PkiError::Request("is not for an Ed25519 key"));
    }
    Ok(request.public_key)
}

fn alternative_names(name: &Name, hosts: Vec<String>) -> Result<Vec<rcgen::SanType>, PkiError> {
    let unusable = hosts.iter().find(|host| rustls_name(host).is_none());
    if let Some(host) = unusable {
        return Err(PkiError::Host(host.clone()));
    }
    let names = [vec![name.to_string()], hosts].concat();
    let params = CertificateParams::new(names).map_err(|_| PkiError::Host(name.to_string()))?;
    Ok(params.subject_alt_names)
}

fn rustls_name(host: &str) -> Option<rustls::pki_types::ServerName<'_>> {
    host.try_into().ok()
}

/// Lends a key to rcgen, which would otherwise keep an unwiped copy.
pub(super) struct RcgenKey<'a> {
    key: &'a SigningKey,
    public: VerifyingKey,
}

impl<'a> From<&'a SigningKey> for RcgenKey<'a> {
    fn from(key: &'a SigningKey) -> Self {
        Self { key, public: key.public() }
    }
}

impl PublicKeyData for RcgenKey<'_> {
    fn der_bytes(&self) -> &[u8] {
        &self.public.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for RcgenKey<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(self.key.sign_exact(message).to_vec())
    }
}
