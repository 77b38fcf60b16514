use crate::{Command, Engine, engine::Terminal, scan::ScanWork};
use minicbor::{Decode, Encode};
use palmgate_protocol::{ClaimHandle, Name, Purpose, Timestamp};

/// Claims whose failed tries are remembered at once; the oldest gives way.
const MAX_TRIED_CLAIMS: usize = 4_096;

/// Failed tries in a row (RTS on SCA Art. 4(3)(b)).
#[derive(Clone, Copy, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Tries {
    /// How many.
    #[n(0)]
    pub(crate) failed: u8,
    /// When the last one was.
    #[n(1)]
    pub(crate) last: Option<Timestamp>,
}

/// Failed tries that still count, as they are kept over a restart.
#[derive(Clone, Default, Encode, Decode)]
pub struct FailedTries {
    /// Against claims.
    #[n(0)]
    pub(crate) claims: Vec<(ClaimHandle, Tries)>,
    /// At readers for payments.
    #[n(1)]
    pub(crate) readers: Vec<(Name, Tries)>,
}

impl Engine {
    pub(crate) fn load_tries(&mut self, kept: FailedTries) {
        self.tries = kept.claims.into_iter().collect();
        self.reader_tries = kept.readers.into_iter().collect();
    }

    /// A terminal that is known from now on, with the tries that failed there before a restart.
    pub(crate) fn know_terminal(&mut self, facts: crate::TerminalFacts) {
        let tries = self.reader_tries.remove(&facts.name).unwrap_or_default();
        self.terminals.insert(facts.name.clone(), Terminal { facts, tries });
    }

    /// Failed tries in a row that still count.
    pub(crate) fn recent(&self, tries: Tries, now: Timestamp) -> u8 {
        let recent = tries.last.is_some_and(|last| now.since(last) < self.settings.block);
        if recent { tries.failed } else { 0 }
    }

    /// Notes that a comparison failed: against the claim, and for payments against the reader.
    pub(crate) fn note_failure(&mut self, scan: &ScanWork, now: Timestamp) -> Option<Command> {
        let block = self.settings.block;
        let note = |tries: &mut Tries| {
            if tries.last.is_none_or(|last| now.since(last) >= block) {
                tries.failed = 0;
            }
            tries.failed = tries.failed.saturating_add(1);
            tries.last = Some(now);
        };
        let claim = scan.claim.as_ref();
        if let Some(claim) = claim {
            self.tries.retain(|_, tries| tries.last.is_some_and(|last| now.since(last) < block));
            if self.tries.len() >= MAX_TRIED_CLAIMS {
                let oldest = self.tries.iter().min_by_key(|(_, tries)| tries.last);
                if let Some(handle) = oldest.map(|(handle, _)| *handle) {
                    self.tries.remove(&handle);
                }
            }
            note(self.tries.entry(claim.handle).or_default());
        }
        let paying = scan.intent.purpose() == Some(Purpose::Pay);
        let reader = self.terminals.get_mut(&scan.terminal).filter(|_| paying);
        let noted = claim.is_some() || reader.is_some();
        if let Some(terminal) = reader {
            note(&mut terminal.tries);
        }
        noted.then(|| self.keep_tries())
    }

    pub(crate) fn note_success(&mut self, scan: &ScanWork) -> Option<Command> {
        let claim = scan.claim.as_ref().and_then(|claim| self.tries.remove(&claim.handle));
        let reader = self.terminals.get_mut(&scan.terminal);
        let reader = reader.map(|terminal| std::mem::take(&mut terminal.tries));
        let cleared = claim.is_some() || reader.is_some_and(|tries| tries != Tries::default());
        cleared.then(|| self.keep_tries())
    }

    /// Nothing about a claim that has ended is kept.
    pub(crate) fn forget_tries(&mut self, claim: &ClaimHandle) -> Option<Command> {
        self.tries.remove(claim).map(|_| self.keep_tries())
    }

    fn keep_tries(&self) -> Command {
        let terminals = self.terminals.iter().map(|(name, terminal)| (name, &terminal.tries));
        let readers = self.reader_tries.iter().chain(terminals);
        let readers = readers.filter(|(_, tries)| tries.failed > 0);
        Command::KeepTries(FailedTries {
            claims: self.tries.iter().map(|(claim, tries)| (*claim, *tries)).collect(),
            readers: readers.map(|(name, tries)| (name.clone(), *tries)).collect(),
        })
    }
}
