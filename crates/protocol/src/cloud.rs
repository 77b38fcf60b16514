//! Messages between a gateway and the cloud, and the records that both keep. Bodies of requests
//! over mutual TLS; what is biometric in them is sealed once more, end to end.

use crate::{
    Biometric, ClaimHandle, Custody, Hand, MemberId, Name, Pseudonym, Purpose, PurposeSet,
    Timestamp,
};
use minicbor::{Decode, Encode};

/// First words of a gateway: the keys that others need to reach or check it.
#[derive(Clone, Encode, Decode)]
pub struct Hello {
    /// HPKE public key (X25519) that shards and answers are sealed to.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub seal_key: [u8; 32],
    /// Ed25519 public key that checks the claims and checkpoints of this gateway.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub verify_key: [u8; 32],
}

/// The cloud's answer to [`Hello`], and to any later question for it.
#[derive(Clone, Encode, Decode)]
pub struct Directory {
    /// The keys that may sign claims of this tenant: one for each of its stores.
    #[n(0)]
    pub issuers: Vec<Issuer>,
}

/// A store that issues claims.
#[derive(Clone, Encode, Decode)]
pub struct Issuer {
    /// The store.
    #[n(0)]
    pub store: Name,
    /// Ed25519 public key.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub verify_key: [u8; 32],
}

/// A consent as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Consent {
    /// For what.
    #[n(0)]
    pub purpose: Purpose,
    /// When it was confirmed.
    #[n(1)]
    pub given_at: Timestamp,
    /// When it must have been confirmed anew.
    #[n(2)]
    pub expires_at: Timestamp,
    /// Version of the notice.
    #[n(3)]
    pub notice: String,
    /// Language of the notice (BCP 47).
    #[n(4)]
    pub language: String,
}

/// One protected template in a record.
#[derive(Encode, Decode)]
pub struct SealedPurpose {
    /// The purpose whose transform protects it.
    #[n(0)]
    pub purpose: Purpose,
    /// Which hand.
    #[n(1)]
    pub hand: Hand,
    /// [`crate::Template`] bytes.
    #[n(2)]
    pub template: Biometric<Vec<u8>>,
}

/// A person as one store hands them to another: always inside an envelope.
#[derive(Encode, Decode)]
pub struct MemberRecord {
    /// The person.
    #[n(0)]
    pub member: MemberId,
    /// What a claim token names.
    #[n(1)]
    pub claim: ClaimHandle,
    /// [`crate::TEMPLATE_FORMAT`] of the templates.
    #[n(2)]
    pub format: u16,
    /// Live consents.
    #[n(3)]
    pub consents: Vec<Consent>,
    /// Protected templates.
    #[n(4)]
    pub templates: Vec<SealedPurpose>,
    /// The pseudonym for each purpose.
    #[n(5)]
    pub pseudonyms: Vec<(Purpose, Pseudonym)>,
    /// The payment provider's token.
    #[n(6)]
    pub card_token: Option<Biometric<Vec<u8>>>,
    /// When everything about the person must be gone.
    #[n(7)]
    pub expires_at: Timestamp,
}

/// A store tells the cloud of an enrolment.
#[derive(Encode, Decode)]
pub struct Registration {
    /// The person.
    #[n(0)]
    pub member: MemberId,
    /// What a claim token names.
    #[n(1)]
    pub claim: ClaimHandle,
    /// `operator` or `split`: `subject` records are never sent.
    #[n(2)]
    pub custody: Custody,
    /// Consented purposes, roaming included.
    #[n(3)]
    pub purposes: PurposeSet,
    /// When the record must be gone.
    #[n(4)]
    pub expires_at: Timestamp,
    /// A [`MemberRecord`]: HPKE to the matcher (`operator`), or under the key in the person's
    /// token (`split`).
    #[n(5)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

impl Registration {
    /// What an `operator` envelope is bound to as associated data: every field but the envelope.
    pub fn binding(&self) -> Vec<u8> {
        crate::encode(&(&self.member, &self.claim, self.custody, self.purposes, self.expires_at))
    }
}

/// A shard or the difference to an older one.
#[derive(Encode, Decode)]
pub struct Shard {
    /// Encoded [`ShardManifest`], as signed.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub manifest: Vec<u8>,
    /// Ed25519 signature of the tenant's publishing key over the labelled manifest.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// HPKE encapsulated key.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub encapsulated_key: Vec<u8>,
    /// Sealed [`ShardChunk`]s, in order.
    #[n(3)]
    pub chunks: Vec<minicbor::bytes::ByteVec>,
}

/// What a shard is and how long it holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ShardManifest {
    /// Whose.
    #[n(0)]
    pub tenant: Name,
    /// For which store.
    #[n(1)]
    pub store: Name,
    /// Grows by one with each shard of a store.
    #[n(2)]
    pub version: u64,
    /// The version that it changes; 0 for a whole shard.
    #[n(3)]
    pub base: u64,
    /// SHA-256 of the manifest of version `version - 1`; zeros for the first.
    #[n(4)]
    #[cbor(with = "minicbor::bytes")]
    pub previous: [u8; 32],
    /// After this time the store must not match against it.
    #[n(5)]
    pub lease_until: Timestamp,
    /// SHA-256 of each sealed chunk.
    #[n(6)]
    pub chunks: Vec<minicbor::bytes::ByteArray<32>>,
    /// Rows after this shard is applied.
    #[n(7)]
    pub rows: u64,
    /// Merkle tree hash (RFC 9162) over the sorted keyed hashes of everybody the tenant erased.
    #[n(8)]
    #[cbor(with = "minicbor::bytes")]
    pub tombstone_root: [u8; 32],
}

/// A part of a shard.
#[derive(Encode, Decode)]
pub struct ShardChunk {
    /// People to add or replace.
    #[n(0)]
    pub add: Vec<MemberRecord>,
    /// People to remove.
    #[n(1)]
    pub remove: Vec<MemberId>,
}

/// `operator` custody: the person who claims `claim` asked to be looked up with this probe.
#[derive(Encode, Decode)]
pub struct ProbeQuery {
    /// The purpose whose transform protects the probe.
    #[n(0)]
    pub purpose: Purpose,
    /// What the person claimed.
    #[n(1)]
    pub claim: ClaimHandle,
    /// HPKE to the matcher: encapsulated key, then the sealed and padded [`crate::Probe`].
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

impl ProbeQuery {
    /// What the envelope is bound to as associated data: the purpose and the claim.
    pub fn binding(&self) -> Vec<u8> {
        crate::encode(&(self.purpose, &self.claim))
    }
}

/// `split` custody: the sealed record for a claim. The cloud cannot read it.
#[derive(Encode, Decode)]
pub struct ClaimQuery {
    /// What the person claimed.
    #[n(0)]
    pub claim: ClaimHandle,
}

/// The answer to [`ProbeQuery`] and [`ClaimQuery`]: encoded, then padded (ISO/IEC 7816-4) to
/// [`Resolution::WIRE_BYTES`], so that a hit and a miss have one size.
#[derive(Encode, Decode)]
pub enum Resolution {
    /// Everything that was asked for was searched, and nobody fits.
    #[n(0)]
    NotFound,
    /// `operator`: a [`MemberRecord`] sealed by HPKE to the gateway, encapsulated key first.
    /// `split`: the sealed record as registered.
    #[n(1)]
    Found {
        /// The envelope.
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        sealed: Vec<u8>,
    },
}

impl Resolution {
    /// Bytes of every answer on the wire.
    pub const WIRE_BYTES: usize = 16 * 1024;

    /// What the envelope in [`Resolution::Found`] is bound to as associated data: the claim that
    /// was asked for.
    pub fn binding(claim: &ClaimHandle) -> Vec<u8> {
        crate::encode(claim)
    }
}

/// `operator` custody: the person asked to be looked up among everybody who agreed to be recognised
/// in other stores of the tenant. Only a cloud whose operator switched this on answers.
#[derive(Clone, Encode, Decode)]
pub struct SearchQuery {
    /// The purpose whose transform protects the probe.
    #[n(0)]
    pub purpose: Purpose,
    /// HPKE to the matcher: encapsulated key, then the sealed and padded [`crate::Probe`].
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub sealed: Vec<u8>,
}

impl SearchQuery {
    /// What the envelope of the probe is bound to as associated data.
    pub fn binding(purpose: Purpose) -> Vec<u8> {
        crate::encode(&("search", purpose))
    }
}

/// The answer to [`SearchQuery`]: encoded, then padded to [`SearchAnswer::WIRE_BYTES`].
#[derive(Encode, Decode)]
pub struct SearchAnswer {
    /// What was found.
    #[n(0)]
    pub outcome: SearchOutcome,
    /// The partitions that were searched.
    #[n(1)]
    pub searched: Vec<Name>,
    /// The partitions that could not be searched: the person may be there.
    #[n(2)]
    pub missing: Vec<Name>,
}

/// What a search says about a person.
#[derive(Encode, Decode)]
pub enum SearchOutcome {
    /// Everything was searched, and nobody fits, or more than one person does.
    #[n(0)]
    NotFound,
    /// Nobody fits in what was searched, and not everything was: this is no answer.
    #[n(1)]
    Unknown,
    /// A [`MemberRecord`] sealed by HPKE to the gateway, encapsulated key first, bound to
    /// [`SearchAnswer::binding`].
    #[n(2)]
    Found {
        /// The envelope.
        #[n(0)]
        #[cbor(with = "minicbor::bytes")]
        sealed: Vec<u8>,
    },
}

impl SearchAnswer {
    /// Bytes of every answer on the wire.
    pub const WIRE_BYTES: usize = 32 * 1024;
    /// Partitions of a tenant at most, so that every answer fits.
    pub const MAX_PARTITIONS: usize = 400;

    /// What the envelope in [`SearchOutcome::Found`] is bound to as associated data: the question.
    pub fn binding(query: &SearchQuery) -> Vec<u8> {
        crate::encode(query)
    }
}

/// A person must be forgotten everywhere.
#[derive(Clone, Encode, Decode)]
pub struct Erasure {
    /// The person.
    #[n(0)]
    pub member: MemberId,
    /// What their tokens name.
    #[n(1)]
    pub claim: ClaimHandle,
    /// The commitment in the store's erasure receipt.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub commitment: [u8; 32],
}

/// What the cloud has done about an [`Erasure`].
#[derive(Clone, Encode, Decode)]
pub struct ErasureState {
    /// When the cloud's own copy became unreadable.
    #[n(0)]
    pub erased_at: Timestamp,
    /// Stores that held the person and have not yet confirmed.
    #[n(1)]
    pub outstanding: Vec<Name>,
    /// Ed25519 signature of the tenant's publishing key, label [`ErasureState::LABEL`], over
    /// [`ErasureState::signed_bytes`].
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

impl ErasureState {
    /// The label of the signature.
    pub const LABEL: &str = "erasure";

    /// The bytes that the signature is over: commitment, time and outstanding stores.
    pub fn signed_bytes(&self, commitment: &[u8; 32]) -> Vec<u8> {
        let commitment = minicbor::bytes::ByteArray::from(*commitment);
        crate::encode(&(commitment, self.erased_at, &self.outstanding))
    }
}

/// A page of what the tenant has forgotten, for stores to which no shard says it: a card in
/// `subject` custody works offline until the store has seen its claim here.
#[derive(Encode, Decode)]
pub struct Tombstones {
    /// HMAC-SHA-256 key of the hashes.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub key: [u8; 32],
    /// HMAC of `0x01` and a [`MemberId`], or of `0x02` and a [`ClaimHandle`]. All of them, sorted,
    /// are the leaves below [`ShardManifest::tombstone_root`].
    #[n(1)]
    pub hashes: Vec<minicbor::bytes::ByteArray<32>>,
    /// Ask next for what follows this.
    #[n(2)]
    pub up_to: u64,
    /// Whether anything followed when this was answered.
    #[n(3)]
    pub more: bool,
}

/// A store confirms that a shard with its removals is in force.
#[derive(Clone, Encode, Decode)]
pub struct ShardApplied {
    /// The version.
    #[n(0)]
    pub version: u64,
}

/// The members who were given to this store and must go, with the claims that must fail: fetched
/// before anything else after an outage.
#[derive(Clone, Encode, Decode)]
pub struct Removals {
    /// The members.
    #[n(0)]
    pub members: Vec<MemberId>,
}
