//! Open references: which row of the matcher is whose. `operator` custody only.

use crate::run::StartError;
use palmgate_gallery::RowId;
use palmgate_matcher::{Fusion, Keyed, Matcher, MatcherError, Reference};
use palmgate_palm::Extractor;
use palmgate_policy::{Match, Profile};
use palmgate_protocol::{Custody, Hand, MemberId, Probe, Purpose, PurposeSet, Template, decode};
use palmgate_vault::{Column, PersonColumns, Vault};
use std::{
    collections::HashMap,
    mem,
    path::PathBuf,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Pause between two looks at a matcher in a process of its own.
const WATCH: Duration = Duration::from_secs(1);
/// After this long, whatever was under way when a matcher was lost is on disk, or gone from it.
const SETTLED: Duration = Duration::from_secs(10);
/// People who are read together.
const READ_TOGETHER: usize = 4_096;
/// References that are given to the matcher together.
const TOGETHER: usize = 512;

/// Everybody on disk.
pub(crate) type People = Vec<(MemberId, Profile)>;

/// The matcher, and the owners of its rows.
pub(crate) struct References {
    socket: Option<PathBuf>,
    keyed: Keyed,
    inner: RwLock<Inner>,
    /// Something was not told to the matcher, or it holds nothing any more.
    is_incomplete: AtomicBool,
}

struct Inner {
    matcher: Arc<Matcher>,
    owners: HashMap<RowId, (MemberId, Purpose)>,
    rows: HashMap<MemberId, Vec<(RowId, Purpose, Hand)>>,
    next: u64,
}

impl References {
    /// Without any: [`References::fill`] has them. Where there is no socket, this process matches,
    /// with the extractor.
    ///
    /// # Errors
    /// The matcher is not there, or the extractor could not be had.
    pub(crate) fn open(
        socket: Option<PathBuf>,
        keyed: Keyed,
        extractor: impl FnOnce() -> Result<Extractor, StartError>,
    ) -> Result<Self, StartError> {
        let matcher = match &socket {
            Some(socket) => {
                Matcher::process(socket.clone(), &keyed).map_err(anyhow::Error::from)?
            }
            None => Matcher::inside(extractor()?, &keyed),
        };
        let inner = RwLock::new(Inner::of(matcher));
        Ok(Self { socket, keyed, inner, is_incomplete: AtomicBool::new(true) })
    }

    /// SHA-256 of the models in use.
    pub(crate) const fn models(&self) -> [u8; 32] {
        self.keyed.models
    }

    pub(crate) const fn fusion(&self) -> &Fusion {
        &self.keyed.fusion
    }

    pub(crate) fn matcher(&self) -> Arc<Matcher> {
        Arc::clone(&self.inner.read().unwrap_or_else(PoisonError::into_inner).matcher)
    }

    /// Reads everybody on disk, and gives the matcher, which holds nothing yet, what the box may hold
    /// open of it.
    pub(crate) fn fill(&self, vault: &Vault) -> Result<People, anyhow::Error> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        self.fill_locked(&mut inner, vault)
    }

    fn fill_locked(&self, inner: &mut Inner, vault: &Vault) -> Result<People, anyhow::Error> {
        let begun = Instant::now();
        let members = vault.members();
        let mut people = Vec::with_capacity(members.len());
        inner.owners.reserve(members.len());
        inner.rows.reserve(members.len());
        thread::scope(|scope| {
            // The matcher takes some in while the next are read.
            let (read, some) = mpsc::sync_channel(1);
            let reading = scope.spawn(|| read_all(vault, &members, read));
            let put = some.iter().try_for_each(|read: Vec<Opened>| {
                let mut waiting = Vec::with_capacity(TOGETHER);
                for Opened { member, profile, templates } in read {
                    people.push((member, profile));
                    waiting.extend(templates);
                    if waiting.len() >= TOGETHER {
                        inner.put(mem::take(&mut waiting))?;
                    }
                }
                inner.put(waiting)
            });
            // Ends the reading if nobody takes anything in any more.
            drop(some);
            let read = reading.join().map_err(|_| anyhow::anyhow!("reading ended early"))?;
            put?;
            read
        })?;
        self.is_incomplete.store(false, Ordering::Release);
        let (references, seconds) = (inner.owners.len(), begun.elapsed().as_secs_f32());
        tracing::info!(people = people.len(), references, seconds, "references are open");
        Ok(people)
    }

    /// Adds or replaces one reference.
    pub(crate) fn put(
        &self,
        member: MemberId,
        purpose: Purpose,
        hand: Hand,
        template: &Template,
    ) -> Result<(), MatcherError> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let put = inner
            .remove_if(member, |of, which| of == purpose && which == hand)
            .and_then(|()| inner.put(vec![(member, purpose, hand, template.duplicate())]));
        put.inspect_err(|error| self.failed(error))
    }

    /// Wipes every reference of a person.
    pub(crate) fn remove(&self, member: MemberId) {
        self.remove_if(member, |_| true);
    }

    /// Wipes a person's references for some purposes.
    pub(crate) fn remove_purposes(&self, member: MemberId, purposes: PurposeSet) {
        self.remove_if(member, |of| purposes.contains(of));
    }

    /// A matcher that does not answer holds nothing any more, and once it is filled anew without
    /// what is gone from the disk.
    fn remove_if(&self, member: MemberId, goes: impl Fn(Purpose) -> bool) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = inner.remove_if(member, |of, _| goes(of)) {
            self.failed(&error);
        }
    }

    /// Searches the compartment of each probe; the best candidates, best first.
    ///
    /// # Errors
    /// The matcher is gone, or lacks somebody: whether the person is there is not known.
    pub(crate) fn identify(
        &self,
        probes: &[(Purpose, Probe)],
    ) -> Result<Vec<Match>, anyhow::Error> {
        if !self.are_complete() {
            anyhow::bail!("the matcher does not have every reference yet");
        }
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let found = inner.matcher.identify(probes).inspect_err(|error| self.failed(error))?;
        let mut matches: Vec<Match> = found
            .into_iter()
            .filter_map(|found| {
                let (member, purpose) = *inner.owners.get(&found.row)?;
                Some(Match { member, purpose, score: found.score })
            })
            .collect();
        matches.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(matches)
    }

    /// Rows in memory.
    pub(crate) fn len(&self) -> usize {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).owners.len()
    }

    fn failed(&self, error: &MatcherError) {
        if error.is_lost() {
            self.is_incomplete.store(true, Ordering::Release);
        }
    }

    /// Whether the matcher was told everything, as far as is known.
    pub(crate) fn are_complete(&self) -> bool {
        !self.is_incomplete.load(Ordering::Acquire)
    }

    /// Opens the matcher's process anew. Nobody is searched for meanwhile.
    fn reopen(&self, vault: &Vault) -> Result<(), anyhow::Error> {
        let Some(socket) = &self.socket else { return Ok(()) };
        self.is_incomplete.store(true, Ordering::Release);
        let matcher = Matcher::process(socket.clone(), &self.keyed)?;
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        *inner = Inner::of(matcher);
        self.fill_locked(&mut inner, vault).map(drop)
    }
}

/// Whose, for what, of which hand.
type Owned = (MemberId, Purpose, Hand, Template);

/// A person as read from the disk.
struct Opened {
    member: MemberId,
    profile: Profile,
    /// Those that the box may hold open.
    templates: Vec<Owned>,
}

/// Reads people, some after the other, for as long as somebody takes them.
fn read_all(
    vault: &Vault,
    members: &[MemberId],
    read: mpsc::SyncSender<Vec<Opened>>,
) -> Result<(), anyhow::Error> {
    for members in members.chunks(READ_TOGETHER) {
        let opened = vault.read_people(members, open)?;
        if read.send(opened.into_iter().flatten().collect()).is_err() {
            break;
        }
    }
    Ok(())
}

/// Somebody without a profile is nobody yet.
fn open(columns: &PersonColumns<'_>) -> Result<Option<Opened>, anyhow::Error> {
    let Some(profile) = columns.read(Column::Profile)? else { return Ok(None) };
    let (member, profile) = (columns.member(), decode::<Profile>(profile.expose())?);
    let mut templates = Vec::new();
    if profile.custody == Custody::Operator {
        templates.reserve_exact(profile.hands.len());
        for (purpose, hand) in &profile.hands {
            if let Some(bytes) = columns.read(Column::Template(*purpose, *hand))? {
                templates.push((member, *purpose, *hand, Template::from_bytes(bytes.expose())?));
            }
        }
    }
    Ok(Some(Opened { member, profile, templates }))
}

/// Looks after a matcher in a process of its own for as long as the gateway runs.
pub(crate) fn watch(references: Arc<References>, vault: Arc<Vault>) -> std::io::Result<()> {
    let references = Arc::downgrade(&references);
    thread::Builder::new().name("matcher".into()).spawn(move || {
        // When to fill it once more, after it was lost.
        let mut again: Option<Instant> = None;
        let mut is_told = false;
        loop {
            thread::sleep(WATCH);
            let Some(references) = references.upgrade() else { break };
            let is_due = again.is_some_and(|at| at <= Instant::now());
            let answered = references.matcher().ping();
            if answered.is_ok() && references.are_complete() && !is_due {
                continue;
            }
            match references.reopen(&vault) {
                Ok(()) => {
                    tracing::warn!(references = references.len(), "the matcher was opened anew");
                    again = if is_due { None } else { Some(Instant::now() + SETTLED) };
                    is_told = false;
                }
                Err(error) => {
                    if !is_told {
                        tracing::error!(%error, "nobody is recognised until the matcher is back");
                    }
                    is_told = true;
                }
            }
        }
    })?;
    Ok(())
}

impl Inner {
    fn of(matcher: Matcher) -> Self {
        Self { matcher: Arc::new(matcher), owners: HashMap::new(), rows: HashMap::new(), next: 0 }
    }

    fn put(&mut self, templates: Vec<Owned>) -> Result<(), MatcherError> {
        let first = self.next;
        self.next += templates.len() as u64;
        let mut references = Vec::with_capacity(templates.len());
        let mut owned = Vec::with_capacity(templates.len());
        for (row, (member, purpose, hand, template)) in (first..).map(RowId).zip(templates) {
            references.push(Reference { row, purpose, template });
            owned.push((row, member, purpose, hand));
        }
        self.matcher.insert(&references)?;
        for (row, member, purpose, hand) in owned {
            self.owners.insert(row, (member, purpose));
            self.rows.entry(member).or_default().push((row, purpose, hand));
        }
        Ok(())
    }

    fn remove_if(
        &mut self,
        member: MemberId,
        goes: impl Fn(Purpose, Hand) -> bool,
    ) -> Result<(), MatcherError> {
        let Some(rows) = self.rows.get_mut(&member) else { return Ok(()) };
        let gone = rows.extract_if(.., |(_, purpose, hand)| goes(*purpose, *hand));
        let gone: Vec<RowId> = gone.map(|(row, _, _)| row).collect();
        if rows.is_empty() {
            self.rows.remove(&member);
        }
        for row in &gone {
            self.owners.remove(row);
        }
        if gone.is_empty() { Ok(()) } else { self.matcher.remove(&gone) }
    }
}

/// How the models' scoring weighs embeddings and codes.
pub(crate) fn fusion() -> Fusion {
    let scoring = palmgate_palm::scoring();
    Fusion {
        embedding_weight: scoring.embedding_weight,
        code_weight: scoring.code_weight,
        shortlist: scoring.shortlist,
    }
}

/// Whether two references resemble each other as those of one hand do, from `limit` on.
pub(crate) fn alike(one: &Template, other: &Template, limit: f32) -> bool {
    palmgate_gallery::resemblance(one, other, &fusion()) >= limit
}
