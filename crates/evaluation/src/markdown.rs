use crate::{Kind, OperatingPoint, Rates, Report};
use std::{collections::BTreeMap, fmt::Write};

/// The report for people.
pub(crate) fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing into a string cannot fail.
    let _ = compose(&mut text, report);
    text
}

fn compose(out: &mut String, report: &Report) -> std::fmt::Result {
    let shown = match report.kind {
        Kind::Hand => "whole hands",
        Kind::Region => "ready regions of interest",
    };
    writeln!(out, "# Recognition performance\n")?;
    writeln!(
        out,
        "Technology evaluation after ISO/IEC 19795-1 of {} pictures ({shown}) of {} hands. A reference is made from up to three consistent captures of one session, as an enrolment makes it; a probe is one capture. Models `{}`.\n",
        report.pictures, report.identities, report.model
    )?;
    writeln!(out, "| | |\n|---|---|")?;
    writeln!(out, "| failure to acquire | {} of pictures |", percent(report.failure_to_acquire))?;
    writeln!(
        out,
        "| failure to enrol | {} of hands and sessions |",
        percent(report.failure_to_enrol)
    )?;
    writeln!(out, "| references | {} |", report.references)?;
    writeln!(
        out,
        "| captures that an enrolment would have asked for again | {} |",
        report.inconsistent_captures
    )?;
    rates(out, "All comparisons", &report.all)?;
    match &report.cross_session {
        Some(cross) => rates(out, "Across sessions", cross)?,
        None => writeln!(out, "\nThere is one session only: figures across days are worse.")?,
    }
    writeln!(out, "\n![Detection error trade-off](det.svg)")?;
    searches(out, report)?;
    groups(out, report)?;
    writeln!(out, "\n## Time\n\nMedian milliseconds of one thread while all were working:\n")?;
    writeln!(out, "| step | ms |\n|---|---|")?;
    for (step, time) in &report.steps_ms {
        writeln!(out, "| {step} | {time:.2} |")?;
    }
    failures(out, report)
}

fn rates(out: &mut String, title: &str, rates: &Rates) -> std::fmt::Result {
    writeln!(
        out,
        "\n## {title}\n\n{} mated and {} non-mated comparisons. Equal error rate {}. Rank 1 {} (one reference a hand). The best 1 % of embeddings hold the mate in {} of searches. With no false match at all, {} of mated comparisons fail.\n",
        rates.pairs.genuine,
        rates.pairs.impostor,
        percent(rates.eer),
        percent(rates.rank1),
        percent(rates.shortlist),
        percent(rates.fnmr_without_false_match)
    )?;
    writeln!(out, "| false match rate | threshold | seen | false non-match rate | 95 % |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    rates.operating_points.iter().try_for_each(|one| point(out, one))?;
    for (name, rate) in &rates.fnmr_at_fmr {
        if rate.is_none() {
            writeln!(out, "| {name} | | | not to be told from {} pairs | |", rates.pairs.impostor)?;
        }
    }
    writeln!(out, "\nThe thresholds that this program decides by:\n")?;
    writeln!(out, "| meant for | threshold | false match rate | false non-match rate | 95 % |")?;
    writeln!(out, "|---|---|---|---|---|")?;
    rates.as_calibrated.iter().try_for_each(|one| point(out, one))
}

fn point(out: &mut String, point: &OperatingPoint) -> std::fmt::Result {
    let OperatingPoint { target, threshold, fmr, fnmr, fnmr_bounds: (low, high) } = point;
    let (fnmr, low, high) = (percent(*fnmr), percent(*low), percent(*high));
    writeln!(out, "| {target:e} | {threshold:.4} | {fmr:.1e} | {fnmr} | {low} to {high} |")
}

fn searches(out: &mut String, report: &Report) -> std::fmt::Result {
    writeln!(out, "\n## Searches\n")?;
    if report.open_set.is_empty() {
        return writeln!(out, "Too few probes for a rate of false positive identifications.");
    }
    writeln!(out, "| gallery | false positive identification | false negative identification |")?;
    writeln!(out, "|---|---|---|")?;
    for one in &report.open_set {
        let (fpir, fnir) = (percent(one.fpir), percent(one.fnir));
        writeln!(out, "| {} | {fpir} | {fnir} |", one.gallery)?;
    }
    Ok(())
}

fn groups(out: &mut String, report: &Report) -> std::fmt::Result {
    if !report.subgroups.is_empty() {
        writeln!(out, "\n## Groups\n\nAt the threshold of a false match rate of 1e-3 over all.\n")?;
        writeln!(out, "| group | mated | non-mated | false non-match | false match |")?;
        writeln!(out, "|---|---|---|---|---|")?;
        for group in &report.subgroups {
            let (fnmr, pairs) = (percent(group.fnmr), group.pairs);
            let (genuine, impostor) = (pairs.genuine, pairs.impostor);
            writeln!(
                out,
                "| {} | {genuine} | {impostor} | {fnmr} | {:.1e} |",
                group.name, group.fmr
            )?;
        }
    }
    if !report.quality.is_empty() {
        let rates: Vec<String> = report.quality.iter().map(|rate| percent(*rate)).collect();
        writeln!(
            out,
            "\n## Quality\n\nFalse non-match rate by quarter of sharpness, least sharp first, at the strictest threshold above: {}.",
            rates.join(", ")
        )?;
    }
    Ok(())
}

fn failures(out: &mut String, report: &Report) -> std::fmt::Result {
    if !report.failures.is_empty() {
        let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
        for failure in &report.failures {
            *reasons.entry(&failure.reason).or_default() += 1;
        }
        writeln!(out, "\n## Pictures that could not be used\n\n| reason | pictures |\n|---|---|")?;
        for (reason, count) in reasons {
            writeln!(out, "| {reason} | {count} |")?;
        }
        writeln!(out)?;
        for failure in &report.failures {
            writeln!(out, "* `{}`: {}", failure.picture, failure.reason)?;
        }
    }
    if !report.ignored.is_empty() {
        writeln!(out, "\nNot looked at: `{}`.", report.ignored.join("`, `"))?;
    }
    Ok(())
}

fn percent(rate: f64) -> String {
    format!("{:.2} %", rate * 100.0)
}
