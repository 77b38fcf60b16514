use std::fmt;

/// Longest id of a rule, in bytes.
pub const MAX_RULE_BYTES: usize = 22;

/// The id of a rule of the law packs; `docs/rules.md` gives its source and words. Kept inline, so
/// that decisions can cite rules of a pack that was loaded while running.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule {
    bytes: [u8; MAX_RULE_BYTES],
    length: u8,
}

impl Rule {
    /// The rule behind every erasure, for one that a crash cut off from its reason.
    pub const ERASURE: Self = G_17;

    /// The id as written in the pack.
    pub fn id(&self) -> &str {
        let text = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        str::from_utf8(text).unwrap_or_default()
    }

    /// The rule with this id: 1 to [`MAX_RULE_BYTES`] of `A-Z`, `a-z`, `0-9` and `-`.
    pub fn parse(id: &str) -> Option<Self> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        let fits = (1..=MAX_RULE_BYTES).contains(&id.len()) && id.bytes().all(allowed);
        fits.then(|| Self::literal(id))
    }

    const fn literal(id: &str) -> Self {
        let mut bytes = [0; MAX_RULE_BYTES];
        let mut at = 0;
        while at < id.len() {
            bytes[at] = id.as_bytes()[at];
            at += 1;
        }
        Self { bytes, length: id.len() as u8 }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.id())
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $id:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: Rule = Rule::literal($id);)*
        impl Rule {
            /// The rules that the engine cites by itself, for what it does after a decision. Every
            /// other rule comes from the pack.
            pub const ALL: &[Self] = &[$($name),*];
        }
    };
}

rules! {
    /// Raw frames live in memory only, five seconds at most.
    RET_01 = "RET-01";
    /// A probe is wiped with the decision.
    RET_02 = "RET-02";
    /// An enrolled template of a shopper ends after inactivity and at a hard ceiling.
    RET_03 = "RET-03";
    /// Decisions can be demonstrated.
    G_05_2 = "G-05-2";
    /// Kept no longer than needed.
    G_05_E = "G-05-E";
    /// Withdrawal at any time, as easily as giving.
    G_07_3 = "G-07-3";
    /// Correction by a new enrolment.
    G_16 = "G-16";
    /// Erasure.
    G_17 = "G-17";
    /// Restriction: stored but not used.
    G_18 = "G-18";
    /// Recipients are told.
    G_19 = "G-19";
    /// Objection to advertising.
    G_21 = "G-21";
    /// A breach and its clock.
    G_33 = "G-33";
    /// A human route; never "banned".
    G_22 = "G-22";
    /// Safe defaults.
    G_25_2 = "G-25-2";
    /// Template only on the person's medium.
    C_RT_07A = "C-RT-07a";
    /// Template unusable without the person's secret.
    C_RT_07B = "C-RT-07b";
    /// Template under the operator's control, by exception.
    C_RT_07C = "C-RT-07c";
    /// Templates end on unauthorised access, and with the box.
    C_RT_10E = "C-RT-10e";
    /// Presentation attacks are refused.
    C_RT_10F = "C-RT-10f";
    /// A fallback without constraint.
    C_RT_10G = "C-RT-10g";
    /// Templates made on the fly are deleted at once, match or not.
    E_79 = "E-79";
    /// Information when data comes from elsewhere.
    G_14 = "G-14";
    /// False positives of a search grow with its size.
    I_1N = "I-1N";
    /// A shard whose revocations are stale locks itself.
    LEASE = "D-LEASE";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_ids_are_unique() {
        let mut ids: Vec<_> = Rule::ALL.iter().map(Rule::id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Rule::ALL.len());
    }

    #[test]
    fn ids_are_short_plain_words() {
        assert_eq!(
            Rule::parse("P-SCA-4-3b").map(|rule| rule.id().to_owned()),
            Some("P-SCA-4-3b".into())
        );
        for bad in ["", "G 17", "G-17/keep", "é", &"A".repeat(23)] {
            assert_eq!(Rule::parse(bad), None, "{bad}");
        }
    }
}
