//! One test for each row of the rulebook that software holds to, named by its id; and the test that
//! drops each policy and number in turn and sees that the row's test fails.

use libtest_mimic::{Arguments, Failed, Trial};
use palmgate_policy::{
    Pack,
    pack::{Row, Standing, embedded_layer},
};
use std::{collections::BTreeSet, fs, path::Path, process::ExitCode};

fn stack(names: &[&str]) -> Pack {
    let layers: Vec<_> = names.iter().filter_map(|name| embedded_layer(name)).collect();
    match Pack::load(&layers) {
        Ok(pack) => pack,
        Err(error) => panic!("{error}"),
    }
}

const STACKS: [&[&str]; 4] =
    [&["eu-gdpr", "fr-cnil"], &["eu-gdpr", "us-il"], &["eu-gdpr", "us-tx"], &["eu-gdpr", "us-nyc"]];

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = vec![Trial::test("every_rule_is_missed", every_rule_is_missed)];
    let mut seen = BTreeSet::new();
    for names in STACKS {
        let pack = stack(names);
        for row in pack.rows() {
            let held = !matches!(row.standing, Standing::Open | Standing::Beyond);
            if held && seen.insert(row.rule) {
                let pack = pack.clone();
                let name = row.rule.id().to_owned();
                trials.push(Trial::test(name, move || holds(&pack, &pack, &row)));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// The row as `full` states it, in the `pack` under test.
fn holds(full: &Pack, pack: &Pack, row: &Row) -> Result<(), Failed> {
    match &row.standing {
        Standing::Pack { policies, numbers, terms } => {
            for example in full.examples().iter().filter(|e| policies.contains(&e.policy)) {
                example.holds(pack)?;
            }
            for name in numbers {
                let bounds = full.number(name).ok_or("the number is there")?;
                for laxer in [bounds.most + 1, bounds.least - 1] {
                    let refusal =
                        pack.check(name, laxer).err().ok_or(format!("{name} = {laxer} passed"))?;
                    if refusal.rule != row.rule || refusal.cite.is_empty() {
                        return Err(format!("{name}: refused by {}", refusal.rule).into());
                    }
                }
                pack.check(name, bounds.value).map_err(|error| error.to_string())?;
            }
            let kept = |item: &String| pack.retention().iter().any(|term| term.item == *item);
            match terms.iter().find(|item| !kept(item)) {
                Some(item) => Err(format!("{item} has no term").into()),
                None => Ok(()),
            }
        }
        Standing::Elsewhere(tests) => tests.iter().try_for_each(|test| exists(test)),
        Standing::Open | Standing::Beyond => Ok(()),
    }
}

/// A named test is in the named file.
fn exists(test: &str) -> Result<(), Failed> {
    let (file, name) = test.split_once(": ").ok_or(format!("{test}: no `file: name`"))?;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let declared = [format!("fn {name}("), format!("```{name}"), format!("\"{name}\"")];
    if declared.iter().any(|form| text.contains(form)) {
        Ok(())
    } else {
        Err(format!("{file} has no test {name}").into())
    }
}

fn every_rule_is_missed() -> Result<(), Failed> {
    for names in STACKS {
        let full = stack(names);
        full.permits_lawful_acts()?;
        let rows = full.rows();
        let of = |rule| rows.iter().find(|row| row.rule == rule).ok_or("every rule has a row");
        for policy in full.policies() {
            let without = full.without_policies(&[&policy.id]);
            if holds(&full, &without, of(policy.rule)?).is_ok() {
                return Err(format!("{} is gone and its row still holds", policy.id).into());
            }
        }
        for (name, number) in full.numbers() {
            if holds(&full, &full.without_number(name), of(number.rule)?).is_ok() {
                return Err(format!("{name} is gone and its row still holds").into());
            }
        }
        let examples = full.examples();
        let broken = examples.iter().filter_map(|example| {
            example.holds(&full).and_then(|()| example.is_decided_by_it(&full)).err()
        });
        let broken: Vec<String> = broken.map(|broken| broken.to_string()).collect();
        if !broken.is_empty() {
            return Err(broken.join("\n").into());
        }
    }
    Ok(())
}
