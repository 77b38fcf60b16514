//! Evaluations of small folders: real photographs of hands, further captures of them simulated.
#![allow(clippy::unwrap_used)]

use palmgate_evaluation::{EvaluationError, Kind, Options, Purported, Report, evaluate, write};
use palmgate_palm::simulate::second_capture;
use palmgate_palm::{Calibration, CalibrationError, Origin};
use std::{fs, io::Cursor, path::Path};

const HANDS: [&str; 6] = ["1123", "1133", "1143", "1153", "1163", "1174"];

fn photograph(number: &str) -> Option<Vec<u8>> {
    let hands = Path::new(env!("CARGO_MANIFEST_DIR")).join("../palm/data/hands");
    fs::read(hands.join(format!("IMG_{number}.JPG"))).ok()
}

fn photographs() -> Vec<Vec<u8>> {
    let found: Vec<_> = HANDS.iter().filter_map(|number| photograph(number)).collect();
    assert!(found.len() >= 3, "the data set comes with the program");
    found
}

/// Two sessions of each hand, three captures each.
fn folder(directory: &Path) -> usize {
    let hands = photographs();
    for (index, hand) in hands.iter().enumerate() {
        let identity = directory.join(format!("hand-{index}"));
        fs::create_dir_all(&identity).unwrap();
        for seed in 0..6 {
            let file = identity.join(format!("{}-{}.jpg", seed / 3 + 1, seed % 3));
            fs::write(file, second_capture(hand, 40 + seed).expose()).unwrap();
        }
    }
    hands.len()
}

/// A JPEG file that lies on its side and whose EXIF data says so.
fn turned_by_exif(hand: &image::DynamicImage) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    hand.rotate270().to_rgb8().write_to(&mut file, image::ImageFormat::Jpeg).unwrap();
    // One entry: the orientation (0x0112) as one 16-bit number, 6 (turn right by a quarter).
    let exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0";
    let mut turned = vec![0xff, 0xd8, 0xff, 0xe1, 0, exif.len() as u8 + 2];
    turned.extend_from_slice(exif);
    turned.extend_from_slice(&file.get_ref()[2..]);
    turned
}

fn run(directory: &Path, options: &Options) -> Result<Report, EvaluationError> {
    evaluate(directory, options, &|_, _, _| {})
}

#[test]
fn hands_are_compared_within_and_across_sessions() {
    let directory = tempfile::tempdir().unwrap();
    let hands = folder(directory.path());
    let report = run(directory.path(), &Options::default()).unwrap();
    assert_eq!((report.kind, report.identities, report.pictures), (Kind::Hand, hands, hands * 6));
    let cross = report.cross_session.clone().expect("two sessions");
    assert_eq!(
        cross.pairs.genuine,
        hands * 6,
        "each session's captures meet the other's reference"
    );
    assert!(cross.pairs.impostor > 0 && report.all.pairs.impostor > cross.pairs.impostor);
    assert!(cross.eer < 0.1 && cross.rank1 > 0.9, "{} {}", cross.eer, cross.rank1);
    assert!(cross.fnmr_at_fmr["1e-6"].is_none(), "so few pairs cannot tell");
    let json: serde_json::Value = serde_json::to_value(&report).unwrap();
    for key in
        ["/model", "/pairs/genuine", "/pairs/impostor", "/eer", "/fnmr_at_fmr/1e-2", "/rank1"]
    {
        assert!(json.pointer(key).is_some(), "{key}");
    }
    for key in ["/cross_session/pairs/genuine", "/cross_session/eer", "/cross_session/rank1"] {
        assert!(json.pointer(key).is_some(), "{key}");
    }
    let out = tempfile::tempdir().unwrap();
    write(&report, out.path()).unwrap();
    let text = fs::read_to_string(out.path().join("report.md")).unwrap();
    assert!(text.contains("Across sessions") && text.contains(&report.model));
    assert!(fs::read_to_string(out.path().join("det.svg")).unwrap().starts_with("<svg"));
}

#[test]
fn what_cannot_be_used_is_named_with_its_reason_and_the_rest_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    folder(directory.path());
    let at = |name: &str| directory.path().join("hand-0").join(name);
    fs::write(at("1-empty.png"), b"").unwrap();
    fs::write(at("1-broken.jpg"), &photographs()[0][..900]).unwrap();
    fs::write(at("1-huge.png"), vec![0x89; 17 * 1024 * 1024]).unwrap();
    let mut blank = Cursor::new(Vec::new());
    let grey = image::GrayImage::from_pixel(300, 200, image::Luma([90]));
    grey.write_to(&mut blank, image::ImageFormat::Png).unwrap();
    fs::write(at("1-blank.png"), blank.get_ref()).unwrap();
    fs::write(at("notes.txt"), b"no picture").unwrap();
    let mut cmyk = photographs()[0].clone();
    let frame = cmyk.windows(2).position(|pair| matches!(pair, [0xff, 0xc0 | 0xc2])).unwrap();
    cmyk[frame + 9] = 4;
    fs::write(at("1-cmyk.jpg"), cmyk).unwrap();
    let hand = image::load_from_memory(&photographs()[0]).unwrap();
    hand.to_rgb16().save(at("1-sixteen-bits.png")).unwrap();
    fs::write(at("1-turned.jpg"), turned_by_exif(&hand)).unwrap();
    image::RgbImage::new(5000, 20).save(at("1-wide.png")).unwrap();
    let report = run(directory.path(), &Options::default()).unwrap();
    let reason = |name: &str| {
        let failure = report.failures.iter().find(|failure| failure.picture.ends_with(name));
        failure.unwrap_or_else(|| panic!("{name} is named")).reason.clone()
    };
    assert!(reason("1-empty.png").contains("empty"));
    assert!(reason("1-broken.jpg").contains("unreadable"));
    assert!(reason("1-huge.png").contains("bytes"));
    assert_eq!(reason("1-blank.png"), "no-hand");
    assert!(reason("1-cmyk.jpg").contains("grey or RGB"));
    assert!(reason("1-wide.png").contains("4096 pixels"));
    for name in ["1-sixteen-bits.png", "1-turned.jpg"] {
        assert!(report.failures.iter().all(|failure| !failure.picture.ends_with(name)), "{name}");
    }
    assert_eq!(report.ignored, ["hand-0/notes.txt"]);
    assert!(report.failure_to_acquire > 0.0 && report.all.rank1 > 0.9);
}

#[test]
fn ready_regions_are_found_out_and_groups_come_from_the_manifest() {
    let directory = tempfile::tempdir().unwrap();
    for (index, hand) in photographs().iter().enumerate() {
        let identity = directory.path().join(format!("{index}"));
        fs::create_dir_all(&identity).unwrap();
        for seed in 0..4 {
            let capture = second_capture(hand, seed);
            let whole = image::load_from_memory(capture.expose()).unwrap();
            // The palm's middle, without fingers or wrist: no hand to be found.
            let (x, y) = (whole.width() * 3 / 8, whole.height() / 2);
            let region = whole.crop_imm(x, y, whole.width() / 4, whole.height() / 4);
            let region = region.resize_exact(128, 128, image::imageops::FilterType::CatmullRom);
            region.save(identity.join(format!("a-{seed}.png"))).unwrap();
        }
    }
    let manifest = directory.path().join("groups.csv");
    fs::write(&manifest, "file,subgroup\n0/a-0.png,x\n0/a-3.png,x\n1/a-3.png,x\n").unwrap();
    let options = Options { manifest: Some(manifest.clone()), ..Options::default() };
    let report = run(directory.path(), &options).unwrap();
    assert_eq!(report.kind, Kind::Region);
    assert!(report.cross_session.is_none() && report.all.pairs.genuine > 0);
    fs::write(&manifest, "file,band\n0/a-0.png,ultraviolet\n").unwrap();
    let error = run(directory.path(), &options).unwrap_err().to_string();
    assert!(error.contains("ultraviolet") && error.contains("visible and nir"), "{error}");
}

#[test]
fn a_folder_without_pictures_or_pairs_says_what_is_wanted() {
    let directory = tempfile::tempdir().unwrap();
    let error = run(directory.path(), &Options::default()).unwrap_err().to_string();
    assert!(error.contains("IDENTITY/SESSION-SAMPLE"), "{error}");
    let identity = directory.path().join("one");
    fs::create_dir_all(&identity).unwrap();
    fs::write(identity.join("1-1.jpg"), &photographs()[0]).unwrap();
    assert!(matches!(
        run(directory.path(), &Options::default()),
        Err(EvaluationError::NoPairs { good: 0..=1, all: 1 })
    ));
    let missing = directory.path().join("missing");
    assert!(run(&missing, &Options::default()).unwrap_err().to_string().contains("missing"));
}

fn purported() -> Purported {
    Purported {
        name: "hands".into(),
        description: "photographs with simulated captures".into(),
        origin: Origin::Simulated,
        false_positive_identification_rate: 0.01,
    }
}

#[test]
fn too_few_hands_give_a_report_and_no_calibration() {
    let directory = tempfile::tempdir().unwrap();
    folder(directory.path());
    let options = Options { calibration: Some(purported()), ..Options::default() };
    let error = run(directory.path(), &options).unwrap_err();
    assert!(matches!(error, EvaluationError::Calibration(CalibrationError::TooFew(_))), "{error}");
}

#[test]
fn a_calibration_is_of_the_pictures_and_a_gateway_reads_it() {
    let directory = tempfile::tempdir().unwrap();
    let hands = Path::new(env!("CARGO_MANIFEST_DIR")).join("../palm/data/hands");
    let mut files: Vec<_> = fs::read_dir(hands).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "JPG"));
    files.sort();
    // 60 hands, two sessions of two captures: 240 probes against 118 references of others.
    for (index, file) in files.iter().take(60).enumerate() {
        let identity = directory.path().join(format!("{index}"));
        fs::create_dir_all(&identity).unwrap();
        let hand = fs::read(file).unwrap();
        for seed in 0..4 {
            let file = identity.join(format!("{}-{}.jpg", seed / 2 + 1, seed % 2));
            fs::write(file, second_capture(&hand, 70 + seed).expose()).unwrap();
        }
    }
    let options = Options { calibration: Some(purported()), ..Options::default() };
    let report = run(directory.path(), &options).unwrap();
    let calibration = report.calibration.as_ref().unwrap();
    let read = Calibration::parse(calibration.to_json().unwrap().as_bytes()).unwrap();
    assert_eq!(read.sets(), calibration.sets());
    for (read, made) in read.points().iter().zip(calibration.points()) {
        assert_eq!(read.threshold.to_bits(), made.threshold.to_bits());
        assert_eq!(read.largest_gallery, made.largest_gallery);
    }
    let cross = report.cross_session.as_ref().unwrap();
    let [set] = calibration.sets() else { panic!("one set") };
    assert_eq!((set.genuine, set.impostor), (cross.pairs.genuine, report.all.pairs.impostor));
    assert_eq!((set.origin, set.name.as_str()), (Origin::Simulated, "hands"));
    for point in &report.all.operating_points {
        let same = calibration.point(point.target).unwrap();
        assert!(same.threshold >= point.threshold && same.fmr_upper > same.fmr);
    }
}
