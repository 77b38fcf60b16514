//! Every table and key that a configuration may have.

/// Tables by path, each with its keys.
pub(super) const SCHEMA: &[(&str, &[&str])] = &[
    ("store", &["tenant", "name", "custody", "purposes", "state_directory", "language"]),
    ("store.operator_dossier", &["reason", "dpia_sha256", "assessed", "signed_by", "expires"]),
    ("listen", &["broker", "https", "public_host"]),
    (
        "broker",
        &[
            "kind",
            "host",
            "port",
            "max_terminals",
            "max_terminals_per_address",
            "backlog_mebibytes",
            "terminal_mebibytes_per_second",
        ],
    ),
    ("cloud", &["identity", "region", "shard_refresh_seconds", "timeout_ms"]),
    ("palm", &["workers", "queue_length", "matcher", "models", "calibration"]),
    (
        "limits",
        &[
            "payment_without_step_up_minor_units",
            "tries_before_block",
            "clock_skew_seconds",
            "challenge_seconds",
            "challenge_needed_for",
            "answer_slot_milliseconds",
        ],
    ),
    ("retention", &["inactivity_days", "history_days", "consent_reconfirmation_days"]),
    ("staff", &["zones"]),
    ("fallback", &["description"]),
    ("log", &["target", "format", "level"]),
    (
        "law",
        &[
            "production",
            "pack",
            "note",
            "signers",
            "controller",
            "contact",
            "officer",
            "assessed",
            "administrators",
            "statements",
        ],
    ),
    (
        "law.measured",
        &[
            "false_match_per_billion",
            "false_positive_per_million",
            "apcer_permille",
            "bpcer_permille",
            "linkability_permille",
        ],
    ),
    ("root", &["keeper", "tpm"]),
    ("update", &["signers", "directory"]),
    ("development", &["certificate_seconds", "root_in_file"]),
];

/// The keys of a table, its sub-tables included; `None` for a table that does not exist. The
/// empty path is the file itself.
pub(super) fn keys(table: &str) -> Option<Vec<&'static str>> {
    let known = SCHEMA.iter().find(|(path, _)| *path == table);
    if known.is_none() && !table.is_empty() {
        return None;
    }
    let own = known.into_iter().flat_map(|(_, keys)| keys.iter().copied());
    let below = SCHEMA.iter().filter_map(|(path, _)| match path.rsplit_once('.') {
        Some((parent, name)) => (parent == table).then_some(name),
        None => table.is_empty().then_some(*path),
    });
    Some(own.chain(below).collect())
}

/// What somebody who wrote `key` in `table` probably meant: a key close by, or the same key in
/// another table.
pub(super) fn nearest(table: &str, key: &str) -> Option<String> {
    let close = |candidate: &&str| distance(key, candidate) <= 1 + key.len() / 4;
    let near = keys(table)?.into_iter().filter(close).min_by_key(|known| distance(key, known));
    near.map(|known| format!("`{known}`")).or_else(|| {
        let elsewhere = SCHEMA.iter().find(|(_, keys)| keys.contains(&key));
        elsewhere.map(|(path, _)| format!("`{key}` in [{path}]"))
    })
}

/// Levenshtein's distance.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, a) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in other.bytes().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let near = |table, key| nearest(table, key);
        assert_eq!(near("store", "custdy").as_deref(), Some("`custody`"));
        assert_eq!(near("", "sotre").as_deref(), Some("`store`"));
        assert_eq!(near("store", "history_days").as_deref(), Some("`history_days` in [retention]"));
        assert_eq!(near("store", "operator_dosier").as_deref(), Some("`operator_dossier`"));
        assert_eq!(near("store", "colour_of_the_door"), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
