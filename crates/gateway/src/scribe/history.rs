//! People's own histories.

use super::{Failure, Writer, report};
use palmgate_protocol::{
    MemberId, decode, encode_for_sealing, limits::MAX_HISTORY_ENTRIES, terminal::Use,
};
use palmgate_vault::Column;

impl Writer {
    /// Histories are written once a second: no scan waits for them.
    pub(super) fn write_uses(&mut self) {
        let mut histories: Vec<(MemberId, Vec<Use>)> = Vec::new();
        for (member, used) in std::mem::take(&mut self.uses) {
            if let Some((_, uses)) = histories.iter_mut().find(|(of, _)| *of == member) {
                self.add_use(uses, used);
            } else if let Ok(mut uses) = report("history", self.read_history(member)) {
                self.add_use(&mut uses, used);
                histories.push((member, uses));
            }
        }
        let sealed = |(member, uses): (MemberId, Vec<Use>)| {
            self.vault
                .contains(&member)
                .then(|| (member, Column::History, encode_for_sealing(&uses)))
        };
        let values: Vec<_> = histories.into_iter().filter_map(sealed).collect();
        if !values.is_empty() {
            let _ = report("history", self.vault.write_many(values).map_err(Failure::from));
        }
    }

    /// Only what a hold covers has to be there before an erasure.
    pub(super) fn write_uses_of(&mut self, member: MemberId) {
        let own = self.uses.extract_if(.., |(of, _)| *of == member).collect::<Vec<_>>();
        for (member, used) in own.into_iter().filter(|_| self.held.any()) {
            let _ = report("history", self.note_use(member, used));
        }
    }

    fn note_use(&self, member: MemberId, used: Use) -> Result<(), Failure> {
        let mut uses = self.read_history(member)?;
        self.add_use(&mut uses, used);
        if self.vault.contains(&member) {
            self.vault.write(&member, Column::History, encode_for_sealing(&uses).expose())?;
        }
        Ok(())
    }

    fn add_use(&self, uses: &mut Vec<Use>, used: Use) {
        let (oldest, mut room) = (used.at, MAX_HISTORY_ENTRIES - 1);
        uses.retain(|earlier| {
            let fits = oldest.since(earlier.at) < self.history && room > 0;
            room -= usize::from(fits);
            fits || self.held.covers(earlier)
        });
        uses.insert(0, used);
    }

    pub(super) fn read_history(&self, member: MemberId) -> Result<Vec<Use>, Failure> {
        let sealed = self.vault.read(&member, Column::History)?;
        Ok(sealed.map(|uses| decode(uses.expose())).transpose()?.unwrap_or_default())
    }
}
