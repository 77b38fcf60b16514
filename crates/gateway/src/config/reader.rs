//! Walks a TOML document and collects every problem instead of stopping at the first.

use super::{Problem, schema};
use std::ops::Range;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// Characters of a line or a value that a problem shows.
const SHOWN: usize = 100;

/// What a check has against a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) wanted: String,
    pub(super) remedy: String,
}

impl Wanted {
    pub(super) fn new(wanted: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { wanted: wanted.into(), remedy: remedy.into() }
    }
}

/// A document being read.
pub(super) struct Reader<'a> {
    text: &'a str,
    file: &'a str,
    root: DeTable<'a>,
    problems: Vec<Problem>,
}

impl<'a> Reader<'a> {
    /// Reads TOML; problems are all mistakes in its grammar.
    pub(super) fn parse(text: &'a str, file: &'a str) -> Result<Self, Vec<Problem>> {
        let (root, errors) = DeTable::parse_recoverable(text);
        let mut reader = Self { text, file, root: root.into_inner(), problems: Vec::new() };
        if errors.is_empty() {
            for (path, key, span) in unknown_keys(&reader.root, "") {
                reader.complain_of_key(&path, &key, span);
            }
            return Ok(reader);
        }
        for error in errors {
            let span = error.span().unwrap_or(text.len()..text.len());
            let wanted = format!("TOML (https://toml.io): {}", error.message());
            let remedy = "correct this line; text values need quotation marks";
            reader.push(
                span.clone(),
                String::new(),
                reader.slice(span),
                Wanted::new(wanted, remedy),
            );
        }
        Err(reader.finish())
    }

    /// The problems found so far, in the order of lines.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort_by_key(|problem| problem.line);
        self.problems
    }

    /// The value of a key, or `default` when it is absent. A value that does not pass is a problem
    /// and gives the default too, so that reading goes on.
    pub(super) fn read<T>(
        &mut self,
        table: &str,
        key: &str,
        default: T,
        check: impl FnOnce(&DeValue<'_>) -> Result<T, Wanted>,
    ) -> T {
        self.optional(table, key, check).unwrap_or(default)
    }

    /// The value of a key that has no default.
    pub(super) fn optional<T>(
        &mut self,
        table: &str,
        key: &str,
        check: impl FnOnce(&DeValue<'_>) -> Result<T, Wanted>,
    ) -> Option<T> {
        debug_assert!(schema::keys(table).is_some_and(|keys| keys.contains(&key)), "{table} {key}");
        match check(self.value(table, key)?.get_ref()) {
            Ok(value) => Some(value),
            Err(wanted) => {
                self.complain(table, key, wanted);
                None
            }
        }
    }

    /// The value of a key that must be there because its table is.
    pub(super) fn required<T>(
        &mut self,
        table: &str,
        key: &str,
        missing: Wanted,
        check: impl FnOnce(&DeValue<'_>) -> Result<T, Wanted>,
    ) -> Option<T> {
        if self.has(table, key) {
            return self.optional(table, key, check);
        }
        self.complain(table, key, missing);
        None
    }

    /// Whether a key is there; an empty key asks for the table.
    pub(super) fn has(&self, table: &str, key: &str) -> bool {
        if key.is_empty() { self.table(table).is_some() } else { self.value(table, key).is_some() }
    }

    /// Whether there is a problem with a key: what follows from its value is not worth a word.
    pub(super) fn is_faulty(&self, table: &str, key: &str) -> bool {
        let name = path(table, key);
        self.problems.iter().any(|problem| problem.key == name)
    }

    /// Notes a problem with a key, at its line or where it should stand; one for each key.
    pub(super) fn complain(&mut self, table: &str, key: &str, wanted: Wanted) {
        if self.is_faulty(table, key) {
            return;
        }
        let value = self.value(table, key).map(|value| (value.span(), self.found(value)));
        let (span, found) = value.unwrap_or_else(|| (self.header(table), "nothing".into()));
        self.push(span, path(table, key), found, wanted);
    }

    /// Notes that keys do nothing in this configuration: a sign that something else was meant.
    pub(super) fn complain_if_set(&mut self, table: &str, keys: &[&str], wanted: &str) {
        for key in keys {
            if self.has(table, key) {
                let remedy = "remove it, or change what keeps it from working";
                self.complain(table, key, Wanted::new(wanted, remedy));
            }
        }
    }

    fn complain_of_key(&mut self, table: &str, key: &str, span: Range<usize>) {
        let name = path(table, key);
        if schema::keys(&name).is_some() {
            let wanted = format!("a table: the line [{name}], and its keys below");
            let remedy = "write each key on a line of its own";
            return self.push(span, name, "a single value".into(), Wanted::new(wanted, remedy));
        }
        let known = schema::keys(table).unwrap_or_default().join(", ");
        let wanted = if table.is_empty() {
            format!("one of the tables {known}")
        } else {
            format!("one of {known}")
        };
        let remedy = match schema::nearest(table, key) {
            Some(near) => format!("did you mean {near}?"),
            None => "remove it, or look for it in the sample configuration".into(),
        };
        self.push(span, name, "an unknown key".into(), Wanted::new(wanted, remedy));
    }

    fn push(&mut self, span: Range<usize>, key: String, found: String, wanted: Wanted) {
        let start = span.start.min(self.text.len());
        let line = self.text.get(..start).unwrap_or_default().matches('\n').count();
        let excerpt = shorten(self.text.lines().nth(line).unwrap_or_default());
        let Wanted { wanted, remedy } = wanted;
        let file = self.file.into();
        self.problems.push(Problem { file, line: line + 1, excerpt, key, found, wanted, remedy });
    }

    fn table(&self, path: &str) -> Option<&DeTable<'a>> {
        path.split('.').try_fold(&self.root, |table, name| table.get(name)?.get_ref().as_table())
    }

    fn value(&self, table: &str, key: &str) -> Option<&Spanned<DeValue<'a>>> {
        self.table(table)?.get(key)
    }

    /// Where the innermost table stands that exists on the way to `path`.
    fn header(&self, path: &str) -> Range<usize> {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        let outer = if parent.is_empty() { Some(&self.root) } else { self.table(parent) };
        match outer.and_then(|table| table.get_key_value(name)) {
            Some((key, _)) => key.span(),
            None if parent.is_empty() => 0..0,
            None => self.header(parent),
        }
    }

    fn found(&self, value: &Spanned<DeValue<'_>>) -> String {
        match value.get_ref() {
            DeValue::Table(_) => "a table".into(),
            _ => self.slice(value.span()),
        }
    }

    fn slice(&self, span: Range<usize>) -> String {
        let text = self.text.get(span).unwrap_or_default();
        if text.trim().is_empty() { "nothing more".into() } else { shorten(text) }
    }
}

fn path(table: &str, key: &str) -> String {
    [table, key].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
}

/// One line, not too long.
fn shorten(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(SHOWN).collect();
    if short.len() < text.trim().len() {
        short.push('…');
    }
    short
}

/// Keys that the schema does not have, and tables that are none: table, key, place.
fn unknown_keys(table: &DeTable<'_>, path_to: &str) -> Vec<(String, String, Range<usize>)> {
    let known = schema::keys(path_to).unwrap_or_default();
    let mut unknown = Vec::new();
    for (key, value) in table {
        let below = path(path_to, key.get_ref());
        match (value.get_ref(), schema::keys(&below)) {
            (DeValue::Table(table), Some(_)) => unknown.append(&mut unknown_keys(table, &below)),
            (_, None) if known.contains(&&**key.get_ref()) => {}
            _ => unknown.push((path_to.into(), key.get_ref().to_string(), key.span())),
        }
    }
    unknown
}
