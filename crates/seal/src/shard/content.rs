//! What is in a shard that opened: a publisher's signature says who made the rows, not that they
//! are sound.

use super::Opened;
use palmgate_protocol::{
    ClaimHandle, MemberId, Purpose, TEMPLATE_FORMAT, Template, TemplateError, cloud::MemberRecord,
};
use std::collections::{BTreeMap, HashSet};

/// People of the shard that each template is held against.
const PROBES: usize = 32;
/// Strangers among them that a template may match: one is a relative or chance, and nobody matches
/// a tenth of all. At an accepted false match rate of 1 in 100,000, three of 32 are 10,000 times a
/// template's share.
const STRANGERS: usize = 2;

/// A row that must not come into force. Rows are counted from 0 through all chunks; nobody is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// More people than the manifest promises, or, in a whole shard, fewer.
    #[error("the shard adds {found} people, its manifest speaks of {listed}")]
    Rows {
        /// People added.
        found: u64,
        /// People in the manifest.
        listed: u64,
    },
    /// The same person, or the same claim, twice.
    #[error("row {0} repeats a person or a claim")]
    Repeated(usize),
    /// Added and removed at once.
    #[error("row {0} is added and removed by the same shard")]
    Contradiction(usize),
    /// Two templates of one hand for one purpose.
    #[error("row {0} has two templates of one hand for one purpose")]
    TwoTemplates(usize),
    /// A template format that this version cannot compare.
    #[error("row {row} has templates of format {found}, {TEMPLATE_FORMAT} is known")]
    Format {
        /// The row.
        row: usize,
        /// Its format.
        found: u16,
    },
    /// Not a template: wrong dimensions, or not of unit length.
    #[error("row {row}: {source}")]
    Template {
        /// The row.
        row: usize,
        /// What is wrong.
        source: TemplateError,
    },
    /// A template that matches people it is not of: it would open every door.
    #[error("row {row} matches {strangers} of {probes} other people: it is nobody's hand")]
    Wolf {
        /// The row.
        row: usize,
        /// How many strangers it matches.
        strangers: usize,
        /// How many it was held against.
        probes: usize,
    },
}

/// Checks every row of an opened shard before any of them comes into force. `matches` says whether
/// two templates of one purpose and tenant would be taken for the same hand; it is asked about each
/// template and at most 32 others.
///
/// # Errors
/// [`ContentError`] names the first row that is not sound; the shard in force stays in force.
pub fn inspect(
    opened: &Opened,
    matches: &mut dyn FnMut(&Template, &Template) -> bool,
) -> Result<(), ContentError> {
    let rows: Vec<&MemberRecord> = opened.chunks.iter().flat_map(|chunk| &chunk.add).collect();
    let (found, listed) = (rows.len() as u64, opened.manifest.rows);
    if found > listed || (opened.manifest.base == 0 && found < listed) {
        return Err(ContentError::Rows { found, listed });
    }
    let removed: HashSet<MemberId> =
        opened.chunks.iter().flat_map(|chunk| chunk.remove.iter().copied()).collect();
    let mut seen: (HashSet<MemberId>, HashSet<ClaimHandle>) = Default::default();
    let mut templates: BTreeMap<Purpose, Vec<(usize, Template)>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        if !seen.0.insert(row.member) || !seen.1.insert(row.claim) {
            return Err(ContentError::Repeated(index));
        }
        // A delta replaces people; a whole shard has nobody to remove.
        if opened.manifest.base == 0 && removed.contains(&row.member) {
            return Err(ContentError::Contradiction(index));
        }
        if row.format != TEMPLATE_FORMAT {
            return Err(ContentError::Format { row: index, found: row.format });
        }
        let mut hands = HashSet::new();
        for one in &row.templates {
            if !hands.insert((one.purpose, one.hand)) {
                return Err(ContentError::TwoTemplates(index));
            }
            let template = Template::from_bytes(one.template.expose())
                .map_err(|source| ContentError::Template { row: index, source })?;
            templates.entry(one.purpose).or_default().push((index, template));
        }
    }
    templates.values().try_for_each(|rows| no_wolves(rows, matches))
}

fn no_wolves(
    rows: &[(usize, Template)],
    matches: &mut dyn FnMut(&Template, &Template) -> bool,
) -> Result<(), ContentError> {
    let step = rows.len().div_ceil(PROBES).max(1);
    let probes: Vec<_> = rows.iter().step_by(step).collect();
    for (row, template) in rows {
        let strangers: HashSet<usize> = probes
            .iter()
            .filter(|(other, probe)| other != row && matches(template, probe))
            .map(|(other, _)| *other)
            .collect();
        if strangers.len() > STRANGERS {
            let (strangers, probes) = (strangers.len(), probes.len());
            return Err(ContentError::Wolf { row: *row, strangers, probes });
        }
    }
    Ok(())
}
