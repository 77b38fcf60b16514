use std::fmt;

/// One thing wrong with a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as `layer/file`.
    pub file: String,
    /// The line, from 1; 0 where none fits.
    pub line: usize,
    /// The rule or policy that it is about, if one.
    pub rule: Option<String>,
    /// What is wrong and what to do.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if let Some(rule) = &self.rule {
            write!(f, ": {rule}")?;
        }
        write!(f, ": {}", self.text)
    }
}

/// The pack is refused. Everything that is wrong with it, each with file, line and rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackError(pub Vec<Problem>);

impl fmt::Display for PackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the law pack is refused")?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for PackError {}

/// The line of a byte offset, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.get(..offset.min(text.len())).unwrap_or_default();
    before.split('\n').count()
}
