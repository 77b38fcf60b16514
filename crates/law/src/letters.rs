//! Letters to people, and the report to the authority: what the office sends when it acts.

use crate::{
    papers::{House, Paper, pick},
    receipt::rfc3339,
};
use palmgate_policy::{
    Pack,
    deadline::Calendar,
    office::{Breach, Request, RequestKind},
};
use palmgate_protocol::{Custody, Timestamp};

/// Says that a request came in, and when the answer is due.
pub fn receipt_of_request(house: &House, pack: &Pack, request: &Request, language: &str) -> Paper {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let mut paper =
        letter(house, pack, request, language, "We have your request", "Nous avons votre demande");
    let last = last_day(pack, request.due(pack));
    paper.say(
        &is("When you get an answer", "Quand vous aurez réponse"),
        vec![match pick(language, "en", "fr") {
            "fr" => format!("Au plus tard le {last}. C'est gratuit."),
            _ => format!("On {last} at the latest. It costs nothing."),
        }],
    );
    paper.say(
        &is("At once, if you like", "Tout de suite, si vous voulez"),
        vec![is(
            "At every reader of the store, your palm, with your code where you have one, is all it takes: your data on the screen or as a file, pause, correction, erasure. No identity paper is asked for.",
            "À chaque lecteur du magasin, votre paume, avec votre code si vous en avez un, suffit : vos données à l'écran ou en fichier, pause, correction, effacement. Aucune pièce d'identité n'est demandée.",
        )],
    );
    paper
}

/// Says that an answer takes longer, and why (GDPR Art. 12(3)).
pub fn extension(
    house: &House,
    pack: &Pack,
    request: &Request,
    reasons: &str,
    language: &str,
) -> Paper {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let mut paper = letter(
        house,
        pack,
        request,
        language,
        "Your request takes longer",
        "Votre demande prend plus de temps",
    );
    paper.say(&is("Why", "Pourquoi"), vec![reasons.to_owned()]);
    let last = last_day(pack, request.due(pack));
    paper.say(&is("The answer comes by", "La réponse vient au plus tard"), vec![last]);
    complaint(&mut paper, pack, language);
    paper
}

/// Says that a request is refused, why, and where to complain (GDPR Art. 12(4)).
pub fn refusal(
    house: &House,
    pack: &Pack,
    request: &Request,
    reasons: &str,
    language: &str,
) -> Paper {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let mut paper = letter(
        house,
        pack,
        request,
        language,
        "Your request is refused",
        "Votre demande est refusée",
    );
    paper.say(&is("Why", "Pourquoi"), vec![reasons.to_owned()]);
    complaint(&mut paper, pack, language);
    paper
}

/// Asks for more proof of identity, and says why (GDPR Art. 12(6)).
pub fn identity(
    house: &House,
    pack: &Pack,
    request: &Request,
    doubt: &str,
    language: &str,
) -> Paper {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let mut paper = letter(house, pack, request, language, "Is it you?", "Est-ce bien vous ?");
    paper.say(&is("Our doubt", "Notre doute"), vec![doubt.to_owned()]);
    paper.say(
        &is("What is enough", "Ce qui suffit"),
        vec![is(
            "Your palm at a reader of the store. We keep no copy of an identity paper.",
            "Votre paume à un lecteur du magasin. Nous ne gardons aucune copie de pièce d'identité.",
        )],
    );
    complaint(&mut paper, pack, language);
    paper
}

/// The report of a breach with the fields of Art. 33(3), as far as they are known; its missing items
/// are those that the report still lacks at `now`.
pub fn breach_draft(
    house: &House,
    pack: &Pack,
    breach: &Breach,
    now: Timestamp,
    language: &str,
) -> Paper {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let title =
        pick(language, "Breach of personal data: report", "Violation de données : notification");
    let mut paper = Paper::new(language, title, pack);
    let authority = &pack.top().authority;
    let unknown = is("not known yet", "pas encore connu");
    let said =
        |text: &str| vec![if text.trim().is_empty() { unknown.clone() } else { text.to_owned() }];
    paper.say(&is("To", "À"), vec![authority.name.clone(), authority.url.clone()]);
    paper.say(
        &is("From", "De"),
        vec![house.controller.clone(), house.contact.clone(), house.place.clone()],
    );
    let moment = |at: Option<Timestamp>| at.map_or_else(|| unknown.clone(), rfc3339);
    paper.table(
        &is("The clock (Art. 33(1))", "Le délai (art. 33, § 1)"),
        vec![
            vec![is("aware since", "connue depuis"), is("report due", "notification due")],
            vec![moment(breach.aware), moment(breach.due(pack))],
        ],
    );
    paper.say(
        &is("Nature, people and records (a)", "Nature, personnes et enregistrements (a)"),
        said(&breach.nature),
    );
    paper.say(&is("Contact (b)", "Contact (b)"), said(&breach.contact));
    paper.say(
        &is("Likely consequences (c)", "Conséquences probables (c)"),
        said(&breach.consequences),
    );
    paper.say(&is("Measures (d)", "Mesures (d)"), said(&breach.measures));
    if !breach.delay_reasons.trim().is_empty() || breach.due(pack).is_some_and(|due| now >= due) {
        paper.say(&is("Reasons for the delay", "Motifs du retard"), said(&breach.delay_reasons));
    }
    paper.say(
        &is("What the box could not give away", "Ce que la passerelle ne pouvait livrer"),
        vec![keys(house, language)],
    );
    paper.missing = breach.missing(pack, now);
    paper
}

/// For Art. 34(3)(a): which keys never were on the box.
fn keys(house: &House, language: &str) -> String {
    match house.custody {
        Custody::Subject => pick(
            language,
            "No template: people carry their own.",
            "Aucun gabarit : chacun porte le sien.",
        ),
        Custody::Split => pick(
            language,
            "No readable template: the only key to each lies with its person.",
            "Aucun gabarit lisible : la seule clé de chacun est chez sa personne.",
        ),
        Custody::Operator => pick(
            language,
            "The box holds the keys to its templates: who had disk and root key could read them.",
            "La passerelle détient les clés de ses gabarits : qui a eu disque et clé racine pouvait les lire.",
        ),
    }
    .to_owned()
}

fn letter(
    house: &House,
    pack: &Pack,
    request: &Request,
    language: &str,
    en: &str,
    fr: &str,
) -> Paper {
    let is = |en, fr| pick(language, en, fr).to_owned();
    let mut paper = Paper::new(language, pick(language, en, fr), pack);
    paper.say(&is("From", "De"), vec![house.controller.clone(), house.contact.clone()]);
    let day = Calendar::new(pack).day(request.received).to_string();
    paper.table(
        &is("Your request", "Votre demande"),
        vec![
            vec![is("reference", "référence"), is("right", "droit"), is("received", "reçue le")],
            vec![request.reference.clone(), right(request.kind, language), day],
        ],
    );
    paper
}

fn right(kind: RequestKind, language: &str) -> String {
    let (en, fr) = match kind {
        RequestKind::Access => ("access (Art. 15)", "accès (art. 15)"),
        RequestKind::Rectification => ("correction (Art. 16)", "rectification (art. 16)"),
        RequestKind::Erasure => ("erasure (Art. 17)", "effacement (art. 17)"),
        RequestKind::Restriction => ("restriction (Art. 18)", "limitation (art. 18)"),
        RequestKind::Portability => ("portability (Art. 20)", "portabilité (art. 20)"),
        RequestKind::Objection => ("objection (Art. 21)", "opposition (art. 21)"),
    };
    pick(language, en, fr).to_owned()
}

fn complaint(paper: &mut Paper, pack: &Pack, language: &str) {
    let authority = &pack.top().authority;
    let heading = pick(
        language,
        "You may complain, and go to court",
        "Vous pouvez vous plaindre, et saisir la justice",
    );
    paper.say(heading, vec![authority.name.clone(), authority.url.clone()]);
}

/// The last day on which something that is late from `due` on is in time.
fn last_day(pack: &Pack, due: Timestamp) -> String {
    let before = Timestamp::from_millis(due.as_millis().saturating_sub(1));
    Calendar::new(pack).day(before).to_string()
}
