//! References as enrolments make them, and every probe against every reference.

use crate::{
    Dataset, Stage,
    extraction::{Captured, in_parallel},
};
use palmgate_gallery::{Fusion, Prepared};
use palmgate_palm::{Capture, Transform, scoring};
use palmgate_protocol::{Embedding, Probe, Purpose, Secret, Template};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Captures of one reference at most.
const ENROLMENT: usize = 3;

/// The reference of one identity and session.
pub(crate) struct Reference {
    pub(crate) identity: usize,
    pub(crate) session: String,
    /// The samples in it.
    pub(crate) enrolled: Vec<usize>,
    template: Template,
}

/// One comparison.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    /// Position in [`Compared::references`].
    pub(crate) reference: u32,
    /// Position in the data set.
    pub(crate) probe: u32,
    /// The fused score that decides.
    pub(crate) score: f32,
    /// Cosine of the embeddings, which chooses the shortlist.
    pub(crate) cosine: f32,
}

pub(crate) struct Compared {
    pub(crate) references: Vec<Reference>,
    /// Identities and sessions without one good capture.
    pub(crate) not_enrolled: usize,
    /// Captures that an enrolment would have asked for again: unlike the ones before.
    pub(crate) inconsistent: usize,
    pub(crate) mated: Vec<Pair>,
    pub(crate) non_mated: Vec<Pair>,
}

impl Compared {
    /// Whether probe and reference are of different sessions.
    pub(crate) fn crosses(&self, dataset: &Dataset, pair: &Pair) -> bool {
        let reference = &self.references[pair.reference as usize];
        dataset.samples[pair.probe as usize].session != reference.session
    }
}

pub(crate) fn compare(
    dataset: &Dataset,
    captured: &Captured,
    threads: usize,
    progress: &(dyn Fn(Stage, usize, usize) + Sync),
) -> Compared {
    // One key for all: two tenants' templates have nothing to do with each other.
    let tenant = "evaluation".parse().expect("a name");
    let transform = Transform::derive(&Secret::new([0; 32]), &tenant, Purpose::Entry);
    let sessions = sessions(dataset);
    let made = in_parallel(threads, sessions.len(), |index| {
        reference(&transform, captured, &sessions[index])
    });
    let mut compared = Compared {
        references: Vec::new(),
        not_enrolled: 0,
        inconsistent: 0,
        mated: Vec::new(),
        non_mated: Vec::new(),
    };
    for (reference, inconsistent) in made {
        compared.inconsistent += inconsistent;
        match reference {
            Some(reference) => compared.references.push(reference),
            None => compared.not_enrolled += 1,
        }
    }
    let probes: Vec<(usize, &Capture)> = captured.good().collect();
    let done = AtomicUsize::new(0);
    let pairs = in_parallel(threads, probes.len(), |index| {
        let (sample, capture) = probes[index];
        let probe = transform.probe(capture);
        let pairs = against(dataset, &compared.references, sample, &probe);
        progress(Stage::Comparisons, done.fetch_add(1, Ordering::Relaxed) + 1, probes.len());
        pairs
    });
    for (mated, non_mated) in pairs {
        compared.mated.extend(mated);
        compared.non_mated.extend(non_mated);
    }
    compared
}

/// The samples of one identity and session, and how many of them enrol.
struct Session {
    identity: usize,
    name: String,
    samples: Vec<usize>,
    enrol: usize,
}

fn sessions(dataset: &Dataset) -> Vec<Session> {
    let mut groups: BTreeMap<(usize, &str), Vec<usize>> = BTreeMap::new();
    for (index, sample) in dataset.samples.iter().enumerate() {
        groups.entry((sample.identity, &sample.session)).or_default().push(index);
    }
    let mut of_identity = vec![0; dataset.identities.len()];
    for (identity, _) in groups.keys() {
        of_identity[*identity] += 1;
    }
    let session = |((identity, name), samples): ((usize, &str), Vec<usize>)| {
        // A person with a single session keeps one capture back as a probe.
        let spare = usize::from(of_identity[identity] == 1);
        let enrol = ENROLMENT.min(samples.len().saturating_sub(spare));
        Session { identity, name: name.to_owned(), samples, enrol }
    };
    groups.into_iter().map(session).filter(|session| session.enrol > 0).collect()
}

/// The first good captures that are consistent with each other; a kiosk asks for another capture
/// in place of one that is not.
fn reference(
    transform: &Transform,
    captured: &Captured,
    session: &Session,
) -> (Option<Reference>, usize) {
    let mut enrolled: Vec<(usize, &Capture)> = Vec::new();
    let (mut template, mut inconsistent) = (None, 0);
    for &sample in &session.samples {
        if enrolled.len() == session.enrol {
            break;
        }
        let Ok(capture) = &captured.captures[sample] else { continue };
        enrolled.push((sample, capture));
        let captures: Vec<&Capture> = enrolled.iter().map(|(_, capture)| *capture).collect();
        if let Ok(made) = transform.template(&captures) {
            template = Some(made);
        } else {
            enrolled.pop();
            inconsistent += 1;
        }
    }
    let reference = template.map(|template| Reference {
        identity: session.identity,
        session: session.name.clone(),
        enrolled: enrolled.iter().map(|(sample, _)| *sample).collect(),
        template,
    });
    (reference, inconsistent)
}

/// Mated and non-mated comparisons of one probe.
fn against(
    dataset: &Dataset,
    references: &[Reference],
    sample: usize,
    probe: &Probe,
) -> (Vec<Pair>, Vec<Pair>) {
    let scoring = scoring();
    let fusion = Fusion {
        embedding_weight: scoring.embedding_weight,
        code_weight: scoring.code_weight,
        shortlist: scoring.shortlist,
    };
    let (mut mated, mut non_mated) = (Vec::new(), Vec::new());
    let prepared = Prepared::new(probe);
    for (number, reference) in references.iter().enumerate() {
        if reference.enrolled.contains(&sample) {
            continue;
        }
        let pair = Pair {
            reference: number as u32,
            probe: sample as u32,
            score: prepared.verify(&reference.template, &fusion),
            cosine: cosine(&probe.embedding, &reference.template.embedding),
        };
        let same = reference.identity == dataset.samples[sample].identity;
        if same { mated.push(pair) } else { non_mated.push(pair) }
    }
    (mated, non_mated)
}

fn cosine(a: &Embedding, b: &Embedding) -> f32 {
    let dot = |a: &Embedding, b: &Embedding| -> i32 {
        a.iter().zip(b).map(|(x, y)| i32::from(*x) * i32::from(*y)).sum()
    };
    let norms = (dot(a, a) as f32).sqrt() * (dot(b, b) as f32).sqrt();
    dot(a, b) as f32 / norms.max(f32::MIN_POSITIVE)
}
