//! The Python side: its environment, its process, its plots.

use crate::Result;
use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Versions that the figures in `docs/search.md` are of.
const PACKAGES: [&str; 4] =
    ["faiss-cpu==1.15.1", "usearch==2.26.6", "numpy==2.4.6", "matplotlib==3.11.2"];

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers").join(name)
}

fn interpreter(folder: &Path) -> PathBuf {
    folder.join("venv/bin/python")
}

/// Makes the virtual environment when it is not there.
pub(crate) fn prepare(folder: &Path) -> Result<()> {
    let done = folder.join("venv/palmgate-packages");
    let wanted = PACKAGES.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")))?;
    run(Command::new(interpreter(folder)).args(["-m", "pip", "install", "-q"]).args(PACKAGES))?;
    Ok(std::fs::write(done, wanted)?)
}

pub(crate) fn plot(folder: &Path, docs: &Path) -> Result<()> {
    run(Command::new(interpreter(folder)).arg(script("plot.py")).arg(folder).arg(docs))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

/// The peers' process. It ends when its input closes.
pub(crate) struct Peers {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Peers {
    /// Starts the process, which makes the vectors in `folder` and its indexes.
    pub(crate) fn start(folder: &Path, rows: usize) -> Result<Self> {
        let mut child = Command::new(interpreter(folder))
            .arg(script("peers.py"))
            .arg(folder)
            .arg(rows.to_string())
            .env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut peers = Self { child, input, output };
        if peers.line()? == "ready" { Ok(peers) } else { Err("the peers did not start".into()) }
    }

    /// Milliseconds of process CPU time a search.
    pub(crate) fn time(
        &mut self,
        method: &str,
        cache: &str,
        first: usize,
        count: usize,
        batch: usize,
    ) -> Result<f64> {
        let input = self.input.as_mut().ok_or("the peers have ended")?;
        writeln!(input, "{method} {cache} {first} {count} {batch}")?;
        Ok(self.line()?.parse()?)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }
}

impl Drop for Peers {
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
