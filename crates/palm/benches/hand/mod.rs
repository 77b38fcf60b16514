//! The hand that the benches look at.

use image::{ExtendedColorType, Rgb, RgbImage, codecs::jpeg::JpegEncoder, imageops};

/// A photographed hand in 100 × 100 pixels, as a file.
pub(crate) const SMALL: &[u8] = include_bytes!("../../data/hands/IMG_4322.JPG");

/// The same hand in 640 × 480 pixels, as a file.
pub(crate) fn large() -> Vec<u8> {
    let hand = image::load_from_memory(SMALL).expect("a picture of the data set").to_rgb8();
    let hand = imageops::resize(&hand, 480, 480, imageops::FilterType::CatmullRom);
    let mut picture = RgbImage::from_pixel(640, 480, Rgb([180; 3]));
    imageops::overlay(&mut picture, &hand, 80, 0);
    let mut file = Vec::new();
    JpegEncoder::new_with_quality(&mut file, 90)
        .encode(&picture, 640, 480, ExtendedColorType::Rgb8)
        .expect("memory takes every picture");
    file
}
