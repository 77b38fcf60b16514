use super::{
    Arguments,
    search::{self, Canary},
};
use crate::{
    format::{heading, millis, say},
    hands::{self, Picture},
    stage::{Cloud, Gateway, Shape},
    terminal::describe,
};
use anyhow::{Context, Result, bail};
use palmgate_palm::Extractor;
use palmgate_protocol::{
    Biometric, Hand, Name, Purpose,
    terminal::{Age, AnswerBody, Enrolment, Frame, Intent, Payment},
};
use palmgate_seal::random;
use palmgate_terminal::{Presentation, Terminal, simulated};
use std::{
    path::PathBuf,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Shoppers who enrol in the first store.
const SHOPPERS: usize = 12;
/// Payments that are measured.
const MEASURED: usize = 200;

/// A store, a second store of the same tenant, their cloud, their terminals and their people.
pub(crate) struct Story {
    directory: TempDir,
    tenant: Name,
    cloud: Option<Cloud>,
    pub(crate) store: Gateway,
    away: Gateway,
    terminals: Terminals,
    pictures: Vec<Picture>,
    enrolled: Vec<usize>,
    pub(crate) latencies: Vec<Duration>,
    pub(crate) steps: Vec<crate::bench::Scan>,
    held: Vec<(String, bool)>,
}

struct Terminals {
    till: Terminal,
    kiosk: Terminal,
    gate: Terminal,
    staff: Terminal,
    away: Terminal,
}

impl Story {
    /// Starts everything and pairs the terminals.
    pub(crate) async fn begin(arguments: &Arguments) -> Result<Self> {
        let pictures = hands::load(arguments.pictures.as_deref())?;
        let directory = tempfile::Builder::new().prefix("palmgate-demo-").tempdir()?;
        let at = directory.path();
        let (tenant, lyon, paris): (Name, Name, Name) =
            ("demo".parse()?, "lyon".parse()?, "paris".parse()?);
        let cloud = Cloud::start(at, &tenant)?;
        say("cloud      started, with an embedded registry");
        let strangers = arguments.people;
        let shape = Shape { cloud: Some(&cloud), strangers, ..Shape::new(&tenant, &lyon) };
        let store = Gateway::start(at, &shape).await.context("the store lyon did not start")?;
        say(&format!(
            "store lyon started, with {strangers} synthetic people in its shard, https://{}",
            store.https
        ));
        let shape = Shape { store: &paris, strangers: 0, ..shape };
        let away = Gateway::start(at, &shape).await.context("the store paris did not start")?;
        say("store paris started");
        let terminals = Terminals {
            till: store.terminal("till-1", &["pay", "loyalty"], false).await?,
            kiosk: store.terminal("kiosk-1", &["loyalty"], true).await?,
            gate: store.terminal("gate-1", &["entry"], false).await?,
            staff: store.terminal("staff-1", &["staff"], true).await?,
            away: away.terminal("kiosk-9", &["pay", "loyalty"], true).await?,
        };
        say("terminals  till-1, kiosk-1, gate-1 and staff-1 paired in lyon, kiosk-9 in paris");
        let enrolled = Vec::new();
        let (latencies, steps, held) = (Vec::new(), Vec::new(), Vec::new());
        let cloud = Some(cloud);
        Ok(Self {
            directory,
            tenant,
            cloud,
            store,
            away,
            terminals,
            pictures,
            enrolled,
            latencies,
            steps,
            held,
        })
    }

    /// Every step; each says whether it held.
    pub(crate) async fn tell(&mut self) -> Result<()> {
        heading("Enrolment");
        self.enrol_shoppers().await?;
        self.enrol_staff().await?;
        heading("Recognition");
        self.pay().await?;
        self.enter_and_work().await?;
        self.stranger().await?;
        heading("Beyond the store");
        let roamer = self.roamer().await?;
        self.outage(roamer).await?;
        heading("Forgetting");
        self.forget().await?;
        heading("Measurement");
        self.measure().await
    }

    pub(crate) fn failed(&self) -> usize {
        self.held.iter().filter(|(_, held)| !held).count()
    }

    pub(crate) fn steps_told(&self) -> usize {
        self.held.len()
    }

    fn note(&mut self, what: &str, held: bool, detail: &str) {
        let mark = if held { "✓" } else { "✗" };
        say(&format!("{mark} {what}: {detail}"));
        self.held.push((what.to_owned(), held));
    }

    /// People whose hand the reader can use, until there are enough.
    async fn enrol_shoppers(&mut self) -> Result<()> {
        let begun = Instant::now();
        let mut retries = 0;
        for index in 0..self.pictures.len() {
            if self.enrolled.len() == SHOPPERS.min(self.pictures.len() / 2) {
                break;
            }
            let enrolment = self.enrolment(index, &["pay", "loyalty", "entry"]);
            let answer = self.terminals.kiosk.enrol(enrolment).await?;
            match answer.body {
                AnswerBody::Enrolled { .. } => self.enrolled.push(index),
                AnswerBody::Retry { .. } => retries += 1,
                other => bail!("an enrolment was {}", describe(&other)),
            }
        }
        let (people, each) =
            (self.enrolled.len(), begun.elapsed() / (self.enrolled.len().max(1) as u32));
        let detail = format!(
            "{people} shoppers, each in {} ms, one hand, three captures (one photograph, two simulated from it); {retries} asked to try again",
            millis(each)
        );
        self.note("shoppers enrol", people >= 3, &detail);
        let Some(&first) = self.enrolled.first() else { return Ok(()) };
        let again = self.enrolment(first, &["pay"]);
        let answer = self.terminals.kiosk.enrol(again).await?;
        let refused = matches!(answer.body, AnswerBody::Refused { .. });
        self.note("the same hand cannot enrol twice", refused, &describe(&answer.body));
        Ok(())
    }

    async fn enrol_staff(&mut self) -> Result<()> {
        let index = self.pictures.len() - 1;
        let mut enrolment = self.enrolment(index, &[]);
        enrolment.card_token = None;
        let until = now().after(palmgate_protocol::DAY);
        enrolment.authorisation =
            Some(palmgate_protocol::terminal::Authorisation { zone: "strong-room".into(), until });
        let answer = self.terminals.staff.enrol(enrolment).await?;
        let held = matches!(answer.body, AnswerBody::Enrolled { .. });
        self.note("an employee enrols for a listed zone", held, &describe(&answer.body));
        Ok(())
    }

    fn enrolment(&self, index: usize, purposes: &[&str]) -> Enrolment {
        let purposes = purposes.iter().filter_map(|purpose| purpose.parse().ok());
        Enrolment {
            captures: self.pictures[index].captures(Hand::Right),
            consents: purposes
                .map(|purpose: Purpose| simulated::consent(purpose, palmgate_gateway::NOTICE, "fr"))
                .collect(),
            age: Age::Adult,
            card_token: Some(Biometric::new(token(index).into_bytes())),
            phone: Some(Biometric::new(phone(index).into_bytes())),
            authorisation: None,
            release: None,
            replaces: None,
            possession: None,
            verdict: None,
        }
    }

    async fn pay(&mut self) -> Result<()> {
        let Some(&index) = self.enrolled.first() else { bail!("nobody could be enrolled") };
        let frames = self.pictures[index].frames();
        let (answer, took) = scan(&self.terminals.till, payment(1_250), frames).await?;
        let released = match &answer {
            AnswerBody::Accepted(accepted) => {
                accepted.card_token.as_ref().is_some_and(|released| released.0 == token(index))
            }
            _ => false,
        };
        let detail = format!("{}, {} ms", describe(&answer), millis(took));
        self.note("pay by palm", released, &detail);
        let frames = self.pictures[index].other_frames(100);
        let (answer, took) = scan(&self.terminals.till, payment(399), frames).await?;
        let held = matches!(answer, AnswerBody::Accepted(_));
        let detail = format!("{}, {} ms", describe(&answer), millis(took));
        self.note("pay with another capture (simulated) of the same hand", held, &detail);
        let frames = self.pictures[index].frames();
        let (answer, _) = scan(&self.terminals.till, payment(5_001), frames).await?;
        let held = matches!(answer, AnswerBody::Refused { .. });
        self.note("50.01 euros ask for a second factor", held, &describe(&answer));
        Ok(())
    }

    async fn enter_and_work(&mut self) -> Result<()> {
        let shopper = self.enrolled[self.enrolled.len() - 1];
        let frames = self.pictures[shopper].other_frames(7);
        let (answer, took) = scan(&self.terminals.gate, Intent::Entry, frames).await?;
        let held = matches!(answer, AnswerBody::Accepted(_));
        self.note("enter by palm", held, &format!("{}, {} ms", describe(&answer), millis(took)));
        let employee = self.pictures.len() - 1;
        let zone = |zone: &str| Intent::Staff { zone: zone.into() };
        let frames = self.pictures[employee].other_frames(7);
        let (answer, _) = scan(&self.terminals.staff, zone("strong-room"), frames).await?;
        let held = matches!(answer, AnswerBody::Accepted(_));
        self.note("the employee enters the strong room", held, &describe(&answer));
        let frames = self.pictures[employee].frames();
        let (answer, _) = scan(&self.terminals.staff, zone("canteen"), frames).await?;
        let held = matches!(answer, AnswerBody::Refused { .. });
        self.note("a zone that is not listed is refused", held, &describe(&answer));
        let frames = self.pictures[employee].frames();
        let (answer, _) = scan(&self.terminals.till, payment(100), frames).await?;
        let held = matches!(answer, AnswerBody::NotRecognised);
        self.note("the staff template does not pay", held, &describe(&answer));
        Ok(())
    }

    /// Somebody not enrolled is refused, and nothing about them remains.
    async fn stranger(&mut self) -> Result<()> {
        let index = self.pictures.len() - 2;
        let picture = &self.pictures[index];
        let frames = picture.frames();
        let (answer, _) = scan(&self.terminals.till, payment(500), frames).await?;
        let held = matches!(answer, AnswerBody::NotRecognised);
        self.note("somebody not enrolled is not recognised", held, &describe(&answer));
        let picture = &self.pictures[index];
        let mut canaries = vec![Canary::new("picture", picture.bytes())];
        let captures = vec![picture.frames()];
        canaries.extend(self.templates(&captures, &[Purpose::Pay])?);
        let searched = self.search(&canaries).await?;
        let detail = found(&searched);
        self.note("nothing about them remains", searched.found.is_empty(), &detail);
        Ok(())
    }

    /// A shopper known only to the cloud is found by escalation and is local the second time.
    async fn roamer(&mut self) -> Result<usize> {
        let index = self.pictures.len() - 3;
        let enrolment = self.enrolment(index, &["pay", "loyalty", "roaming"]);
        let answer = self.terminals.away.enrol(enrolment).await?;
        let AnswerBody::Enrolled { claims, .. } = answer.body else {
            bail!("the enrolment in paris was {}", describe(&answer.body));
        };
        let claim = claims.first().context("roaming gives a claim token")?.token.0.to_vec();
        self.note(
            "a shopper enrols in paris and agrees to roam",
            true,
            "a claim token for the phone",
        );
        let frames = self.pictures[index].other_frames(3);
        let (answer, _) = scan(&self.terminals.till, payment(800), frames).await?;
        let held = matches!(answer, AnswerBody::NotRecognised);
        self.note("unclaimed, lyon does not know them and asks nobody", held, &describe(&answer));
        let begun = Instant::now();
        let (answer, took) = loop {
            let claim = Some(Biometric::new(claim.clone()));
            let frames = self.pictures[index].other_frames(4);
            let hand = Presentation { frames, claim, ask_cloud: true, ..Presentation::default() };
            let (answer, took) = present(&self.terminals.till, payment(800), hand).await?;
            // The registration travels from paris to the cloud in its own time.
            if matches!(answer, AnswerBody::Accepted(_)) || begun.elapsed() > Duration::from_secs(8)
            {
                break (answer, took);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        };
        let held = matches!(answer, AnswerBody::Accepted(_));
        let detail = format!("{}, {} ms", describe(&answer), millis(took));
        self.note("claimed and asked for, the cloud finds them", held, &detail);
        let frames = self.pictures[index].other_frames(5);
        let (answer, took) = scan(&self.terminals.till, payment(300), frames).await?;
        let held = matches!(answer, AnswerBody::Accepted(_));
        let detail = format!("palm only, {}, {} ms", describe(&answer), millis(took));
        self.note("the second time lyon knows them itself", held, &detail);
        Ok(index)
    }

    async fn outage(&mut self, roamer: usize) -> Result<()> {
        if let Some(mut cloud) = self.cloud.take() {
            cloud.process.stop()?;
        }
        let mut paid = 0;
        for index in [self.enrolled[0], roamer] {
            let frames = self.pictures[index].other_frames(9);
            let (answer, _) = scan(&self.terminals.till, payment(200), frames).await?;
            paid += usize::from(matches!(answer, AnswerBody::Accepted(_)));
        }
        let detail = format!("{paid} of 2 paid with the cloud stopped");
        self.note("the cloud is cut and the store goes on", paid == 2, &detail);
        Ok(())
    }

    /// A shopper withdraws at the reader; the receipt verifies; nothing of theirs is found.
    async fn forget(&mut self) -> Result<()> {
        let index = self.enrolled[0];
        let picture = &self.pictures[index];
        let mut canaries = vec![
            Canary::new("phone number", phone(index).as_bytes()),
            Canary::new("card token", token(index).as_bytes()),
            Canary::new("picture", picture.bytes()),
        ];
        let captures = picture.captures(Hand::Right);
        let captures: Vec<Vec<Frame>> =
            captures.into_iter().map(|capture| capture.frames).collect();
        let purposes = [Purpose::Pay, Purpose::Loyalty, Purpose::Entry];
        canaries.extend(self.templates(&captures, &purposes)?);
        self.control_search(&canaries)?;

        let frames = self.pictures[index].other_frames(20);
        let (answer, took) = scan(&self.terminals.kiosk, Intent::Erase, frames).await?;
        let AnswerBody::Erased { receipt } = answer else {
            self.note("a shopper withdraws at the reader", false, &describe(&answer));
            return Ok(());
        };
        self.note(
            "a shopper withdraws at the reader",
            true,
            &format!("erased in {} ms", millis(took)),
        );
        let key = crate::audit::read_key(&self.store.state.join("ledger.pub"))?;
        let verified = palmgate_ledger::receipt::verify(&receipt, Some(&key));
        let detail = match &verified {
            Ok(receipt) => format!("entry {} of the ledger, {:?}", receipt.index, receipt.status),
            Err(error) => error.to_string(),
        };
        self.note("the erasure receipt verifies", verified.is_ok(), &detail);
        let frames = self.pictures[index].other_frames(21);
        let (answer, _) = scan(&self.terminals.till, payment(100), frames).await?;
        let held = matches!(answer, AnswerBody::NotRecognised);
        self.note("they are not recognised any more", held, &describe(&answer));
        let searched = self.search(&canaries).await?;
        let detail = found(&searched);
        self.note(
            "no template, frame, phone number or token of theirs is found",
            searched.found.is_empty(),
            &detail,
        );
        Ok(())
    }

    /// The search must find what is there, or finding nothing means nothing.
    fn control_search(&mut self, canaries: &[Canary]) -> Result<()> {
        let index = self.enrolled[0];
        let file = self.directory.path().join("control");
        std::fs::write(&file, [phone(index).as_bytes(), self.pictures[index].bytes()].concat())?;
        let searched = search::search(std::slice::from_ref(&file), &[], canaries)?;
        std::fs::remove_file(file)?;
        let detail = format!("{} of 2 planted traces found", searched.found.len());
        self.note("the search finds planted traces", searched.found.len() == 2, &detail);
        Ok(())
    }

    fn templates(&self, captures: &[Vec<Frame>], purposes: &[Purpose]) -> Result<Vec<Canary>> {
        let key = palmgate_protocol::Secret::new(
            std::fs::read(self.directory.path().join("cloud/provisioning/transform.key"))?
                .as_slice()
                .try_into()?,
        );
        let extractor = Extractor::load()?;
        Ok(search::template_canaries(&extractor, &key, &self.tenant, purposes, captures))
    }

    /// Everything that the stores and the cloud wrote, their logs and their metrics; not the
    /// terminals' own state and not the pictures.
    async fn search(&self, canaries: &[Canary]) -> Result<search::Searched> {
        let metrics = [self.store.metrics().await?, self.away.metrics().await?];
        let at = |name: &str| self.directory.path().join(name);
        let places: Vec<PathBuf> =
            ["lyon", "paris", "cloud", "lyon.log", "paris.log", "cloud.log"].map(at).into();
        let texts = [("metrics of lyon", metrics[0].as_str()), ("metrics of paris", &metrics[1])];
        search::search(&places, &texts, canaries)
    }

    async fn measure(&mut self) -> Result<()> {
        let _ = self.store.control.steps().await?;
        let shoppers: Vec<usize> = self.enrolled[1..].to_vec();
        let mut accepted = 0;
        for number in 0..MEASURED {
            let index = shoppers[number % shoppers.len()];
            let frames = self.pictures[index].other_frames(1_000 + number as u64);
            // The till asks for the PIN with every fifth payment: five may be by palm alone.
            let authenticated = number / shoppers.len() % 5 == 4;
            let hand = Presentation { frames, authenticated, ..Presentation::default() };
            let (answer, took) = present(&self.terminals.till, payment(150), hand).await?;
            accepted += usize::from(matches!(answer, AnswerBody::Accepted(_)));
            self.latencies.push(took);
        }
        self.latencies.sort_unstable();
        // The last answer's own figures arrive just after it.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.steps = self.store.control.steps().await?;
        let detail = format!("{accepted} of {MEASURED} payments with simulated captures accepted");
        self.note("shoppers pay in turn", accepted * 20 >= MEASURED * 19, &detail);
        Ok(())
    }

    /// Keeps the store running until interrupted.
    pub(crate) async fn stay(&self) -> Result<()> {
        say(&format!(
            "\nThe store keeps running: metrics at https://{}/metrics (CA {}), control socket in {}. Interrupt to end.",
            self.store.https,
            self.store.state.join("authority.pem").display(),
            self.store.state.display()
        ));
        tokio::signal::ctrl_c().await?;
        Ok(())
    }

    /// Ends every process in good order.
    pub(crate) fn end(mut self) -> Result<()> {
        self.store.process.stop()?;
        self.away.process.stop()?;
        if let Some(mut cloud) = self.cloud.take() {
            cloud.process.stop()?;
        }
        Ok(())
    }
}

fn found(searched: &search::Searched) -> String {
    let mib = searched.bytes as f64 / f64::from(1 << 20);
    if searched.found.is_empty() {
        return format!("0 traces in {} files, {mib:.1} MiB", searched.files);
    }
    let places: Vec<String> =
        searched.found.iter().map(|(what, path)| format!("{what} in {}", path.display())).collect();
    places.join("; ")
}

async fn scan(
    terminal: &Terminal,
    intent: Intent,
    frames: Vec<Frame>,
) -> Result<(AnswerBody, Duration)> {
    present(terminal, intent, Presentation { frames, ..Presentation::default() }).await
}

async fn present(
    terminal: &Terminal,
    intent: Intent,
    hand: Presentation,
) -> Result<(AnswerBody, Duration)> {
    let begun = Instant::now();
    let answer = terminal.scan(intent, hand).await?;
    Ok((answer.body, begun.elapsed()))
}

fn payment(minor_units: u64) -> Intent {
    Intent::Pay(Payment {
        minor_units,
        currency: "EUR".into(),
        payee: "demonstration store".into(),
        nonce: random::bytes(),
    })
}

fn token(index: usize) -> String {
    format!("tok-demo-{index:04}-{}", "q".repeat(12))
}

fn phone(index: usize) -> String {
    format!("+3361234{index:04}")
}

fn now() -> palmgate_protocol::Timestamp {
    let passed =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    palmgate_protocol::Timestamp::from_millis(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX))
}
