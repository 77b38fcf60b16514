//! The store's roster: who has sessions, the same list for every terminal. Its sequence is durable
//! before anybody is given it, so that it never goes back.

use super::{List, Terminal, Terminals};
use crate::store::Input;
use minicbor::{Decode, Encode};
use palmgate_protocol::{
    Name, PurposeSet, Roster, RosterMember, SignedRoster, Timestamp,
    limits::{MAX_ROSTER_BYTES, MAX_ROSTER_CERTIFICATES},
};
use palmgate_seal::{
    pki::{self, Identity},
    roster,
};
use std::sync::Arc;

/// What the vault keeps of the roster that was given last.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Given {
    #[n(0)]
    sequence: u64,
    #[n(1)]
    at: Timestamp,
    /// SHA-256 of its members: whether another is due.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    members: [u8; 32],
}

impl Given {
    const fn times(self) -> (u64, Timestamp) {
        (self.sequence, self.at)
    }
}

/// The roster in force.
pub(crate) struct Current {
    pub(crate) sequence: u64,
    pub(crate) at: Timestamp,
    /// SHA-256 of its bytes, which people and the ledger compare.
    pub(crate) hash: [u8; 32],
    pub(crate) signed: SignedRoster,
}

impl Terminals {
    /// The roster in force.
    pub(crate) fn roster(&self) -> Option<Arc<Current>> {
        self.roster.borrow().clone()
    }

    /// Takes note of the certificate behind a serial number, which lists from before rosters lack.
    pub(crate) fn learn(&self, name: &Name, serial: &[u8], certificate: [u8; 32]) {
        let unknown = |list: &mut List| {
            list.find(name).is_some_and(|terminal| terminal.certificate_of(serial).is_none())
        };
        if !unknown(&mut self.lock()) {
            return;
        }
        let learned = self.change(|list| {
            if let Some(terminal) = list.find(name) {
                terminal.learn(serial, certificate);
            }
        });
        if let Err(error) = learned {
            tracing::error!(terminal = %name, %error, "its certificate could not be noted");
        }
    }

    /// The roster of this list; the list takes note of it, and has to be kept before it is shown.
    pub(super) fn roster_of(&self, list: &mut List) -> Arc<Current> {
        let own = self.own();
        let (sequence, at) = list.roster.map_or((0, Timestamp::from_millis(0)), Given::times);
        let members = members(&own, &list.terminals);
        let mut current = Roster { store: self.options.store.clone(), sequence, at, members };
        let digest = roster::members_hash(&current);
        if list.roster.is_none_or(|given| given.members != digest) {
            (current.sequence, current.at) = (sequence + 1, self.options.clock.now());
        }
        let Roster { sequence, at, .. } = current;
        list.roster = Some(Given { sequence, at, members: digest });
        let signed = roster::sign(&current, &own.signing_key());
        debug_assert!(signed.roster.len() <= MAX_ROSTER_BYTES);
        Arc::new(Current { sequence, at, hash: roster::hash(&signed), signed })
    }

    /// Puts a roster in force that is durable.
    pub(super) fn show_roster(&self, current: Arc<Current>) {
        let hash = current.hash;
        let changed = self.roster.send_if_modified(|shown| {
            let changed = shown.as_ref().is_none_or(|shown| shown.sequence < current.sequence);
            if changed {
                *shown = Some(current);
            }
            changed
        });
        if changed {
            let _ = self.options.inputs.send(Input::Roster(hash));
        }
    }
}

fn members(own: &Identity, terminals: &[Terminal]) -> Vec<RosterMember> {
    let gateway = RosterMember {
        name: own.name(),
        certificates: vec![pki::fingerprint(own.certificate_der()).into()],
        key: Some(own.verifying_key().0.into()),
        purposes: PurposeSet::default(),
        enrols: false,
    };
    let mut terminals: Vec<_> = terminals.iter().map(Terminal::in_roster).collect();
    terminals.sort_by(|a, b| a.name.cmp(&b.name));
    [gateway].into_iter().chain(terminals).collect()
}

impl Terminal {
    fn in_roster(&self) -> RosterMember {
        let earlier = self.earlier.iter().filter_map(|one| one.certificate);
        let certificates = self.certificate.into_iter().chain(earlier);
        RosterMember {
            name: self.name.clone(),
            certificates: certificates.take(MAX_ROSTER_CERTIFICATES).collect(),
            key: None,
            purposes: self.purposes,
            enrols: self.enrols,
        }
    }

    /// SHA-256 of the certificate with this serial number, if it is one of the terminal's and known.
    fn certificate_of(&self, serial: &[u8]) -> Option<[u8; 32]> {
        if self.serial == serial {
            return self.certificate.map(Into::into);
        }
        let earlier = self.earlier.iter().find(|one| one.serial.as_slice() == serial);
        earlier?.certificate.map(Into::into)
    }

    fn learn(&mut self, serial: &[u8], certificate: [u8; 32]) {
        if self.serial == serial {
            self.certificate = Some(certificate.into());
        }
        let earlier = self.earlier.iter_mut().find(|one| one.serial.as_slice() == serial);
        if let Some(earlier) = earlier {
            earlier.certificate = Some(certificate.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use palmgate_protocol::DAY;
    use palmgate_seal::pki::{Authority, Role};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    #[test]
    fn a_terminal_is_listed_with_every_certificate_that_it_may_use() {
        let authority = Authority::generate("store", NOW).unwrap();
        let name: Name = "till-1".parse().unwrap();
        let issue = |days: u32| {
            let csr = Identity::generate().csr_der();
            authority.issue(&csr, &name, Role::Client, NOW, DAY * days).unwrap()
        };
        let (first, second) = (issue(30), issue(60));
        // A list from before rosters knows serial numbers only.
        let mut till = Terminal {
            name: name.clone(),
            purposes: PurposeSet::default(),
            enrols: false,
            serial: first.serial.clone(),
            not_after: first.not_after,
            earlier: Vec::new(),
            sensors: Vec::new(),
            certificate: None,
        };
        let [one, two] = [&first, &second].map(|issued| pki::fingerprint(&issued.der));
        assert!(till.in_roster().certificates.is_empty());
        till.learn(&first.serial, one);
        assert_eq!(till.certificate_of(&first.serial), Some(one));
        till.renewed(&second);
        let listed = till.in_roster();
        assert!(listed.has(&one) && listed.has(&two), "until it has told which one it uses");
        till.settle(&second.serial).unwrap();
        let listed = till.in_roster();
        assert!(!listed.has(&one) && listed.has(&two));
    }
}
