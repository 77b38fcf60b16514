//! People: taken in, changed, given by the cloud, without a purpose.

use super::{Done, Failure, Writer};
use crate::{
    cloud::{Outgoing, ShardHeld},
    records::Columns,
};
use palmgate_policy::Profile;
use palmgate_protocol::{
    ClaimHandle, MemberId, Timestamp, cloud::ShardApplied, encode, encode_for_sealing,
};
use palmgate_vault::{Column, NewPerson};

impl Writer {
    pub(super) fn insert(
        &mut self,
        people: Vec<(MemberId, ClaimHandle, Columns)>,
        registration: Option<Vec<u8>>,
    ) -> Result<(), Failure> {
        let mut new = Vec::with_capacity(people.len());
        let mut changed = Vec::new();
        for (member, claim, columns) in people {
            if self.vault.contains(&member) {
                changed.extend(columns.into_iter().map(|(column, value)| (member, column, value)));
            } else {
                new.push(NewPerson { member, claim, columns });
            }
        }
        if !changed.is_empty() {
            self.vault.write_many(changed)?;
        }
        if !new.is_empty() {
            self.vault.insert(new)?;
        }
        if let Some(registration) = registration {
            self.vault.outbox_push(&registration)?;
            (self.done)(Done::Told);
        }
        Ok(())
    }

    pub(super) fn adopt_shard(
        &mut self,
        version: u64,
        manifest_hash: [u8; 32],
        lease_until: Timestamp,
        people: Vec<(MemberId, ClaimHandle, Columns)>,
    ) -> Result<(), Failure> {
        self.insert(people, None)?;
        let held = ShardHeld { version, manifest_hash, lease_until };
        self.vault.put_state("shard", &encode(&held))?;
        self.vault.outbox_push(&encode(&Outgoing::Applied(ShardApplied { version })))?;
        Ok(())
    }

    pub(super) fn update(&self, member: MemberId, profile: &Profile) -> Result<(), Failure> {
        let profile = encode_for_sealing(profile);
        Ok(self.vault.write(&member, Column::Profile, profile.expose())?)
    }

    /// The person gets a new key: what belonged to the purposes stays behind under the old one.
    pub(super) fn withdraw(
        &mut self,
        member: MemberId,
        gone: Vec<Column>,
        changed: Columns,
        registration: Option<Vec<u8>>,
    ) -> Result<(), Failure> {
        let changed: Vec<_> =
            changed.into_iter().map(|(column, value)| (member, column, value)).collect();
        self.vault.write_many(changed)?;
        self.vault.forget_columns(&[(member, gone)])?;
        if let Some(registration) = registration {
            self.vault.outbox_push(&registration)?;
            (self.done)(Done::Told);
        }
        Ok(())
    }
}
