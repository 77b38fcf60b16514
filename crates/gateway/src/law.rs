//! The law pack in force and the gates before a store opens.

use palmgate_law as packs;
use palmgate_ledger::note::Signer;
use palmgate_policy::{Citation, Dossier, Law, Opening, Pack, Settings, pack::StoreFacts};
use palmgate_protocol::{DAY, Timestamp};
use std::{fs, path::PathBuf, sync::Arc};

/// What the controller declares about law: table `[law]`.
#[derive(Clone, Debug, Default)]
pub struct Declared {
    /// A pack from a directory; the one that is built in when there is none.
    pub pack: Option<PackFiles>,
    /// Name and address of the controller.
    pub controller: String,
    /// How the controller is reached.
    pub contact: String,
    /// The data protection officer.
    pub officer: String,
    /// When the impact assessment was signed: the start of that day.
    pub assessed: Option<Timestamp>,
    /// Named administrators.
    pub administrators: u64,
    /// Statements that the controller makes, of [`STATEMENTS`].
    pub statements: Vec<&'static str>,
    /// Figures of accuracy and liveness reports.
    pub measured: Option<palmgate_policy::Measured>,
    /// People trusted to sign packs and times.
    pub signers: Vec<Signer>,
}

/// The law that a store lives under, and what it was judged by.
#[derive(Clone, Debug)]
pub struct InForce {
    /// The pack.
    pub pack: Arc<Pack>,
    /// What papers and receipts know of the store.
    pub house: packs::House,
    /// When the impact assessment was signed.
    pub assessed: Option<Timestamp>,
    declared: Declared,
    settings: Settings,
    dossier: Option<crate::config::Dossier>,
}

impl InForce {
    /// Reads the pack again and judges the store anew; on any error this one stays in force.
    ///
    /// # Errors
    /// [`LawError`], with everything that is wrong.
    pub fn again(&self, now: Timestamp) -> Result<Self, LawError> {
        let (declared, settings) = (&self.declared, &self.settings);
        let mut read = open(declared, settings, &self.house.fallback, self.dossier.as_ref(), now)?;
        read.house.place.clone_from(&self.house.place);
        Ok(read)
    }

    /// People trusted to sign.
    pub fn signers(&self) -> &[Signer] {
        &self.declared.signers
    }
}

/// A pack and who signed it.
#[derive(Clone, Debug)]
pub struct PackFiles {
    /// Its directory.
    pub directory: PathBuf,
    /// The note with the signatures.
    pub note: PathBuf,
    /// The people trusted to sign: C2SP verifier keys.
    pub signers: Vec<Signer>,
}

/// What a controller can state: that a document is on file, or that something is so.
pub const STATEMENTS: &[&str] = &[
    "assessment-covers-this-store",
    "officer-opinion",
    "residual-risk-low",
    "authority-answer",
    "arrangement-of-joint-controllers",
    "cloud-contract",
    "ai-act-classification",
    "works-council",
    "sign-at-entrance",
    "public-retention-policy",
    "signed-release",
    "need-of-each-purpose",
    "reason-of-each-zone",
];

/// A store may not open, or its pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LawError {
    /// The pack is not valid.
    #[error("the law pack cannot be read: {0}")]
    Pack(#[from] packs::ReadError),
    /// The note cannot be read.
    #[error("{path}: {cause}")]
    Note {
        /// The path.
        path: String,
        /// What the system said.
        cause: std::io::Error,
    },
    /// It is not signed by two trusted people.
    #[error("the law pack is not signed: {0}")]
    Signature(#[from] packs::SignatureError),
    /// A number of the configuration is laxer than the pack allows.
    #[error("{0}")]
    Laxer(#[from] palmgate_policy::pack::Laxer),
    /// The gates stay shut.
    #[error("the store may not open:\n{}", lines(.0))]
    Refused(Vec<Citation>),
}

fn lines(citations: &[Citation]) -> String {
    citations.iter().map(|one| format!("  {one}")).collect::<Vec<_>>().join("\n")
}

/// Reads the pack and asks it whether the store may open.
///
/// # Errors
/// [`LawError`], with every rule that keeps the store shut.
pub fn open(
    declared: &Declared,
    settings: &Settings,
    fallback: &str,
    dossier: Option<&crate::config::Dossier>,
    now: Timestamp,
) -> Result<InForce, LawError> {
    let pack = match &declared.pack {
        None => Pack::embedded(),
        Some(files) => Arc::new(signed(files)?),
    };
    let chosen = numbers(settings);
    for (name, value) in &chosen {
        pack.check(name, *value)?;
    }
    let facts = StoreFacts {
        production: settings.production,
        purposes: settings.purposes,
        custody: settings.custody,
        escalation: settings.escalation,
        zones: settings.zones.clone(),
        chosen,
    };
    let law = Law::new(Arc::clone(&pack), &facts);
    let refusals = law.refusals(&opening(&pack, declared, settings, fallback, dossier, now));
    if !refusals.is_empty() {
        return Err(LawError::Refused(refusals));
    }
    Ok(InForce {
        pack,
        house: house(declared, settings, fallback),
        assessed: assessed(declared, dossier),
        declared: declared.clone(),
        settings: settings.clone(),
        dossier: dossier.cloned(),
    })
}

/// The later of the dates on which an assessment was signed.
fn assessed(declared: &Declared, dossier: Option<&crate::config::Dossier>) -> Option<Timestamp> {
    declared.assessed.max(dossier.map(|dossier| dossier.assessed))
}

fn signed(files: &PackFiles) -> Result<Pack, LawError> {
    let pack = packs::read(&files.directory)?;
    let note = fs::read_to_string(&files.note)
        .map_err(|cause| LawError::Note { path: files.note.display().to_string(), cause })?;
    packs::verify(&pack, &note, &files.signers)?;
    Ok(pack)
}

/// The numbers of the configuration that the pack bounds.
fn numbers(settings: &Settings) -> Vec<(&'static str, i64)> {
    let days = |duration: std::time::Duration| whole(duration.as_secs() / DAY.as_secs());
    vec![
        ("payment", whole(settings.payment_limit)),
        ("tries", i64::from(settings.tries)),
        ("clock_skew_ms", i64::try_from(settings.clock_skew.as_millis()).unwrap_or(i64::MAX)),
        ("inactivity_days", days(settings.inactivity)),
        ("consent_days", days(settings.ceiling)),
    ]
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What the papers know of the store.
pub fn house(declared: &Declared, settings: &Settings, fallback: &str) -> packs::House {
    let cloud = packs::Processor {
        name: "cloud".into(),
        what: "records and searches of people who agreed to roam".into(),
        region: settings.region.clone(),
        contract: if declared.statements.contains(&"cloud-contract") {
            "on file".into()
        } else {
            String::new()
        },
    };
    packs::House {
        controller: declared.controller.clone(),
        contact: declared.contact.clone(),
        dpo: declared.officer.clone(),
        place: String::new(),
        custody: settings.custody,
        purposes: settings.purposes,
        fallback: fallback.to_owned(),
        processors: settings.escalation.then_some(cloud).into_iter().collect(),
        inactivity_days: whole(settings.inactivity.as_secs() / DAY.as_secs()),
        zones: settings.zones.clone(),
        residual_risks: Vec::new(),
    }
}

fn opening(
    pack: &Pack,
    declared: &Declared,
    settings: &Settings,
    fallback: &str,
    dossier: Option<&crate::config::Dossier>,
    now: Timestamp,
) -> Opening {
    let states = |statement: &str| declared.statements.contains(&statement);
    let days = |span: std::time::Duration| whole(span.as_secs() / DAY.as_secs());
    let unless = |stated: bool, items: Vec<String>| if stated { Vec::new() } else { items };
    let purposes = settings.purposes.iter().map(|purpose| purpose.as_str().to_owned()).collect();
    let house = house(declared, settings, fallback);
    let notice = packs::notice(&house, pack, "en");
    let notice_missing = notice.missing.iter().map(|item| (*item).to_owned()).collect();
    let cloud: Vec<String> = settings.escalation.then(|| "cloud".to_owned()).into_iter().collect();
    Opening {
        controller: !declared.controller.is_empty() && !declared.contact.is_empty(),
        role: if states("arrangement-of-joint-controllers") { "joint" } else { "controller" },
        arrangement: states("arrangement-of-joint-controllers"),
        fallback: !fallback.trim().is_empty(),
        egress: settings.escalation.then(|| settings.region.clone()).into_iter().collect(),
        processors_without_contract: unless(states("cloud-contract"), cloud),
        purposes_without_need: unless(states("need-of-each-purpose"), purposes),
        zones_without_reason: unless(states("reason-of-each-zone"), settings.zones.clone()),
        notice_missing,
        // The dossier of an exception names the assessment that examined it, with its date.
        dpia_days: assessed(declared, dossier).map(|signed| days(now.since(signed))),
        dpia_covers: states("assessment-covers-this-store") || dossier.is_some(),
        dpo_opinion: states("officer-opinion"),
        residual_risk_high: !states("residual-risk-low"),
        authority_answer: states("authority-answer"),
        dossier: dossier.map(|dossier| Dossier {
            reasons: !dossier.reason.trim().is_empty(),
            signatures: 2,
            days: days(dossier.expires.since(now)),
        }),
        classification: states("ai-act-classification"),
        works_council: states("works-council"),
        administrators: whole(declared.administrators),
        measured: declared.measured.clone(),
        sign: states("sign-at-entrance"),
        public_policy: states("public-retention-policy"),
        signed_release: states("signed-release"),
        ..Opening::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn opened(text: &str) -> Result<InForce, LawError> {
        let config = Config::parse(text, "test.toml", NOW).unwrap();
        let (settings, dossier) = (&config.options.settings, config.dossier.as_ref());
        open(&config.law, settings, &config.fallback, dossier, NOW)
    }

    #[test]
    fn a_store_on_a_desk_opens_and_one_in_production_needs_its_papers() {
        assert_eq!(opened("").unwrap().pack.hash(), Pack::embedded().hash());
        let Err(LawError::Refused(refusals)) = opened("law.production = true") else {
            panic!("it opened")
        };
        let rules: Vec<&str> = refusals.iter().map(|one| one.rule.id()).collect();
        assert!(rules.len() > 5, "{rules:?}");
        let text = LawError::Refused(refusals).to_string();
        assert!(text.contains("rule G-") && text.contains("GDPR Art. 35"), "{text}");
    }

    #[test]
    fn what_is_declared_opens_a_store_in_production() {
        let declared = r#"
            [law]
            production = true
            controller = "Example SAS, 1 rue de l'Exemple, Lyon"
            contact = "privacy@example.com"
            officer = "dpo@example.com"
            assessed = 2026-12-01
            administrators = 2
            statements = [
                "assessment-covers-this-store", "officer-opinion", "residual-risk-low",
                "sign-at-entrance", "public-retention-policy", "signed-release",
                "need-of-each-purpose",
            ]
            [law.measured]
            false_match_per_billion = 1000
            false_positive_per_million = 10
            apcer_permille = 10
            bpcer_permille = 10
            linkability_permille = 10
        "#;
        if let Err(error) = opened(declared) {
            panic!("{error}");
        }
        let without = declared.replace("\"officer-opinion\", ", "");
        assert!(matches!(opened(&without), Err(LawError::Refused(_))));
    }

    #[test]
    fn an_exception_stands_on_an_assessment_with_a_date_of_its_own() {
        let cited = |assessed: &str| -> Vec<String> {
            let text = format!(
                "store.custody = 'operator'\nlaw.production = true\n\
                 law.statements = ['officer-opinion']\n[store.operator_dossier]\n\
                 reason = 'wet hands'\ndpia_sha256 = '{}'\nassessed = {assessed}\n\
                 signed_by = ['A. Martin', 'B. Petit']\nexpires = 2027-03-31\n",
                "0".repeat(64)
            );
            match opened(&text) {
                Err(LawError::Refused(refusals)) => {
                    refusals.iter().map(|one| one.rule.to_string()).collect()
                }
                other => panic!("{other:?}"),
            }
        };
        assert!(cited("2023-12-31").contains(&"G-35".to_owned()), "older than three years");
        assert!(!cited("2024-02-01").contains(&"G-35".to_owned()));
    }

    #[test]
    fn a_pack_that_nobody_signed_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let pack = directory.path().join("mine");
        fs::create_dir(&pack).unwrap();
        for file in ["pack.toml", "rules.cedar"] {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/packs/us-tx/");
            fs::copy(format!("{source}{file}"), pack.join(file)).unwrap();
        }
        let manifest = fs::read_to_string(pack.join("pack.toml")).unwrap();
        fs::write(pack.join("pack.toml"), manifest.replace("name = \"us-tx\"", "name = \"mine\""))
            .unwrap();
        let signer = |name: &str, key: u8| {
            let key = palmgate_seal::sign::VerifyingKey([key; 32]);
            let algorithm = palmgate_ledger::note::Algorithm::Ed25519;
            Signer::new(name, algorithm, key).unwrap()
        };
        let files = PackFiles {
            note: directory.path().join("note"),
            directory: pack,
            signers: vec![signer("one", 1), signer("two", 2)],
        };
        let declared = Declared { pack: Some(files), ..Declared::default() };
        let settings = Settings::default();
        let refused = |declared: &Declared| open(declared, &settings, "card", None, NOW).err();
        assert!(matches!(refused(&declared), Some(LawError::Note { .. })));
        fs::write(directory.path().join("note"), "a pack\n\n").unwrap();
        assert!(matches!(refused(&declared), Some(LawError::Signature(_))));
    }
}
