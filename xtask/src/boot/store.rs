//! The terminal outside the box, and what it was promised.

use super::machine::{Machine, Ports};
use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const TERMINAL: &str = "target/release/palmgate-simulated-terminal";
const OFFICE: &str = "target/release/palmgate";
/// The terminal finds the palm: on an emulated processor the box would take longer for it than the five
/// seconds for which pictures live.
const REGION: &str = "--region";
/// Openly licensed photographs of hands, one a person.
const HANDS: &str = "crates/palm/data/hands";
/// How long the terminal may take for one request, its start and the emulated box included.
const PATIENCE: Duration = Duration::from_mins(4);
/// How long a box that has just started may be busy.
const BUSY: Duration = Duration::from_mins(2);

/// What the power was cut in the middle of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    Enrolment,
    Erasure,
}

impl fmt::Display for Cut {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Enrolment => "enrolment",
            Self::Erasure => "erasure",
        })
    }
}

/// What a person may rely on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Their enrolment was acknowledged, and they were recognised.
    Enrolled,
    /// Their erasure was acknowledged.
    Erased,
    /// The power went before the answer: either is right.
    Open(Cut),
}

struct Person {
    /// What they enrol with.
    picture: PathBuf,
    /// Another capture of the same hand, which they come with.
    other: PathBuf,
    fate: Fate,
}

/// What a terminal showed.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Accepted,
    Enrolled,
    Erased,
    NotRecognised,
    /// The picture is of no use.
    Retry,
    Busy,
    Refused(String),
}

/// What is read of an erasure receipt.
#[derive(serde::Deserialize)]
struct Receipt {
    ledger: Evidence,
}

#[derive(serde::Deserialize)]
struct Evidence {
    checkpoint: String,
}

/// What held after a cut.
#[derive(Default)]
pub(super) struct Found {
    /// The request that the power cut left unanswered had been carried out.
    pub(super) happened: bool,
    pub(super) lost: u64,
    pub(super) back: u64,
}

/// A terminal with its people.
pub(super) struct Store {
    work: PathBuf,
    terminal: PathBuf,
    url: String,
    pictures: std::vec::IntoIter<PathBuf>,
    people: Vec<Person>,
    stranger: PathBuf,
    /// Captures of an enrolment.
    captures: u64,
    /// The request that the power is cut in, and whose it is.
    unanswered: Option<(Child, usize, Cut)>,
}

impl Store {
    /// `captures`: of each enrolment. Three take an emulated processor longer than pictures live.
    pub(super) fn new(work: &Path, ports: &Ports, captures: u64) -> Result<Self, String> {
        for program in [TERMINAL, OFFICE] {
            if !Path::new(program).is_file() {
                return Err(format!("{program} is missing: run without --built"));
            }
        }
        let entries = fs::read_dir(HANDS).map_err(|error| format!("{HANDS}: {error}"))?;
        let mut pictures: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        pictures.retain(|path| path.extension().is_some_and(|kind| kind == "JPG"));
        pictures.sort();
        let terminal = work.join("terminal");
        let _ = fs::remove_dir_all(&terminal);
        for number in 0..pictures.len() {
            let _ = fs::remove_file(receipt(work, number));
        }
        Ok(Self {
            work: work.to_owned(),
            terminal,
            url: format!("https://127.0.0.1:{}", ports.https),
            stranger: pictures.pop().ok_or(format!("{HANDS} holds no picture"))?,
            pictures: pictures.into_iter(),
            people: Vec::new(),
            captures,
            unanswered: None,
        })
    }

    /// Pairs the terminal, as `docs/install.md` says.
    pub(super) fn pair(&self, machine: &mut Machine) -> Result<(), String> {
        let shown = machine.ask("palmgate terminal add till-1 --purpose entry --enrols")?;
        let code = shown.lines().next().unwrap_or_default();
        let mut pair = self.terminal("pair");
        pair.args([&self.url, code, "till-1"]);
        let told = self.finish(start(pair, &self.answer())?)?;
        if told.contains("now belongs to store") { Ok(()) } else { Err(format!("pair: {told}")) }
    }

    /// The first people: three enrol, one is erased, a stranger is not recognised. Says how long an
    /// enrolment and an erasure take.
    pub(super) fn settle(&mut self, machine: &mut Machine) -> Result<(Duration, Duration), String> {
        let key = machine.ask("cat /var/lib/palmgate/ledger.pub")?;
        fs::write(self.work.join("ledger.pub"), key).map_err(|error| error.to_string())?;
        self.grow()?;
        self.grow()?;
        let somebody = self.usable()?;
        let enrolled = self.enrol(somebody)?;
        self.recognised(somebody)?;
        let erased = self.erase(somebody)?;
        let found = self.verify()?;
        match found.lost + found.back {
            0 => Ok((enrolled, erased)),
            wrong => Err(format!("before any cut {wrong} of three people are answered wrongly")),
        }
    }

    /// One person more, who enrols and is recognised.
    pub(super) fn grow(&mut self) -> Result<(), String> {
        let person = self.usable()?;
        self.enrol(person)?;
        self.recognised(person)
    }

    /// Starts the request that the power will be cut in.
    pub(super) fn begin(&mut self, cut: Cut) -> Result<(), String> {
        let (index, request) = match cut {
            Cut::Enrolment => {
                let index = self.usable()?;
                (index, self.enrolment(index)?)
            }
            Cut::Erasure => {
                let enrolled = |person: &Person| person.fate == Fate::Enrolled;
                let index = self.people.iter().position(enrolled).ok_or("nobody to erase")?;
                (index, self.erasure(index))
            }
        };
        self.people[index].fate = Fate::Open(cut);
        self.unanswered = Some((start(request, &self.answer())?, index, cut));
        Ok(())
    }

    /// After the cut: whether the terminal had its answer all the same.
    pub(super) fn interrupted(&mut self) -> Result<(), String> {
        let Some((mut child, index, cut)) = self.unanswered.take() else { return Ok(()) };
        // What had come before the cut is printed at once.
        std::thread::sleep(Duration::from_secs(1));
        let _ = child.kill();
        let _ = child.wait();
        let told = fs::read_to_string(self.answer()).map_err(|error| error.to_string())?;
        match (cut, answer(&told)) {
            (Cut::Enrolment, Some(Answer::Enrolled)) => self.people[index].fate = Fate::Enrolled,
            (Cut::Erasure, Some(Answer::Erased)) => {
                self.people[index].fate = Fate::Erased;
                self.verified(index)?;
            }
            (_, None) => {}
            (_, Some(other)) => return Err(format!("the {cut} was answered by {other:?}")),
        }
        Ok(())
    }

    /// Everybody comes once more. What was left open is done again where it had not happened.
    pub(super) fn verify(&mut self) -> Result<Found, String> {
        let mut found = Found::default();
        for index in 0..self.people.len() {
            let person = &self.people[index];
            let recognised = self.come(&person.other)?;
            match person.fate {
                Fate::Enrolled if !recognised => {
                    println!("   LOST: {}", person.picture.display());
                    found.lost += 1;
                }
                Fate::Erased if recognised => {
                    println!("   BACK: {}", person.picture.display());
                    found.back += 1;
                }
                Fate::Enrolled | Fate::Erased => {}
                Fate::Open(Cut::Enrolment) => {
                    found.happened = recognised;
                    if !recognised {
                        self.enrol(index)?;
                    }
                    self.recognised(index)?;
                }
                Fate::Open(Cut::Erasure) => {
                    found.happened = !recognised;
                    if recognised {
                        self.erase(index)?;
                    }
                    self.people[index].fate = Fate::Erased;
                }
            }
        }
        if self.come(&self.stranger)? {
            return Err("somebody who never enrolled is recognised".into());
        }
        Ok(found)
    }

    /// People whose enrolment, and people whose erasure holds.
    pub(super) fn acknowledged(&self) -> (usize, usize) {
        let count = |fate| self.people.iter().filter(|person| person.fate == fate).count();
        (count(Fate::Enrolled), count(Fate::Erased))
    }

    /// The next person whose hand the reader can use, twice.
    fn usable(&mut self) -> Result<usize, String> {
        while let Some(picture) = self.pictures.next() {
            let number = self.people.len();
            let person = Person {
                other: self.work.join(format!("other-{number}.jpg")),
                picture,
                fate: Fate::Open(Cut::Enrolment),
            };
            recapture(&person.picture, &person.other, 77)?;
            let looks = |picture: &Path| self.scan(picture);
            if looks(&person.picture)? == Answer::NotRecognised
                && looks(&person.other)? == Answer::NotRecognised
            {
                self.people.push(person);
                return Ok(number);
            }
        }
        Err(format!("{HANDS} holds no further hand of use"))
    }

    /// Enrols a person and says how long it took.
    fn enrol(&mut self, index: usize) -> Result<Duration, String> {
        match self.request(|| self.enrolment(index))? {
            (Answer::Enrolled, took) => {
                self.people[index].fate = Fate::Enrolled;
                Ok(took)
            }
            (other, _) => Err(format!("an enrolment was answered by {other:?}")),
        }
    }

    fn recognised(&self, index: usize) -> Result<(), String> {
        let person = &self.people[index];
        if self.come(&person.other)? {
            return Ok(());
        }
        Err(format!("{} enrolled and is not recognised", person.picture.display()))
    }

    /// Erases a person, says how long it took, and verifies the receipt without the box.
    fn erase(&mut self, index: usize) -> Result<Duration, String> {
        let took = match self.request(|| Ok(self.erasure(index)))? {
            (Answer::Erased, took) => took,
            (other, _) => return Err(format!("an erasure was answered by {other:?}")),
        };
        self.people[index].fate = Fate::Erased;
        self.verified(index).map(|_| took)
    }

    /// Verifies a receipt without the box; gives the checkpoint in it, which the ledger has to continue.
    fn verified(&self, index: usize) -> Result<String, String> {
        let file = self.receipt(index);
        let mut verify = Command::new(OFFICE);
        verify.args(["audit", "receipt"]).arg(&file);
        verify.arg("--key").arg(self.work.join("ledger.pub"));
        let verified = verify.output().map_err(|error| format!("{OFFICE}: {error}"))?;
        if !verified.status.success() {
            return Err(format!("the receipt: {}", String::from_utf8_lossy(&verified.stderr)));
        }
        let told = |error: &dyn fmt::Display| format!("{}: {error}", file.display());
        let text = fs::read(&file).map_err(|error| told(&error))?;
        let receipt: Receipt = serde_json::from_slice(&text).map_err(|error| told(&error))?;
        Ok(receipt.ledger.checkpoint)
    }

    /// The checkpoints of all receipts that people hold.
    pub(super) fn checkpoints(&self) -> Result<Vec<String>, String> {
        let held = (0..self.people.len()).filter(|index| self.receipt(*index).is_file());
        held.map(|index| self.verified(index)).collect()
    }

    /// Whether somebody with this hand gets in.
    fn come(&self, picture: &Path) -> Result<bool, String> {
        match self.scan(picture)? {
            Answer::Accepted => Ok(true),
            Answer::NotRecognised => Ok(false),
            other => Err(format!("{} was answered by {other:?}", picture.display())),
        }
    }

    fn scan(&self, picture: &Path) -> Result<Answer, String> {
        let asked = self.request(|| {
            let mut scan = self.terminal("scan");
            scan.args(["entry", REGION]).arg(picture);
            Ok(scan)
        });
        asked.map(|(answer, _)| answer)
    }

    fn enrolment(&self, index: usize) -> Result<Command, String> {
        let picture = &self.people[index].picture;
        let mut enrol = self.terminal("enrol");
        enrol.args([REGION, "--purpose", "entry", "--language", "en", "--right"]).arg(picture);
        for seed in 1..self.captures {
            let capture = self.work.join(format!("capture-{seed}.jpg"));
            recapture(picture, &capture, seed)?;
            enrol.arg("--right").arg(capture);
        }
        Ok(enrol)
    }

    fn erasure(&self, index: usize) -> Command {
        let mut erase = self.terminal("scan");
        erase.args(["erase", REGION]).arg(&self.people[index].other);
        erase.arg("--out").arg(self.receipt(index));
        erase
    }

    fn receipt(&self, index: usize) -> PathBuf {
        receipt(&self.work, index)
    }

    fn answer(&self) -> PathBuf {
        self.work.join("answer")
    }

    fn terminal(&self, verb: &str) -> Command {
        let mut terminal = Command::new(TERMINAL);
        terminal.arg(verb).arg("--directory").arg(&self.terminal);
        terminal
    }

    /// Asks, and again while the box is busy or not reached; says how long the answered one took.
    fn request(
        &self,
        command: impl Fn() -> Result<Command, String>,
    ) -> Result<(Answer, Duration), String> {
        let begun = Instant::now();
        loop {
            let command = command()?;
            let asked = Instant::now();
            let told = self.finish(start(command, &self.answer())?)?;
            match answer(&told) {
                Some(Answer::Busy) | None if begun.elapsed() < BUSY => {
                    std::thread::sleep(Duration::from_secs(1));
                }
                Some(answer) => return Ok((answer, asked.elapsed())),
                None => return Err(format!("the terminal says: {told}")),
            }
        }
    }

    fn finish(&self, mut child: Child) -> Result<String, String> {
        let begun = Instant::now();
        while child.try_wait().map_err(|error| error.to_string())?.is_none() {
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("{TERMINAL} does not end in {PATIENCE:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        fs::read_to_string(self.answer()).map_err(|error| error.to_string())
    }
}

/// Starts a request; what it prints goes into a file.
fn start(mut command: Command, answer: &Path) -> Result<Child, String> {
    let file = File::create(answer).map_err(|error| format!("{}: {error}", answer.display()))?;
    let errors = file.try_clone().map_err(|error| error.to_string())?;
    command.stdin(Stdio::null()).stdout(file).stderr(errors);
    command.spawn().map_err(|error| format!("{TERMINAL}: {error}"))
}

/// What the terminal's words mean; `None` when the store did not answer.
fn answer(told: &str) -> Option<Answer> {
    let begins = |words: &str| told.starts_with(words);
    Some(match () {
        () if begins("accepted") => Answer::Accepted,
        () if begins("enrolled") => Answer::Enrolled,
        () if begins("erased") => Answer::Erased,
        () if begins("not recognised") => Answer::NotRecognised,
        () if begins("capture ") => Answer::Retry,
        () if begins("busy") => Answer::Busy,
        () if begins("refused") => Answer::Refused(told.trim().to_owned()),
        () => return None,
    })
}

fn receipt(work: &Path, index: usize) -> PathBuf {
    work.join(format!("receipt-{index}.json"))
}

fn recapture(picture: &Path, out: &Path, seed: u64) -> Result<(), String> {
    let mut recapture = Command::new(TERMINAL);
    recapture.arg("recapture").arg(picture).arg(out).args(["--seed", &seed.to_string()]);
    let status = recapture.status().map_err(|error| format!("{TERMINAL}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{}: no other capture", picture.display())) }
}
