//! Papers, always from the live pack and configuration, so that they cannot disagree with what the
//! box does. English and French, as Markdown and as HTML.

use minijinja::{Environment, context};
use palmgate_policy::{Pack, pack::Texts};
use palmgate_protocol::{Custody, Purpose, PurposeSet};
use serde::Serialize;

const MARKDOWN: &str = include_str!("../papers/paper.md.jinja");
const HTML: &str = include_str!("../papers/paper.html.jinja");

/// The items that a notice must have (GDPR Art. 13(1)-(2)).
pub const NOTICE_ITEMS: [&str; 12] = [
    "controller",
    "dpo",
    "purposes",
    "basis",
    "recipients",
    "transfers",
    "retention",
    "rights",
    "withdrawal",
    "complaint",
    "voluntary",
    "automated-decisions",
];

/// What the papers need to know of a store; blank texts are missing items.
#[derive(Clone, Debug)]
pub struct House {
    /// Name and address of the controller.
    pub controller: String,
    /// How the controller is reached.
    pub contact: String,
    /// The data protection officer, and how to reach them.
    pub dpo: String,
    /// The store.
    pub place: String,
    /// Who can open a reference.
    pub custody: Custody,
    /// Purposes served.
    pub purposes: PurposeSet,
    /// What people can use instead.
    pub fallback: String,
    /// Who else gets data.
    pub processors: Vec<Processor>,
    /// Days without use after which an enrolment ends.
    pub inactivity_days: i64,
    /// Listed restricted zones.
    pub zones: Vec<String>,
    /// Measures and residual risks, as the impact assessment states them.
    pub residual_risks: Vec<String>,
}

/// Somebody who gets data.
#[derive(Clone, Debug, Serialize)]
pub struct Processor {
    /// Name.
    pub name: String,
    /// What they get, and why.
    pub what: String,
    /// Where: `eu` or a country's code.
    pub region: String,
    /// The contract's id.
    pub contract: String,
}

/// A paper before it is set.
#[derive(Clone, Debug, Serialize)]
pub struct Paper {
    /// BCP 47.
    pub language: String,
    /// Title.
    pub title: String,
    /// Sections in order.
    pub sections: Vec<Section>,
    /// What it was made from.
    pub origin: String,
    /// Items of the paper's law that it lacks.
    #[serde(skip)]
    pub missing: Vec<&'static str>,
}

/// A section of a paper.
#[derive(Clone, Debug, Serialize)]
pub struct Section {
    /// Heading.
    pub heading: String,
    /// Paragraphs; of a table, its rows' cells joined.
    pub paragraphs: Vec<String>,
    /// Table rows, the first its head; none is no table.
    pub rows: Vec<Vec<String>>,
}

impl Paper {
    pub(crate) fn new(language: &str, title: &str, pack: &Pack) -> Self {
        let top = pack.top();
        let hash = data_encoding::HEXLOWER.encode(&pack.hash());
        let said = pick(language, "Made from the law pack", "Produit à partir du lot de règles");
        Self {
            language: language.into(),
            title: title.into(),
            sections: Vec::new(),
            origin: format!("{said} {} {}, {hash}.", top.name, top.version),
            missing: Vec::new(),
        }
    }

    pub(crate) fn say(&mut self, heading: &str, paragraphs: Vec<String>) {
        let heading = heading.into();
        self.sections.push(Section { heading, paragraphs, rows: Vec::new() });
    }

    pub(crate) fn table(&mut self, heading: &str, rows: Vec<Vec<String>>) {
        let heading = heading.into();
        self.sections.push(Section { heading, paragraphs: Vec::new(), rows });
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        self.set(MARKDOWN, "paper.md")
    }

    /// As a page of HTML that needs nothing else. Every text is escaped.
    pub fn html(&self) -> String {
        self.set(HTML, "paper.html")
    }

    fn set(&self, template: &str, name: &str) -> String {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        // Constants of the program; the tests set them.
        environment
            .render_named_str(name, template, context! { paper => self })
            .expect("the templates built in fit the papers")
    }
}

pub(crate) fn pick<'a>(language: &str, en: &'a str, fr: &'a str) -> &'a str {
    if language.split('-').next() == Some("fr") { fr } else { en }
}

/// The notice to people (GDPR Art. 13), with the items that it lacks.
pub fn notice(house: &House, pack: &Pack, language: &str) -> Paper {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let said = |texts: &Texts| texts.get(language).to_owned();
    let title =
        pick(language, "Your palm: what happens with it", "Votre paume : ce qu'il en advient");
    let mut paper = Paper::new(language, title, pack);
    let bases = pack.purposes().iter().filter(|basis| house.purposes.contains(basis.purpose));
    let bases: Vec<_> = bases.collect();
    let recipients: Vec<String> = house
        .processors
        .iter()
        .map(|one| format!("{}: {} ({})", one.name, one.what, one.region))
        .collect();
    let nobody = is("Nobody outside the store.", "Personne hors du magasin.");
    let recipients = if recipients.is_empty() { vec![nobody] } else { recipients };
    let shown = |item: &str| match item {
        "template" | "frames" | "probe" | "consent-record" | "use" | "card-token" | "phone" => true,
        "staff-template" => house.purposes.contains(Purpose::Staff),
        _ => false,
    };
    let terms: Vec<String> = pack
        .retention()
        .iter()
        .filter(|term| shown(&term.item))
        .map(|term| said(&term.text))
        .collect();
    let authority = &pack.top().authority;
    let alone = is(
        "A machine recognises you; it decides nothing else about you. If it does not, a person helps, and no list is kept.",
        "Une machine vous reconnaît ; elle ne décide rien d'autre sur vous. Sinon, une personne vous aide, et aucune liste n'est tenue.",
    );
    let items: [(&'static str, String, Vec<String>); 12] = [
        (
            "controller",
            is("Who is responsible", "Qui est responsable"),
            vec![house.controller.clone(), house.contact.clone()],
        ),
        (
            "dpo",
            is("Data protection officer", "Délégué à la protection des données"),
            vec![house.dpo.clone()],
        ),
        (
            "purposes",
            is("What for", "Pour quoi faire"),
            bases.iter().map(|basis| said(&basis.text)).collect(),
        ),
        (
            "basis",
            is("On what basis", "Sur quelle base"),
            bases.iter().map(|basis| format!("{}: {}", basis.purpose, basis.basis)).collect(),
        ),
        ("recipients", is("Who gets data", "Qui reçoit des données"), recipients),
        (
            "transfers",
            is("Outside Europe", "Hors d'Europe"),
            vec![transfers(house, pack, language)],
        ),
        ("retention", is("For how long", "Combien de temps"), retention(house, terms, language)),
        (
            "rights",
            is("Your rights", "Vos droits"),
            vec![is(
                "See, correct, take along, restrict and erase your data, and object: at every reader, or in writing; an answer comes within a month and costs nothing.",
                "Voir, corriger, emporter, limiter et effacer vos données, et vous opposer : à chaque lecteur ou par écrit ; la réponse vient dans le mois, gratuitement.",
            )],
        ),
        (
            "withdrawal",
            is("Changing your mind", "Changer d'avis"),
            vec![is(
                "You withdraw at any time, at every reader, in no more steps than you enrolled; what happened before stays lawful.",
                "Vous vous retirez à tout moment, à chaque lecteur, sans plus d'étapes qu'à l'enrôlement ; ce qui précède reste licite.",
            )],
        ),
        (
            "complaint",
            is("Complaints", "Réclamations"),
            vec![format!("{}, {}", authority.name, authority.url)],
        ),
        ("voluntary", is("You need not", "Rien ne vous y oblige"), vec![house.fallback.clone()]),
        (
            "automated-decisions",
            is("Decisions by a machine", "Décisions par une machine"),
            vec![alone],
        ),
    ];
    for (item, heading, paragraphs) in items {
        let said: Vec<String> =
            paragraphs.into_iter().filter(|text| !text.trim().is_empty()).collect();
        if said.is_empty() {
            paper.missing.push(item);
        }
        paper.say(&heading, said);
    }
    paper
}

fn transfers(house: &House, pack: &Pack, language: &str) -> String {
    let outside = house.processors.iter().find(|one| !pack.regions().contains(&one.region));
    match outside {
        // Nothing to say for it: the start is refused, and the lint shows the gap.
        Some(_) => String::new(),
        None => pick(
            language,
            "Nothing leaves the European Economic Area.",
            "Rien ne quitte l'Espace économique européen.",
        )
        .to_owned(),
    }
}

fn retention(house: &House, terms: Vec<String>, language: &str) -> Vec<String> {
    let days = house.inactivity_days;
    let inactivity = match pick(language, "en", "fr") {
        "fr" => format!(
            "Sans usage pendant {days} jours, l'enrôlement prend fin et la clé est détruite."
        ),
        _ => format!("After {days} days without use the enrolment ends and its key is destroyed."),
    };
    std::iter::once(inactivity).chain(terms).collect()
}

/// The record of processing activities (GDPR Art. 30), one section for each purpose.
pub fn ropa(house: &House, pack: &Pack, language: &str) -> Paper {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let title =
        pick(language, "Record of processing activities", "Registre des activités de traitement");
    let mut paper = Paper::new(language, title, pack);
    paper.say(
        &is("Controller", "Responsable"),
        vec![
            house.controller.clone(),
            house.contact.clone(),
            house.dpo.clone(),
            house.place.clone(),
        ],
    );
    let head = [
        is("purpose", "finalité"),
        is("basis", "base"),
        is("people", "personnes"),
        is("data", "données"),
    ];
    let mut rows = vec![head.to_vec()];
    for basis in pack.purposes().iter().filter(|basis| house.purposes.contains(basis.purpose)) {
        let people = match basis.purpose {
            Purpose::Staff => is("employees", "salariés"),
            _ => is("shoppers who enrolled", "clients enrôlés"),
        };
        let data = is(
            "protected palm template (Art. 9), pseudonym",
            "gabarit protégé de paume (art. 9), pseudonyme",
        );
        let name = format!("{}: {}", basis.purpose, basis.text.get(language));
        rows.push(vec![name, basis.basis.clone(), people, data]);
    }
    paper.table(&is("Purposes", "Finalités"), rows);
    paper.table(&is("Recipients", "Destinataires"), recipients(house, language));
    let mut rows = vec![vec![
        is("data", "données"),
        is("what", "quoi"),
        is("at most", "au plus"),
        is("rule", "règle"),
    ]];
    for term in pack.retention() {
        let text = term.text.get(language).to_owned();
        rows.push(vec![term.item.clone(), text, term.keep.to_string(), term.rule.to_string()]);
    }
    paper.table(&is("Terms", "Durées"), rows);
    paper.say(
        &is("Security", "Sécurité"),
        vec![is(
            "One key per person, sealed records, mutual TLS and MLS, an append-only witnessed log without identity, verifiable erasure.",
            "Une clé par personne, enregistrements scellés, TLS mutuel et MLS, journal inaltérable attesté et sans identité, effacement vérifiable.",
        )],
    );
    paper
}

fn recipients(house: &House, language: &str) -> Vec<Vec<String>> {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let head =
        vec![is("who", "qui"), is("what", "quoi"), is("where", "où"), is("contract", "contrat")];
    let rows = house.processors.iter();
    let rows = rows.map(|one| {
        vec![one.name.clone(), one.what.clone(), one.region.clone(), one.contract.clone()]
    });
    std::iter::once(head).chain(rows).collect()
}

/// The annex of facts to an impact assessment (GDPR Art. 35(7)): what the box does, not whether it
/// should.
pub fn dpia(house: &House, pack: &Pack, language: &str) -> Paper {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let title =
        pick(language, "Impact assessment: annex of facts", "Analyse d'impact : annexe des faits");
    let mut paper = ropa(house, pack, language);
    paper.title = title.into();
    let custody = match house.custody {
        Custody::Subject => is(
            "Type 1: the sealed template is on the person's medium alone; compared one to one.",
            "Type 1 : le gabarit scellé n'est que sur le support de la personne ; comparé un à un.",
        ),
        Custody::Split => is(
            "Type 2: the box holds ciphertext, the person the only key; compared one to one.",
            "Type 2 : la passerelle détient le chiffré, la personne la seule clé ; comparé un à un.",
        ),
        Custody::Operator => is(
            "Type 3: the box holds the key and searches among all, under a signed exception. EDPB Opinion 11/2024 rejects this in airports; CNIL délib. 2023-135 calls it not the most protective.",
            "Type 3 : la passerelle détient la clé et cherche parmi tous, sous exception signée. L'avis CEPD 11/2024 le rejette dans les aéroports ; la délib. CNIL 2023-135 le juge non le plus protecteur.",
        ),
    };
    paper.sections.insert(
        0,
        Section { heading: is("Custody", "Garde"), paragraphs: vec![custody], rows: Vec::new() },
    );
    let mut measures = vec![vec![
        is("rule", "règle"),
        is("source", "source"),
        is("measure", "mesure"),
        is("enforced", "tenue"),
    ]];
    for row in pack.rows() {
        use palmgate_policy::pack::Standing;
        let held = match row.standing {
            Standing::Pack { .. } | Standing::Elsewhere(_) => is("yes", "oui"),
            Standing::Open => is("not yet", "pas encore"),
            Standing::Beyond => is("by people", "par des personnes"),
        };
        measures.push(vec![
            row.rule.to_string(),
            row.cite,
            row.text.get(language).to_owned(),
            held,
        ]);
    }
    paper.table(&is("Measures", "Mesures"), measures);
    let mut risks = house.residual_risks.clone();
    let open =
        pack.rows().into_iter().filter(|row| row.standing == palmgate_policy::pack::Standing::Open);
    risks.extend(open.map(|row| format!("{}: {}", row.rule, row.text.get(language))));
    paper.say(&is("Residual risks", "Risques résiduels"), risks);
    paper
}

/// The sign at the entrance (AI Act Art. 50, GDPR Art. 13, NYC Adm. Code 22-1202).
pub fn sign(house: &House, pack: &Pack, language: &str) -> Paper {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let title = pick(
        language,
        "This store can recognise your palm, if you want it to",
        "Ce magasin peut reconnaître votre paume, si vous le voulez",
    );
    let mut paper = Paper::new(language, title, pack);
    paper.say(
        &is("Only if you enrolled", "Seulement si vous êtes enrôlé"),
        vec![is(
            "Nothing looks at you. A reader looks at a hand that is held over it, and wipes it if it does not know it.",
            "Rien ne vous regarde. Un lecteur regarde la main qu'on lui présente, et l'efface s'il ne la connaît pas.",
        )],
    );
    paper.say(&is("You need not", "Rien ne vous y oblige"), vec![house.fallback.clone()]);
    paper.say(&is("Questions", "Questions"), vec![house.controller.clone(), house.contact.clone()]);
    paper
}
