use crate::{compare::everyday, directory::ReadError};
use palmgate_ledger::{Entry, EntryKind};
use palmgate_policy::{
    Pack, Rule,
    pack::{Action, Policy},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead, BufReader},
    path::Path,
};

/// What another pack makes of a decision in the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reread {
    /// It would be the same: nothing that could decide it differs.
    Same,
    /// It would be another: why.
    Changes(String),
    /// It depends on facts that the ledger does not hold: policies and numbers that differ.
    Depends(Vec<String>),
    /// It was made under another pack than the one compared with.
    OtherPack,
}

/// A ledger read under another pack.
///
/// An entry holds when, where, for which purpose, the outcome and the rules that decided: no score,
/// no amount, no age, no dates of a consent. So a decision is never made again from an entry alone;
/// what can be said with certainty is that it stays, or that it changes; the rest is counted as
/// depending on those facts, with the policies that would have to be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// Entries read.
    pub entries: usize,
    /// Certainly the same.
    pub same: usize,
    /// Certainly different, by reason.
    pub changed: BTreeMap<String, usize>,
    /// Depending on facts that are not in the ledger, by the policies that differ.
    pub depends: BTreeMap<String, usize>,
    /// Made under a pack that is neither of the two.
    pub other_pack: usize,
}

/// Reads entries, made under `old`, as `new` would have it.
pub fn replay(old: &Pack, new: &Pack, entries: impl IntoIterator<Item = Entry>) -> Replay {
    let mut replay = Replay::default();
    for entry in entries {
        replay.count(old, new, &entry);
    }
    replay
}

/// Reads the ledger in a directory, made under `old`, as `new` would have it. Whether the ledger
/// itself holds is for `palmgate audit verify` to say.
///
/// # Errors
/// [`ReadError::File`] with the file, and the line of an entry that is none.
pub fn replay_ledger(old: &Pack, new: &Pack, directory: &Path) -> Result<Replay, ReadError> {
    let directory = directory.join("entries");
    let error = |path: &Path, cause| ReadError::File { path: path.display().to_string(), cause };
    let files = fs::read_dir(&directory).map_err(|cause| error(&directory, cause))?;
    let mut files = files
        .map(|file| file.map(|file| file.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|cause| error(&directory, cause))?;
    files.sort();
    let mut replay = Replay::default();
    for path in files {
        let file = File::open(&path).map_err(|cause| error(&path, cause))?;
        for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
            let line = line.map_err(|cause| error(&path, cause))?;
            let entry = Entry::parse(&line).map_err(|cause| {
                error(&path, std::io::Error::other(format!("line {}: {cause}", number + 1)))
            })?;
            replay.count(old, new, &entry);
        }
    }
    Ok(replay)
}

impl Replay {
    fn count(&mut self, old: &Pack, new: &Pack, entry: &Entry) {
        self.entries += 1;
        match reread(old, new, entry) {
            Reread::Same => self.same += 1,
            Reread::Changes(why) => *self.changed.entry(why).or_default() += 1,
            Reread::Depends(on) => *self.depends.entry(on.join(", ")).or_default() += 1,
            Reread::OtherPack => self.other_pack += 1,
        }
    }
}

/// The acts that decide an entry of a kind.
const fn acts(kind: EntryKind) -> &'static [Action] {
    match kind {
        EntryKind::Scan => {
            &[Action::Capture, Action::Compare, Action::Recognise, Action::Escalate, Action::Answer]
        }
        EntryKind::Enrolment => &[Action::Enrol, Action::Compare],
        EntryKind::Consent | EntryKind::Right => {
            &[Action::Capture, Action::Compare, Action::Recognise, Action::Exercise]
        }
        EntryKind::Erasure | EntryKind::Retention => &[Action::Keep, Action::Exercise],
        EntryKind::Shard => &[Action::Adopt],
        EntryKind::Escalation => &[Action::Escalate],
        EntryKind::Terminal
        | EntryKind::Pack
        | EntryKind::Update
        | EntryKind::Model
        | EntryKind::Operation => &[],
    }
}

fn reread(old: &Pack, new: &Pack, entry: &Entry) -> Reread {
    if entry.pack != old.hash() {
        return Reread::OtherPack;
    }
    if let Some(purpose) = entry.purpose
        && entry.outcome == "accepted"
        && !everyday(new).purposes().contains(purpose)
    {
        return Reread::Changes(format!("{purpose} has no basis any more (G-06)"));
    }
    let acts = acts(entry.kind);
    let about = |policy: &&Policy| policy.actions.iter().any(|action| acts.contains(action));
    let cited = |policy: &&Policy| entry.rules.iter().any(|rule| *rule == policy.rule.id());
    let allowed = matches!(
        entry.outcome.as_str(),
        "accepted" | "enrolled" | "adopted" | "history" | "paused" | "resumed" | "withdrawn"
    );
    let mut differ: Vec<String> = Vec::new();
    let mut note = |name: String| {
        if !differ.contains(&name) {
            differ.push(name);
        }
    };
    // What was allowed is denied by any new or changed prohibition, or when its permission differs;
    // what was denied is allowed only when what denied it differs.
    for policy in old.policies().filter(about) {
        let matters = if allowed { policy.forbids || cited(&policy) } else { cited(&policy) };
        let changed = old.source(&policy.id) != new.source(&policy.id);
        // A prohibition that is gone denies nothing that was allowed.
        let gone = new.source(&policy.id).is_none() && policy.forbids && allowed;
        if matters && changed && !gone {
            note(policy.id.clone());
        }
    }
    for policy in new.policies().filter(about) {
        if allowed && policy.forbids && old.source(&policy.id).is_none() {
            note(policy.id.clone());
        }
    }
    for (name, number) in old.numbers() {
        let after = new.number(name);
        let changed = after.is_none_or(|after| {
            (after.value, after.least, after.most) != (number.value, number.least, number.most)
        });
        if changed && (allowed || cites(entry, number.rule)) {
            note(format!("number {name}"));
        }
    }
    if differ.is_empty() { Reread::Same } else { Reread::Depends(differ) }
}

fn cites(entry: &Entry, rule: Rule) -> bool {
    entry.rules.iter().any(|cited| cited == rule.id())
}
