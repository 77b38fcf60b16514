//! A disk whose power can be cut.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Mutex,
};

use crate::{
    disk::{Disk, Part, Step},
    error::VaultError,
};

/// What the file system makes of a step at which the power goes, and of steps not yet synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Every step reaches the medium at once; the last one is whole.
    Eager,
    /// Every step reaches the medium at once; of the last write, half.
    Torn,
    /// A step reaches the medium only when it is synced.
    Lazy,
}

impl Weather {
    pub(crate) const ALL: [Self; 3] = [Self::Eager, Self::Torn, Self::Lazy];
}

/// Counts steps and cuts the power at one of them; everything after it fails.
pub(crate) struct Fuse {
    weather: Weather,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: usize,
    cut_at: Option<usize>,
    records_fail: bool,
    available: Option<u64>,
    pending: Vec<Pending>,
    history: Vec<(PathBuf, Vec<u8>)>,
    removed: Vec<PathBuf>,
}

enum Pending {
    Write { path: PathBuf, offset: u64, bytes: Vec<u8>, truncate: bool },
    WriteParts { path: PathBuf, parts: Vec<Part> },
    Link { from: PathBuf, to: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
}

impl Fuse {
    pub(crate) fn disk(weather: Weather) -> Disk {
        let fuse = Some(Self { weather, state: Mutex::default() }.into());
        Disk { fuse, ..Disk::default() }
    }

    /// Cuts the power at the `nth` step from now, counted from zero.
    pub(crate) fn cut_after(&self, nth: usize) {
        let mut state = self.state.lock().unwrap();
        state.cut_at = Some(state.steps + nth);
    }

    /// Whether the power is gone.
    pub(crate) fn is_cut(&self) -> bool {
        let state = self.state.lock().unwrap();
        state.cut_at.is_some_and(|at| state.steps > at)
    }

    /// Makes every use of sled fail, as on a full disk, or no longer.
    pub(crate) fn fail_records(&self, fail: bool) {
        self.state.lock().unwrap().records_fail = fail;
    }

    /// Pretends that so many bytes are free.
    pub(crate) fn set_available(&self, bytes: Option<u64>) {
        self.state.lock().unwrap().available = bytes;
    }

    pub(crate) fn available(&self) -> Option<u64> {
        self.state.lock().unwrap().available
    }

    /// Every write there ever was: what the worst flash controller would have kept.
    pub(crate) fn history(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.state.lock().unwrap().history.clone()
    }

    /// How often a file was removed.
    pub(crate) fn removed(&self, path: &Path) -> usize {
        self.state.lock().unwrap().removed.iter().filter(|removed| *removed == path).count()
    }

    pub(crate) fn step(&self, step: &Step<'_>) -> Result<(), VaultError> {
        let mut state = self.state.lock().unwrap();
        let now = state.steps;
        state.steps += 1;
        if let Step::Write { path, bytes, .. } = *step {
            state.history.push((path.to_path_buf(), bytes.to_vec()));
        }
        if let Step::WriteParts { path, parts } = *step {
            state.history.extend(parts.iter().map(|part| (path.to_path_buf(), part.bytes.clone())));
        }
        if let Step::Remove { path } = *step {
            state.removed.push(path.to_path_buf());
        }
        match state.cut_at {
            Some(at) if now > at => return Err(power_cut()),
            Some(at) if now == at => {
                match self.weather {
                    Weather::Eager => step.apply()?,
                    Weather::Torn => torn(step).apply()?,
                    Weather::Lazy => {}
                }
                return Err(power_cut());
            }
            _ => {}
        }
        if state.records_fail && matches!(step, Step::Records) {
            return Err(power_cut());
        }
        if self.weather == Weather::Lazy { state.delay(step) } else { step.apply() }
    }
}

impl State {
    fn delay(&mut self, step: &Step<'_>) -> Result<(), VaultError> {
        let owned = Path::to_path_buf;
        match *step {
            Step::Write { path, offset, bytes, truncate } => {
                let bytes = bytes.to_vec();
                self.pending.push(Pending::Write { path: owned(path), offset, bytes, truncate });
            }
            Step::WriteParts { path, parts } => {
                let parts = parts.to_vec();
                self.pending.push(Pending::WriteParts { path: owned(path), parts });
            }
            Step::Link { from, to } => {
                self.pending.push(Pending::Link { from: owned(from), to: owned(to) });
            }
            Step::Rename { from, to } => {
                self.pending.push(Pending::Rename { from: owned(from), to: owned(to) });
            }
            Step::Remove { path } => self.pending.push(Pending::Remove { path: owned(path) }),
            Step::Sync { path } => return self.settle(|one| one.writes_to(path)),
            Step::SyncDirectory { path } => return self.settle(|one| one.names_in(path)),
            Step::Records => {}
        }
        Ok(())
    }

    fn settle(&mut self, now: impl Fn(&Pending) -> bool) -> Result<(), VaultError> {
        let (now, later) = self.pending.drain(..).partition(now);
        self.pending = later;
        Vec::into_iter(now).try_for_each(|one: Pending| one.step().apply())
    }
}

impl Pending {
    fn writes_to(&self, file: &Path) -> bool {
        matches!(self, Self::Write { path, .. } | Self::WriteParts { path, .. } if path == file)
    }

    fn names_in(&self, directory: &Path) -> bool {
        match self {
            Self::Write { .. } | Self::WriteParts { .. } => false,
            Self::Link { to: path, .. } | Self::Rename { to: path, .. } | Self::Remove { path } => {
                path.parent() == Some(directory)
            }
        }
    }

    fn step(&self) -> Step<'_> {
        match self {
            Self::Write { path, offset, bytes, truncate } => {
                Step::Write { path, offset: *offset, bytes, truncate: *truncate }
            }
            Self::WriteParts { path, parts } => Step::WriteParts { path, parts },
            Self::Link { from, to } => Step::Link { from, to },
            Self::Rename { from, to } => Step::Rename { from, to },
            Self::Remove { path } => Step::Remove { path },
        }
    }
}

/// Half of a write; other steps cannot be torn and do not happen.
fn torn<'a>(step: &Step<'a>) -> Step<'a> {
    match *step {
        Step::Write { path, offset, bytes, truncate } => {
            Step::Write { path, offset, bytes: &bytes[..bytes.len() / 2], truncate }
        }
        Step::WriteParts { path, parts } => {
            Step::WriteParts { path, parts: &parts[..parts.len() / 2] }
        }
        _ => Step::Records,
    }
}

fn power_cut() -> VaultError {
    VaultError::Io {
        action: "go on with",
        path: PathBuf::new(),
        source: io::Error::other("the power is cut"),
    }
}
