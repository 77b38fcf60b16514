//! The witness (C2SP tlog-witness): cosigns a store's checkpoint only if it continues the one that
//! was cosigned before, so that no store can show two histories of its ledger.

use super::{
    App, blocking,
    endpoints::{Answer, From, Shared, body},
};
use crate::{clock, problem::Problem, registry::Registry};
use axum::{
    Extension,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use data_encoding::BASE64;
use palmgate_ledger::{
    Checkpoint, CheckpointError, ConsistencyProof, Hash,
    note::MAX_NOTE_BYTES,
    origin,
    witness::{self, WitnessError},
};
use palmgate_protocol::Name;
use palmgate_seal::sign::{SigningKey, VerifyingKey};
use std::sync::{Arc, Mutex, PoisonError};

/// Hashes in a proof at most (C2SP tlog-witness).
const MAX_PROOF: usize = 63;
const MAX_BYTES: usize = MAX_NOTE_BYTES + MAX_PROOF * 45 + 32;

pub(crate) struct Witness {
    tenant: Name,
    name: String,
    key: SigningKey,
}

/// What a store asks for.
struct Asked {
    old_size: u64,
    path: Vec<Hash>,
    checkpoint: String,
}

enum Outcome {
    Cosigned(String),
    /// The store knows another size than what was cosigned last.
    Conflict(u64),
}

impl Witness {
    pub(crate) fn new(tenant: &Name, key: SigningKey) -> Self {
        Self { tenant: tenant.clone(), name: format!("palmgate-witness/{tenant}"), key }
    }

    fn cosign(
        &self,
        registry: &dyn Registry,
        store: &Name,
        asked: &Asked,
    ) -> Result<Outcome, Problem> {
        let issuers = registry.directory()?.issuers;
        let issuer = issuers.iter().find(|issuer| issuer.store == *store);
        let log = VerifyingKey(issuer.ok_or(Problem::HelloFirst)?.verify_key);
        let origin = origin(&self.tenant, store);
        let offered = Checkpoint::verify_of(&origin, &asked.checkpoint, &log);
        let offered = offered.map_err(|error| match error {
            CheckpointError::Malformed(_) => Problem::Malformed,
            _ => Problem::NotSigned,
        })?;
        if asked.old_size > offered.size {
            return Err(Problem::Malformed);
        }
        let conflict = Mutex::new(None);
        let cosigned = registry.witness(&origin, &|held| {
            if let Some(size) = conflicting(held, &log, asked.old_size, &offered) {
                *conflict.lock().unwrap_or_else(PoisonError::into_inner) = Some(size);
                return Err(Problem::Conflict);
            }
            self.next(held, asked, &offered, &log)
        });
        match (cosigned, conflict.into_inner().unwrap_or_else(PoisonError::into_inner)) {
            (Ok(checkpoint), _) => Ok(Outcome::Cosigned(checkpoint)),
            (Err(_), Some(size)) => Ok(Outcome::Conflict(size)),
            (Err(problem), None) => Err(problem),
        }
    }

    fn next(
        &self,
        held: Option<&str>,
        asked: &Asked,
        offered: &Checkpoint,
        log: &VerifyingKey,
    ) -> Result<String, Problem> {
        let (from, to, path) = (asked.old_size, offered.size, asked.path.clone());
        let proof = ConsistencyProof { from, to, path };
        let (new, now) = (&asked.checkpoint, clock::now());
        witness::cosign(held, new, &proof, log, &self.name, &self.key, now).map_err(|error| {
            match error {
                WitnessError::Fork(_) => Problem::NotConsistent,
                error => Problem::internal(error),
            }
        })
    }
}

/// The size cosigned last, when the store's idea of it is another one, or when the store offers
/// another tree of the same size: a fork.
fn conflicting(
    held: Option<&str>,
    log: &VerifyingKey,
    old_size: u64,
    offered: &Checkpoint,
) -> Option<u64> {
    let held = held.and_then(|held| Checkpoint::verify(held, log).ok());
    let size = held.as_ref().map_or(0, |held| held.size);
    let forked = held.is_some_and(|held| held.size == offered.size && held.root != offered.root);
    (size != old_size || forked).then_some(size)
}

/// `POST /v1/witness/add-checkpoint`.
pub(super) async fn add_checkpoint(
    State(app): Shared,
    Extension(store): From,
    request: Request,
) -> Answer {
    let asked = parse(&body(request, MAX_BYTES).await?).ok_or(Problem::Malformed)?;
    let cosigning = app.clone();
    let outcome = blocking(move || {
        let witness = cosigning.witness.as_ref().ok_or(Problem::NotFound)?;
        witness.cosign(&*cosigning.registry, &store.name, &asked)
    });
    match outcome.await {
        Ok(Outcome::Cosigned(checkpoint)) => Ok(cosignature(&checkpoint).into_response()),
        Ok(Outcome::Conflict(size)) => {
            app.metrics.fork_seen();
            let content_type = [(header::CONTENT_TYPE, "text/x.tlog.size")];
            Ok((StatusCode::CONFLICT, content_type, format!("{size}\n")).into_response())
        }
        Err(problem) => {
            if problem == Problem::NotConsistent {
                app.metrics.fork_seen();
            }
            Err(problem)
        }
    }
}

/// `GET /v1/witness/heads`: what everybody may compare with what a store showed them.
pub(super) async fn heads(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let heads = blocking(move || app.registry.heads()).await?;
    let content_type = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    Ok((content_type, heads.join("\n")).into_response())
}

/// The last line: what was appended.
fn cosignature(checkpoint: &str) -> String {
    let line = checkpoint.trim_end().rsplit('\n').next().unwrap_or_default();
    format!("{line}\n")
}

fn parse(body: &[u8]) -> Option<Asked> {
    let (head, checkpoint) = std::str::from_utf8(body).ok()?.split_once("\n\n")?;
    let mut lines = head.split('\n');
    let old = lines.next()?.strip_prefix("old ")?;
    let old_size: u64 = old.parse().ok().filter(|size: &u64| size.to_string() == old)?;
    let hash = |line: &str| BASE64.decode(line.as_bytes()).ok()?.try_into().ok();
    let path: Vec<Hash> = lines.map(hash).collect::<Option<_>>()?;
    (path.len() <= MAX_PROOF).then(|| Asked { old_size, path, checkpoint: checkpoint.into() })
}
