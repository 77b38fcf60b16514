//! `cargo xtask units`: how much of the machine each unit is exposed to, as systemd counts it, with a
//! limit for ours and the distribution's own units beside them.

use crate::install;
use std::{env, fs, path::Path, process::Command};

/// What counts.
pub(crate) const NEEDED: [(&str, &str); 2] =
    [("systemd-analyze", "systemd"), ("mosquitto", "mosquitto")];

/// A unit, the drop-ins that go with it, and the largest exposure allowed, in tenths; `None` for
/// units of others.
struct Measured {
    title: &'static str,
    unit: &'static str,
    drop_ins: &'static [&'static str],
    limit: Option<u32>,
}

const UNITS: [Measured; 8] = [
    Measured {
        title: "palmgated",
        unit: "systemd/palmgated.service",
        drop_ins: &[],
        limit: Some(12),
    },
    Measured {
        title: "palmgated with a credential",
        unit: "systemd/palmgated.service",
        drop_ins: &["systemd/palmgated.service.d/credential.conf"],
        limit: Some(12),
    },
    // It sees one device: /dev/tpmrm0.
    Measured {
        title: "palmgated with a TPM",
        unit: "systemd/palmgated.service",
        drop_ins: &[
            "systemd/palmgated.service.d/credential.conf",
            "systemd/palmgated.service.d/tpm.conf",
        ],
        limit: Some(14),
    },
    Measured {
        title: "palmgate-matcher",
        unit: "systemd/palmgate-matcher.service",
        drop_ins: &[],
        limit: Some(3),
    },
    Measured {
        title: "palmgate-cloud",
        unit: "systemd/palmgate-cloud.service",
        drop_ins: &[],
        limit: Some(12),
    },
    Measured {
        title: "mosquitto with our drop-in",
        unit: "/lib/systemd/system/mosquitto.service",
        drop_ins: &["systemd/mosquitto.service.d/palmgate.conf"],
        limit: Some(12),
    },
    Measured {
        title: "mosquitto as distributed",
        unit: "/lib/systemd/system/mosquitto.service",
        drop_ins: &[],
        limit: None,
    },
    Measured {
        title: "prometheus as distributed",
        unit: "/lib/systemd/system/prometheus.service",
        drop_ins: &[],
        limit: None,
    },
];

/// Fails when a unit of ours is exposed to more than its limit, or has a key that systemd does not
/// know.
pub(crate) fn units() -> Result<(), String> {
    install(&NEEDED)?;
    install(&[crate::monitoring::NEEDED])?;
    println!("── exposure of the units (systemd-analyze security; 0 is none, 10 is all)");
    let place = env::temp_dir().join(format!("palmgate-units-{}", std::process::id()));
    let measured = UNITS.iter().try_for_each(|unit| measure(unit, &place));
    let _ = fs::remove_dir_all(&place);
    measured
}

fn measure(measured: &Measured, place: &Path) -> Result<(), String> {
    let file = laid_out(measured, place).map_err(|error| format!("{}: {error}", measured.title))?;
    let mut analyze = Command::new("systemd-analyze");
    analyze.args(["security", "--offline=true", "--no-pager"]).env("SYSTEMD_UNIT_PATH", place);
    if let Some(limit) = measured.limit {
        analyze.arg(format!("--threshold={limit}"));
    }
    let output = analyze.arg(&file).output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let exposure = text.lines().find_map(|line| {
        let (_, level) = line.split_once("Overall exposure level for ")?;
        level.split_whitespace().nth(1)
    });
    let exposure = exposure.ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let at_most = measured
        .limit
        .map_or(String::new(), |limit| format!(", at most {}.{}", limit / 10, limit % 10));
    println!("   {:28} {exposure}{at_most}", measured.title);
    if !output.status.success() {
        return Err(format!("{} is exposed to {exposure}{at_most}", measured.title));
    }
    if measured.limit.is_some() { known_keys(measured.title, &file, place) } else { Ok(()) }
}

/// The unit and its drop-ins where systemd finds nothing else.
fn laid_out(measured: &Measured, place: &Path) -> std::io::Result<std::path::PathBuf> {
    let _ = fs::remove_dir_all(place);
    let unit = Path::new(measured.unit);
    let name = unit.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let drop_ins = place.join(format!("{name}.d"));
    fs::create_dir_all(&drop_ins)?;
    for drop_in in measured.drop_ins.iter().map(Path::new) {
        fs::copy(drop_in, drop_ins.join(drop_in.file_name().unwrap_or_default()))?;
    }
    let file = place.join(name);
    fs::copy(unit, &file)?;
    Ok(file)
}

/// `verify` also complains of programs and units that are not installed here; the packages' trial
/// looks at those.
fn known_keys(title: &str, file: &Path, place: &Path) -> Result<(), String> {
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no", "--recursive-errors=no"]).arg(file);
    verify.env("SYSTEMD_UNIT_PATH", format!("{}:", place.display()));
    let output = verify.output().map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stderr);
    let wrong = text.lines().find(|line| {
        ["Unknown", "Failed to parse", "Invalid", "ignoring"].iter().any(|word| line.contains(word))
    });
    wrong.map_or(Ok(()), |line| Err(format!("{title}: {line}")))
}
