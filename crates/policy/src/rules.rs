use std::fmt;

/// The id of a rule in the rulebook; `docs/rules.md` gives its source and words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rule(&'static str);

impl Rule {
    /// The id as written in the rulebook.
    pub const fn id(self) -> &'static str {
        self.0
    }

    /// The rule behind every erasure, for one that a crash cut off from its reason.
    pub const ERASURE: Self = G_17;
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $id:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: Rule = Rule($id);)*
        impl Rule {
            /// Every rule that this engine applies.
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
    /// A template of staff ends the day the authorisation ends.
    RET_04 = "RET-04";
    /// Purposes are a closed set and their templates apart.
    G_05_B = "G-05-B";
    /// No longer than needed.
    G_05_E = "G-05-E";
    /// The controller can prove the consent.
    G_07_1 = "G-07-1";
    /// Withdrawal at any time, as easily as giving.
    G_07_3 = "G-07-3";
    /// A child's consent.
    G_08 = "G-08";
    /// Explicit consent per purpose.
    G_09 = "G-09";
    /// Access by the person.
    G_15 = "G-15";
    /// Erasure.
    G_17 = "G-17";
    /// Restriction: stored but not used.
    G_18 = "G-18";
    /// Recipients are told.
    G_19 = "G-19";
    /// A human route; never "banned".
    G_22 = "G-22";
    /// Safe defaults.
    G_25_2 = "G-25-2";
    /// Employees under LIL Art. 44-4°.
    F_44 = "F-44";
    /// Staff: listed restricted zones only.
    C_RT_02 = "C-RT-02";
    /// Template only on the person's medium.
    C_RT_07A = "C-RT-07a";
    /// Template unusable without the person's secret.
    C_RT_07B = "C-RT-07b";
    /// Template under the operator's control, by exception.
    C_RT_07C = "C-RT-07c";
    /// Presentation attacks are refused.
    C_RT_10F = "C-RT-10f";
    /// A fallback without constraint.
    C_RT_10G = "C-RT-10g";
    /// The person triggers the scan.
    E_77 = "E-77";
    /// Templates made on the fly are deleted at once, match or not.
    E_79 = "E-79";
    /// Explicit means an express act: read, then confirm.
    E_CONS_2 = "E-CONS-2";
    /// Consent is refreshed.
    E_CONS_4 = "E-CONS-4";
    /// One-to-many false matches grow with the shard.
    I_1N = "I-1N";
    /// Block after failed tries.
    P_SCA_4_3B = "P-SCA-4-3b";
    /// Amount and payee are bound to the answer.
    P_SCA_5 = "P-SCA-5";
    /// Contactless exemption.
    P_SCA_11 = "P-SCA-11";
    /// No card number anywhere.
    P_PCI_1 = "P-PCI-1";
    /// Information when data comes from elsewhere.
    G_14 = "G-14";
    /// A shard whose revocations are stale locks itself.
    LEASE = "D-LEASE";
    /// A request belongs to its moment.
    FRESH = "D-FRESH";
}

#[cfg(test)]
mod tests {
    use super::Rule;

    #[test]
    fn rule_ids_are_unique() {
        let mut ids: Vec<_> = Rule::ALL.iter().map(|rule| rule.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Rule::ALL.len());
    }
}
