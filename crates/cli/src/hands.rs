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

    /// The picture itself, and what near infrared could have shown of it, as a capture: nothing less
    /// pays.
    pub fn frames(&self) -> Vec<Frame> {
        bands(Biometric::new(self.bytes().clone()), 0)
    }

    /// Another capture of the same hand, simulated from the picture.
    pub fn other_frames(&self, seed: u64) -> Vec<Frame> {
        bands(simulate::second_capture(self.bytes(), seed), seed)
    }

    /// Three captures for an enrolment: the picture and two simulated ones.
    pub fn captures(&self, hand: Hand) -> Vec<HandCapture> {
        let frames = [self.frames(), self.other_frames(1), self.other_frames(2)];
        frames.into_iter().map(|frames| HandCapture { hand, frames }).collect()
    }
}

fn bands(visible: Biometric<Vec<u8>>, seed: u64) -> Vec<Frame> {
    let near = simulate::near_infrared(visible.expose(), seed);
    let frame = |band, picture| Frame { band, picture, region_of: None };
    vec![frame(Band::Visible, visible), frame(Band::NearInfrared, near)]
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
