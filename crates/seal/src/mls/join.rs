use super::{
    MAX_HANDSHAKE_BYTES, MlsError, SUITE, capabilities,
    credential::{self, LeafKey, Side},
    join_config,
    session::Session,
    state::Store,
};
use crate::{
    pki::{Identity, Parsed},
    sha256,
};
use openmls::prelude::{
    KeyPackage, KeyPackageIn, KeyPackageVerifyError, Lifetime, MlsGroup, MlsGroupCreateConfig,
    MlsMessageBodyIn, MlsMessageIn, MlsMessageOut, OpenMlsProvider as _, ProtocolVersion,
    StagedWelcome, WelcomeError,
    tls_codec::{Deserialize as _, Serialize as _},
};
use palmgate_protocol::{Name, Timestamp};
use rustls::pki_types::CertificateDer;
use std::time::Duration;

/// How long a `KeyPackage` holds, and how far the terminal's clock may be ahead. The gateway must
/// remember [`Admitted::reference`] for twice as long, to refuse repeats.
pub const KEY_PACKAGE_LIFETIME: Duration = Duration::from_mins(10);

/// A terminal that asked to join and waits for the gateway's Welcome. Kept in memory only: after a
/// restart the terminal asks anew.
pub struct Joining {
    store: Store,
    key: LeafKey,
}

/// A terminal as the gateway let it in.
pub struct Admitted {
    /// The new session; the terminal is in it once it has the Welcome.
    pub session: Session,
    /// For the terminal. Holds no secret in the clear.
    pub welcome: Vec<u8>,
    /// The name in the terminal's certificate.
    pub terminal: Name,
    /// The serial number of that certificate: the caller refuses a revoked one.
    pub serial: Vec<u8>,
    /// SHA-256 of that certificate.
    pub certificate: [u8; 32],
    /// Hash of the `KeyPackage`: the caller refuses one that it has seen.
    pub reference: [u8; 32],
}

/// Terminal: makes a `KeyPackage` to send to the gateway. It holds for [`KEY_PACKAGE_LIFETIME`]
/// around `now`, which must be the system's time.
///
/// # Errors
/// [`MlsError::State`] when the own key or certificate cannot be used.
pub fn request_to_join(
    identity: &Identity,
    now: Timestamp,
) -> Result<(Joining, Vec<u8>), MlsError> {
    let (store, key) = (Store::default(), LeafKey(identity.signing_key()));
    let bundle = KeyPackage::builder()
        .key_package_lifetime(lifetime(now))
        .leaf_node_capabilities(capabilities())
        .build(SUITE, &*store, &key, credential::of(identity)?)
        .map_err(MlsError::state)?;
    let message = MlsMessageOut::from(bundle.into_key_package());
    let message = message.tls_serialize_detached().map_err(MlsError::state)?;
    Ok((Joining { store, key }, message))
}

impl Joining {
    /// Terminal: enters the session that the gateway made.
    ///
    /// # Errors
    /// [`MlsError`] when the Welcome is not an answer to this request, or not by the gateway of
    /// this authority.
    pub fn accept(
        self,
        welcome: &[u8],
        authority_der: &CertificateDer<'_>,
        now: Timestamp,
    ) -> Result<Session, MlsError> {
        let MlsMessageBodyIn::Welcome(welcome) = parse(welcome)? else {
            return Err(MlsError::Malformed("something else than a Welcome"));
        };
        let staged = StagedWelcome::new_from_welcome(&*self.store, &join_config(), welcome, None)
            .map_err(refused_welcome)?;
        let members: Vec<_> = staged.members().collect();
        let own = staged.own_leaf_index();
        let sender = staged.welcome_sender_index();
        let [peer] = members.iter().filter(|member| member.index != own).collect::<Vec<_>>()[..]
        else {
            return Err(MlsError::Forbidden("a group that is not of two members"));
        };
        if peer.index != sender || staged.group_context().extensions().iter().next().is_some() {
            return Err(MlsError::Forbidden("a group of another shape"));
        }
        let (credential, key) = (&peer.credential, &peer.signature_key);
        credential::check(credential, key, Side::Gateway, authority_der, now)?;
        let group = staged.into_group(&*self.store).map_err(MlsError::state)?;
        Ok(Session::new(self.store, group, self.key, Side::Terminal))
    }
}

/// Gateway: checks a `KeyPackage` and makes a new session with its sender.
///
/// # Errors
/// [`MlsError`] when it is malformed, outside its lifetime, not from a terminal of this authority,
/// or does not sign with its certificate's key.
pub fn admit(
    identity: &Identity,
    key_package: &[u8],
    authority_der: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<Admitted, MlsError> {
    let MlsMessageBodyIn::KeyPackage(key_package) = parse(key_package)? else {
        return Err(MlsError::Malformed("something else than a KeyPackage"));
    };
    let store = Store::default();
    let (key_package, certificate) = check(key_package, &store, authority_der, now)?;
    let reference = key_package.hash_ref(store.crypto()).map_err(MlsError::state)?;
    let shown = sha256(&credential::certificate(key_package.leaf_node().credential())?);
    let key = LeafKey(identity.signing_key());
    let config = MlsGroupCreateConfig::builder()
        .ciphersuite(SUITE)
        .capabilities(capabilities())
        .lifetime(lifetime(now))
        .use_ratchet_tree_extension(true)
        .build();
    let mut group = MlsGroup::new(&*store, &key, &config, credential::of(identity)?)
        .map_err(MlsError::state)?;
    // Both sides run with one configuration; the founder can only set it afterwards.
    group.set_configuration(store.storage(), &join_config()).map_err(MlsError::state)?;
    let (_, welcome, _) =
        group.add_members(&*store, &key, &[key_package]).map_err(MlsError::state)?;
    group.merge_pending_commit(&*store).map_err(MlsError::state)?;
    Ok(Admitted {
        session: Session::new(store, group, key, Side::Gateway),
        welcome: welcome.tls_serialize_detached().map_err(MlsError::state)?,
        terminal: certificate.name,
        serial: certificate.serial,
        certificate: shown,
        reference: reference.as_slice().try_into().map_err(MlsError::state)?,
    })
}

fn check(
    key_package: KeyPackageIn,
    store: &Store,
    authority_der: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<(KeyPackage, Parsed), MlsError> {
    let claimed = key_package.unverified_credential();
    let (credential, key) = (&claimed.credential, claimed.signature_key.as_slice());
    let certificate = credential::check(credential, key, Side::Terminal, authority_der, now)?;
    let key_package = key_package
        .validate(store.crypto(), ProtocolVersion::Mls10)
        .map_err(refused_key_package)?;
    if key_package.ciphersuite() != SUITE || key_package.last_resort() {
        return Err(MlsError::Malformed("a KeyPackage of another kind"));
    }
    if !holds(key_package.life_time(), now) {
        return Err(MlsError::NotValidNow);
    }
    Ok((key_package, certificate))
}

fn parse(message: &[u8]) -> Result<MlsMessageBodyIn, MlsError> {
    if message.len() > MAX_HANDSHAKE_BYTES {
        return Err(MlsError::TooLarge);
    }
    MlsMessageIn::tls_deserialize_exact(message)
        .map(MlsMessageIn::extract)
        .map_err(|_| MlsError::Malformed("something that is not MLS"))
}

fn lifetime(now: Timestamp) -> Lifetime {
    let (now, margin) = (seconds(now), KEY_PACKAGE_LIFETIME.as_secs());
    Lifetime::init(now.saturating_sub(margin), now.saturating_add(margin))
}

fn holds(lifetime: &Lifetime, now: Timestamp) -> bool {
    let (from, to, now) = (lifetime.not_before(), lifetime.not_after(), seconds(now));
    from <= now && now < to && to - from <= 2 * KEY_PACKAGE_LIFETIME.as_secs()
}

fn seconds(time: Timestamp) -> u64 {
    u64::try_from(time.as_millis() / 1000).unwrap_or(0)
}

fn refused_key_package(error: KeyPackageVerifyError) -> MlsError {
    match error {
        KeyPackageVerifyError::LifetimeError(_) => MlsError::NotValidNow,
        KeyPackageVerifyError::LibraryError(error) => MlsError::state(error),
        _ => MlsError::Malformed("an invalid KeyPackage"),
    }
}

fn refused_welcome<E: std::fmt::Display>(error: WelcomeError<E>) -> MlsError {
    match error {
        WelcomeError::LibraryError(error) => MlsError::state(error),
        WelcomeError::StorageError(error) => MlsError::state(error),
        WelcomeError::NoMatchingKeyPackage => {
            MlsError::Malformed("a Welcome that answers another request")
        }
        _ => MlsError::Malformed("an invalid Welcome"),
    }
}
