use super::{CertificateRevocationListDer, Identity, Parsed, PkiError, Presented};
use palmgate_protocol::{Name, Timestamp};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::{Resumption, verify_server_cert_signed_by_trust_anchor},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, UnixTime},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    time_provider::{DefaultTimeProvider, TimeProvider},
    version::TLS13,
};
use std::{sync::Arc, time::Duration};

/// Who may connect to a server.
pub enum ClientAuth {
    /// Anybody: for pages and for pairing only.
    None,
    /// Holders of a certificate.
    Required {
        /// The authority that must have issued it.
        authority_der: CertificateDer<'static>,
        /// The list of those that hold no more.
        revoked: Option<CertificateRevocationListDer<'static>>,
    },
}

/// TLS 1.3 for a server with `identity`. Sends the certificate and the authority's. The
/// revocation list is read once: make a new configuration when it changes.
///
/// # Errors
/// [`PkiError::Tls`] when a certificate, key or list is unusable.
pub fn server_config(identity: &Identity, clients: ClientAuth) -> Result<ServerConfig, PkiError> {
    server_config_at(&Arc::new(Presented::new(identity)?), clients, Arc::new(DefaultTimeProvider))
}

/// As [`server_config`], with an identity that may be replaced, and with certificates judged by
/// another clock than the system's.
///
/// # Errors
/// [`PkiError::Tls`] when a certificate, key or list is unusable.
pub fn server_config_at(
    identity: &Arc<Presented>,
    clients: ClientAuth,
    time: Arc<dyn TimeProvider>,
) -> Result<ServerConfig, PkiError> {
    let builder = ServerConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?;
    let builder = match clients {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Required { authority_der, revoked } => {
            let roots = Arc::new(roots(&authority_der)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .with_crls(revoked)
                .build()
                .map_err(|error| PkiError::Tls(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::<Presented>::clone(identity));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// TLS 1.3 towards servers whose certificate `authority_der` issued for the host that is dialled.
///
/// # Errors
/// [`PkiError::Tls`] when a certificate or key is unusable.
pub fn client_config(
    identity: Option<&Identity>,
    authority_der: &CertificateDer<'_>,
) -> Result<ClientConfig, PkiError> {
    let identity = identity.map(|identity| Presented::new(identity).map(Arc::new)).transpose()?;
    client_config_at(identity.as_ref(), authority_der, Arc::new(DefaultTimeProvider))
}

/// As [`client_config`], with an identity that may be replaced, and with the server judged by
/// another clock than the system's.
///
/// # Errors
/// [`PkiError::Tls`] when a certificate is unusable.
pub fn client_config_at(
    identity: Option<&Arc<Presented>>,
    authority_der: &CertificateDer<'_>,
    time: Arc<dyn TimeProvider>,
) -> Result<ClientConfig, PkiError> {
    let builder = ClientConfig::builder_with_details(provider(), time)
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .with_root_certificates(roots(authority_der)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(identity) => builder.with_client_cert_resolver(Arc::<Presented>::clone(identity)),
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Checks that `authority_der` issued the certificate, to connect or to be connected to, and that
/// it is valid at `now`; gives its name.
///
/// # Errors
/// [`PkiError`] says what is wrong with the presented certificate.
pub fn verify(
    chain_leaf_der: &CertificateDer<'_>,
    authority_der: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<Name, PkiError> {
    let roots = Arc::new(roots(authority_der)?);
    if let Err(error) = accepts_client(&roots, chain_leaf_der, unix(now))
        && accepts_server(&roots, chain_leaf_der, unix(now)).is_err()
    {
        return Err(error);
    }
    Ok(Parsed::from_der(chain_leaf_der)?.name)
}

/// As [`verify`], for certificates to connect with only.
pub(crate) fn verify_client(
    leaf: &CertificateDer<'_>,
    authority_der: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<Parsed, PkiError> {
    accepts_client(&Arc::new(roots(authority_der)?), leaf, unix(now))?;
    Parsed::from_der(leaf)
}

/// As [`verify`], for certificates to be connected to only.
pub(crate) fn verify_server(
    leaf: &CertificateDer<'_>,
    authority_der: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<Parsed, PkiError> {
    accepts_server(&roots(authority_der)?, leaf, unix(now)).map_err(PkiError::Untrusted)?;
    Parsed::from_der(leaf)
}

fn accepts_client(
    roots: &Arc<RootCertStore>,
    certificate: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<(), PkiError> {
    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
        .build()
        .map_err(|error| PkiError::Tls(error.to_string()))?
        .verify_client_cert(certificate, &[], now)
        .map_err(PkiError::Untrusted)?;
    Ok(())
}

/// Whether a server may show this certificate under these roots, whatever its name.
pub(crate) fn accepts_server(
    roots: &RootCertStore,
    certificate: &CertificateDer<'_>,
    now: UnixTime,
) -> Result<(), rustls::Error> {
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(certificate)?,
        roots,
        &[],
        now,
        provider().signature_verification_algorithms.all,
    )
}

fn unix(time: Timestamp) -> UnixTime {
    let seconds = u64::try_from(time.as_millis() / 1000).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

pub(crate) fn roots(authority_der: &CertificateDer<'_>) -> Result<RootCertStore, PkiError> {
    let mut roots = RootCertStore::empty();
    roots.add(authority_der.clone().into_owned()).map_err(tls)?;
    Ok(roots)
}

fn tls(error: rustls::Error) -> PkiError {
    PkiError::Tls(error.to_string())
}
