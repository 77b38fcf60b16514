//! Open references in memory: which row of the gallery is whose. `operator` custody only.

use palmgate_gallery::{Fusion, Gallery, GalleryError, RowId};
use palmgate_policy::Match;
use palmgate_protocol::{Hand, MemberId, Probe, Purpose, PurposeSet, Template};
use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

/// The gallery and its owners.
pub(crate) struct References {
    fusion: Fusion,
    inner: RwLock<Inner>,
}

struct Inner {
    gallery: Gallery,
    owners: HashMap<RowId, (MemberId, Purpose)>,
    rows: HashMap<MemberId, Vec<(RowId, Purpose, Hand)>>,
    next: u64,
}

impl References {
    pub(crate) fn new(fusion: Fusion) -> Self {
        let inner = Inner {
            gallery: Gallery::new(),
            owners: HashMap::new(),
            rows: HashMap::new(),
            next: 0,
        };
        Self { fusion, inner: RwLock::new(inner) }
    }

    pub(crate) const fn fusion(&self) -> &Fusion {
        &self.fusion
    }

    /// Adds or replaces one reference.
    pub(crate) fn put(
        &self,
        member: MemberId,
        purpose: Purpose,
        hand: Hand,
        template: &Template,
    ) -> Result<(), GalleryError> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remove_if(member, |of, which| of == purpose && which == hand);
        let row = RowId(inner.next);
        inner.gallery.insert(row, purpose, template)?;
        inner.next += 1;
        inner.owners.insert(row, (member, purpose));
        inner.rows.entry(member).or_default().push((row, purpose, hand));
        Ok(())
    }

    /// Wipes every reference of a person.
    pub(crate) fn remove(&self, member: MemberId) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remove_if(member, |_, _| true);
    }

    /// Wipes a person's references for some purposes.
    pub(crate) fn remove_purposes(&self, member: MemberId, purposes: PurposeSet) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remove_if(member, |of, _| purposes.contains(of));
    }

    /// Searches the compartment of each probe; the best candidates, best first.
    pub(crate) fn identify(&self, probes: &[(Purpose, Probe)]) -> Vec<Match> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let mut matches: Vec<Match> = probes
            .iter()
            .flat_map(|(purpose, probe)| inner.gallery.identify(*purpose, probe, &self.fusion))
            .filter_map(|found| {
                let (member, purpose) = *inner.owners.get(&found.row)?;
                Some(Match { member, purpose, score: found.score })
            })
            .collect();
        matches.sort_by(|a, b| b.score.total_cmp(&a.score));
        matches
    }

    /// Rows in memory.
    pub(crate) fn len(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).owners.len()
    }
}

impl Inner {
    fn remove_if(&mut self, member: MemberId, goes: impl Fn(Purpose, Hand) -> bool) {
        let Some(rows) = self.rows.get_mut(&member) else { return };
        for (row, _, _) in rows.extract_if(.., |(_, purpose, hand)| goes(*purpose, *hand)) {
            self.gallery.remove(row);
            self.owners.remove(&row);
        }
        if rows.is_empty() {
            self.rows.remove(&member);
        }
    }
}

/// How the calibration of the models weighs embeddings and codes.
pub(crate) fn calibrated() -> Fusion {
    let calibration = palmgate_palm::calibration();
    Fusion {
        embedding_weight: calibration.embedding_weight,
        code_weight: calibration.code_weight,
        shortlist: calibration.shortlist,
    }
}

/// Whether two references would be taken for the same hand at the laxest threshold that decides.
pub(crate) fn alike(one: &Template, other: &Template) -> bool {
    let threshold = palmgate_palm::calibration().threshold(1e-4).unwrap_or(f32::INFINITY);
    palmgate_gallery::resemblance(one, other, &calibrated()) >= threshold
}
