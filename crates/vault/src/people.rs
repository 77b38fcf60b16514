//! People as the vault sees them: ids, columns, requests.

use palmgate_protocol::{ClaimHandle, Hand, MemberId, Name, Purpose, Secret};
use palmgate_seal::aead::{Key, Place};

use crate::keys::{Hashing, ROW_FORMAT, Seed};

/// What is stored about a person, each value sealed on its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Column {
    /// Consent, custody and dates.
    Profile,
    /// The payment provider's token.
    CardToken,
    /// Where to reach the person.
    Phone,
    /// The person's own uses, for the person to see.
    History,
    /// The protected template of one purpose and hand.
    Template(Purpose, Hand),
    /// A record that another key, held by the person, seals once more.
    SealedRecord,
    /// The written release that the person signed.
    Release,
}

impl Column {
    /// Every column, in the order of their bits.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let hands = |purpose| [Hand::Left, Hand::Right].map(|hand| Self::Template(purpose, hand));
        [Self::Profile, Self::CardToken, Self::Phone, Self::History, Self::SealedRecord]
            .into_iter()
            .chain(Purpose::ALL.into_iter().flat_map(hands))
            .chain([Self::Release])
    }

    /// The column's bit in a set of columns.
    pub(crate) fn bit(self) -> u16 {
        let index = match self {
            Self::Profile => 0,
            Self::CardToken => 1,
            Self::Phone => 2,
            Self::History => 3,
            Self::SealedRecord => 4,
            Self::Template(purpose, hand) => 5 + 2 * purpose as u16 + hand as u16,
            Self::Release => 15,
        };
        1 << index
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::CardToken => "card token",
            Self::Phone => "phone",
            Self::History => "history",
            Self::SealedRecord => "sealed record",
            Self::Release => "release",
            Self::Template(_, Hand::Left) => "template, left",
            Self::Template(_, Hand::Right) => "template, right",
        }
    }

    const fn purpose(self) -> Option<Purpose> {
        match self {
            Self::Template(purpose, _) => Some(purpose),
            _ => None,
        }
    }

    /// What the column of this member is bound to.
    pub(crate) fn aad(self, tenant: &Name, member: &MemberId) -> Vec<u8> {
        Place {
            tenant,
            purpose: self.purpose(),
            record: member.as_bytes(),
            column: self.name(),
            version: ROW_FORMAT,
        }
        .aad()
    }
}

/// Somebody to store.
pub struct NewPerson {
    /// The new identity.
    pub member: MemberId,
    /// The claim that goes with it; refused if it was erased with somebody else.
    pub claim: ClaimHandle,
    /// The columns; of one named twice the last counts.
    pub columns: Vec<(Column, Secret<Vec<u8>>)>,
}

/// Somebody to erase.
pub struct ErasureRequest {
    /// Who.
    pub member: MemberId,
    /// The claim that goes with the member and is refused from then on.
    pub claim: ClaimHandle,
    /// Commitment for the ledger; its salt is destroyed with the person's data.
    pub commitment: [u8; 32],
}

/// Bytes that all places of one person begin with.
pub(crate) const GROUP_BYTES: usize = 10;
/// What the places of one person in the record store begin with.
pub(crate) type Group = [u8; GROUP_BYTES];

/// Changes that become durable together.
#[derive(Default)]
pub struct Batch {
    /// People to store, as [`Vault::insert`](crate::Vault::insert) does.
    pub insert: Vec<NewPerson>,
    /// Columns to replace, as [`Vault::write_many`](crate::Vault::write_many) does.
    pub write: Vec<(MemberId, Column, Secret<Vec<u8>>)>,
    /// People to erase, as [`Vault::erase`](crate::Vault::erase) does.
    pub erase: Vec<ErasureRequest>,
}

/// What seals one person's columns and hides where they lie: without the person's key the places
/// in the record store cannot be found either. The columns of one person lie side by side.
pub(crate) struct PersonCipher<'a> {
    tenant: &'a Name,
    member: &'a MemberId,
    key: Key,
    places: Hashing,
    group: Group,
}

impl<'a> PersonCipher<'a> {
    pub(crate) fn new(tenant: &'a Name, member: &'a MemberId, seed: &Seed) -> Self {
        let (key, places) = seed.keys();
        let group = group(&places);
        Self { tenant, member, key, places, group }
    }

    /// Group and a hash of the column.
    pub(crate) fn place(&self, column: Column) -> [u8; 16] {
        let mut place = self.places.hash(&column.bit().to_be_bytes());
        place[..GROUP_BYTES].copy_from_slice(&self.group);
        place
    }

    pub(crate) fn seal(&self, column: Column, value: &[u8]) -> ([u8; 16], Vec<u8>) {
        (self.place(column), self.key.seal(&column.aad(self.tenant, self.member), value))
    }

    pub(crate) fn open(&self, column: Column, sealed: &[u8]) -> Option<Secret<Vec<u8>>> {
        self.key.open(&column.aad(self.tenant, self.member), sealed).ok()
    }
}

impl Seed {
    /// Where the rows of the person with this seed lie together.
    pub(crate) fn group(&self) -> Group {
        group(&self.hashing())
    }
}

fn group(places: &Hashing) -> Group {
    *places.hash(b"group").first_chunk().expect("a hash is longer")
}
