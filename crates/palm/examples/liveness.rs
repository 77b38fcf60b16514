#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command that reports to a terminal"
)]
//! Presentation attack detection, reported as ISO/IEC 30107-3 asks: per attack instrument, how many
//! presentations are taken for living hands (APCER), how many give no answer (APNRR), and how many
//! living hands are taken for attacks (BPCER).
//!
//! `cargo run --release -p palmgate-palm --example liveness`
//!
//! Every presentation is modelled: photographs of real hands, the near-infrared band and the attacks
//! computed from them. The figures say how the rules meet the models, not what a forger achieves.

use image::{DynamicImage, ImageFormat, Rgb, RgbImage, imageops};
use palmgate_palm::{Extractor, simulate};
use palmgate_protocol::Biometric;
use palmgate_protocol::terminal::{Band, Frame};
use std::{error::Error, fs, io::Cursor, path::Path, process::ExitCode};

/// Scores below this are taken for attacks.
const LIMIT: f32 = 0.5;
/// Every so many hands, so that the command ends within a minute or two.
const STEP: usize = 4;

/// What the visible and the near-infrared camera see.
type Bands = (RgbImage, Option<RgbImage>);

/// A kind of presentation: its name, and what becomes of a hand's two bands.
type Instrument = (&'static str, fn(&RgbImage, &RgbImage, u64) -> Bands);

const LIVING: [Instrument; 2] = [
    ("living hand, two bands", |visible, near, _| (visible.clone(), Some(near.clone()))),
    ("living hand, visible only", |visible, _, _| (visible.clone(), None)),
];

const ATTACKS: [Instrument; 8] = [
    ("dye print", |visible, _, seed| (printed(visible), Some(flat(visible, 190.0, seed)))),
    ("carbon print", |visible, _, seed| (printed(visible), Some(grained(&grey(visible), seed)))),
    ("grey print of the near-infrared picture", |_, near, seed| {
        (printed(near), Some(grained(near, seed)))
    }),
    ("screen", |visible, _, seed| (rastered(visible), Some(flat(visible, 10.0, seed)))),
    ("gelatine, flat spectrum", |visible, _, seed| {
        let soft = imageops::blur(&grey(visible), 1.2);
        (imageops::blur(visible, 0.5), Some(grained(&soft, seed)))
    }),
    ("two layers, near-infrared ink over a print", |visible, near, seed| {
        (printed(visible), Some(grained(&imageops::blur(near, 0.7), seed)))
    }),
    ("print, visible only", |visible, _, _| (printed(visible), None)),
    ("screen, visible only", |visible, _, _| (rastered(visible), None)),
];

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let extractor = Extractor::load()?;
    let hands = hands()?;
    println!("{} hands, every presentation modelled; limit {LIMIT}\n", hands.len());
    println!("| presentation | taken for living | taken for an attack | no answer |");
    println!("|---|---|---|---|");
    for (name, make) in LIVING.into_iter().chain(ATTACKS) {
        let (mut living, mut attack, mut none) = (0, 0, 0);
        for (seed, (visible, near)) in (0..).zip(&hands) {
            let (visible, near) = make(visible, near, seed);
            let mut frames = vec![frame(Band::Visible, visible)?];
            if let Some(near) = near {
                frames.push(frame(Band::NearInfrared, near)?);
            }
            match extractor.capture(&frames) {
                Ok(capture) if capture.liveness.score >= LIMIT => living += 1,
                Ok(_) => attack += 1,
                Err(_) => none += 1,
            }
        }
        println!("| {name} | {living} | {attack} | {none} |");
    }
    Ok(())
}

/// A visible and a near-infrared view of each hand.
fn hands() -> Result<Vec<(RgbImage, RgbImage)>, Box<dyn Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/hands");
    let mut files: Vec<_> = fs::read_dir(folder)?
        .map(|file| Ok(file?.path()))
        .collect::<Result<_, std::io::Error>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "JPG"));
    files.sort();
    let mut hands = Vec::new();
    for (seed, file) in (0..).zip(files.iter().step_by(STEP)) {
        let visible = simulate::second_capture(&fs::read(file)?, seed);
        let near = simulate::near_infrared(visible.expose(), seed);
        let open = |picture: &Biometric<Vec<u8>>| image::load_from_memory(picture.expose());
        hands.push((open(&visible)?.to_rgb8(), open(&near)?.to_rgb8()));
    }
    Ok(hands)
}

fn frame(band: Band, picture: RgbImage) -> Result<Frame, Box<dyn Error>> {
    let mut file = Cursor::new(Vec::new());
    DynamicImage::from(picture).write_to(&mut file, ImageFormat::Png)?;
    Ok(Frame { band, picture: Biometric::new(file.into_inner()), region_of: None })
}

fn each(picture: &RgbImage, value: impl Fn(u32, u32, [f32; 3]) -> [f32; 3]) -> RgbImage {
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let color = picture.get_pixel(x, y).0.map(f32::from);
        Rgb(value(x, y, color).map(|value| value.clamp(0.0, 255.0) as u8))
    })
}

/// Ink on paper: less contrast, a screen of dots every three pixels.
fn printed(picture: &RgbImage) -> RgbImage {
    each(picture, |x, y, color| {
        let dot = if (x + y) % 3 == 0 { -5.0 } else { 2.5 };
        color.map(|value| 25.0 + 0.82 * value + dot)
    })
}

/// A display photographed: a bluish white, its grid beating with the sensor's.
fn rastered(picture: &RgbImage) -> RgbImage {
    each(picture, |x, y, [red, green, blue]| {
        let beat = 14.0 * ((x as f32 * 0.9).sin() + (y as f32 * 0.9).sin());
        [0.92 * red + beat, 0.97 * green + beat, 1.08 * blue + 8.0 + beat]
    })
}

fn grey(picture: &RgbImage) -> RgbImage {
    each(picture, |_, _, [red, green, blue]| [0.299 * red + 0.587 * green + 0.114 * blue; 3])
}

/// Nothing but noise about `level`.
fn flat(picture: &RgbImage, level: f32, seed: u64) -> RgbImage {
    grained(&each(picture, |_, _, _| [level; 3]), seed)
}

/// Sensor noise of about one and a half levels.
fn grained(picture: &RgbImage, seed: u64) -> RgbImage {
    each(picture, |x, y, color| {
        let mixed = (u64::from(x) * 7919 + u64::from(y) * 104_729 + seed * 15_485_863)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let noise = mixed.to_le_bytes().into_iter().map(f32::from).sum::<f32>() / 8.0 - 127.5;
        color.map(|value| value + noise * 0.06)
    })
}
