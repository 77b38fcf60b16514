//! A store whose cloud lies: the front that it dials has the cloud's certificate and answers what it
//! likes. Nothing that is not signed, sealed and in order changes who is recognised, and the store
//! goes on.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod liar;

use anyhow::{Result, ensure};
use liar::{Answer, Liar, Lie, Way};
use palmgate_cli::stage::Cloud;
use palmgate_cloud::clock;
use palmgate_ledger::receipt::{self, Kind};
use palmgate_protocol::{
    Custody, DAY, Name, Purpose,
    cloud::{Directory, ErasureState, Issuer, MemberRecord, Registration, Shard, ShardChunk},
    decode, encode, encode_for_sealing,
    terminal::{AnswerBody, Intent},
};
use palmgate_seal::{
    envelope::{self, Label, OpeningKey},
    shard::{self, Draft},
    sign::SigningKey,
};
use palmgate_stories::{Person, Scene, accepted};
use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

/// Rounds in which a lie is told: the store does not fall for it the second time either.
const ROUNDS: usize = 2;
const PATIENCE: Duration = Duration::from_mins(1);
const ALL: [Purpose; 3] = [Purpose::Pay, Purpose::Loyalty, Purpose::Roaming];

/// Lyon, whose cloud lies, and Paris, whose does not.
struct World {
    cloud: Cloud,
    lyon: Scene,
    paris: Scene,
    /// Before each of them.
    at_lyon: Arc<Liar>,
    at_paris: Arc<Liar>,
    /// Of Lyon.
    local: Person,
    /// Of Paris; never was in Lyon.
    away: Person,
}

impl World {
    async fn new() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut cloud = Cloud::start(directory.path(), &"tenant".parse()?)?;
        let real = cloud.url.clone();
        let at_paris = Liar::before(&mut cloud, &real, "paris")?;
        let custody = Custody::Operator;
        let paris = Scene::with(custody, Some(&cloud), tempfile::tempdir()?, "paris").await?;
        let at_lyon = Liar::before(&mut cloud, &real, "lyon")?;
        let lyon = Scene::with(custody, Some(&cloud), directory, "lyon").await?;
        let local = lyon.enrol(0, &ALL).await?;
        let away = paris.enrol(local.index + 1, &ALL).await?;
        until("Paris has told of its people", async || Ok(at_paris.registered()?.len() == 1))
            .await?;
        Ok(Self { cloud, lyon, paris, at_lyon, at_paris, local, away })
    }

    /// Presents a hand in Lyon. Not for a payment: those by palm alone are counted.
    async fn scan(&self, person: &Person, claim: Option<usize>) -> Result<AnswerBody> {
        self.lyon.present(&self.lyon.kiosk, person, Intent::Loyalty, claim).await
    }

    /// Whatever the cloud says: who is of the house is recognised, and nobody else.
    async fn is_right(&self, gone: &[&Person], lie: &str) -> Result<()> {
        let body = self.scan(&self.local, None).await?;
        ensure!(accepted(&body), "{lie}: {body:?}");
        for person in gone.iter().copied().chain([&self.away]) {
            let body = self.scan(person, None).await?;
            ensure!(matches!(body, AnswerBody::NotRecognised), "{lie}: {body:?}");
        }
        println!("{lie}: the store is right");
        Ok(())
    }

    /// Tells Lyon a lie, and looks at Lyon while it is told and after it.
    async fn told(&self, lie: Lie, gone: &[&Person], name: &str) -> Result<()> {
        self.at_lyon.tell(lie, ROUNDS).await?;
        self.is_right(gone, name).await
    }

    /// Whether Lyon came through a round with its cloud since this was called.
    async fn is_in_step(&self) -> Result<()> {
        let done = "palmgate_cloud_requests_total{kind=\"round\",result=\"done\"}";
        let before = self.metric(done).await?;
        until("a round", async || Ok(self.metric(done).await? > before)).await
    }

    async fn metric(&self, name: &str) -> Result<f64> {
        let text = self.lyon.store.metrics().await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Ok(value.unwrap_or(0.0))
    }

    /// What a front with a signing key of its own can make: a whole shard for Lyon with people whom
    /// it should not have, that holds for years and is newer than any.
    fn forged(&self, tenant: &Name, key: &SigningKey, of: Vec<MemberRecord>) -> Result<Shard> {
        let store = "lyon".parse()?;
        let draft = Draft {
            tenant,
            store: &store,
            version: 1_000_000,
            base: 0,
            previous: [0; 32],
            lease_until: clock::now().after(DAY * 1000),
            rows: of.len() as u64,
            tombstone_root: [0; 32],
        };
        let chunk = ShardChunk { add: of, remove: Vec::new() };
        Ok(shard::publish(key, &self.at_lyon.sealing_key()?, &draft, &[chunk])?)
    }

    fn record_of_away(&self) -> Result<MemberRecord> {
        Ok(self.at_paris.registered()?.remove(0).1)
    }
}

async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is_so().await? {
        ensure!(begun.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

fn shard_lie(shard: impl Into<axum::body::Bytes>) -> Lie {
    Lie::Instead("/v1/shard?", Answer::cbor(shard))
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_that_are_old_forged_or_anothers_bring_nobody() -> Result<()> {
    let world = World::new().await?;
    let World { lyon, paris, at_lyon, at_paris, away, .. } = &world;
    let tenant: Name = "tenant".parse()?;
    let gone = paris.enrol(away.index + 1, &ALL).await?;
    world.is_in_step().await?;
    world.is_in_step().await?;
    let shards = at_lyon.shards().len();
    until("a visitor is known", async || Ok(accepted(&world.scan(&gone, Some(0)).await?))).await?;
    until("the visitor is in a shard", async || Ok(at_lyon.shards().len() > shards)).await?;
    world.is_in_step().await?;
    let body = paris.present(&paris.kiosk, &gone, Intent::Erase, None).await?;
    assert!(matches!(body, AnswerBody::Erased { .. }), "{body:?}");
    until("Lyon forgets, too", async || Ok(!accepted(&world.scan(&gone, None).await?))).await?;
    let gone = [&gone];
    world.is_right(&gone, "the truth").await?;

    for (number, old) in at_lyon.shards().into_iter().enumerate() {
        world.told(shard_lie(old), &gone, &format!("old shard {number}")).await?;
    }
    let of_paris = at_paris.way().await?.get("/v1/shard?held=0").await?;
    assert_eq!(of_paris.status, 200);
    world.told(shard_lie(of_paris.body), &gone, "the shard of Paris").await?;

    let stranger = SigningKey::generate();
    let forged = world.forged(&tenant, &stranger, vec![world.record_of_away()?])?;
    world.told(shard_lie(encode(&forged)), &gone, "a stranger's signature").await?;
    let unsigned = Shard { signature: Vec::new(), ..forged };
    world.told(shard_lie(encode(&unsigned)), &gone, "no signature").await?;
    let whole = at_lyon.way().await?.get("/v1/shard?held=0").await?;
    let mut changed: Shard = decode(&whole.body)?;
    let place = changed.chunks[0].len() / 2;
    changed.chunks[0][place] ^= 1;
    world.told(shard_lie(encode(&changed)), &gone, "a changed chunk").await?;
    changed.chunks.clear();
    world.told(shard_lie(encode(&changed)), &gone, "a missing chunk").await?;
    world.told(shard_lie(whole.body.slice(..whole.body.len() / 2)), &gone, "half of it").await?;
    world.told(shard_lie(of_another_tenant(&world).await?), &gone, "another tenant's").await?;

    at_lyon.begin(Lie::Nothing);
    world.is_in_step().await?;
    world.is_right(&gone, "the truth again").await?;
    let body = world.scan(away, Some(0)).await?;
    assert!(accepted(&body), "the store goes on with its cloud: {body:?}");
    let known = at_lyon.registered()?.len();
    let next = lyon.enrol(away.index + 2, &ALL).await?;
    until("and tells it of people", async || Ok(at_lyon.registered()?.len() > known)).await?;
    assert!(accepted(&world.scan(&next, None).await?));
    Ok(())
}

/// A real cloud of another tenant, told of Lyon and of whom Lyon should not know, answers with a
/// shard that is sealed to Lyon.
async fn of_another_tenant(world: &World) -> Result<axum::body::Bytes> {
    let directory = tempfile::tempdir()?;
    let (tenant, lyon): (Name, Name) = ("another".parse()?, "lyon".parse()?);
    let cloud = Cloud::start(directory.path(), &tenant)?;
    let bundle = directory.path().join("bundle");
    cloud.admit(&lyon, &bundle)?;
    let way = Way::read(&bundle, &cloud.url)?;
    until("another tenant's cloud", async || Ok(way.get("/v1/directory").await.is_ok())).await?;
    assert_eq!(way.post("/v1/hello", world.at_lyon.hello()?).await?.status, 200);
    let (registration, record) = world.at_paris.registered()?.remove(0);
    let matcher: [u8; 32] = fs::read(cloud.state.join("matcher.key"))?.as_slice().try_into()?;
    let (to, aad) = (OpeningKey::from_bytes(&matcher)?.public(), registration.binding());
    let record = encode_for_sealing(&record);
    let sealed = envelope::seal(&to, Label::Registration, &tenant, &aad, record.expose())?;
    let registration = encode(&Registration { sealed, ..registration });
    assert_eq!(way.post("/v1/registrations", registration).await?.status, 204);
    let shard = way.get("/v1/shard?held=0").await?;
    assert_eq!(shard.status, 200);
    let whose: Shard = decode(&shard.body)?;
    assert_eq!(whose.chunks.len(), 1, "somebody is in it");
    Ok(shard.body)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_that_is_signed_by_the_tenant_is_what_the_forged_ones_lacked() -> Result<()> {
    let world = World::new().await?;
    let key = SigningKey::from_pkcs8(&fs::read(world.cloud.state.join("publisher.key"))?)?;
    let of = vec![world.record_of_away()?];
    let signed = world.forged(&"tenant".parse()?, &key, of)?;
    world.is_right(&[], "before").await?;
    world.at_lyon.tell(shard_lie(encode(&signed)), 1).await?;
    until("the control of the other story", async || {
        Ok(accepted(&world.scan(&world.away, None).await?))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_somebody_else_is_nobodys() -> Result<()> {
    let world = World::new().await?;
    let World { paris, at_lyon, at_paris, away, .. } = &world;
    let other = paris.enrol(away.index + 1, &ALL).await?;
    until("Paris has told", async || Ok(at_paris.registered()?.len() == 2)).await?;
    let records = || -> Result<[MemberRecord; 2]> {
        let mut records = at_paris.registered()?.into_iter().map(|(_, record)| record);
        Ok([records.next().unwrap(), records.next().unwrap()])
    };
    let ([of_away, of_other], [copy, _]) = (records()?, records()?);
    let as_other = MemberRecord { claim: of_other.claim, ..copy };
    for (record, lie) in [(of_away, "another's record"), (as_other, "under the claim")] {
        at_lyon.begin(Lie::Record(encode_for_sealing(&record).expose().clone()));
        let body = world.scan(&other, Some(0)).await?;
        assert!(matches!(body, AnswerBody::NotRecognised), "{lie}: {body:?}");
        world.is_right(&[&other], lie).await?;
    }
    at_lyon.begin(Lie::Nothing);
    let body = world.scan(&other, Some(0)).await?;
    assert!(accepted(&body), "the truth: {body:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_that_fails_dawdles_or_babbles_costs_the_store_nothing_but_the_cloud() -> Result<()>
{
    let world = World::new().await?;
    let World { lyon, at_lyon, away, .. } = &world;
    let failed =
        |body: Vec<u8>, status, kind| Lie::Instead("/", Answer { status, kind, body: body.into() });
    let issuer = |number: u64| Issuer {
        store: format!("store-{number}").parse().unwrap(),
        verify_key: [9; 32],
    };
    let endless = encode(&Directory { issuers: (0..200_000).map(issuer).collect() });
    assert!(endless.len() > 8 * 1024 * 1024);
    for (lie, name) in [
        (failed(Vec::new(), 500, "text/plain"), "500"),
        (failed(b"{\"type\":".to_vec(), 503, "application/problem+json"), "503 and half a problem"),
        (failed(palmgate_seal::random::bytes::<4096>().to_vec(), 200, "application/cbor"), "noise"),
        (Lie::Late, "late"),
        (Lie::Instead("/v1/directory", Answer::cbor(endless)), "an answer without end"),
    ] {
        world.told(lie.clone(), &[], name).await?;
        // Whom only the cloud knows gets the fallback, and not a wait without end.
        at_lyon.begin(lie);
        let body = world.scan(away, Some(0)).await?;
        assert!(name == "an answer without end" || !accepted(&body), "{name}: {body:?}");
        at_lyon.begin(Lie::Nothing);
        world.is_in_step().await?;
    }
    let log = fs::read_to_string(lyon.store.state.with_extension("log"))?;
    assert!(log.contains("longer than"), "the long answer was cut off");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_outlives_a_cloud_that_fails_or_forges_its_word() -> Result<()> {
    let world = World::new().await?;
    let World { lyon, at_lyon, local, .. } = &world;
    until("Lyon has told of its people", async || Ok(!at_lyon.registered()?.is_empty())).await?;
    let forged = ErasureState {
        erased_at: clock::now(),
        outstanding: Vec::new(),
        signature: SigningKey::generate().sign(ErasureState::LABEL, b"").to_vec(),
    };
    at_lyon.begin(Lie::Instead("/v1/erasures", Answer::cbor(encode(&forged))));
    let body = lyon.present(&lyon.kiosk, local, Intent::Erase, None).await?;
    assert!(matches!(body, AnswerBody::Erased { .. }), "{body:?}");
    until("the cloud is asked more than once", async || {
        let asked = at_lyon.paths();
        Ok(asked.iter().filter(|path| path.starts_with("/v1/erasures")).count() > 2)
    })
    .await?;
    assert!(matches!(world.scan(local, None).await?, AnswerBody::NotRecognised));
    let confirmed = || -> Result<bool> {
        let file = fs::read_dir(lyon.store.state.join("receipts"))?.next().unwrap()?.path();
        let verified = receipt::verify(&fs::read_to_string(file)?, None)?;
        let cloud = verified.recipients.iter().find(|one| one.kind == Some(Kind::Cloud));
        Ok(cloud.is_some_and(receipt::Recipient::is_settled))
    };
    assert!(!confirmed()?, "a forged word confirms nothing");
    at_lyon.begin(Lie::Nothing);
    until("the cloud has confirmed", async || confirmed()).await?;
    assert!(matches!(world.scan(local, None).await?, AnswerBody::NotRecognised));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_witness_that_forks_or_forges_is_noticed_and_the_store_goes_on() -> Result<()> {
    let world = World::new().await?;
    let at_lyon = &world.at_lyon;
    let witness = "/v1/witness/add-checkpoint";
    let result = |result: &str| {
        format!("palmgate_cloud_requests_total{{kind=\"witness\",result=\"{result}\"}}")
    };
    until("the witness has cosigned", async || Ok(!at_lyon.cosignatures().is_empty())).await?;
    let earlier = at_lyon.cosignatures()[0].clone();
    let cosigned = world.lyon.store.state.join("ledger.cosigned");
    until("and it is kept", async || Ok(cosigned.exists())).await?;
    let larger = Answer { status: 409, kind: "text/x.tlog.size", body: "99999999\n".into() };
    let replayed = Answer { status: 200, kind: "text/plain", body: earlier };
    let junk = Answer {
        status: 200,
        kind: "text/plain",
        body: "\u{2014} palmgate-witness/tenant AAAA\n".into(),
    };
    let senseless = Answer { status: 409, kind: "text/x.tlog.size", body: "-1\n".into() };
    for (answer, noticed, lie) in [
        (larger, "fork", "a witness of another history"),
        (replayed, "forged", "a cosignature of something else"),
        (junk, "forged", "no cosignature"),
        (senseless, "failed", "no size"),
    ] {
        let before = world.metric(&result(noticed)).await?;
        let kept = fs::read_to_string(&cosigned)?;
        at_lyon.begin(Lie::Instead(witness, answer));
        // Only a ledger that grew has something to be cosigned.
        until(lie, async || {
            world.is_right(&[], lie).await?;
            Ok(world.metric(&result(noticed)).await? > before)
        })
        .await?;
        assert_eq!(fs::read_to_string(&cosigned)?, kept, "{lie}: what was cosigned stays");
        world.is_in_step().await?;
        at_lyon.begin(Lie::Nothing);
        until("the witness cosigns again", async || {
            world.is_right(&[], "the truth").await?;
            Ok(fs::read_to_string(&cosigned)? != kept)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_a_store_learns_who_was_forgotten_before_anything_else() -> Result<()> {
    let world = World::new().await?;
    let World { lyon, paris, at_lyon, away, .. } = &world;
    until("the visitor is known", async || Ok(accepted(&world.scan(away, Some(0)).await?))).await?;
    world.is_in_step().await?;
    let down = Answer { status: 503, kind: "text/plain", body: axum::body::Bytes::new() };
    at_lyon.tell(Lie::Instead("/", down), 1).await?;
    let body = paris.present(&paris.kiosk, away, Intent::Erase, None).await?;
    assert!(matches!(body, AnswerBody::Erased { .. }), "{body:?}");
    // Something of its own waits to be sent, too.
    lyon.enrol(away.index + 1, &ALL).await?;
    let told = at_lyon.registered()?.len();
    at_lyon.begin(Lie::Nothing);
    until("the outbox is empty", async || Ok(at_lyon.registered()?.len() > told)).await?;
    world.is_in_step().await?;
    let paths = at_lyon.paths();
    let first =
        |of: &[&str]| paths.iter().position(|path| of.iter().any(|it| path.starts_with(it)));
    let rest = ["/v1/registrations", "/v1/erasures", "/v1/shard", "/v1/witness", "/v1/resolve"];
    let tombstones = first(&["/v1/tombstones"]).unwrap();
    assert!(first(&rest).is_none_or(|other| tombstones < other), "{paths:?}");
    let body = world.scan(away, None).await?;
    assert!(matches!(body, AnswerBody::NotRecognised), "{body:?}");
    let body = world.scan(away, Some(0)).await?;
    assert!(!accepted(&body), "{body:?}");
    Ok(())
}
