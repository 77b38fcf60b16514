use super::*;
use crate::{assertion, random, testing::name};
use palmgate_protocol::{Pseudonym, Purpose, terminal::Payment};
use proptest::prelude::*;

fn claim(custody: Custody) -> Claim {
    Claim {
        tenant: name("acme"),
        store: name("lyon"),
        custody,
        handle: ClaimHandle::from_random(random::bytes()),
        purposes: PurposeSet::default().with(Purpose::Pay).with(Purpose::Roaming),
        issued_at: Timestamp::from_millis(1_700_000_000_000),
        expires_at: Timestamp::from_millis(1_800_000_000_000),
        key: (custody == Custody::Split).then(Key::generate),
        sealed_record: (custody == Custody::Subject).then(|| vec![5; 2200]),
        possession: None,
    }
}

fn refused(token: &[u8], issuer: &SigningKey, tenant: &str) -> ClaimError {
    read(token, &[issuer.public()], &name(tenant)).map(|_| ()).expect_err("it was read")
}

#[test]
fn a_claim_of_each_custody_is_read_as_issued() {
    let key = SigningKey::generate();
    for custody in [Custody::Subject, Custody::Split, Custody::Operator] {
        let claim = claim(custody);
        let token = issue(&claim, &key);
        assert!(token.expose().len() <= limits::MAX_CLAIM_BYTES);
        let others = [SigningKey::generate().public(), key.public()];
        let read = read(token.expose(), &others, &claim.tenant).unwrap();
        assert_eq!((read.tenant, read.store), (claim.tenant, claim.store));
        assert_eq!((read.custody, read.purposes), (custody, claim.purposes));
        assert_eq!((read.issued_at, read.expires_at), (claim.issued_at, claim.expires_at));
        assert!(read.handle == claim.handle);
        assert_eq!(read.key.map(|key| *key.expose()), claim.key.map(|key| *key.expose()));
        assert_eq!(read.sealed_record, claim.sealed_record);
    }
}

#[test]
fn a_small_claim_fits_a_small_code() {
    let token = issue(&claim(Custody::Split), &SigningKey::generate());
    assert!(token.expose().len() < 270, "{}", token.expose().len());
}

/// A QR code of version 25 holds 997 bytes with error correction level M (ISO/IEC 18004, table 7).
#[test]
fn the_largest_split_claim_fits_a_code_of_version_25() {
    let long = name(&"a".repeat(32));
    let possession = Some(SigningKey::generate().public());
    let largest = Claim { tenant: long.clone(), store: long, possession, ..claim(Custody::Split) };
    let token = issue(&largest, &SigningKey::generate());
    assert!(token.expose().len() <= 997, "{}", token.expose().len());
}

#[test]
fn a_claim_of_another_tenant_or_issuer_is_refused() {
    let key = SigningKey::generate();
    let token = issue(&claim(Custody::Split), &key);
    assert_eq!(refused(token.expose(), &key, "acmee"), ClaimError::OtherTenant);
    let stranger = SigningKey::generate();
    let unknown = ClaimError::Token(TokenError::UnknownIssuer);
    assert_eq!(refused(token.expose(), &stranger, "acme"), unknown);
    assert!(matches!(
        read(token.expose(), &[], &name("acme")),
        Err(ClaimError::Token(TokenError::UnknownIssuer))
    ));
}

#[test]
fn a_claim_without_what_its_custody_needs_is_refused() {
    let key = SigningKey::generate();
    let keyless = Claim { key: None, ..claim(Custody::Split) };
    assert_eq!(refused(issue(&keyless, &key).expose(), &key, "acme"), ClaimError::Incomplete);
    let empty = Claim { sealed_record: None, ..claim(Custody::Subject) };
    assert_eq!(refused(issue(&empty, &key).expose(), &key, "acme"), ClaimError::Incomplete);
}

#[test]
fn an_oversize_claim_is_refused_before_it_is_decoded() {
    let key = SigningKey::generate();
    let large = Claim { sealed_record: Some(vec![5; 2900]), ..claim(Custody::Subject) };
    let too_long = ClaimError::Token(TokenError::TooLong);
    assert_eq!(refused(issue(&large, &key).expose(), &key, "acme"), too_long);
    assert_eq!(refused(&[0xff; 3000], &key, "acme"), too_long);
}

#[test]
fn every_changed_bit_and_every_cut_of_a_claim_is_noticed() {
    let key = SigningKey::generate();
    let token = issue(&claim(Custody::Split), &key);
    for bit in 0..token.expose().len() * 8 {
        let mut changed = token.expose().clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(refused(&changed, &key, "acme"), ClaimError::Token(_)), "bit {bit}");
    }
    for length in 0..token.expose().len() {
        refused(&token.expose()[..length], &key, "acme");
    }
    let longer = [token.expose().as_slice(), &[0]].concat();
    refused(&longer, &key, "acme");
}

fn payment() -> assertion::Assertion {
    assertion::Assertion {
        payment: Payment {
            minor_units: 1999,
            currency: "EUR".into(),
            payee: "Acme Lyon".into(),
            nonce: random::bytes(),
        },
        pseudonym: Pseudonym::from_random(random::bytes()),
        at: Timestamp::from_millis(1_700_000_000_000),
    }
}

#[test]
fn an_assertion_is_read_as_issued_and_by_nobody_else() {
    let (key, said) = (SigningKey::generate(), payment());
    let token = assertion::issue(&said, &key);
    assert!(assertion::read(&token, &key.public()).unwrap() == said);
    let stranger = SigningKey::generate().public();
    assert!(matches!(assertion::read(&token, &stranger), Err(TokenError::UnknownIssuer)));
    for bit in 0..token.len() * 8 {
        let mut changed = token.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(assertion::read(&changed, &key.public()).is_err(), "bit {bit}");
    }
}

#[test]
fn a_token_of_one_kind_is_none_of_the_other() {
    let key = SigningKey::generate();
    let malformed = ClaimError::Token(TokenError::Malformed);
    assert_eq!(refused(&assertion::issue(&payment(), &key), &key, "acme"), malformed);
    let token = issue(&claim(Custody::Operator), &key);
    let read = assertion::read(token.expose(), &key.public());
    assert!(matches!(read, Err(TokenError::Malformed)));
}

#[test]
fn headers_outside_the_signature_are_refused() {
    use coset::{CoseSign1, HeaderBuilder, TaggedCborSerializable as _};
    let key = SigningKey::generate();
    let token = issue(&claim(Custody::Operator), &key);
    let mut parsed = CoseSign1::from_tagged_slice(token.expose()).unwrap();
    parsed.unprotected = HeaderBuilder::new().key_id(b"other".to_vec()).build();
    let malformed = ClaimError::Token(TokenError::Malformed);
    assert_eq!(refused(&parsed.to_tagged_vec().unwrap(), &key, "acme"), malformed);
}

proptest! {
    #[test]
    fn mutated_tokens_and_noise_never_panic(
        position: usize, bytes: [u8; 5], noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let key = SigningKey::generate();
        let mut token = issue(&claim(Custody::Split), &key).expose().clone();
        let original = token.clone();
        let position = position % (token.len() - bytes.len());
        token[position..position + bytes.len()].copy_from_slice(&bytes);
        prop_assert!(
            token == original || read(&token, &[key.public()], &name("acme")).is_err()
        );
        prop_assert!(read(&noise, &[key.public()], &name("acme")).is_err());
        prop_assert!(assertion::read(&noise, &key.public()).is_err());
    }
}
