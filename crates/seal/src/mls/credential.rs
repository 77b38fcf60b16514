use super::MlsError;
use crate::{
    pki::{self, Identity, MAX_CERTIFICATE_BYTES, Parsed},
    sign::SigningKey,
};
use openmls::prelude::{
    Credential, CredentialType, CredentialWithKey, SignatureScheme,
    tls_codec::{Deserialize as _, Serialize as _, VLBytes},
};
use openmls_traits::signatures::{Signer, SignerError};
use palmgate_protocol::{Name, Timestamp, topic::GATEWAY};
use rustls::pki_types::CertificateDer;

/// Lends the certificate's key to openmls.
pub(super) struct LeafKey(pub(super) SigningKey);

impl Signer for LeafKey {
    fn sign(&self, payload: &[u8]) -> Result<Vec<u8>, SignerError> {
        Ok(self.0.sign_exact(payload).to_vec())
    }

    fn signature_scheme(&self) -> SignatureScheme {
        SignatureScheme::ED25519
    }
}

/// The credential of a leaf: a chain of one certificate, since both sides hold the authority's and
/// RFC 9420 lets a chain leave the trust anchor out.
pub(super) fn of(identity: &Identity) -> Result<CredentialWithKey, MlsError> {
    let chain = VLBytes::new(identity.certificate_der().to_vec())
        .tls_serialize_detached()
        .map_err(MlsError::state)?;
    Ok(CredentialWithKey {
        credential: Credential::new(CredentialType::X509, chain),
        signature_key: identity.verifying_key().0.as_slice().into(),
    })
}

/// Which side of the session a leaf belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Gateway,
    Terminal,
}

impl Side {
    pub(super) fn of(name: &Name) -> Self {
        if name.as_str() == GATEWAY { Self::Gateway } else { Self::Terminal }
    }
}

/// The certificate behind a leaf, once it is known to hold, to be for the leaf's key, and for this
/// side: a terminal's certificate never passes for a gateway's, whatever its name.
pub(super) fn check(
    credential: &Credential,
    signature_key: &[u8],
    side: Side,
    authority_der: &CertificateDer<'_>,
    now: Timestamp,
) -> Result<Parsed, MlsError> {
    let certificate = certificate(credential)?;
    let parsed = match side {
        Side::Gateway => pki::verify_server(&certificate, authority_der, now)?,
        Side::Terminal => pki::verify_client(&certificate, authority_der, now)?,
    };
    if Side::of(&parsed.name) != side {
        return Err(MlsError::Certificate("has the name of the other side"));
    }
    if parsed.key.0 != *signature_key {
        return Err(MlsError::Certificate("is for another key than the one it signs with"));
    }
    Ok(parsed)
}

/// The name in a credential that was checked when the session began.
pub(super) fn name(credential: &Credential) -> Result<Name, MlsError> {
    Ok(Parsed::from_der(&certificate(credential)?)?.name)
}

pub(super) fn certificate(credential: &Credential) -> Result<CertificateDer<'static>, MlsError> {
    let chain = credential.serialized_content();
    if credential.credential_type() != CredentialType::X509 {
        return Err(MlsError::Certificate("is missing"));
    }
    if chain.len() > MAX_CERTIFICATE_BYTES + 4 {
        return Err(MlsError::TooLarge);
    }
    let certificate = VLBytes::tls_deserialize_exact(chain)
        .map_err(|_| MlsError::Certificate("is not exactly one"))?;
    Ok(Vec::from(certificate).into())
}
