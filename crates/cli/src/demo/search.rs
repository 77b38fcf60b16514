//! Looks for traces of people in everything that a store wrote.

use anyhow::{Context, Result};
use data_encoding::{BASE64, HEXLOWER};
use palmgate_palm::{Extractor, Transform};
use palmgate_protocol::{Name, Purpose, Secret, terminal::Frame};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Bytes of a canary that must be found together to count.
const WINDOW: usize = 16;

/// Something of a person that must not be found.
pub(crate) struct Canary {
    what: &'static str,
    needles: Vec<Vec<u8>>,
}

impl Canary {
    /// Looks for the middle of `bytes` as they are, in hexadecimal, and in base64 at each of its
    /// three alignments.
    pub(crate) fn new(what: &'static str, bytes: &[u8]) -> Self {
        let middle = bytes.len().saturating_sub(2 * WINDOW) / 2;
        let part = &bytes[middle..bytes.len().min(middle + 2 * WINDOW)];
        let plain = part[..part.len().min(WINDOW)].to_vec();
        let hex = HEXLOWER.encode(&plain).into_bytes();
        let mut needles = vec![plain, hex.clone(), hex.to_ascii_uppercase()];
        for shift in 0..3.min(part.len()) {
            let whole = (part.len() - shift) / 3 * 3;
            let text = BASE64.encode(&part[shift..shift + whole]);
            if text.len() >= WINDOW {
                needles.push(text.as_bytes()[..WINDOW].to_vec());
            }
        }
        Self { what, needles }
    }

    fn is_in(&self, bytes: &[u8]) -> bool {
        self.needles
            .iter()
            .any(|needle| bytes.windows(needle.len()).any(|window| window == needle.as_slice()))
    }
}

/// The templates that the store must have made of a hand, worked out again from the same pictures
/// and the tenant's key.
pub(crate) fn template_canaries(
    extractor: &Extractor,
    key: &Secret<[u8; 32]>,
    tenant: &Name,
    purposes: &[Purpose],
    captures: &[Vec<Frame>],
) -> Vec<Canary> {
    let captures: Vec<_> =
        captures.iter().filter_map(|frames| extractor.capture(frames).ok()).collect();
    let captures: Vec<_> = captures.iter().collect();
    let templates = purposes
        .iter()
        .filter_map(|purpose| Transform::derive(key, tenant, *purpose).template(&captures).ok());
    templates
        .flat_map(|template| {
            let bytes = template.to_bytes();
            let (embedding, codes) =
                bytes.expose().split_at(palmgate_protocol::EMBEDDING_DIMENSIONS);
            [Canary::new("template", embedding), Canary::new("template", codes)]
        })
        .collect()
}

/// Where something was looked for and found.
pub(crate) struct Searched {
    pub(crate) files: usize,
    pub(crate) bytes: usize,
    pub(crate) found: Vec<(&'static str, PathBuf)>,
}

/// Searches every file below `directories`, and the given texts.
pub(crate) fn search(
    directories: &[PathBuf],
    texts: &[(&str, &str)],
    canaries: &[Canary],
) -> Result<Searched> {
    let mut searched = Searched { files: 0, bytes: 0, found: Vec::new() };
    for directory in directories {
        walk(directory, &mut |path, bytes| searched.look(path, bytes, canaries))?;
    }
    for (name, text) in texts {
        searched.look(Path::new(name), text.as_bytes(), canaries);
    }
    Ok(searched)
}

impl Searched {
    fn look(&mut self, path: &Path, bytes: &[u8], canaries: &[Canary]) {
        self.files += 1;
        self.bytes += bytes.len();
        let here = canaries.iter().filter(|canary| canary.is_in(bytes));
        self.found.extend(here.map(|canary| (canary.what, path.to_owned())));
    }
}

fn walk(path: &Path, look: &mut impl FnMut(&Path, &[u8])) -> Result<()> {
    let kind = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), look)?;
        }
    } else if kind.is_file() {
        look(path, &fs::read(path).with_context(|| path.display().to_string())?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_canary_is_found_in_every_form_and_only_when_it_is_there() {
        let secret: Vec<u8> = (0..200u8).map(|byte| byte.wrapping_mul(37)).collect();
        let canary = Canary::new("secret", &secret);
        let padded = |text: &[u8]| [b"before", text, b"after"].concat();
        assert!(canary.is_in(&padded(&secret)));
        assert!(canary.is_in(&padded(HEXLOWER.encode(&secret).as_bytes())));
        for shift in 0..3 {
            let text = BASE64.encode(&[&vec![0; shift], &secret[..]].concat());
            assert!(canary.is_in(text.as_bytes()), "base64 at {shift}");
        }
        assert!(!canary.is_in(&padded(&secret[..100].iter().rev().copied().collect::<Vec<_>>())));
    }

    #[test]
    fn a_short_canary_is_found_too() {
        let canary = Canary::new("phone", b"+33612345678");
        assert!(canary.is_in(b"call +33612345678 now"));
        assert!(!canary.is_in(b"call +33612345679 now"));
    }
}
