//! A box whose clock is wrong.
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, bail};
use palmgate_cli::stage::{Gateway, Shape};
use palmgate_protocol::Name;
use std::{
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const PATIENCE: Duration = Duration::from_mins(1);
const DAY: i64 = 24 * 3600;

/// Builds what sets a program's clock wrong.
fn shim(directory: &Path) -> Result<String> {
    let library = directory.join("clock.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clock/clock.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source)
        .status()?;
    if !built.success() {
        bail!("cc failed");
    }
    Ok(library.display().to_string())
}

/// When the gateway's own certificate ends, and its clock, in seconds since 1970.
async fn told(gateway: &Gateway) -> Result<(f64, f64)> {
    let metrics = gateway.metrics().await?;
    let value = |series: &str| {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series));
        line.with_context(|| series.to_owned())?.trim().parse::<f64>().context("a number")
    };
    Ok((
        value("palmgate_certificate_expiry_timestamp_seconds{certificate=\"gateway\"}")?,
        value("palmgate_clock_timestamp_seconds")?,
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_at_1970_or_weeks_ahead_ends_no_certificate_for_good() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let shim = shim(directory.path())?;
    let (tenant, store): (Name, Name) = ("tenant".parse()?, "lyon".parse()?);
    // By a clock that is three weeks ahead, certificates of a week have ended.
    let more = format!("certificate_seconds = {}\n", 7 * DAY);
    let shape = Shape { more: &more, ..Shape::new(&tenant, &store) };
    let mut gateway = Gateway::start(directory.path(), &shape).await?;
    let till = gateway.terminal("till-1", &["entry"], false).await?;
    let (ends, _) = told(&gateway).await?;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    for off in [-now + 60, 20 * DAY, 0] {
        gateway.process.stop()?;
        let off = off.to_string();
        let clock = [("LD_PRELOAD", shim.as_str()), ("PALMGATE_STORY_CLOCK", off.as_str())];
        gateway.restart_with(&clock).await.with_context(|| format!("off by {off} s"))?;
        let (still, clock) = told(&gateway).await?;
        let wanted = (now + off.parse::<i64>()?) as f64;
        assert!((clock - wanted).abs() < 600.0, "the clock says {clock}, not {wanted}");
        assert!((still - ends).abs() < 1.0, "off by {off} s the certificate ends at {still}");
    }
    // Sessions begin by the system's clocks, so only now.
    till.ready(PATIENCE).await?;
    till.ping().await?;
    Ok(())
}
