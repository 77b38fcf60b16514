//! `docs/rules.md`, written from the packs.

use super::{Coverage, Mark, Pack, Row, Standing};
use std::{collections::BTreeSet, fmt::Write as _};

const HEAD: &str = "\
# The rules

Written from the law packs in `config/packs` by `cargo run -p palmgate-policy --example rules`; a
test fails when it differs. Not legal advice: a lawyer reads the rows marked K and S first.

Marks: **V** read in the primary text, **S** confirmed in a secondary text, **K** not yet found in a
text, **D** a figure that the designers chose.

A rule with policies is proven by `crates/policy/tests/rows.rs`: the test of its name turns a lawful
act into the one that the policy is about, and `every_rule_is_missed` drops each policy and number in
turn and sees that test fail. A policy decides what it is asked about: the acts `capture`, `compare`,
`recognise`, `escalate`, `adopt`, `enrol`, `exercise`, `answer` and `keep` are asked by the engine on
every scan, enrolment, right and sweep; the other acts by whoever runs the office and the start.
";

/// The table of every row of these packs, as Markdown; a row that several share stands once.
pub fn document(packs: &[&Pack]) -> String {
    let mut text = HEAD.to_owned();
    let mut seen = BTreeSet::new();
    for pack in packs {
        let names: Vec<_> = pack.layers().iter().map(|layer| layer.name.as_str()).collect();
        let Coverage { rows, enforceable, enforced, proven } = pack.coverage();
        let _ = write!(
            text,
            "\n## {}\n\n{rows} rows, {enforceable} enforceable by software, {enforced} enforced, \
             {proven} proven.\n\n| rule | mark | source | in plain words | enforced by | proven by |\n\
             |---|---|---|---|---|---|\n",
            names.join(" + ")
        );
        for row in pack.rows().iter().filter(|row| seen.insert(row.rule)) {
            let (by, proof) = standing(row);
            let mark = match row.mark {
                Mark::V => "V",
                Mark::S => "S",
                Mark::K => "K",
                Mark::D => "D",
            };
            let _ = writeln!(
                text,
                "| {} | {mark} | {} | {} | {by} | {proof} |",
                row.rule,
                cell(&row.cite),
                cell(&row.text.en)
            );
        }
    }
    text
}

fn standing(row: &Row) -> (String, String) {
    let code =
        |words: &[String]| words.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(" ");
    match &row.standing {
        Standing::Pack { policies, numbers, terms } => {
            let mut by = Vec::new();
            for (kind, words) in [("policy", policies), ("number", numbers), ("term", terms)] {
                if !words.is_empty() {
                    by.push(format!("{kind} {}", code(words)));
                }
            }
            (by.join(", "), format!("`rows`: `{}`", row.rule))
        }
        Standing::Elsewhere(tests) => ("another part of the box".into(), code(tests)),
        Standing::Open => ("**nothing yet**".into(), "–".into()),
        Standing::Beyond => ("not enforceable by software".into(), "–".into()),
    }
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}
