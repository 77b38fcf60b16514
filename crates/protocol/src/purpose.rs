use std::{fmt, str::FromStr};

/// Why a palm is processed. The set is closed (GDPR Art. 5(1)(b)): a template sealed for one
/// purpose cannot be opened for another.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, minicbor::Encode, minicbor::Decode,
)]
#[cbor(index_only)]
pub enum Purpose {
    /// Release a card token to a point of sale.
    #[n(0)]
    Pay,
    /// Name a loyalty account to a point of sale.
    #[n(1)]
    Loyalty,
    /// Open a gate to a shopper.
    #[n(2)]
    Entry,
    /// Admit an employee to a listed restricted zone.
    #[n(3)]
    Staff,
    /// Be recognised in the tenant's other stores through the cloud. Consented to like the others,
    /// but nobody scans for it and no template is made for it.
    #[n(4)]
    Roaming,
}

impl Purpose {
    /// Every purpose, in wire order.
    pub const ALL: [Self; 5] = [Self::Pay, Self::Loyalty, Self::Entry, Self::Staff, Self::Roaming];
    /// The purposes that a palm is matched for: each has templates of its own.
    pub const MATCHED: [Self; 4] = [Self::Pay, Self::Loyalty, Self::Entry, Self::Staff];

    /// The name used in configuration, metrics and papers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pay => "pay",
            Self::Loyalty => "loyalty",
            Self::Entry => "entry",
            Self::Staff => "staff",
            Self::Roaming => "roaming",
        }
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Purpose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text).ok_or_else(|| {
            format!("{text:?} is not a purpose: use pay, loyalty, entry, staff or roaming")
        })
    }
}

/// A set of purposes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, minicbor::Encode, minicbor::Decode)]
#[cbor(transparent)]
pub struct PurposeSet(#[n(0)] u8);

impl PurposeSet {
    /// Whether the set has `purpose`.
    pub const fn contains(self, purpose: Purpose) -> bool {
        self.0 & (1 << purpose as u8) != 0
    }

    /// The set with `purpose` added.
    #[must_use]
    pub const fn with(self, purpose: Purpose) -> Self {
        Self(self.0 | (1 << purpose as u8))
    }

    /// The set with `purpose` taken away.
    #[must_use]
    pub const fn without(self, purpose: Purpose) -> Self {
        Self(self.0 & !(1 << purpose as u8))
    }

    /// Whether nothing is in the set.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }

    /// The purposes in wire order; bits this version does not know are ignored.
    pub fn iter(self) -> impl Iterator<Item = Purpose> {
        Purpose::ALL.into_iter().filter(move |purpose| self.contains(*purpose))
    }
}

impl FromIterator<Purpose> for PurposeSet {
    fn from_iter<I: IntoIterator<Item = Purpose>>(purposes: I) -> Self {
        purposes.into_iter().fold(Self::default(), Self::with)
    }
}

/// Who can open a reference (CNIL storage types 1, 2 and 3, délibération 2019-001).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, minicbor::Encode, minicbor::Decode,
)]
#[cbor(index_only)]
pub enum Custody {
    /// Type 1: the sealed template is on the person's medium; the box stores none.
    #[n(0)]
    Subject,
    /// Type 2: the box stores ciphertext; the person's token holds the only key.
    #[n(1)]
    Split,
    /// Type 3: the box opens the template with its own key.
    #[n(2)]
    Operator,
}

impl Custody {
    /// The name used in configuration, metrics and papers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "subject",
            Self::Split => "split",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Custody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which hand, as the person says it.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, minicbor::Encode, minicbor::Decode,
)]
#[cbor(index_only)]
pub enum Hand {
    /// The left hand.
    #[n(0)]
    Left,
    /// The right hand.
    #[n(1)]
    Right,
}
