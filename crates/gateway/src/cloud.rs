//! The gateway's side of the cloud: escalations, shards, the outbox. Optional: a store without it
//! goes on.

use crate::{
    forgotten::Forgotten,
    metrics::Metrics,
    receipts::{self, Waiting},
    references,
    scribe::{Deed, Scribe},
    store::Input,
    witness::{self, SIZE, Witness},
};
use minicbor::{Decode, Encode};
use palmgate_policy::Ticket;
use palmgate_protocol::{
    ClaimHandle, Name, Probe, Purpose, Timestamp,
    cloud::{
        ClaimQuery, Directory, Erasure, ErasureState, Hello, MemberRecord, ProbeQuery,
        Registration, Resolution, Shard, ShardApplied, Tombstones,
    },
    decode, encode, encode_for_sealing,
};
use palmgate_seal::{
    envelope::{self, Label, OpeningKey, SealingKey},
    shard::{self, Expected},
    sign::VerifyingKey,
};
use palmgate_vault::Vault;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::{Notify, mpsc::UnboundedSender, oneshot};

/// What waits in the outbox.
#[derive(Encode, Decode)]
pub(crate) enum Outgoing {
    #[n(0)]
    Register(#[n(0)] Registration),
    #[n(1)]
    Erase(#[n(0)] Erasure),
    #[n(2)]
    Applied(#[n(0)] ShardApplied),
}

/// The shard in force, as the vault keeps it.
#[derive(Clone, Copy, Encode, Decode)]
pub(crate) struct ShardHeld {
    #[n(0)]
    pub(crate) version: u64,
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) manifest_hash: [u8; 32],
    #[n(2)]
    pub(crate) lease_until: Timestamp,
}

/// A shard that verified.
pub(crate) struct ShardReceived {
    pub(crate) version: u64,
    pub(crate) manifest_hash: [u8; 32],
    pub(crate) lease_until: Timestamp,
    pub(crate) whole: bool,
    pub(crate) people: Vec<MemberRecord>,
    pub(crate) removed: Vec<palmgate_protocol::MemberId>,
}

/// The answer to an escalation.
pub(crate) enum Fetched {
    NotFound,
    Unreachable,
    Operator(MemberRecord),
    Sealed(Vec<u8>),
}

/// The way to the cloud.
#[derive(Clone)]
pub(crate) struct CloudHandle {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    base: String,
    tenant: Name,
    store: Name,
    matcher: SealingKey,
    publisher: VerifyingKey,
    opening_key: OpeningKey,
    hello: Hello,
    refresh: Duration,
    alike_from: f32,
    vault: Arc<Vault>,
    forgotten: Arc<Forgotten>,
    issuers: Arc<RwLock<Vec<VerifyingKey>>>,
    inputs: UnboundedSender<Input>,
    metrics: Arc<Metrics>,
    waiting: Waiting,
    witness: Witness,
    changed: Notify,
}

/// What the cloud connection needs.
pub(crate) struct CloudOptions {
    pub(crate) url: String,
    pub(crate) matcher: SealingKey,
    pub(crate) publisher: VerifyingKey,
    pub(crate) tls: rustls::ClientConfig,
    pub(crate) timeout: Duration,
    pub(crate) refresh: Duration,
    pub(crate) alike_from: f32,
    pub(crate) store: Name,
    pub(crate) tenant: Name,
    pub(crate) opening_key: OpeningKey,
    pub(crate) verify_key: VerifyingKey,
    pub(crate) vault: Arc<Vault>,
    pub(crate) forgotten: Arc<Forgotten>,
    pub(crate) issuers: Arc<RwLock<Vec<VerifyingKey>>>,
    pub(crate) inputs: UnboundedSender<Input>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) waiting: Waiting,
    pub(crate) witness: Witness,
}

#[derive(Debug, thiserror::Error)]
enum CloudError {
    #[error("the cloud cannot be reached: {0}")]
    Unreachable(#[from] reqwest::Error),
    #[error("the cloud answered {status}: {detail}")]
    Refused { status: u16, problem: String, detail: String },
    #[error("the cloud's answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the cloud's answer is malformed: {0}")]
    Malformed(#[from] palmgate_protocol::Malformed),
    #[error("the cloud's answer: {0}")]
    Envelope(#[from] envelope::EnvelopeError),
    #[error("the shard was refused: {0}")]
    Shard(#[from] shard::ShardError),
    #[error("the shard was refused: {0}")]
    Content(#[from] shard::ContentError),
    #[error("the cloud's word on an erasure is not signed by the tenant's key")]
    Unsigned,
    #[error("the witness answers with no size")]
    Size,
    #[error("the cosigned checkpoint could not be kept: {0}")]
    Kept(std::io::Error),
    #[error(transparent)]
    Vault(#[from] palmgate_vault::VaultError),
}

impl CloudError {
    /// Whether the same message would be refused again for ever.
    fn is_final(&self) -> bool {
        match self {
            Self::Refused { status, problem, .. } => {
                matches!(status, 400 | 404 | 409 | 410 | 413 | 415 | 422)
                    && !matches!(problem.as_str(), "hello-first" | "keys-changed")
            }
            _ => false,
        }
    }

    fn asks_for_hello(&self) -> bool {
        matches!(self, Self::Refused { problem, .. } if problem == "hello-first")
    }
}

impl CloudHandle {
    pub(crate) fn new(options: CloudOptions) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(options.tls)
            .timeout(options.timeout)
            .connect_timeout(options.timeout)
            .tcp_nodelay(true)
            .https_only(true)
            .build()?;
        let hello =
            Hello { seal_key: options.opening_key.public().0, verify_key: options.verify_key.0 };
        let inner = Inner {
            http,
            base: options.url.trim_end_matches('/').to_owned(),
            tenant: options.tenant,
            store: options.store,
            matcher: options.matcher,
            publisher: options.publisher,
            opening_key: options.opening_key,
            hello,
            refresh: options.refresh,
            alike_from: options.alike_from,
            vault: options.vault,
            forgotten: options.forgotten,
            issuers: options.issuers,
            inputs: options.inputs,
            metrics: options.metrics,
            waiting: options.waiting,
            witness: options.witness,
            changed: Notify::new(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Keeps the store in step with the cloud until the process ends.
    pub(crate) fn start(&self, scribe: Scribe) {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move { inner.keep_in_step(scribe).await });
    }

    /// Something new waits in the outbox.
    pub(crate) fn outbox_changed(&self) {
        self.inner.changed.notify_one();
    }

    /// Seals a probe for the matcher, padded to one size.
    pub(crate) fn seal_probe(
        &self,
        probe: &Probe,
        purpose: Purpose,
        claim: ClaimHandle,
    ) -> Option<ProbeQuery> {
        let inner = &self.inner;
        let padded = envelope::pad(probe.to_bytes().expose(), Probe::PADDED_BYTES);
        let mut query = ProbeQuery { purpose, claim, sealed: Vec::new() };
        let aad = query.binding();
        let sealed =
            envelope::seal(&inner.matcher, Label::Probe, &inner.tenant, &aad, padded.expose());
        query.sealed = sealed.ok()?;
        Some(query)
    }

    /// Seals a member's record for the matcher, into its registration.
    pub(crate) fn seal_registration(
        &self,
        registration: &mut Registration,
        record: &MemberRecord,
    ) -> Option<()> {
        let inner = &self.inner;
        let plain = encode_for_sealing(record);
        let aad = registration.binding();
        let sealed = envelope::seal(
            &inner.matcher,
            Label::Registration,
            &inner.tenant,
            &aad,
            plain.expose(),
        );
        registration.sealed = sealed.ok()?;
        Some(())
    }

    /// Asks the matcher about a claimed probe.
    pub(crate) fn resolve(&self, ticket: Ticket, query: ProbeQuery) {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let answer = inner.resolution("/v1/resolve/probe", encode(&query)).await;
            let fetched =
                inner.fetched("probe", answer, |sealed| inner.open_record(query.claim, &sealed));
            let _ = inner.inputs.send(Input::Fetched(ticket, fetched));
        });
    }

    /// Fetches the sealed record of a claim.
    pub(crate) fn fetch(&self, ticket: Ticket, claim: ClaimHandle) {
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            let query = encode(&ClaimQuery { claim });
            let answer = inner.resolution("/v1/resolve/claim", query).await;
            let fetched = inner.fetched("claim", answer, |sealed| Some(Fetched::Sealed(sealed)));
            let _ = inner.inputs.send(Input::Fetched(ticket, fetched));
        });
    }
}

impl Inner {
    fn fetched(
        &self,
        kind: &'static str,
        answer: Result<Resolution, CloudError>,
        found: impl FnOnce(Vec<u8>) -> Option<Fetched>,
    ) -> Fetched {
        match answer {
            Ok(Resolution::NotFound) => {
                self.metrics.cloud(kind, "not-found");
                Fetched::NotFound
            }
            Ok(Resolution::Found { sealed }) => {
                self.metrics.cloud(kind, "found");
                found(sealed).unwrap_or(Fetched::NotFound)
            }
            Err(error) => {
                tracing::warn!(kind, %error, "an escalation failed");
                self.metrics.cloud(kind, "failed");
                Fetched::Unreachable
            }
        }
    }

    /// Hits and misses arrive padded to one size.
    async fn resolution(&self, path: &str, query: Vec<u8>) -> Result<Resolution, CloudError> {
        let padded = self.post(path, query).await?;
        Ok(decode(envelope::unpad(&padded)?)?)
    }

    fn open_record(&self, claim: ClaimHandle, sealed: &[u8]) -> Option<Fetched> {
        let aad = Resolution::binding(&claim);
        let plain =
            envelope::open(&self.opening_key, Label::Resolution, &self.tenant, &aad, sealed)
                .ok()?;
        Some(Fetched::Operator(decode(plain.expose()).ok()?))
    }

    async fn keep_in_step(&self, scribe: Scribe) {
        let mut greeted = false;
        let mut pause = Duration::from_millis(500);
        loop {
            let round = self.round(&mut greeted, &scribe).await;
            match round {
                Ok(()) => pause = Duration::from_millis(500),
                Err(error) => {
                    greeted &= !error.asks_for_hello();
                    tracing::warn!(%error, "not in step with the cloud; the store goes on and tries again");
                    self.metrics.cloud("round", "failed");
                    pause = (pause * 2).min(Duration::from_mins(1));
                }
            }
            let wait = if greeted { self.refresh.min(pause.max(self.refresh)) } else { pause };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    async fn round(&self, greeted: &mut bool, scribe: &Scribe) -> Result<(), CloudError> {
        if !*greeted {
            let directory: Directory = self.call("/v1/hello", encode(&self.hello)).await?;
            self.trust(&directory);
            *greeted = true;
        } else if let Some(directory) = self.get::<Directory>("/v1/directory").await? {
            self.trust(&directory);
        }
        self.learn_tombstones().await?;
        self.empty_outbox(scribe).await?;
        self.ask_after_erasures(scribe).await?;
        self.be_witnessed(scribe).await;
        self.renew_shard().await?;
        self.metrics.cloud("round", "done");
        Ok(())
    }

    fn trust(&self, directory: &Directory) {
        let keys = directory.issuers.iter().map(|issuer| VerifyingKey(issuer.verify_key));
        let own = VerifyingKey(self.hello.verify_key);
        let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        *issuers = keys.filter(|key| *key != own).chain([own]).collect();
    }

    /// Before anything else: a store that was away for long learns first who must not come back.
    async fn learn_tombstones(&self) -> Result<(), CloudError> {
        loop {
            let path = format!("/v1/tombstones?after={}", self.forgotten.after());
            let Some(page) = self.get::<Tombstones>(&path).await? else { return Ok(()) };
            if page.hashes.is_empty() {
                return Ok(());
            }
            if !self.forgotten.learn(&page)? {
                tracing::error!("the cloud's list of the forgotten is not the one it began with");
                return Ok(());
            }
            if !page.more {
                return Ok(());
            }
        }
    }

    /// In order: an erasure never overtakes the registration that it ends. Nothing waits behind what
    /// the cloud refuses for good: an erasure goes to the end, to be asked for again; the rest is
    /// given up.
    async fn empty_outbox(&self, scribe: &Scribe) -> Result<(), CloudError> {
        let mut erased = false;
        let mut put_back = u64::MAX;
        loop {
            let waiting = self.vault.outbox_peek(1)?;
            let Some((number, bytes)) = waiting.into_iter().next() else { break };
            if number >= put_back {
                break;
            }
            let outgoing = decode::<Outgoing>(bytes.expose())?;
            match self.send(&outgoing, scribe).await {
                Ok(()) => erased |= matches!(outgoing, Outgoing::Erase(_)),
                Err(error) if error.is_final() => {
                    tracing::error!(%error, "the cloud refuses a message for good");
                    self.metrics.cloud("outbox", "refused");
                    if matches!(outgoing, Outgoing::Erase(_)) {
                        put_back = put_back.min(self.vault.outbox_push(bytes.expose())?);
                    }
                }
                Err(error) => return Err(error),
            }
            self.vault.outbox_done(number)?;
        }
        if erased {
            scribe.submit(Deed::Renew);
        }
        Ok(())
    }

    async fn send(&self, outgoing: &Outgoing, scribe: &Scribe) -> Result<(), CloudError> {
        match outgoing {
            Outgoing::Register(registration) => {
                self.tell("/v1/registrations", encode(registration)).await
            }
            Outgoing::Applied(applied) => self.tell("/v1/shard/applied", encode(applied)).await,
            Outgoing::Erase(erasure) => {
                let state: ErasureState = self.call("/v1/erasures", encode(erasure)).await?;
                self.acknowledge(&erasure.commitment, state, scribe)
            }
        }
    }

    /// Asks whether the other stores have confirmed by now.
    async fn ask_after_erasures(&self, scribe: &Scribe) -> Result<(), CloudError> {
        let waiting: Vec<[u8; 32]> =
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        for commitment in waiting {
            let path = format!("/v1/erasures/{}", data_encoding::HEXLOWER.encode(&commitment));
            let known = match self.get::<ErasureState>(&path).await {
                Ok(None) => continue,
                Ok(Some(state)) => self.acknowledge(&commitment, state, scribe),
                Err(error) => Err(error),
            };
            match known {
                // A receipt that stays partial is no reason to go without a shard.
                Err(error @ (CloudError::Refused { status: 404, .. } | CloudError::Unsigned)) => {
                    tracing::error!(%error, "the cloud does not confirm an erasure that it was told of");
                }
                known => known?,
            }
        }
        Ok(())
    }

    fn acknowledge(
        &self,
        commitment: &[u8; 32],
        state: ErasureState,
        scribe: &Scribe,
    ) -> Result<(), CloudError> {
        let signed = state.signed_bytes(commitment);
        let verified = self.publisher.verify(ErasureState::LABEL, &signed, &state.signature);
        verified.map_err(|_| CloudError::Unsigned)?;
        scribe.submit(Deed::Acknowledged { commitment: *commitment, state });
        Ok(())
    }

    /// Has the ledger's checkpoint cosigned. A store without a witness goes on, and its metrics say so.
    async fn be_witnessed(&self, scribe: &Scribe) {
        let result = match self.cosignature(scribe).await {
            Ok(result) => result,
            Err(CloudError::Refused { status: 404, .. }) => "absent",
            Err(error) => {
                tracing::warn!(%error, "the ledger's checkpoint was not cosigned");
                "failed"
            }
        };
        if result != "unchanged" {
            self.metrics.cloud("witness", result);
        }
    }

    async fn cosignature(&self, scribe: &Scribe) -> Result<&'static str, CloudError> {
        let held = self.vault.state(witness::STATE)?;
        let mut from = held.and_then(|held| decode::<u64>(held.expose()).ok()).unwrap_or(0);
        // Once more, if the witness remembers another size than this box, as after a crash.
        for _ in 0..2 {
            let (asked, waits) = oneshot::channel();
            scribe.submit(Deed::Checkpoint { from, asked });
            let asked = match waits.await {
                Ok(Ok(Some(asked))) => asked,
                Ok(Ok(None)) => {
                    self.metrics.witnessed(from);
                    return Ok("unchanged");
                }
                Err(_) => return Ok("unchanged"),
                Ok(Err(())) => return Ok("fork"),
            };
            let request = self.http.post(format!("{}/v1/witness/add-checkpoint", self.base));
            let response = request.body(asked.body()).send().await?;
            let response = match other_size(response).await? {
                Err(response) => response,
                Ok(size) => {
                    if size == from || size > asked.proof.to {
                        tracing::error!(
                            size,
                            "the witness knows another history of this ledger: keep it, and find out who restored or changed it"
                        );
                        return Ok("fork");
                    }
                    from = size;
                    continue;
                }
            };
            let line = match read(response, MAX_ANSWER_BYTES).await {
                Err(CloudError::Refused { problem, .. }) if problem == NOT_CONSISTENT => {
                    tracing::error!(
                        "this ledger does not continue what the witness cosigned: keep it, and find out who restored or changed it"
                    );
                    return Ok("fork");
                }
                line => line?.unwrap_or_default(),
            };
            let line = String::from_utf8_lossy(&line);
            return match self.witness.cosigned(&asked, &line) {
                Ok(note) => {
                    receipts::replace(&self.witness.file, note.as_bytes())
                        .map_err(CloudError::Kept)?;
                    self.vault.put_state(witness::STATE, &encode(&asked.proof.to))?;
                    self.metrics.witnessed(asked.proof.to);
                    Ok("cosigned")
                }
                Err(error) => {
                    tracing::error!(%error, "what the witness signed is not this ledger's checkpoint");
                    Ok("forged")
                }
            };
        }
        Ok("fork")
    }

    async fn renew_shard(&self) -> Result<(), CloudError> {
        let held = self.vault.state("shard")?;
        let held = held.map(|held| decode::<ShardHeld>(held.expose())).transpose()?;
        let opened = match self.shard_after(held).await {
            // The cloud's history is not the one of the shard in force, as after its restore from
            // a backup: a whole shard stands on its own.
            Err(CloudError::Shard(shard::ShardError::BrokenChain)) if held.is_some() => {
                tracing::warn!(
                    "the cloud's shard does not follow the one in force: asking for a whole one"
                );
                self.shard_after(None).await?
            }
            opened => opened?,
        };
        let Some(opened) = opened else { return Ok(()) };
        if let Some(held) = held.filter(|held| opened.manifest.version <= held.version) {
            let offered = opened.manifest.version;
            return Err(shard::ShardError::Stale { offered, held: held.version }.into());
        }
        let mut alike = |one: &_, other: &_| references::alike(one, other, self.alike_from);
        tokio::task::block_in_place(|| shard::inspect(&opened, &mut alike))?;
        let mut received = ShardReceived {
            version: opened.manifest.version,
            manifest_hash: opened.manifest_hash,
            lease_until: opened.manifest.lease_until,
            whole: opened.manifest.base == 0,
            people: Vec::new(),
            removed: Vec::new(),
        };
        for chunk in opened.chunks {
            received.people.extend(chunk.add);
            received.removed.extend(chunk.remove);
        }
        tracing::info!(version = received.version, "a shard verified");
        let _ = self.inputs.send(Input::Shard(received));
        Ok(())
    }

    async fn shard_after(
        &self,
        held: Option<ShardHeld>,
    ) -> Result<Option<shard::Opened>, CloudError> {
        let version = held.map_or(0, |held| held.version);
        let path = format!("/v1/shard?held={version}");
        let Some(sealed) = self.get_at_most::<Shard>(&path, MAX_SHARD_BYTES).await? else {
            return Ok(None);
        };
        let expected = Expected {
            tenant: &self.tenant,
            store: &self.store,
            held: held.map(|held| (held.version, held.manifest_hash)),
        };
        Ok(Some(shard::open(&sealed, &self.publisher, &self.opening_key, &expected)?))
    }

    async fn tell(&self, path: &str, body: Vec<u8>) -> Result<(), CloudError> {
        self.post(path, body).await.map(drop)
    }

    async fn call<T: for<'b> Decode<'b, ()>>(
        &self,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, CloudError> {
        Ok(decode(&self.post(path, body).await?)?)
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> Result<Vec<u8>, CloudError> {
        let request = self.http.post(format!("{}{path}", self.base));
        let request = request.header("content-type", "application/cbor").body(body);
        read(request.send().await?, MAX_ANSWER_BYTES).await.map(Option::unwrap_or_default)
    }

    async fn get<T: for<'b> Decode<'b, ()>>(&self, path: &str) -> Result<Option<T>, CloudError> {
        self.get_at_most(path, MAX_ANSWER_BYTES).await
    }

    async fn get_at_most<T: for<'b> Decode<'b, ()>>(
        &self,
        path: &str,
        bytes: usize,
    ) -> Result<Option<T>, CloudError> {
        let response = self.http.get(format!("{}{path}", self.base)).send().await?;
        read(response, bytes).await?.map(|body| decode(&body)).transpose().map_err(CloudError::from)
    }
}

/// The cloud's word for a checkpoint that does not continue the one cosigned before.
const NOT_CONSISTENT: &str = "not-consistent";

/// The size that a witness remembers, if it answers with one.
async fn other_size(
    response: reqwest::Response,
) -> Result<Result<u64, reqwest::Response>, CloudError> {
    let kind =
        response.headers().get("content-type").map(|kind| kind.as_bytes() == SIZE.as_bytes());
    if response.status() != reqwest::StatusCode::CONFLICT || kind != Some(true) {
        return Ok(Err(response));
    }
    let text = body(response, 64).await?;
    let size = std::str::from_utf8(&text).ok().and_then(|text| text.trim_end().parse().ok());
    let size = size.ok_or(CloudError::Size)?;
    Ok(Ok(size))
}

/// Bytes of an answer at most: 4,096 tombstones or the keys of tens of thousands of stores.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a shard at most: 200,000 people with one template.
const MAX_SHARD_BYTES: usize = 256 * 1024 * 1024;

/// The body, of `limit` bytes at most; `None` for "no content"; a refusal with its first line
/// otherwise.
async fn read(response: reqwest::Response, limit: usize) -> Result<Option<Vec<u8>>, CloudError> {
    let status = response.status();
    let body = body(response, limit).await?;
    if status == reqwest::StatusCode::NO_CONTENT {
        return Ok(None);
    }
    if !status.is_success() {
        let problem = serde_json::from_slice::<ProblemDetails>(&body).unwrap_or_default();
        let problem = problem.kind.rsplit(':').next().unwrap_or_default().to_owned();
        let detail = String::from_utf8_lossy(&body).chars().take(200).collect();
        return Err(CloudError::Refused { status: status.as_u16(), problem, detail });
    }
    Ok(Some(body))
}

/// Nothing that the cloud sends may fill the memory.
async fn body(mut response: reqwest::Response, limit: usize) -> Result<Vec<u8>, CloudError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Err(CloudError::TooLong(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What is read of a refusal (RFC 9457).
#[derive(Default, serde::Deserialize)]
struct ProblemDetails {
    #[serde(rename = "type", default)]
    kind: String,
}
