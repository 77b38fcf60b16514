//! Prints `docs/rules.md`.
#![allow(clippy::print_stdout, reason = "printing is this program's work")]

use palmgate_policy::{
    Pack,
    pack::{PackError, document, embedded_layer},
};

fn main() -> Result<(), PackError> {
    let stack = |state| {
        let layers: Vec<_> = ["eu-gdpr", state].into_iter().filter_map(embedded_layer).collect();
        Pack::load(&layers)
    };
    let packs = [stack("fr-cnil")?, stack("us-il")?, stack("us-tx")?, stack("us-nyc")?];
    print!("{}", document(&packs.each_ref()));
    Ok(())
}
