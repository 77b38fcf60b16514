//! A medium that forgets nothing: every change that the kernel hands down, sled's included, is kept
//! in order. From that, what a power cut after any of them leaves can be told, and what a flash
//! controller may have kept.

mod mount;

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use super::Machine;

pub(crate) use mount::{Fault, Medium};

/// The number of the root directory.
const ROOT: u64 = 1;

/// One change that reached the file system.
#[derive(Clone)]
pub(crate) enum Change {
    Create {
        node: u64,
        parent: u64,
        name: OsString,
        directory: bool,
    },
    Write {
        node: u64,
        offset: u64,
        bytes: Arc<[u8]>,
    },
    Resize {
        node: u64,
        length: u64,
    },
    Link {
        node: u64,
        parent: u64,
        name: OsString,
    },
    Rename {
        parent: u64,
        name: OsString,
        to: u64,
        new_name: OsString,
    },
    Remove {
        parent: u64,
        name: OsString,
    },
    /// Of a file's contents, or of a directory's names.
    Sync {
        node: u64,
    },
}

#[derive(Clone)]
pub(crate) enum Node {
    File(Vec<u8>),
    Directory(BTreeMap<OsString, u64>),
}

/// Files and directories by number. What has no name any more stays.
#[derive(Clone)]
pub(crate) struct Tree(BTreeMap<u64, Node>);

/// What a power cut makes of changes that were not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outage {
    /// All of them reached the medium.
    Nothing,
    /// All but the second half of the last write.
    Torn,
    /// None of them.
    Unsynced,
    /// Some of them: of names a beginning, of contents any, by chance.
    Some(u64),
}

impl Tree {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::from([(ROOT, Node::Directory(BTreeMap::new()))]))
    }

    pub(crate) fn node(&self, number: u64) -> Option<&Node> {
        self.0.get(&number)
    }

    pub(crate) fn names(&self, directory: u64) -> Option<&BTreeMap<OsString, u64>> {
        match self.0.get(&directory) {
            Some(Node::Directory(names)) => Some(names),
            _ => None,
        }
    }

    pub(crate) fn find(&self, directory: u64, name: &OsStr) -> Option<u64> {
        self.names(directory)?.get(name).copied()
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.0.keys().next_back().map_or(ROOT, |last| last + 1)
    }

    pub(crate) fn bytes(&self) -> u64 {
        let named = self.0.values().flat_map(|node| match node {
            Node::Directory(names) => names.values().copied().collect(),
            Node::File(_) => Vec::new(),
        });
        let length = |number| match self.0.get(&number) {
            Some(Node::File(bytes)) => bytes.len() as u64,
            _ => 0,
        };
        named.map(length).sum()
    }

    fn names_mut(&mut self, directory: u64) -> &mut BTreeMap<OsString, u64> {
        match self.0.entry(directory).or_insert_with(|| Node::Directory(BTreeMap::new())) {
            Node::Directory(names) => names,
            Node::File(_) => panic!("a file has no names"),
        }
    }

    fn contents(&mut self, file: u64) -> &mut Vec<u8> {
        match self.0.entry(file).or_insert_with(|| Node::File(Vec::new())) {
            Node::File(bytes) => bytes,
            Node::Directory(_) => panic!("a directory has no contents"),
        }
    }

    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Create { node, parent, name, directory } => {
                if *directory {
                    self.names_mut(*node);
                } else {
                    self.contents(*node);
                }
                self.names_mut(*parent).insert(name.clone(), *node);
            }
            Change::Write { node, offset, bytes } => {
                let (contents, start) = (self.contents(*node), *offset as usize);
                let end = start + bytes.len();
                if contents.len() < end {
                    contents.resize(end, 0);
                }
                contents[start..end].copy_from_slice(bytes);
            }
            Change::Resize { node, length } => self.contents(*node).resize(*length as usize, 0),
            Change::Link { node, parent, name } => {
                self.names_mut(*parent).insert(name.clone(), *node);
            }
            Change::Rename { parent, name, to, new_name } => {
                if let Some(node) = self.names_mut(*parent).remove(name) {
                    self.names_mut(*to).insert(new_name.clone(), node);
                }
            }
            Change::Remove { parent, name } => drop(self.names_mut(*parent).remove(name)),
            Change::Sync { .. } => {}
        }
    }

    fn apply_all<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) {
        for change in changes {
            self.apply(change);
        }
    }

    /// Puts everything that has a name into a directory of the machine.
    pub(crate) fn write_to(&self, machine: &Machine) {
        self.write_directory(ROOT, machine.all());
    }

    fn write_directory(&self, directory: u64, path: &Path) {
        for (name, number) in self.names(directory).into_iter().flatten() {
            let path = path.join(name);
            match self.node(*number) {
                Some(Node::Directory(_)) => {
                    fs::create_dir_all(&path).unwrap();
                    self.write_directory(*number, &path);
                }
                Some(Node::File(bytes)) => {
                    let mut options = OpenOptions::new();
                    options.write(true).create(true).truncate(true).mode(0o600);
                    let mut file = options.open(&path).unwrap();
                    if bytes.iter().any(|byte| *byte != 0) {
                        file.write_all(bytes).unwrap();
                    } else {
                        file.set_len(bytes.len() as u64).unwrap();
                    }
                }
                None => {}
            }
        }
    }
}

impl Change {
    /// The file or directory that must be synced for this to be durable.
    fn place(&self) -> Option<(u64, bool)> {
        match self {
            Self::Create { parent, .. }
            | Self::Link { parent, .. }
            | Self::Rename { to: parent, .. }
            | Self::Remove { parent, .. } => Some((*parent, true)),
            Self::Write { node, .. } | Self::Resize { node, .. } => Some((*node, false)),
            Self::Sync { .. } => None,
        }
    }
}

/// What is on the medium if the power goes after `count` of the changes to `base`.
pub(crate) fn after_cut(base: &Tree, changes: &[Change], count: usize, outage: Outage) -> Tree {
    let mut tree = base.clone();
    let done = &changes[..count];
    match outage {
        Outage::Nothing => tree.apply_all(done),
        Outage::Torn => {
            tree.apply_all(done);
            if let Some(Change::Write { node, offset, bytes }) = changes.get(count) {
                let bytes = bytes[..bytes.len() / 2].into();
                tree.apply(&Change::Write { node: *node, offset: *offset, bytes });
            }
        }
        Outage::Unsynced => tree.apply_all(kept(done, &mut |_| false)),
        Outage::Some(seed) => {
            let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ count as u64 | 1;
            let mut names_end = None;
            let mut chance = |names: bool| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let lucky = state >> 40 & 1 == 0;
                // A journal keeps names in order: after the first that is lost, none is kept.
                if names && (names_end == Some(()) || !lucky) {
                    names_end = Some(());
                    return false;
                }
                lucky
            };
            tree.apply_all(kept(done, &mut chance));
        }
    }
    tree
}

/// The changes that were synced, and those of the others that are lucky.
fn kept<'a>(
    done: &'a [Change],
    lucky: &mut dyn FnMut(bool) -> bool,
) -> impl Iterator<Item = &'a Change> {
    let mut synced_later = std::collections::BTreeSet::new();
    let mut durable: Vec<bool> = done
        .iter()
        .rev()
        .map(|change| {
            if let Change::Sync { node } = change {
                synced_later.insert(*node);
            }
            change.place().is_some_and(|(node, _)| synced_later.contains(&node))
        })
        .collect();
    durable.reverse();
    let mut chosen = Vec::new();
    for (change, durable) in done.iter().zip(durable) {
        let Some((_, names)) = change.place() else { continue };
        if durable || lucky(names) {
            chosen.push(change);
        }
    }
    chosen.into_iter()
}
