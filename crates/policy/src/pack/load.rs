//! Reads layers, stacks them and refuses whatever is not right, all at once.

use super::{
    Action, Entry, Layer, Mark, Number, Pack, PackError, Policy, Problem, PurposeBasis, Term,
    embedded::SCHEMA,
    example,
    format::{Manifest, NumberEntry, RowEntry, TermEntry, Texts},
    problem::line_of,
};
use crate::Rule;
use cedar_policy::{
    ActionConstraint, Effect, PolicyId, PolicySet, Schema, ValidationMode, Validator,
};
use jiff::{Span, SpanRelativeTo, civil::Date, tz::TimeZone};
use palmgate_protocol::terminal::Refusal;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, fmt::Write as _, sync::LazyLock};
use toml::Spanned;

/// Bytes of a layer's files together.
const MAX_LAYER_BYTES: usize = 1024 * 1024;
const MANIFEST: &str = "pack.toml";
/// Names of the numbers that policies compare with; the schema's record `limit` has the same.
pub(super) const LIMITS: &[&str] = &[
    "clock_skew_ms",
    "frames",
    "captures_per_hand",
    "payment",
    "payments_total",
    "payments_in_row",
    "tries",
    "request_extension_months",
    "breach_hours",
    "dpia_days",
    "dossier_days",
    "key_days",
    "drill_days",
    "test_days",
    "acknowledgement_hours",
    "lease_hours",
    "apcer_permille",
    "bpcer_permille",
    "false_match_per_billion",
    "linkability_permille",
    "enrol_age",
    "pay_age",
    "hold_days",
];
/// Numbers that the engine, the papers and the deadlines need besides.
const NEEDED: &[&str] = &[
    "inactivity_days",
    "consent_days",
    "history_days",
    "block_seconds",
    "frames_ms",
    "clock_jump_hours",
    "unconfirmed_erasures",
    "request_months",
    "roaming_notice_months",
    "expiry_notice_days",
];

pub(super) static SCHEMA_PARSED: LazyLock<Schema> = LazyLock::new(|| {
    // A constant of the program; the tests parse it.
    Schema::from_cedarschema_str(SCHEMA).expect("the schema built in is valid").0
});

/// The files of one layer, read by the edge.
#[derive(Clone, Debug)]
pub struct LayerSource {
    name: String,
    files: BTreeMap<String, String>,
}

impl LayerSource {
    /// A layer from the name of its directory, and its files.
    pub fn new<N: Into<String>, T: Into<String>>(
        name: &str,
        files: impl IntoIterator<Item = (N, T)>,
    ) -> Self {
        let files = files.into_iter().map(|(file, text)| (file.into(), text.into()));
        Self { name: name.into(), files: files.collect() }
    }

    /// The layers that this one says it stacks on, and the files that it says it has; `None` when
    /// its manifest cannot be read, which [`Pack::load`] explains.
    pub fn announced(&self) -> Option<(Vec<String>, Vec<String>)> {
        let manifest: Manifest = toml::from_str(self.files.get(MANIFEST)?).ok()?;
        Some((manifest.stacks_on.into_inner(), manifest.policies.into_inner()))
    }
}

/// Collects problems of one file.
struct File<'a> {
    name: String,
    text: &'a str,
    problems: Vec<Problem>,
}

impl File<'_> {
    fn problem(&mut self, offset: Option<usize>, rule: Option<&str>, text: impl Into<String>) {
        self.problems.push(Problem {
            file: self.name.clone(),
            line: offset.map_or(0, |offset| line_of(self.text, offset)),
            rule: rule.map(Into::into),
            text: text.into(),
        });
    }

    fn rule(&mut self, pack: &Draft, id: &Spanned<String>) -> Option<Rule> {
        let rule = Rule::parse(id.get_ref()).filter(|rule| pack.rows.contains(rule));
        if rule.is_none() {
            let text = "unknown rule: list it in `rows`, or correct it";
            self.problem(Some(id.span().start), Some(id.get_ref()), text);
        }
        rule
    }

    fn cited(&mut self, id: &Spanned<String>, cite: &str, texts: [&str; 2]) {
        if cite.trim().is_empty() {
            self.problem(Some(id.span().start), Some(id.get_ref()), "missing citation");
        }
        if texts.iter().any(|text| text.trim().is_empty()) {
            let text = "missing text: say it in `en` and `fr`";
            self.problem(Some(id.span().start), Some(id.get_ref()), text);
        }
    }
}

#[derive(Default)]
struct Draft {
    layers: Vec<Layer>,
    policies: BTreeMap<PolicyId, Policy>,
    all: PolicySet,
    numbers: BTreeMap<String, Number>,
    purposes: Vec<PurposeBasis>,
    retention: Vec<Term>,
    regions: std::collections::BTreeSet<String>,
    rows: Vec<Rule>,
    elsewhere: Vec<Entry>,
    open: Vec<Entry>,
    beyond: Vec<Entry>,
    statement: String,
}

impl Pack {
    /// Checks and stacks layers, the lowest first.
    ///
    /// # Errors
    /// [`PackError`] with everything that is wrong, each with file, line and rule.
    pub fn load(layers: &[LayerSource]) -> Result<Self, PackError> {
        let mut draft = Draft::default();
        let mut problems = Vec::new();
        for layer in layers {
            problems.extend(draft.stack(layer));
        }
        problems.extend(draft.whole());
        if problems.is_empty() { Ok(draft.finish()) } else { Err(PackError(problems)) }
    }
}

impl Draft {
    fn stack(&mut self, layer: &LayerSource) -> Vec<Problem> {
        let name = format!("{}/{MANIFEST}", layer.name);
        let text = layer.files.get(MANIFEST).map(String::as_str).unwrap_or_default();
        let mut file = File { name, text, problems: Vec::new() };
        let bytes: usize = layer.files.values().map(String::len).sum();
        if bytes > MAX_LAYER_BYTES {
            file.problem(None, None, format!("the layer is larger than {MAX_LAYER_BYTES} bytes"));
            return file.problems;
        }
        let manifest: Manifest = match toml::from_str(text) {
            Ok(manifest) => manifest,
            Err(error) => {
                let at = error.span().map(|span| span.start);
                file.problem(at, None, error.message());
                return file.problems;
            }
        };
        for (name, text) in &layer.files {
            let hash = data_encoding::HEXLOWER.encode(&Sha256::digest(text));
            let _ = writeln!(self.statement, "{hash}  {}/{name}", layer.name);
        }
        self.describe(&mut file, layer, &manifest);
        for row in &manifest.rows {
            match Rule::parse(row.get_ref()) {
                Some(rule) if !self.rows.contains(&rule) => self.rows.push(rule),
                // Two states may regulate the same row.
                Some(_) => (),
                None => file.problem(Some(row.span().start), Some(row.get_ref()), "no rule id"),
            }
        }
        self.purposes(&mut file, &manifest);
        for number in &manifest.number {
            self.number(&mut file, number);
        }
        for term in &manifest.retention {
            self.term(&mut file, term);
        }
        let entries = [
            (&manifest.elsewhere, true, &mut Vec::new()),
            (&manifest.open, false, &mut Vec::new()),
            (&manifest.beyond, false, &mut Vec::new()),
        ];
        let [elsewhere, open, beyond] = entries.map(|(rows, tests, into)| {
            into.extend(rows.iter().filter_map(|row| self.entry(&mut file, row, tests)));
            std::mem::take(into)
        });
        self.elsewhere.extend(elsewhere);
        self.open.extend(open);
        self.beyond.extend(beyond);
        let mut problems = file.problems;
        for name in manifest.policies.get_ref() {
            let Some(text) = layer.files.get(name) else {
                let text = format!("{name} is listed in `policies` and is not there");
                let file = format!("{}/{MANIFEST}", layer.name);
                problems.push(Problem { file, line: 0, rule: None, text });
                continue;
            };
            let name = format!("{}/{name}", layer.name);
            let mut file = File { name, text, problems: Vec::new() };
            self.policies(&mut file, &layer.name);
            problems.extend(file.problems);
        }
        problems
    }

    fn describe(&mut self, file: &mut File<'_>, layer: &LayerSource, manifest: &Manifest) {
        if *manifest.name.get_ref() != layer.name {
            let text = format!("the name is not that of its directory, {}", layer.name);
            file.problem(Some(manifest.name.span().start), None, text);
        }
        for below in manifest.stacks_on.get_ref() {
            if !self.layers.iter().any(|layer| layer.name == *below) {
                let text = format!("stacks on {below}, which is not there: load it first");
                file.problem(Some(manifest.stacks_on.span().start), None, text);
            }
        }
        let zone = manifest.time_zone.get_ref();
        if TimeZone::get(zone).is_err() {
            let text = format!("{zone:?} is no IANA time zone");
            file.problem(Some(manifest.time_zone.span().start), None, text);
        }
        let effective = manifest.effective.to_string().parse::<Date>();
        let authority = manifest.authority.clone();
        let authority = authority.or_else(|| self.layers.last().map(|l| l.authority.clone()));
        match (effective, authority) {
            (Ok(effective), Some(authority)) => self.layers.push(Layer {
                name: layer.name.clone(),
                version: manifest.version.clone(),
                effective,
                title: manifest.title.clone(),
                authority,
                time_zone: zone.clone(),
            }),
            (Err(_), _) => file.problem(None, None, "`effective` is no date: write 2026-11-22"),
            (_, None) => file.problem(None, None, "missing [authority]: where people complain"),
        }
        if let Some(regions) = &manifest.regions {
            let allowed =
                |region: &&String| self.layers.len() <= 1 || self.regions.contains(*region);
            let wider = regions.iter().find(|region| !allowed(region));
            if let Some(region) = wider {
                let text = format!("region {region} is not allowed by the layer below");
                file.problem(None, Some("G-44"), text);
            }
            self.regions = regions.iter().cloned().collect();
        }
    }

    fn purposes(&mut self, file: &mut File<'_>, manifest: &Manifest) {
        for entry in &manifest.purpose {
            let at = Some(entry.name.span().start);
            let Some(rule) = file.rule(self, &entry.rule) else { continue };
            let Ok(purpose) = entry.name.get_ref().parse() else {
                file.problem(at, Some(rule.id()), "not a purpose");
                continue;
            };
            if entry.basis.trim().is_empty() {
                file.problem(at, Some("G-06"), "a purpose has exactly one basis: none is given");
            } else if self.purposes.iter().any(|known| known.purpose == purpose) {
                file.problem(at, Some("G-06"), "a purpose has exactly one basis: this is another");
            } else {
                let text = Texts { en: entry.en.clone(), fr: entry.fr.clone() };
                let basis = entry.basis.clone();
                self.purposes.push(PurposeBasis { purpose, rule, basis, text });
            }
        }
    }

    fn number(&mut self, file: &mut File<'_>, entry: &NumberEntry) {
        let at = Some(entry.name.span().start);
        let Some(rule) = file.rule(self, &entry.rule) else { return };
        file.cited(&entry.rule, &entry.cite, [&entry.en, &entry.fr]);
        let name = entry.name.get_ref().clone();
        if !LIMITS.contains(&name.as_str())
            && !NEEDED.contains(&name.as_str())
            && name != "probe_ms"
        {
            return file.problem(
                at,
                Some(rule.id()),
                format!("{name} is no number of this version"),
            );
        }
        if entry.least.is_none() && entry.most.is_none() {
            let text = "missing bound: say `most` or `least`";
            return file.problem(at, Some(rule.id()), text);
        }
        let mut number = Number {
            rule,
            cite: entry.cite.clone(),
            mark: entry.mark,
            value: entry.value,
            least: entry.least.unwrap_or(1),
            most: entry.most.unwrap_or(i64::from(i32::MAX)),
            text: Texts { en: entry.en.clone(), fr: entry.fr.clone() },
        };
        if let Some(below) = self.numbers.get(&name) {
            let relaxed = entry.relaxes.as_deref().is_some_and(|cite| !cite.trim().is_empty());
            let stricter = match (entry.most, entry.least) {
                (Some(_), _) => number.value <= below.value,
                _ => number.value >= below.value,
            };
            if number.least < below.least || number.most > below.most || !(stricter || relaxed) {
                let text = format!(
                    "laxer than the layer below ({} to {}, {} by rule {}: {})",
                    below.least, below.most, below.value, below.rule, below.cite
                );
                return file.problem(at, Some(rule.id()), text);
            }
            number.least = number.least.max(below.least);
            number.most = number.most.min(below.most);
        }
        if !(number.least..=number.most).contains(&number.value) {
            let text = format!("{} is outside its own bound", number.value);
            return file.problem(at, Some(rule.id()), text);
        }
        self.numbers.insert(name, number);
    }

    fn term(&mut self, file: &mut File<'_>, entry: &TermEntry) {
        let at = Some(entry.keep.span().start);
        let Some(rule) = file.rule(self, &entry.rule) else { return };
        let Ok(keep) = entry.keep.get_ref().parse::<Span>() else {
            let text = format!("{:?} is no ISO 8601 duration, such as P6M", entry.keep.get_ref());
            return file.problem(at, Some(rule.id()), text);
        };
        let text = Texts { en: entry.en.clone(), fr: entry.fr.clone() };
        let term = Term { item: entry.item.clone(), rule, keep, text };
        // Counted from a fixed day, since months differ.
        let from = SpanRelativeTo::from(jiff::civil::date(2025, 1, 1));
        match self.retention.iter_mut().find(|known| known.item == term.item) {
            None => self.retention.push(term),
            Some(known) => {
                if term.keep.compare((&known.keep, from)).is_ok_and(std::cmp::Ordering::is_lt) {
                    *known = term;
                }
            }
        }
    }

    fn entry(&self, file: &mut File<'_>, row: &RowEntry, tests: bool) -> Option<Entry> {
        let rule = file.rule(self, &row.id)?;
        file.cited(&row.id, &row.cite, [&row.en, &row.fr]);
        if tests == row.tests.is_empty() {
            let text = "`tests` names what shows an [[elsewhere]], and nothing else";
            file.problem(Some(row.id.span().start), Some(rule.id()), text);
        }
        let text = Texts { en: row.en.clone(), fr: row.fr.clone() };
        let (cite, mark, tests) = (row.cite.clone(), row.mark, row.tests.clone());
        Some(Entry { rule, cite, mark, text, tests })
    }

    fn policies(&mut self, file: &mut File<'_>, layer: &str) {
        let set: PolicySet = match file.text.parse() {
            Ok(set) => set,
            Err(errors) => {
                let errors: cedar_policy::ParseErrors = errors;
                for error in errors.iter() {
                    let labels = miette::Diagnostic::labels(error);
                    let at = labels.and_then(|mut labels| labels.next()).map(|l| l.offset());
                    file.problem(at, None, error.to_string());
                }
                return;
            }
        };
        if set.num_of_templates() > 0 {
            file.problem(None, None, "a pack has no templates: write each policy out");
        }
        for policy in set.policies() {
            let id = policy.annotation("id").unwrap_or_default().to_owned();
            let at = file.text.find(&format!("@id(\"{id}\")"));
            match self.policy(policy, &id, layer) {
                Err(text) => {
                    let named = Some(id.as_str()).filter(|id| !id.is_empty());
                    file.problem(at, named, text);
                }
                Ok(read) => {
                    let key = PolicyId::new(&id);
                    let placed = self.all.add(policy.new_id(key.clone()));
                    if placed.is_err() || self.policies.insert(key, read).is_some() {
                        file.problem(at, Some(&id), "there is another policy with this id");
                    }
                }
            }
        }
        self.validate(file);
    }

    fn policy(
        &self,
        policy: &cedar_policy::Policy,
        id: &str,
        layer: &str,
    ) -> Result<Policy, String> {
        let text = |name: &str| {
            let text = policy.annotation(name).map(str::trim).filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or_else(|| format!("missing @{name}"))
        };
        let (rule, _) = id.split_once('/').ok_or("missing @id, as rule/word")?;
        let rule = Rule::parse(rule)
            .filter(|rule| self.rows.contains(rule))
            .ok_or("unknown rule: list it in `rows`, or correct it")?;
        let cite = text("cite").map_err(|_| "missing citation: @cite")?;
        let effective = text("effective")?.parse().map_err(|_| "@effective is no date")?;
        let mark = match text("mark")?.as_str() {
            "V" => Mark::V,
            "S" => Mark::S,
            "K" => Mark::K,
            "D" => Mark::D,
            _ => return Err("@mark is V, S, K or D".into()),
        };
        let refusal = match policy.annotation("refusal") {
            None => None,
            Some(word) => Some(refusal(word).ok_or(format!("{word} is no refusal"))?),
        };
        let gate = match policy.annotation("gate") {
            None => 0,
            Some(gate) => gate.parse().map_err(|_| "@gate is a number from 1 to 12")?,
        };
        let changes = policy.annotation("example").ok_or("missing @example")?;
        let beside = policy.annotation("beside").unwrap_or_default();
        Ok(Policy {
            id: id.into(),
            place: self.policies.len(),
            rule,
            layer: layer.into(),
            actions: actions(policy)?,
            forbids: policy.effect() == Effect::Forbid,
            cite,
            effective,
            mark,
            text: Texts { en: text("en")?, fr: text("fr")? },
            refusal,
            gate,
            example: example::Changes::parse(changes)?,
            beside: beside.split_whitespace().map(Into::into).collect(),
        })
    }

    /// The file's policies against the schema: a misspelt fact would otherwise never decide.
    fn validate(&self, file: &mut File<'_>) {
        let validator = Validator::new(SCHEMA_PARSED.clone());
        let result = validator.validate(&self.all, ValidationMode::Strict);
        let errors = result.validation_errors().map(|e| (e.policy_id(), e.to_string()));
        let warnings = result.validation_warnings().map(|w| (w.policy_id(), w.to_string()));
        let found: Vec<(String, String)> =
            errors.chain(warnings).map(|(id, text)| (id.to_string(), text)).collect();
        for (id, text) in found {
            // Policies of other files were reported there.
            if let Some(at) = file.text.find(&format!("@id(\"{id}\")")) {
                file.problem(Some(at), Some(&id), text);
            }
        }
    }

    /// What only the whole stack can show.
    fn whole(&self) -> Vec<Problem> {
        let name = self.layers.last().map_or("", |layer| &layer.name);
        let mut file = File { name: format!("{name}/{MANIFEST}"), text: "", problems: Vec::new() };
        if self.layers.is_empty() {
            file.problem(None, None, "a pack has a layer at least");
        }
        for number in LIMITS.iter().chain(NEEDED) {
            if !self.numbers.contains_key(*number) {
                file.problem(None, None, format!("missing number {number}"));
            }
        }
        for row in &self.rows {
            let named = |entries: &[Entry]| entries.iter().any(|entry| entry.rule == *row);
            let decided = self.policies.values().any(|policy| policy.rule == *row)
                || self.numbers.values().any(|number| number.rule == *row)
                || self.retention.iter().any(|term| term.rule == *row)
                || named(&self.elsewhere);
            let not = named(&self.open) || named(&self.beyond);
            if decided == not {
                let text = if not {
                    "a row that something stands for is neither open nor beyond software"
                } else {
                    "nothing stands for this row: a policy, a number, a term, or why not"
                };
                file.problem(None, Some(row.id()), text);
            }
        }
        for rule in Rule::ALL.iter().filter(|_| !self.layers.is_empty()) {
            let french = rule.id().starts_with("C-");
            if !self.rows.contains(rule) && !french {
                file.problem(
                    None,
                    Some(rule.id()),
                    "the engine cites this rule: list it in `rows`",
                );
            }
        }
        file.problems
    }

    fn finish(mut self) -> Pack {
        let schema = data_encoding::HEXLOWER.encode(&Sha256::digest(SCHEMA));
        let _ = writeln!(self.statement, "{schema}  schema.cedarschema");
        let mut sets: BTreeMap<Action, PolicySet> = BTreeMap::new();
        for policy in self.all.policies() {
            let of = |read: &Policy| read.actions.clone();
            for action in self.policies.get(policy.id()).map(of).unwrap_or_default() {
                // Ids were checked to be unique.
                let _ = sets.entry(action).or_default().add(policy.clone());
            }
        }
        let hash = Sha256::digest(&self.statement).into();
        Pack {
            layers: self.layers,
            policies: self.policies,
            sets,
            numbers: self.numbers,
            purposes: self.purposes,
            retention: self.retention,
            regions: self.regions,
            rows: self.rows,
            elsewhere: self.elsewhere,
            open: self.open,
            beyond: self.beyond,
            statement: self.statement,
            hash,
        }
    }
}

/// The acts that a policy names; one that names none would be about everything.
fn actions(policy: &cedar_policy::Policy) -> Result<Vec<Action>, String> {
    let uids = match policy.action_constraint() {
        ActionConstraint::Any => return Err("a policy names its action".into()),
        ActionConstraint::Eq(uid) => vec![uid],
        ActionConstraint::In(uids) => uids,
    };
    let known = |uid: &cedar_policy::EntityUid| {
        let word = uid.id().unescaped().to_owned();
        Action::ALL.iter().find(|action| action.as_str() == word).copied()
    };
    uids.iter().map(|uid| known(uid).ok_or_else(|| format!("{uid} is no action"))).collect()
}

fn refusal(word: &str) -> Option<Refusal> {
    const ALL: [Refusal; 14] = [
        Refusal::PurposeNotServed,
        Refusal::Stale,
        Refusal::ClaimInvalid,
        Refusal::ClaimNeeded,
        Refusal::ConsentMissing,
        Refusal::AgeGate,
        Refusal::TooManyTries,
        Refusal::LeaseExpired,
        Refusal::CardNumber,
        Refusal::Malformed,
        Refusal::ZoneNotListed,
        Refusal::Internal,
        Refusal::AlreadyEnrolled,
        Refusal::StepUp,
    ];
    ALL.into_iter().find(|refusal| refusal.as_str() == word)
}
