//! What claims and assertions share: a tagged `COSE_Sign1` (RFC 9052) with `EdDSA`, whose protected
//! header holds algorithm, content type and key identifier, and whose other header is empty.

use crate::sign::{SigningKey, VerifyingKey};
use coset::{CoseSign1, CoseSign1Builder, Header, HeaderBuilder, TaggedCborSerializable, iana};
use palmgate_protocol::Secret;

/// Why a token was refused; always the presenter's fault, or a forgery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than its kind can be.
    #[error("the token is too long")]
    TooLong,
    /// Not a `COSE_Sign1` of this kind, or with an unreadable payload.
    #[error("the token is malformed or of another kind")]
    Malformed,
    /// Signed by a key that may not sign such tokens here.
    #[error("the token was issued by somebody else")]
    UnknownIssuer,
    /// Not signed by the key that it names, or changed since.
    #[error("the token is forged or damaged")]
    Forged,
}

pub(crate) fn issue(content_type: &str, payload: Vec<u8>, key: &SigningKey) -> Secret<Vec<u8>> {
    let mut token = CoseSign1Builder::new()
        .protected(header(content_type, key.public().id().to_vec()))
        .payload(payload)
        .build();
    let signed = Secret::new(token.tbs_data(&[]));
    token.signature = key.sign_exact(signed.expose()).to_vec();
    Secret::new(token.to_tagged_vec().expect("a header of three fields can be encoded"))
}

/// The payload, once the token is known to be of this kind and by one of `issuers`.
pub(crate) fn read(
    content_type: &str,
    token: &[u8],
    limit: usize,
    issuers: &[VerifyingKey],
) -> Result<Secret<Vec<u8>>, TokenError> {
    if token.len() > limit {
        return Err(TokenError::TooLong);
    }
    let mut token = CoseSign1::from_tagged_slice(token).map_err(|_| TokenError::Malformed)?;
    let payload = Secret::new(token.payload.take().ok_or(TokenError::Malformed)?);
    let named = token.protected.header.key_id.clone();
    let expected = header(content_type, named.clone());
    if token.protected.header != expected || !token.unprotected.is_empty() {
        return Err(TokenError::Malformed);
    }
    let signed = Secret::new(token.tbs_detached_data(payload.expose(), &[]));
    let mut issuers = issuers.iter().filter(|issuer| named == issuer.id()).peekable();
    issuers.peek().ok_or(TokenError::UnknownIssuer)?;
    issuers
        .find(|issuer| issuer.verify_exact(signed.expose(), &token.signature).is_ok())
        .ok_or(TokenError::Forged)?;
    Ok(payload)
}

fn header(content_type: &str, key_id: Vec<u8>) -> Header {
    HeaderBuilder::new()
        .algorithm(iana::Algorithm::EdDSA)
        .content_type(content_type.into())
        .key_id(key_id)
        .build()
}
