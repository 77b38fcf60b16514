//! Reading people's columns: one, or everybody's with every processor.

use std::{
    collections::HashMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use palmgate_protocol::{MemberId, Name, Secret};
use rayon::prelude::*;
use sled::Tree;

use crate::{
    error::{START_ANEW, VaultError},
    inner::Inner,
    keys::Person,
    people::{Column, PersonCipher},
    records::{Shelf, value},
};

/// People whose columns are read faster than another processor begins.
const READ_BY_ONE: usize = 16;
/// People whose places are computed faster than another processor begins.
const PLACED_BY_ONE: usize = 256;

/// What reading people's columns takes; several threads may share it.
#[derive(Clone, Copy)]
struct Reader<'a> {
    tenant: &'a Name,
    people: &'a HashMap<MemberId, Person>,
    rows: &'a Tree,
    path: &'a Path,
    failed: &'a AtomicBool,
}

/// One person's columns, while [`Vault::read_people`](crate::Vault::read_people) reads many people's.
pub struct PersonColumns<'a> {
    reader: Reader<'a>,
    member: MemberId,
    cipher: PersonCipher<'a>,
    stored: u16,
}

impl PersonColumns<'_> {
    /// Whose.
    pub const fn member(&self) -> MemberId {
        self.member
    }

    /// One of them; `None` where it is not there.
    ///
    /// # Errors
    /// The stored value is damaged, or is missing although it was written.
    pub fn read(&self, column: Column) -> Result<Option<Secret<Vec<u8>>>, VaultError> {
        let path = self.reader.path;
        let damaged =
            |what| VaultError::Damaged { path: path.to_path_buf(), what, remedy: START_ANEW };
        let stored = value(self.reader.rows, &self.cipher.place(column)).map_err(|source| {
            self.reader.failed.store(true, Ordering::Relaxed);
            VaultError::Records { path: path.to_path_buf(), source }
        })?;
        match stored {
            Some(sealed) => {
                let plain = self.cipher.open(column, &sealed);
                plain.map(Some).ok_or_else(|| damaged("a person's column does not open"))
            }
            None if self.stored & column.bit() != 0 => Err(damaged("a person's column is missing")),
            None => Ok(None),
        }
    }
}

impl<'a> Reader<'a> {
    fn columns(self, member: &'a MemberId) -> Option<PersonColumns<'a>> {
        let person = self.people.get(member)?;
        let cipher = PersonCipher::new(self.tenant, member, &person.seed);
        Some(PersonColumns { reader: self, member: *member, cipher, stored: person.columns })
    }
}

impl Inner {
    pub(crate) fn read(
        &self,
        member: &MemberId,
        column: Column,
    ) -> Result<Option<Secret<Vec<u8>>>, VaultError> {
        self.reader().columns(member).map_or(Ok(None), |columns| columns.read(column))
    }

    pub(crate) fn read_people<T: Send, E: Send>(
        &self,
        members: &[MemberId],
        read: impl Fn(&PersonColumns<'_>) -> Result<T, E> + Sync,
    ) -> Result<Vec<T>, E> {
        let reader = self.reader();
        let of = |member| reader.columns(member).map(|columns| read(&columns));
        members.par_iter().with_min_len(READ_BY_ONE).filter_map(of).collect()
    }

    /// Everybody, in the order in which their rows lie.
    pub(crate) fn members(&self) -> Vec<MemberId> {
        let people: Vec<_> = self.table.people.iter().collect();
        let placed = people.into_par_iter().with_min_len(PLACED_BY_ONE);
        let mut members: Vec<_> =
            placed.map(|(member, person)| (person.seed.group(), *member)).collect();
        members.sort_unstable();
        members.into_iter().map(|(_, member)| member).collect()
    }

    fn reader(&self) -> Reader<'_> {
        let (rows, path) = (self.records.tree(Shelf::People), self.records.path());
        let failed = self.records.failure();
        Reader { tenant: &self.tenant, people: &self.table.people, rows, path, failed }
    }
}
