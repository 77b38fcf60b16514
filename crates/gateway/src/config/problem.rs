use std::fmt;

/// One thing that is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as it was named.
    pub file: String,
    /// Line in the file, from 1.
    pub line: usize,
    /// That line.
    pub excerpt: String,
    /// The key with its tables, such as `store.name`; empty when the file is no TOML.
    pub key: String,
    /// What stands there, or `nothing`.
    pub found: String,
    /// What may stand there, and by which rule.
    pub wanted: String,
    /// What to do.
    pub remedy: String,
}

/// Everything that is wrong with a configuration file, in the order of its lines; at least one
/// problem. The fault is in the file: starting again without changing it cannot help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors(pub(super) Vec<Problem>);

impl ConfigErrors {
    /// The problems.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, excerpt, key, found, wanted, remedy } = self;
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        let subject = if key.is_empty() { "not TOML" } else { key };
        writeln!(f, "error: {subject}: found {found}")?;
        writeln!(f, "{gutter}--> {file}:{line}")?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{number} | {excerpt}")?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{gutter} = wanted: {wanted}")?;
        writeln!(f, "{gutter} = remedy: {remedy}")
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            writeln!(f, "{problem}")?;
        }
        let file = self.0.first().map_or("", |problem| &problem.file);
        match self.0.len() {
            1 => write!(f, "1 problem in {file}; nothing was started"),
            count => write!(f, "{count} problems in {file}; nothing was started"),
        }
    }
}
