//! Who has sessions in the store, as the gateway signed it: the terminal sends pictures only where
//! nobody listens whom the list does not name.

use crate::TerminalError;
use minicbor::{Decode, Encode};
use palmgate_protocol::{
    Name, Roster, RosterMember, SignedRoster, limits::MAX_TERMINALS, topic::GATEWAY,
};
use palmgate_seal::{
    mls::{MlsError, Session},
    pki::{self, Identity},
    roster::{self, RosterError},
};
use std::{fmt::Write, sync::Arc};

/// Answers without a roster, from a gateway that has given one before, until it is called missing.
const PATIENCE: u8 = 3;

/// The store's roster, after the terminal has checked it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreRoster {
    /// Everybody who has a session in the store.
    pub roster: Roster,
    /// SHA-256 of what the gateway signed: the same at every terminal, in the store's ledger, and in
    /// `palmgate terminal list`.
    pub hash: [u8; 32],
}

impl StoreRoster {
    /// The hash in hexadecimal, as `palmgate terminal list` shows it.
    pub fn hash_text(&self) -> String {
        self.hash.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }
}

/// Why the store's roster does not hold. No picture is sent until another one does.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RosterFault {
    /// It is not what this session's gateway signed.
    #[error("{0}")]
    Unusable(#[from] RosterError),
    /// It is about another store.
    #[error("it is of the store {0}")]
    OfAnotherStore(Name),
    /// The terminal has seen a later one.
    #[error("it has the number {came}, and {kept} came before")]
    Older {
        /// The sequence of the roster that came.
        came: u64,
        /// The highest that the terminal has seen.
        kept: u64,
    },
    /// The gateway signed two with one sequence.
    #[error("there are two different ones with the number {0}")]
    Two(u64),
    /// It has more members than a store may have, or one twice.
    #[error("it has a member twice, or too many")]
    Members,
    /// This terminal is not on it, or with another certificate.
    #[error("this terminal is not on it with its certificate")]
    NotListed,
    /// The gateway of this session is not on it.
    #[error("the gateway is not on it with its key")]
    OtherGateway,
    /// The session has a member beside this terminal and the gateway, or lacks one.
    #[error("the session has other members than this terminal and the gateway")]
    Listener,
    /// The gateway gave rosters before and gives none any more.
    #[error("the gateway has given one before and gives none any more")]
    Missing,
}

/// What the terminal keeps on its disk of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Kept {
    #[n(0)]
    pub(crate) sequence: u64,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) hash: [u8; 32],
}

/// What is known in this session.
pub(crate) type Shown = Result<Option<Arc<StoreRoster>>, RosterFault>;

/// The rosters of one terminal's gateway.
#[derive(Default)]
pub(crate) struct Rosters {
    /// The terminal's store.
    store: Option<Name>,
    kept: Option<Kept>,
    unsaved: bool,
    /// Answers of this session without one.
    without: u8,
    /// `None` until this session's gateway has said something.
    shown: Option<Shown>,
}

impl Rosters {
    pub(crate) const fn new(store: Name, kept: Option<Kept>) -> Self {
        Self { store: Some(store), kept, unsaved: false, without: 0, shown: None }
    }

    /// The session is another.
    pub(crate) fn begin(&mut self) {
        (self.without, self.shown) = (0, None);
    }

    /// Whether pictures may be sent; `None` until that is known.
    pub(crate) fn allows(&self) -> Option<bool> {
        self.shown.as_ref().map(Result::is_ok)
    }

    pub(crate) fn fault(&self) -> Option<TerminalError> {
        let fault = self.shown.as_ref()?.as_ref().err()?;
        Some(TerminalError::Roster(fault.clone()))
    }

    pub(crate) fn shown(&self) -> Shown {
        self.shown.clone().unwrap_or(Ok(None))
    }

    /// The sequence that requests name.
    pub(crate) fn sequence(&self) -> u64 {
        let shown = self.shown.as_ref().and_then(|shown| shown.as_ref().ok());
        shown.and_then(|shown| shown.as_ref()).map_or(0, |shown| shown.roster.sequence)
    }

    /// What has to be on the disk before anything is sent.
    pub(crate) fn take_unsaved(&mut self) -> Option<Kept> {
        std::mem::take(&mut self.unsaved).then_some(self.kept).flatten()
    }

    /// An answer came without one to a question that names none. Returns whether to ask again.
    pub(crate) fn none_came(&mut self) -> bool {
        if self.shown.is_some() {
            return false;
        }
        self.without += 1;
        match self.kept {
            // A gateway of before rosters.
            None => self.shown = Some(Ok(None)),
            Some(_) if self.without < PATIENCE => return true,
            Some(_) => self.shown = Some(Err(RosterFault::Missing)),
        }
        false
    }

    /// One came over this session.
    pub(crate) fn came(&mut self, signed: &SignedRoster, session: &Session, own: &Identity) {
        let checked = self.check(signed, session, own);
        if let Ok(checked) = &checked {
            let kept = Kept { sequence: checked.roster.sequence, hash: checked.hash };
            self.unsaved |= self.kept.replace(kept) != Some(kept);
        }
        self.shown = Some(checked.map(|checked| Some(Arc::new(checked))));
    }

    fn check(
        &self,
        signed: &SignedRoster,
        session: &Session,
        own: &Identity,
    ) -> Result<StoreRoster, RosterFault> {
        let ended = |_: MlsError| RosterFault::Listener;
        let (peer, group) =
            (session.peer_key().map_err(ended)?, session.certificates().map_err(ended)?);
        let roster = roster::open(signed, &peer)?;
        let hash = roster::hash(signed);
        if self.store.as_ref().is_some_and(|store| *store != roster.store) {
            return Err(RosterFault::OfAnotherStore(roster.store));
        }
        self.follows(roster.sequence, &hash)?;
        check_names(&roster.members)?;
        let certificate = pki::fingerprint(own.certificate_der());
        let listed = roster.find(&own.name()).is_some_and(|own| own.has(&certificate));
        if !listed {
            return Err(RosterFault::NotListed);
        }
        check_group(&group, &certificate)?;
        let gateway = roster.members.iter().find(|member| member.name.as_str() == GATEWAY);
        if gateway.and_then(|gateway| gateway.key.as_deref()) != Some(&peer.0) {
            return Err(RosterFault::OtherGateway);
        }
        Ok(StoreRoster { roster, hash })
    }

    /// Whether it is the last one that was seen, or a later one.
    fn follows(&self, came: u64, hash: &[u8; 32]) -> Result<(), RosterFault> {
        match self.kept {
            Some(Kept { sequence: kept, .. }) if came < kept => {
                Err(RosterFault::Older { came, kept })
            }
            Some(kept) if came == kept.sequence && kept.hash != *hash => {
                Err(RosterFault::Two(came))
            }
            _ => Ok(()),
        }
    }
}

fn check_names(members: &[RosterMember]) -> Result<(), RosterFault> {
    let mut names: Vec<_> = members.iter().map(|member| &member.name).collect();
    names.sort_unstable();
    if members.len() > MAX_TERMINALS + 1 || !names.is_sorted_by(|a, b| a < b) {
        return Err(RosterFault::Members);
    }
    Ok(())
}

/// Of the group only this terminal and the one whose key signed the roster may be.
fn check_group(group: &[[u8; 32]], own: &[u8; 32]) -> Result<(), RosterFault> {
    match group {
        [a, b] if (a == own) != (b == own) => Ok(()),
        _ => Err(RosterFault::Listener),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_with_a_silent_third_member_is_refused() {
        let (own, gateway, third) = ([1; 32], [2; 32], [3; 32]);
        assert_eq!(check_group(&[gateway, own], &own), Ok(()));
        for group in [&[gateway, own, third][..], &[own], &[gateway, third], &[own, own], &[]] {
            assert_eq!(check_group(group, &own), Err(RosterFault::Listener));
        }
    }

    #[test]
    fn the_number_never_goes_back_and_means_one_list() {
        let kept = Kept { sequence: 7, hash: [7; 32] };
        let rosters = Rosters::new("lyon".parse().unwrap(), Some(kept));
        assert_eq!(rosters.follows(7, &[7; 32]), Ok(()));
        assert_eq!(rosters.follows(8, &[8; 32]), Ok(()));
        assert_eq!(rosters.follows(7, &[8; 32]), Err(RosterFault::Two(7)));
        let older = Err(RosterFault::Older { came: 6, kept: 7 });
        assert_eq!(rosters.follows(6, &[7; 32]), older);
    }

    #[test]
    fn a_gateway_that_stops_giving_rosters_is_found_out_and_one_of_before_is_not_blamed() {
        let mut before = Rosters::default();
        assert!(before.allows().is_none() && !before.none_came());
        assert_eq!(before.shown(), Ok(None));
        assert_eq!(before.allows(), Some(true));
        let kept = Kept { sequence: 1, hash: [1; 32] };
        let mut rosters = Rosters::new("lyon".parse().unwrap(), Some(kept));
        assert!(rosters.none_came() && rosters.none_came() && !rosters.none_came());
        assert_eq!(rosters.shown(), Err(RosterFault::Missing));
        rosters.begin();
        assert_eq!(rosters.allows(), None, "the next session is asked anew");
    }

    #[test]
    fn nobody_is_listed_twice() {
        let member = |name: &str| RosterMember {
            name: name.parse().unwrap(),
            certificates: Vec::new(),
            key: None,
            purposes: palmgate_protocol::PurposeSet::default(),
            enrols: false,
        };
        assert_eq!(check_names(&[member("gateway"), member("a")]), Ok(()));
        let twice = check_names(&[member("a"), member("gateway"), member("a")]);
        assert_eq!(twice, Err(RosterFault::Members));
    }
}
