//! Pictures of hands for `demo` and `bench`.

use anyhow::{Context, Result, bail};
use include_dir::{Dir, include_dir};
use palmgate_palm::simulate;
use palmgate_protocol::{
    Biometric, Hand,
    terminal::{Band, Frame, HandCapture},
};
use std::{fs, path::Path};

/// 207 photographs of real open palms, Apache-2.0; see the licence beside them.
static OPEN_HANDS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../palm/data/hands");

/// One person's hand, as one picture file.
pub struct Picture {
    bytes: Biometric<Vec<u8>>,
}

impl Picture {
    /// The file.
    pub const fn bytes(&self) -> &Vec<u8> {
        self.bytes.expose()
    }

    /// The picture itself, as a capture.
    pub fn frames(&self) -> Vec<Frame> {
        vec![frame(Biometric::new(self.bytes().clone()))]
    }

    /// Another capture of the same hand, simulated from the picture.
    pub fn other_frames(&self, seed: u64) -> Vec<Frame> {
        vec![frame(simulate::second_capture(self.bytes(), seed))]
    }

    /// Three captures for an enrolment: the picture and two simulated ones.
    pub fn captures(&self, hand: Hand) -> Vec<HandCapture> {
        let frames = [self.frames(), self.other_frames(1), self.other_frames(2)];
        frames.into_iter().map(|frames| HandCapture { hand, frames }).collect()
    }
}

fn frame(picture: Biometric<Vec<u8>>) -> Frame {
    Frame { band: Band::Visible, picture, region_of: None }
}

/// The pictures in `directory`, or the openly licensed ones, in the order of their names.
pub fn load(directory: Option<&Path>) -> Result<Vec<Picture>> {
    let mut files = Vec::new();
    if let Some(directory) = directory {
        let entries = fs::read_dir(directory).with_context(|| directory.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            if is_picture(&path) {
                let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
                files.push((path, bytes));
            }
        }
    } else {
        let pictures = OPEN_HANDS.files().filter(|file| is_picture(file.path()));
        files.extend(pictures.map(|file| (file.path().to_owned(), file.contents().to_vec())));
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    if files.len() < 8 {
        bail!("{} pictures are too few: eight hands of eight people are wanted", files.len());
    }
    Ok(files.into_iter().map(|(_, bytes)| Picture { bytes: Biometric::new(bytes) }).collect())
}

fn is_picture(path: &Path) -> bool {
    let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    ["png", "jpg", "jpeg"].contains(&ending.to_ascii_lowercase().as_str())
}
