//! The hand-over of programs to dpkg.

use crate::refusal::{Reason, Refusal};
use semver::Version;
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Packages of this product; the first is what a bundle with packages always brings.
const NAMES: [&str; 3] = ["palmgate", "palmgate-cloud", "palmgate-terminal"];
const OTHER_PACKAGE: &str = "use a bundle for this box, or have it made again";

/// dpkg of the box, or of another root for a trial.
#[derive(Clone, Debug, Default)]
pub struct Dpkg {
    root: Option<PathBuf>,
}

/// What a package says of itself.
struct Package {
    path: PathBuf,
    name: String,
    version: String,
    architecture: String,
}

impl Dpkg {
    /// Works in another root directory.
    pub const fn in_root(root: PathBuf) -> Self {
        Self { root: Some(root) }
    }

    /// Those of `packages` that belong on this box: for its architecture, the gateway and whatever
    /// else of this product is installed. All are of `version`.
    pub(crate) fn choose(
        &self,
        packages: &[PathBuf],
        version: &Version,
    ) -> Result<Vec<PathBuf>, Refusal> {
        let own = self.output("dpkg", &["--print-architecture"], Path::new("dpkg"))?;
        let own = own.trim();
        let mut chosen = Vec::new();
        for path in packages {
            let package = self.read(path)?;
            let upstream = package.version.rsplit_once('-').map_or(&*package.version, |(v, _)| v);
            if !NAMES.contains(&&*package.name) || upstream != version.to_string() {
                let wanted = format!("{} of version {version}", NAMES.join(", "));
                let found = format!("{} {}", package.name, package.version);
                return Err(Refusal::new(Reason::Foreign, path, wanted, found, OTHER_PACKAGE));
            }
            let fits = [own, "all"].contains(&&*package.architecture);
            if fits && (package.name == NAMES[0] || self.is_installed(&package.name)?) {
                chosen.push(package);
            }
        }
        let gateway = chosen.iter().find(|package| package.name == NAMES[0]);
        if let (None, Some(first)) = (gateway, packages.first()) {
            let at = first.parent().unwrap_or(first);
            let wanted = format!("the package {} for {own}", NAMES[0]);
            return Err(Refusal::new(Reason::Foreign, at, wanted, "none", OTHER_PACKAGE));
        }
        Ok(chosen.into_iter().map(|package| package.path).collect())
    }

    /// Installs packages; configuration that was changed stays.
    pub(crate) fn install(&self, packages: &[PathBuf]) -> Result<(), Refusal> {
        let Some(first) = packages.first() else { return Ok(()) };
        let status = self
            .command("dpkg")
            .args(["--force-confold", "--install"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            .status();
        let wanted = "dpkg to install it";
        let remedy = "what dpkg said is above: `dpkg --configure -a` finishes what was begun; then \
                      install the bundle again, or the one before";
        let refused = |found: &dyn std::fmt::Display| {
            Err(Refusal::new(Reason::System, first, wanted, found, remedy))
        };
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => refused(&status),
            Err(error) => refused(&error),
        }
    }

    fn read(&self, path: &Path) -> Result<Package, Refusal> {
        let format = "--showformat=${Package}\n${Version}\n${Architecture}\n";
        let shown = path.to_string_lossy();
        let fields = self.output("dpkg-deb", &["--show", format, &*shown], path)?;
        let mut fields = fields.lines().map(str::to_owned);
        match (fields.next(), fields.next(), fields.next()) {
            (Some(name), Some(version), Some(architecture)) => {
                Ok(Package { path: path.to_owned(), name, version, architecture })
            }
            _ => Err(Refusal::malformed(path, "a Debian package", "one without its fields")),
        }
    }

    fn is_installed(&self, name: &str) -> Result<bool, Refusal> {
        let format = "--showformat=${db:Status-Status}";
        let asked = self.command("dpkg-query").args(["--show", format, name]).output();
        let asked = asked
            .map_err(|error| Refusal::system(Path::new("dpkg-query"), "a program to ask", error))?;
        // It ends with 1 for a package that it has never seen.
        Ok(asked.stdout == b"installed")
    }

    fn output(&self, program: &str, arguments: &[&str], at: &Path) -> Result<String, Refusal> {
        let ran = self.command(program).args(arguments).output();
        let ran =
            ran.map_err(|error| Refusal::system(Path::new(program), "a program to ask", error))?;
        if ran.status.success() {
            return Ok(String::from_utf8_lossy(&ran.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&ran.stderr);
        let said = said.lines().next().unwrap_or("a failure").to_owned();
        Err(Refusal::malformed(at, "what dpkg can read", said))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8");
        if let Some(root) = &self.root {
            command.env("DPKG_ROOT", root);
        }
        command
    }
}
