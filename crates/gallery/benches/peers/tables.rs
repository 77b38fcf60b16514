//! The tables of `docs/search.md`, to be pasted there.

use serde_json::Value;

/// Thresholds that the table of plans shows.
const PLANS: [(u64, f64); 8] = [
    (256, 0.6),
    (256, 0.7),
    (256, 0.8),
    (512, 0.5),
    (512, 0.6),
    (512, 0.7),
    (1024, 0.4),
    (1024, 0.6),
];

pub(crate) fn all(result: &Value, more: &Value) -> String {
    [plans(more), misses(more), times(result, more), runs(more)].join("\n\n")
}

fn table(head: &[String], rows: impl Iterator<Item = Vec<String>>) -> String {
    let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
    let rule = vec!["---".to_owned(); head.len()];
    let lines = [line(head), line(&rule).replace(' ', "")];
    lines.into_iter().chain(rows.map(|cells| line(&cells))).collect::<Vec<_>>().join("\n")
}

fn heads(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn plans(more: &Value) -> String {
    let is_shown = |plan: &&Value| {
        let near = |(dimensions, threshold): &(u64, f64)| {
            plan["dimensions"] == *dimensions
                && (number(&plan["threshold"]) - threshold).abs() < 1e-3
        };
        PLANS.iter().any(near)
    };
    let cells = |plan: &Value| {
        vec![
            plan["dimensions"].to_string(),
            format!("{:.2}", number(&plan["threshold"])),
            plan["components"].to_string(),
            format!("{} of {}", plan["cut"], plan["components"]),
            format!("{:.0e}", number(&plan["strangers"])),
        ]
    };
    let head = heads(&["dimensions", "T", "m", "k", "strangers that pass"]);
    table(&head, list(&more["plans"]).iter().filter(is_shown).map(cells))
}

fn misses(more: &Value) -> String {
    let cells = |each: &Value| {
        let (bound, probes) = (number(&each["bound"]), number(&each["probes"]));
        vec![
            each["dimensions"].to_string(),
            format!("{:.2}", number(&each["threshold"])),
            format!("{bound:.1e}"),
            each["probes"].to_string(),
            format!("{:.1}", bound * probes),
            each["seen"].to_string(),
        ]
    };
    let head = heads(&["dimensions", "T", "bound", "probes", "missed at most", "missed"]);
    table(&head, list(&more["misses"]).iter().map(cells))
}

/// Milliseconds of each method for each number of rows, and how many times ours that is.
fn times(result: &Value, more: &Value) -> String {
    let runs = list(&more["runs"]);
    let hot = |method: &str, n: &Value| {
        let is_it = |row: &&Value| row["method"] == method && row["n"] == *n;
        list(&result["rows"]).iter().find(is_it).map_or(f64::NAN, |row| number(&row["median_ms"]))
    };
    let of = |method: &str, run: &Value| {
        let cold = number(&run["cold_ms"][method]);
        [hot(method, &run["n"]), cold, number(&run["batch_ms"][method])]
    };
    let cells = |method: &&str| {
        let cell = |(time, ours): (f64, f64)| format!("{} ({:.1})", short(time), time / ours);
        let both = |run: &Value| {
            of(method, run).into_iter().zip(of("palmgate", run)).map(cell).collect::<Vec<_>>()
        };
        std::iter::once((*method).to_owned()).chain(runs.iter().flat_map(both)).collect()
    };
    let columns = |run: &Value| [format!("{} rows", run["n"]), "cold".into(), "batch of 32".into()];
    let head = std::iter::once("ms a search, and times the cascade's".to_owned());
    let head: Vec<String> = head.chain(runs.iter().flat_map(columns)).collect();
    let methods = ["palmgate", "palmgate-int8"];
    table(&head, methods.iter().chain(&crate::PEERS).map(cells))
}

fn short(value: f64) -> String {
    let digits = if value < 0.1 {
        4
    } else if value < 10.0 {
        2
    } else {
        0
    };
    format!("{value:.digits$}")
}

fn runs(more: &Value) -> String {
    const NAMES: [&str; 9] = [
        "int8_share_of_bandwidth",
        "bandwidth_gb_s",
        "avx2_over_avx512",
        "two_threads_over_one",
        "two_readers_over_one",
        "load_ms",
        "bytes_a_row",
        "huge_pages",
        "differing_from_float_search",
    ];
    let runs = list(&more["runs"]);
    let head: Vec<String> = std::iter::once("measured".to_owned())
        .chain(runs.iter().map(|run| format!("{} rows", run["n"])))
        .collect();
    let text = |value: &Value| match value {
        Value::Array(parts) => {
            parts.iter().map(|part| format!("{:.0}", number(part))).collect::<Vec<_>>().join(", ")
        }
        _ => format!("{:.2}", number(value)),
    };
    let cells = |name: &&str| {
        let values = runs.iter().map(|run| text(&run[*name]));
        std::iter::once(name.replace('_', " ")).chain(values).collect()
    };
    table(&head, NAMES.iter().map(cells))
}
