//! What the engine decides, act by act.
#![allow(clippy::unwrap_used)]

mod bounds;
mod enrolment;
mod forgetting;
mod payments;
mod recognition;
mod rights;

use palmgate_policy::{
    CaptureFacts, ClaimFacts, ClaimPresented, Command, Engine, EnrolmentFacts, Event, FailedTries,
    FreshIds, Match, Profile, Proof, RecordFacts, ReleaseFacts, Resolved, ScanFacts, Sensor,
    Settings, Source, TerminalFacts, Ticket,
};
use palmgate_protocol::{
    ClaimHandle, Custody, DAY, Hand, MemberId, Name, Pseudonym, Purpose, PurposeSet, Timestamp,
    cloud::Consent,
    terminal::{Age, AnswerBody, CaptureProblem, ConsentGiven, Intent, Payment, Refusal},
};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const NOTICE: &str = "notice-1";

struct Store {
    engine: Engine,
    now: Timestamp,
    next: u64,
}

impl Store {
    fn new(custody: Custody) -> Self {
        Self::with(Settings { custody, ..Settings::default() })
    }

    fn with(settings: Settings) -> Self {
        let settings = Settings {
            purposes: Purpose::MATCHED.into_iter().collect(),
            escalation: true,
            thresholds: [0.6, 0.5, 0.5, 0.5],
            zones: vec!["vault".into()],
            notice: NOTICE.into(),
            ..settings
        };
        let mut engine = Engine::new(settings);
        let facts = TerminalFacts {
            name: name("till"),
            purposes: Purpose::MATCHED.into_iter().collect(),
            enrols: true,
        };
        engine.handle(Event::TerminalKnown(facts), START);
        Self { engine, now: START, next: 0 }
    }

    fn tell(&mut self, event: Event) -> Vec<Command> {
        self.engine.handle(event, self.now)
    }

    fn ticket(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// Enrols person `number` and returns who they are.
    fn enrol(&mut self, number: u8, purposes: &[Purpose]) -> MemberId {
        let ticket = self.ticket();
        let facts = self.enrolment(number, purposes);
        let member = facts.ids.member;
        let mut commands = self.tell(Event::Enrol(ticket, Box::new(facts)));
        assert!(
            matches!(commands.as_slice(), [Command::ExtractEnrolment(..)]),
            "{}",
            shown(&commands)
        );
        commands = self.tell(Event::EnrolmentExtracted(ticket, Ok(LIVE)));
        if matches!(commands.as_slice(), [Command::Identify(..)]) {
            commands = self.tell(Event::Identified(ticket, Vec::new()));
        }
        assert!(matches!(commands.as_slice(), [Command::Store(..)]), "{}", shown(&commands));
        commands = self.tell(Event::Stored(ticket, Ok(())));
        assert!(matches!(commands[0], Command::ReplyEnrolled(_)));
        member
    }

    fn enrolment(&self, number: u8, purposes: &[Purpose]) -> EnrolmentFacts {
        EnrolmentFacts {
            terminal: name("till"),
            at: self.now,
            captures: vec![Hand::Right; 3],
            frames: 3,
            consents: purposes.iter().map(|purpose| consent(*purpose)).collect(),
            age: Age::Adult,
            card_token: true,
            card_number: false,
            authorisation: None,
            release: None,
            replaces: None,
            sensor: Sensor::Silent,
            ids: FreshIds {
                member: MemberId::from_random([number; 16]),
                claim: ClaimHandle::from_random([number; 16]),
                pseudonyms: [Pseudonym::from_random([number; 16]); 4],
                salt: [number; 32],
            },
        }
    }

    fn facts(&self, intent: Intent) -> ScanFacts {
        let claim = ClaimPresented::None;
        ScanFacts {
            terminal: name("till"),
            at: self.now,
            intent,
            claim,
            ask_cloud: false,
            frames: 1,
            authenticated: false,
            card_number: false,
            possession: Proof::None,
            sensor: Sensor::Silent,
        }
    }

    fn scan(&mut self, facts: ScanFacts) -> (Ticket, Vec<Command>) {
        let ticket = self.ticket();
        let commands = self.tell(Event::Scan(ticket, facts));
        (ticket, commands)
    }

    /// Scans for `intent`, with the search finding `found`.
    fn recognise(&mut self, intent: Intent, found: &[(MemberId, Purpose, f32)]) -> Vec<Command> {
        let facts = self.facts(intent);
        let (ticket, commands) = self.scan(facts);
        if !matches!(commands.as_slice(), [Command::Extract(..)]) {
            return commands;
        }
        let commands = self.tell(Event::Extracted(ticket, Ok(LIVE)));
        assert!(matches!(commands.as_slice(), [Command::Identify(..)]), "{}", shown(&commands));
        let matches = found.iter().map(|(member, purpose, score)| Match {
            member: *member,
            purpose: *purpose,
            score: *score,
        });
        self.tell(Event::Identified(ticket, matches.collect()))
    }

    fn claimed(&self, intent: Intent, number: u8, custody: Custody, roaming: bool) -> ScanFacts {
        let all: PurposeSet = Purpose::MATCHED.into_iter().collect();
        let claim = ClaimFacts {
            handle: ClaimHandle::from_random([number; 16]),
            custody,
            purposes: if roaming { all.with(Purpose::Roaming) } else { all },
            expires_at: self.now.after(30 * DAY),
        };
        ScanFacts { claim: ClaimPresented::Valid(claim), ..self.facts(intent) }
    }

    fn record(number: u8, purposes: &[Purpose]) -> RecordFacts {
        let consents = purposes.iter().map(|purpose| Consent {
            purpose: *purpose,
            given_at: START,
            expires_at: START.after(365 * DAY),
            notice: NOTICE.into(),
            language: "fr".into(),
        });
        RecordFacts {
            member: MemberId::from_random([number; 16]),
            claim: ClaimHandle::from_random([number; 16]),
            custody: Custody::Operator,
            consents: consents.collect(),
            hands: vec![(Purpose::Pay, Hand::Right)],
            pseudonyms: vec![(Purpose::Pay, Pseudonym::from_random([number; 16]))],
            expires_at: START.after(365 * DAY),
            salt: [number; 32],
        }
    }
}

const LIVE: CaptureFacts = CaptureFacts { liveness: 1.0, multispectral: true };

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn consent(purpose: Purpose) -> ConsentGiven {
    ConsentGiven { purpose, notice: NOTICE.into(), language: "fr".into(), confirmed: true }
}

fn pay(minor_units: u64) -> Intent {
    Intent::Pay(Payment {
        minor_units,
        currency: "EUR".into(),
        payee: "till".into(),
        nonce: [0; 16],
    })
}

fn shown(commands: &[Command]) -> String {
    let name = |command: &Command| match command {
        Command::Reply(_, body) => format!("Reply({body:?})"),
        Command::Log(decision) => {
            let rules: Vec<_> = decision.rules.iter().map(palmgate_policy::Rule::id).collect();
            format!("Log({}, {})", decision.outcome, rules.join(" "))
        }
        Command::Wipe(_) => "Wipe".into(),
        Command::Accept { .. } => "Accept".into(),
        Command::Erase { .. } => "Erase".into(),
        Command::Extract(..) => "Extract".into(),
        Command::Compare(..) => "Compare".into(),
        _ => "other".into(),
    };
    commands.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn accepted(commands: &[Command]) -> bool {
    commands.iter().any(|command| matches!(command, Command::Accept { .. }))
}

fn refused(commands: &[Command]) -> Option<Refusal> {
    commands.iter().find_map(|command| match command {
        Command::Reply(_, AnswerBody::Refused { reason }) => Some(*reason),
        _ => None,
    })
}

fn not_recognised(commands: &[Command]) -> bool {
    let unknown =
        |command: &Command| matches!(command, Command::Reply(_, AnswerBody::NotRecognised));
    commands.iter().any(unknown)
        && commands.iter().any(|command| matches!(command, Command::Wipe(_)))
}

fn cites(commands: &[Command], rule: &str) -> bool {
    commands.iter().any(|command| match command {
        Command::Log(decision) => decision.rules.iter().any(|cited| cited.id() == rule),
        _ => false,
    })
}

/// What was written of a person last.
fn written(commands: &[Command], of: MemberId) -> Option<Profile> {
    commands.iter().rev().find_map(|command| match command {
        Command::Update(member, profile) if *member == of => Some((**profile).clone()),
        _ => None,
    })
}
