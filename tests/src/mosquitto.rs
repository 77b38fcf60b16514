//! A real Mosquitto.

use anyhow::{Context, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A broker process that ends with its owner.
pub struct Mosquitto {
    child: Child,
    file: PathBuf,
}

impl Mosquitto {
    /// Starts one with the shipped configuration and rules, its paths and port put in. The
    /// certificates lie in `directory` already.
    pub fn shipped(directory: &Path, port: u16) -> Result<Self> {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/mosquitto");
        let text = fs::read_to_string(shipped.join("mosquitto.conf"))?;
        let mut lines: Vec<String> = Vec::new();
        for line in text.lines() {
            let key = line.split_whitespace().next().unwrap_or_default();
            let file = |name: &str| format!("{key} {}", directory.join(name).display());
            lines.push(match key {
                "listener" => format!("listener {port} 127.0.0.1"),
                "cafile" => file("authority.pem"),
                "certfile" => file("broker.pem"),
                "keyfile" => file("broker.key"),
                "acl_file" => file("acl"),
                "log_dest" => "log_dest stderr".to_owned(),
                _ => line.to_owned(),
            });
        }
        fs::copy(shipped.join("acl"), directory.join("acl"))?;
        Self::configured(directory, &lines.join("\n"))
    }

    /// Starts one with this configuration.
    pub fn configured(directory: &Path, configuration: &str) -> Result<Self> {
        // The files in a test's directory are this user's.
        let user = std::env::var("USER").unwrap_or_else(|_| "root".into());
        let file = directory.join("mosquitto.conf");
        fs::write(&file, format!("{configuration}\nuser {user}\n"))?;
        Ok(Self { child: launch(&file)?, file })
    }

    /// Ends the process without warning and starts another on the same file.
    pub fn kill_and_restart(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        self.child = launch(&self.file)?;
        Ok(())
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(file: &Path) -> Result<Child> {
    let log = fs::File::options().create(true).append(true).open(file.with_extension("log"))?;
    let program = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "mosquitto"]
        .into_iter()
        .find(|program| !program.starts_with('/') || Path::new(program).exists())
        .context("mosquitto is installed by `cargo xtask test`")?;
    let mut command = Command::new(program);
    command.arg("-c").arg(file).stdout(Stdio::null()).stderr(log);
    command.spawn().context("mosquitto is installed by `cargo xtask test`")
}
