//! What the extractor makes of good, poor, wrong and hostile pictures.

use image::{DynamicImage, ImageFormat, Rgb, RgbImage, imageops};
use palmgate_palm::{Calibration, Capture, Extractor, Transform, scoring, simulate};
use palmgate_protocol::terminal::{Band, CaptureProblem, Frame};
use palmgate_protocol::{Biometric, Hand, Purpose, Secret, limits::MAX_FRAME_BYTES};
use proptest::prelude::*;
use std::{io::Cursor, sync::LazyLock};

static EXTRACTOR: LazyLock<Extractor> =
    LazyLock::new(|| Extractor::load().expect("the models are in the program"));
const PALM: &[u8] = include_bytes!("../data/hands/IMG_4322.JPG");

fn frame(band: Band, file: impl Into<Vec<u8>>) -> Frame {
    Frame { band, picture: Biometric::new(file.into()), region_of: None }
}

fn visible(file: impl Into<Vec<u8>>) -> Result<Capture, CaptureProblem> {
    EXTRACTOR.capture(&[frame(Band::Visible, file)])
}

fn photo() -> RgbImage {
    image::load_from_memory(PALM).expect("a good file").to_rgb8()
}

fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, ImageFormat::Png).expect("memory takes every picture");
    file.into_inner()
}

#[track_caller]
fn refused(file: impl Into<Vec<u8>>, expected: CaptureProblem) {
    assert_eq!(visible(file).err(), Some(expected));
}

#[test]
fn a_real_palm_is_captured_and_every_step_is_timed() {
    let capture = visible(PALM).unwrap();
    let steps = capture.steps;
    for step in [steps.decode, steps.detect, steps.landmarks, steps.region, steps.embed, steps.code]
    {
        assert!(!step.is_zero());
    }
    assert!(capture.hand == Hand::Right && capture.quality.coverage > 0.9);
    assert!(!capture.liveness.multispectral && capture.liveness.score <= 0.6);
}

#[test]
fn blank_noisy_and_drawn_pictures_hold_no_hand() {
    for shade in [0, 127, 255] {
        refused(png(RgbImage::from_pixel(120, 120, Rgb([shade; 3]))), CaptureProblem::NoHand);
    }
    let noise = RgbImage::from_fn(160, 120, |x, y| {
        let mixed = (x * 7919 + y * 104_729).wrapping_mul(2_654_435_761);
        Rgb([(mixed >> 24) as u8, (mixed >> 16) as u8, (mixed >> 8) as u8])
    });
    refused(png(noise), CaptureProblem::NoHand);
    let disc = |x: u32, y: u32, cx: i64, cy: i64, r: i64| {
        (i64::from(x) - cx).pow(2) + (i64::from(y) - cy).pow(2) < r * r
    };
    let face = RgbImage::from_fn(200, 200, |x, y| {
        let dark = disc(x, y, 70, 80, 12) || disc(x, y, 130, 80, 12) || disc(x, y, 100, 140, 15);
        let skin = disc(x, y, 100, 100, 80);
        Rgb(if dark {
            [40, 20, 20]
        } else if skin {
            [224, 172, 142]
        } else {
            [240; 3]
        })
    });
    refused(png(face), CaptureProblem::NoHand);
    let bars = RgbImage::from_fn(200, 200, |x, y| {
        Rgb([if x / 20 % 2 == 0 && y > 60 { 200 } else { 30 }; 3])
    });
    refused(png(bars), CaptureProblem::NoHand);
}

type Point = (f32, f32);

/// Distance of a point from a stroke.
fn from_stroke(at: Point, (a, b): (Point, Point)) -> f32 {
    let (along, to) = ((b.0 - a.0, b.1 - a.1), (at.0 - a.0, at.1 - a.1));
    let length = along.0 * along.0 + along.1 * along.1;
    let share = ((to.0 * along.0 + to.1 * along.1) / length.max(1e-6)).clamp(0.0, 1.0);
    (to.0 - share * along.0).hypot(to.1 - share * along.1)
}

/// Round strokes, each with its width, of one colour on another.
fn drawn(strokes: &[(Point, Point, f32)], (ink, paper): ([u8; 3], [u8; 3])) -> Vec<u8> {
    png(RgbImage::from_fn(300, 300, |x, y| {
        let at = (x as f32, y as f32);
        let inside = |(a, b, width): &(Point, Point, f32)| from_stroke(at, (*a, *b)) < width / 2.0;
        Rgb(if strokes.iter().any(inside) { ink } else { paper })
    }))
}

const SKIN: [u8; 3] = [222, 170, 140];
const WALL: [u8; 3] = [235, 232, 226];

#[test]
fn feet_animals_and_walls_hold_no_hand() {
    let toes = |x: f32, big: f32| {
        (0..5).map(move |i| {
            let at = (x + 17.0 * i as f32, 70.0 + 7.0 * i as f32);
            (at, (at.0, at.1 + 8.0), big - 3.0 * i as f32)
        })
    };
    let foot: Vec<_> =
        [((140.0, 130.0), (150.0, 250.0), 75.0)].into_iter().chain(toes(108.0, 28.0)).collect();
    refused(drawn(&foot, (SKIN, WALL)), CaptureProblem::NoHand);
    let cat = [
        ((150.0, 150.0), (150.0, 155.0), 130.0),
        ((100.0, 100.0), (92.0, 70.0), 30.0),
        ((200.0, 100.0), (208.0, 70.0), 30.0),
        ((150.0, 230.0), (150.0, 290.0), 150.0),
    ];
    refused(drawn(&cat, ([120, 100, 80], WALL)), CaptureProblem::NoHand);
    let bricks = RgbImage::from_fn(300, 300, |x, y| {
        let row = y / 30;
        let joint = y % 30 < 3 || (x + row % 2 * 30) % 60 < 3;
        Rgb(if joint { [200; 3] } else { [150, 80, 60] })
    });
    refused(png(bricks), CaptureProblem::NoHand);
}

#[test]
fn a_drawn_hand_is_no_palm() {
    let fingers = [(92.0, 95.0), (125.0, 60.0), (158.0, 55.0), (190.0, 80.0)];
    let mut hand: Vec<_> = fingers
        .into_iter()
        .zip([112.0, 135.0, 158.0, 180.0])
        .map(|(tip, root)| (tip, (root, 165.0), 26.0))
        .collect();
    hand.push(((235.0, 165.0), (180.0, 220.0), 28.0));
    hand.push(((145.0, 195.0), (148.0, 230.0), 95.0));
    for colours in [(SKIN, WALL), ([30; 3], [255; 3]), ([0, 90, 200], [255; 3])] {
        let problem = visible(drawn(&hand, colours)).err();
        let lines_missing = [CaptureProblem::NoHand, CaptureProblem::Blurred, CaptureProblem::Pose];
        assert!(problem.is_some_and(|problem| lines_missing.contains(&problem)), "{problem:?}");
    }
}

#[test]
fn files_that_are_no_whole_picture_are_unreadable() {
    refused(Vec::new(), CaptureProblem::Unreadable);
    refused(*b"GIF89a", CaptureProblem::Unreadable);
    refused(vec![0xff; MAX_FRAME_BYTES + 1], CaptureProblem::Unreadable);
    let file = png(photo());
    for length in [1, 8, 20, 33, 40, file.len() / 2] {
        refused(&file[..length], CaptureProblem::Unreadable);
    }
    for length in [1, 2, 4, 20, 100] {
        refused(&PALM[..length], CaptureProblem::Unreadable);
    }
}

#[test]
fn a_cmyk_file_is_unreadable() {
    // A start-of-frame segment with four components is all that is looked at.
    let mut file = PALM.to_vec();
    let at = file.windows(2).position(|pair| matches!(pair, [0xff, 0xc0 | 0xc2])).unwrap();
    file[at + 9] = 4;
    refused(file, CaptureProblem::Unreadable);
}

#[test]
fn one_extractor_serves_several_threads() {
    let sharpness = || visible(PALM).unwrap().quality.sharpness;
    std::thread::scope(|scope| {
        let others = [scope.spawn(sharpness), scope.spawn(sharpness)];
        let here = sharpness();
        for other in others {
            assert!((other.join().unwrap() - here).abs() < f32::EPSILON);
        }
    });
}

#[test]
fn no_frame_means_no_hand() {
    assert_eq!(EXTRACTOR.capture(&[]).err(), Some(CaptureProblem::NoHand));
}

#[test]
fn two_hands_are_several() {
    let mut both = RgbImage::from_pixel(220, 100, Rgb([180; 3]));
    imageops::overlay(&mut both, &photo(), 0, 0);
    imageops::overlay(&mut both, &imageops::flip_horizontal(&photo()), 120, 0);
    refused(png(both), CaptureProblem::SeveralHands);
}

#[test]
fn a_dark_a_bright_and_a_blurred_palm_are_refused_with_the_reason() {
    let scaled = |factor: f32, lift: f32| {
        let mut image = photo();
        image.pixels_mut().for_each(|pixel| {
            pixel.0 = pixel.0.map(|value| (f32::from(value) * factor + lift).min(255.0) as u8);
        });
        png(image)
    };
    refused(scaled(0.1, 0.0), CaptureProblem::TooDark);
    refused(scaled(0.35, 190.0), CaptureProblem::TooBright);
    refused(png(imageops::blur(&photo(), 2.2)), CaptureProblem::Blurred);
}

#[test]
fn a_palm_that_leaves_the_picture_is_cut_off() {
    let half = imageops::crop_imm(&photo(), 0, 0, 100, 78).to_image();
    refused(png(half), CaptureProblem::CutOff);
}

#[test]
fn a_grey_dim_hand_is_captured_whichever_way_it_lies() {
    let grey = DynamicImage::from(photo()).resize(300, 300, imageops::FilterType::CatmullRom);
    let mut dim = grey.to_luma8();
    dim.pixels_mut().for_each(|pixel| pixel.0 = [(f32::from(pixel.0[0]) * 0.4) as u8]);
    let mut lying = DynamicImage::from(dim);
    for _ in 0..4 {
        lying = lying.rotate90();
        let capture = visible(png(lying.clone())).unwrap();
        assert!(capture.hand == Hand::Right && capture.quality.coverage > 0.9);
    }
}

#[test]
fn a_wrist_outside_the_picture_is_no_hindrance() {
    // The wrist lies at the 92nd row of the hundred.
    let without = imageops::crop_imm(&photo(), 0, 0, 100, 90).to_image();
    assert!(visible(png(without)).unwrap().quality.coverage > 0.85);
}

#[test]
fn a_palm_far_away_is_a_matter_of_pose() {
    let mut far = RgbImage::from_pixel(100, 100, Rgb([170; 3]));
    let small = imageops::resize(&photo(), 50, 50, imageops::FilterType::Triangle);
    imageops::overlay(&mut far, &small, 25, 25);
    refused(png(far), CaptureProblem::Pose);
}

#[test]
fn the_mirror_image_of_a_right_palm_is_a_left_one() {
    let capture = visible(png(imageops::flip_horizontal(&photo()))).unwrap();
    assert!(capture.hand == Hand::Left);
}

#[test]
fn the_back_of_either_hand_is_told_from_its_palm() {
    refused(include_bytes!("../data/rendered/left-back.jpg"), CaptureProblem::BackOfHand);
    refused(include_bytes!("../data/rendered/right-back.jpg"), CaptureProblem::BackOfHand);
    // A rendered palm has no lines, so that it may be refused as blurred, but not as a back.
    for palm in [
        include_bytes!("../data/rendered/left-palm.jpg").as_slice(),
        include_bytes!("../data/rendered/right-palm.jpg"),
    ] {
        assert!(matches!(visible(palm), Ok(_) | Err(CaptureProblem::Blurred)));
    }
}

#[test]
fn photographs_of_other_things_hold_no_hand_whichever_way_they_lie() {
    for other in [
        include_bytes!("../data/elsewhere/cat.jpg").as_slice(),
        include_bytes!("../data/elsewhere/raccoon.jpg"),
        include_bytes!("../data/elsewhere/brick-wall.jpg"),
        include_bytes!("../data/elsewhere/coffee-cup.jpg"),
    ] {
        let mut picture = image::load_from_memory(other).expect("a good file");
        for _ in 0..4 {
            refused(png(picture.clone()), CaptureProblem::NoHand);
            picture = picture.rotate90();
        }
    }
}

#[test]
fn a_burst_is_saved_by_its_one_good_frame() {
    let frames = [
        frame(Band::Visible, *b"broken"),
        frame(Band::Visible, png(RgbImage::new(90, 90))),
        frame(Band::Visible, PALM),
    ];
    assert!(EXTRACTOR.capture(&frames).is_ok());
    assert_eq!(EXTRACTOR.capture(&frames[..2]).err(), Some(CaptureProblem::Unreadable));
}

#[test]
fn a_near_infrared_frame_serves_alone_and_makes_liveness_multispectral_beside_a_visible_one() {
    let near =
        || frame(Band::NearInfrared, std::mem::take(simulate::near_infrared(PALM, 5).expose_mut()));
    assert!(!EXTRACTOR.capture(&[near()]).unwrap().liveness.multispectral);
    let both = EXTRACTOR.capture(&[near(), frame(Band::Visible, PALM)]).unwrap();
    assert!(both.liveness.multispectral && both.liveness.score > 0.5, "{:?}", both.liveness);
}

/// The middle of the palm as a terminal may cut it out, a little turned and shifted each time.
fn region(of: Hand, band: Band, turn: usize) -> Frame {
    let picture = match band {
        Band::Visible => photo(),
        Band::NearInfrared => {
            let near = simulate::near_infrared(PALM, 5);
            image::load_from_memory(near.expose()).expect("a good file").to_rgb8()
        }
    };
    let (width, height) = picture.dimensions();
    let (x, y) = (width * 3 / 10 + turn as u32, height * 4 / 10);
    let cut = imageops::crop_imm(&picture, x, y, width * 4 / 10, height * 4 / 10).to_image();
    let cut = imageops::resize(&cut, 128, 128, imageops::FilterType::CatmullRom);
    Frame { band, picture: Biometric::new(png(cut)), region_of: Some(of) }
}

#[test]
fn a_terminal_may_cut_the_region_out_itself() {
    for hand in [Hand::Left, Hand::Right] {
        let capture = EXTRACTOR.capture(&[region(hand, Band::Visible, 0)]).unwrap();
        assert_eq!(capture.hand, hand);
        assert!(capture.steps.detect.is_zero() && capture.steps.landmarks.is_zero());
        assert!(!capture.liveness.multispectral && capture.liveness.score <= 0.6);
        let bands = [Band::NearInfrared, Band::Visible].map(|band| region(hand, band, 0));
        assert!(EXTRACTOR.capture(&bands).unwrap().liveness.multispectral);
    }
    let tenant = "chain".parse().expect("a name");
    let transform = Transform::derive(&Secret::new([7; 32]), &tenant, Purpose::Pay);
    let capture = |turn| EXTRACTOR.capture(&[region(Hand::Right, Band::Visible, turn)]).unwrap();
    let template = transform.template(&[&capture(0)]).unwrap();
    let whole = frame(Band::Visible, PALM);
    let cut = EXTRACTOR.cut(&whole).unwrap();
    let [of_cut, of_whole] = [cut, whole].map(|frame| EXTRACTOR.capture(&[frame]).unwrap());
    assert_eq!(of_cut.hand, of_whole.hand);
    let own = transform.template(&[&of_whole]).unwrap();
    let near = scoring().score(&transform.probe(&of_cut), &own);
    assert!(
        near > Calibration::built_in().threshold(1e-6).unwrap(),
        "what we cut is what we would have cut"
    );
    let score = |capture| scoring().score(&transform.probe(&capture), &template);
    let other = EXTRACTOR.capture(&[frame(Band::Visible, PALM)]).unwrap();
    assert!(score(capture(1)) > score(other), "cut alike, and cut otherwise");
}

#[test]
fn regions_and_whole_hands_are_not_mixed_and_small_or_broken_regions_are_refused() {
    let right = || region(Hand::Right, Band::Visible, 0);
    for other in [region(Hand::Left, Band::Visible, 0), frame(Band::Visible, PALM)] {
        let mixed = EXTRACTOR.capture(&[right(), other]).err();
        assert_eq!(mixed, Some(CaptureProblem::Unreadable));
    }
    let of = |file: Vec<u8>| {
        let picture = Biometric::new(file);
        EXTRACTOR.capture(&[Frame { picture, ..right() }]).err()
    };
    assert_eq!(of(b"broken".to_vec()), Some(CaptureProblem::Unreadable));
    assert_eq!(of(png(RgbImage::new(63, 63))), Some(CaptureProblem::CutOff));
    assert_eq!(of(png(RgbImage::new(200, 90))), Some(CaptureProblem::CutOff));
    assert_eq!(of(png(RgbImage::new(128, 128))), Some(CaptureProblem::TooDark));
}

#[test]
fn copies_look_dead_in_two_bands() {
    let score = |infrared: Vec<u8>| {
        let frames = [frame(Band::Visible, PALM), frame(Band::NearInfrared, infrared)];
        EXTRACTOR.capture(&frames).unwrap().liveness.score
    };
    let print = png(imageops::grayscale(&photo()));
    let blank = png(RgbImage::from_pixel(100, 100, Rgb([190; 3])));
    let screen = png(RgbImage::from_fn(100, 100, |x, y| Rgb([(12 + (x * y) % 5) as u8; 3])));
    for copy in [print, blank, screen] {
        assert!(score(copy) < 0.2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_damaged_file_is_captured_or_refused_but_never_a_panic(
        damage in prop::collection::vec((0usize..PALM.len(), any::<u8>()), 1..20),
        png_file in any::<bool>(),
    ) {
        let mut file = if png_file { png(photo()) } else { PALM.to_vec() };
        for (at, byte) in damage {
            let length = file.len();
            file[at % length] = byte;
        }
        let _ = visible(file);
    }
}
