use super::story::Story;
use crate::{
    bench,
    format::{heading, say},
};
use anyhow::Result;
use std::time::Duration;

/// The summary: latencies by step, hits, memory, where the metrics are.
pub(crate) async fn print(story: &mut Story, took: Duration) -> Result<()> {
    heading("Where the time of a payment goes");
    bench::print_table(&story.latencies, &story.steps);
    heading("Summary");
    let counter = story.store.control.counter().await?;
    let people: usize = counter.people.values().sum();
    say(&format!(
        "people      {people} enrolled, {} of them given by the cloud",
        counter.from_cloud
    ));
    if let Some(memory) = story.store.process.memory_mib() {
        say(&format!("memory      {memory:.0} MiB resident in the gateway"));
    }
    for line in story.store.metrics().await?.lines().filter(|line| is_told(line)) {
        say(&format!("metric      {line}"));
    }
    say(&format!("metrics     https://{}/metrics", story.store.https));
    let (held, told) = (story.steps_told() - story.failed(), story.steps_told());
    say(&format!("held        {held} of {told} steps, in {:.1} s", took.as_secs_f64()));
    Ok(())
}

fn is_told(line: &str) -> bool {
    let told =
        ["palmgate_decisions_total{", "palmgate_cloud_requests_total{", "palmgate_erasures_total{"];
    told.iter().any(|metric| line.starts_with(metric))
}
