use crate::wiped::Wiped;
use image::{
    ColorType, ImageDecoder, ImageFormat, ImageReader, Limits, codecs::jpeg::JpegDecoder,
    codecs::png::PngDecoder, metadata::Orientation,
};
use palmgate_protocol::terminal::CaptureProblem;
use std::io::Cursor;

/// Pixels on either side of a picture that is accepted.
pub(crate) const MAX_SIDE: u32 = 4096;
/// Bytes of decoded pixels that are accepted.
const MAX_PIXEL_BYTES: u64 = 4096 * 4096 * 4;
/// A longer side is reduced to at most this by whole-number averaging, so that nothing downstream
/// has to read between pixels that it skips.
const WORKING_SIDE: usize = 1024;

/// The brightest hundredth of a dark picture is at most this bright.
const DARK_WHITE: f32 = 160.0;
/// Less light than this is not made more: there is nothing but noise.
const DARKEST_WHITE: usize = 24;

/// An upright picture, 8 bits in each of red, green and blue. Wiped on drop.
pub(crate) struct Picture {
    pub width: usize,
    pub height: usize,
    rgb: Wiped<u8>,
}

/// Position in a picture; whole numbers are pixel corners, the centre of the first pixel is (½, ½).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Point {
    pub x: f32,
    pub y: f32,
}

impl Point {
    pub(crate) const fn new(x: f32, y: f32) -> Self {
        Self { x, y }
    }

    pub(crate) fn distance(self, other: Self) -> f32 {
        (self.x - other.x).hypot(self.y - other.y)
    }

    pub(crate) const fn middle(self, other: Self) -> Self {
        Self::new(f32::midpoint(self.x, other.x), f32::midpoint(self.y, other.y))
    }
}

impl Picture {
    /// Decodes a PNG or JPEG file of at most [`MAX_SIDE`] pixels a side, whatever its depth, and
    /// turns it upright where its EXIF data says how.
    pub(crate) fn decode(file: &[u8]) -> Result<Self, CaptureProblem> {
        let reader = ImageReader::new(Cursor::new(file)).with_guessed_format();
        let format = reader.ok().and_then(|reader| reader.format());
        let whole = match format {
            Some(ImageFormat::Jpeg) if !is_cmyk(file) => read(JpegDecoder::new(Cursor::new(file))),
            Some(ImageFormat::Png) => read(PngDecoder::with_limits(Cursor::new(file), limits())),
            _ => Err(CaptureProblem::Unreadable),
        }?;
        let factor = whole.width.max(whole.height).div_ceil(WORKING_SIDE);
        Ok(if factor > 1 { whole.reduced(factor) } else { whole })
    }

    pub(crate) fn from_rgb(width: usize, height: usize, rgb: Vec<u8>) -> Self {
        assert_eq!(rgb.len(), width * height * 3, "three bytes a pixel");
        Self { width, height, rgb: Wiped::new(rgb) }
    }

    pub(crate) fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    pub(crate) fn contains(&self, point: Point) -> bool {
        self.near(point, 0.0)
    }

    /// Whether `point` is in the picture or at most `margin` pixels outside.
    pub(crate) fn near(&self, point: Point, margin: f32) -> bool {
        (-margin..=self.width as f32 + margin).contains(&point.x)
            && (-margin..=self.height as f32 + margin).contains(&point.y)
    }

    /// Colour at `point` (0 to 255), read between the four nearest pixels; the border goes on for
    /// ever.
    #[inline]
    pub(crate) fn at(&self, point: Point) -> [f32; 3] {
        let x = (point.x - 0.5).clamp(0.0, self.width as f32 - 1.0);
        let y = (point.y - 0.5).clamp(0.0, self.height as f32 - 1.0);
        let (left, top) = (x as usize, y as usize);
        let (right, bottom) = ((left + 1).min(self.width - 1), (top + 1).min(self.height - 1));
        let (fx, fy) = (x - left as f32, y - top as f32);
        let pixel = |column: usize, row: usize| {
            let at = (row * self.width + column) * 3;
            [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]].map(f32::from)
        };
        let (a, b) = (pixel(left, top), pixel(right, top));
        let (c, d) = (pixel(left, bottom), pixel(right, bottom));
        std::array::from_fn(|i| {
            let upper = a[i] + (b[i] - a[i]) * fx;
            let lower = c[i] + (d[i] - c[i]) * fx;
            upper + (lower - upper) * fy
        })
    }

    /// The picture turned by a quarter.
    pub(crate) fn turned(&self) -> Self {
        upright(
            Self { width: self.width, height: self.height, rgb: self.rgb.clone() },
            Orientation::Rotate90,
        )
    }

    /// A dark picture made brighter, for finding the hand only: the brightest hundredth becomes
    /// white, and dark tones are lifted. `None` when it is not dark.
    pub(crate) fn lifted(&self) -> Option<Self> {
        let mut tones = [0usize; 256];
        self.rgb.iter().for_each(|value| tones[usize::from(*value)] += 1);
        let mut above = self.rgb.len() / 100;
        let white = (0..256).rev().find(|&tone| {
            let here = tones[tone];
            let found = here > above;
            above = above.saturating_sub(here);
            found
        });
        let white = white.unwrap_or(0).max(DARKEST_WHITE) as f32;
        (white <= DARK_WHITE).then(|| {
            let lift = |value: usize| 255.0 * (value as f32 / white).min(1.0).powf(0.7);
            let tone: [u8; 256] = std::array::from_fn(|value| lift(value) as u8);
            let rgb = self.rgb.iter().map(|value| tone[usize::from(*value)]).collect();
            Self::from_rgb(self.width, self.height, rgb)
        })
    }

    fn reduced(&self, factor: usize) -> Self {
        let (width, height) = (self.width.div_ceil(factor), self.height.div_ceil(factor));
        let mut rgb = Vec::with_capacity(width * height * 3);
        for row in 0..height {
            for column in 0..width {
                let mut sum = [0u32; 3];
                let mut count = 0;
                for y in row * factor..((row + 1) * factor).min(self.height) {
                    for x in column * factor..((column + 1) * factor).min(self.width) {
                        let at = (y * self.width + x) * 3;
                        for (total, &value) in sum.iter_mut().zip(&self.rgb[at..at + 3]) {
                            *total += u32::from(value);
                        }
                        count += 1;
                    }
                }
                rgb.extend(sum.map(|total| (total / count) as u8));
            }
        }
        Self::from_rgb(width, height, rgb)
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_PIXEL_BYTES);
    limits
}

/// The decoder would turn CMYK into a guess at RGB: such a file comes from no camera.
fn is_cmyk(file: &[u8]) -> bool {
    let mut rest = file.get(2..).unwrap_or_default();
    while let [0xff, marker, high, low, tail @ ..] = rest {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        // Start of frame, except the markers in that range which are tables.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            return tail.get(5) == Some(&4);
        }
        rest = rest.get(2 + length.max(2)..).unwrap_or_default();
    }
    false
}

fn read<D: ImageDecoder>(decoder: image::ImageResult<D>) -> Result<Picture, CaptureProblem> {
    let mut decoder = decoder.map_err(|_| CaptureProblem::Unreadable)?;
    decoder.set_limits(limits()).map_err(|_| CaptureProblem::Unreadable)?;
    let (width, height) = decoder.dimensions();
    let bytes = decoder.total_bytes();
    if width == 0 || height == 0 || bytes > MAX_PIXEL_BYTES {
        return Err(CaptureProblem::Unreadable);
    }
    let color = decoder.color_type();
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut pixels = Wiped::zeros(bytes as usize);
    decoder.read_image(&mut pixels).map_err(|_| CaptureProblem::Unreadable)?;
    let rgb = if color == ColorType::Rgb8 { Some(pixels) } else { to_rgb(&pixels, color) };
    let rgb = rgb.ok_or(CaptureProblem::Unreadable)?;
    Ok(upright(Picture { width: width as usize, height: height as usize, rgb }, orientation))
}

/// Eight bits of each channel of what has more of them or fewer channels, transparency ignored.
fn to_rgb(pixels: &[u8], color: ColorType) -> Option<Wiped<u8>> {
    let high = |bytes: &[u8]| (u16::from_ne_bytes([bytes[0], bytes[1]]) >> 8) as u8;
    let (stride, gray, wide) = match color {
        ColorType::L8 => (1, true, false),
        ColorType::La8 => (2, true, false),
        ColorType::Rgba8 => (4, false, false),
        ColorType::L16 => (2, true, true),
        ColorType::La16 => (4, true, true),
        ColorType::Rgb16 => (6, false, true),
        ColorType::Rgba16 => (8, false, true),
        _ => return None,
    };
    let mut rgb = Vec::with_capacity(pixels.len() / stride * 3);
    for pixel in pixels.chunks_exact(stride) {
        let channel = |i: usize| if wide { high(&pixel[2 * i..]) } else { pixel[i] };
        rgb.extend(if gray { [channel(0); 3] } else { [channel(0), channel(1), channel(2)] });
    }
    Some(Wiped::new(rgb))
}

fn upright(picture: Picture, orientation: Orientation) -> Picture {
    let (w, h) = (picture.width, picture.height);
    let turned = !matches!(
        orientation,
        Orientation::NoTransforms
            | Orientation::Rotate180
            | Orientation::FlipHorizontal
            | Orientation::FlipVertical
    );
    let (width, height) = if turned { (h, w) } else { (w, h) };
    if orientation == Orientation::NoTransforms {
        return picture;
    }
    let mut rgb = Vec::with_capacity(picture.rgb.len());
    for y in 0..height {
        for x in 0..width {
            let (column, row) = match orientation {
                Orientation::NoTransforms => (x, y),
                Orientation::Rotate90 => (y, h - 1 - x),
                Orientation::Rotate180 => (w - 1 - x, h - 1 - y),
                Orientation::Rotate270 => (w - 1 - y, x),
                Orientation::FlipHorizontal => (w - 1 - x, y),
                Orientation::FlipVertical => (x, h - 1 - y),
                Orientation::Rotate90FlipH => (y, x),
                Orientation::Rotate270FlipH => (w - 1 - y, h - 1 - x),
            };
            let at = (row * w + column) * 3;
            rgb.extend_from_slice(&picture.rgb[at..at + 3]);
        }
    }
    Picture::from_rgb(width, height, rgb)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{DynamicImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba};

    fn png(image: DynamicImage) -> Vec<u8> {
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, ImageFormat::Png).unwrap();
        file.into_inner()
    }

    #[test]
    fn every_depth_and_channel_count_becomes_eight_bit_colour() {
        let gray16 = ImageBuffer::<Luma<u16>, _>::from_pixel(4, 3, Luma([0x8040]));
        let rgba16 = ImageBuffer::<Rgba<u16>, _>::from_pixel(4, 3, Rgba([0x8040; 4]));
        let gray8 = ImageBuffer::<Luma<u8>, _>::from_pixel(4, 3, Luma([0x80]));
        for image in [
            DynamicImage::ImageLuma16(gray16),
            DynamicImage::ImageRgba16(rgba16),
            DynamicImage::ImageLuma8(gray8),
        ] {
            let picture = Picture::decode(&png(image)).unwrap();
            assert_eq!((picture.width, picture.height), (4, 3));
            assert!(picture.rgb().iter().all(|&value| value == 0x80));
        }
    }

    #[test]
    fn each_orientation_agrees_with_the_picture_library() {
        let image = RgbImage::from_fn(5, 3, |x, y| Rgb([x as u8, y as u8, 7]));
        for exif in 1..=8 {
            let orientation = Orientation::from_exif(exif).unwrap();
            let mut expected = DynamicImage::ImageRgb8(image.clone());
            expected.apply_orientation(orientation);
            let ours = upright(Picture::from_rgb(5, 3, image.as_raw().clone()), orientation);
            assert_eq!(
                (ours.width as u32, ours.height as u32),
                (expected.width(), expected.height())
            );
            assert_eq!(ours.rgb(), expected.as_bytes(), "orientation {exif}");
        }
    }

    #[test]
    fn a_picture_over_the_limits_is_refused_before_its_pixels_are_allocated() {
        let mut file = png(DynamicImage::ImageLuma8(ImageBuffer::from_pixel(8, 8, Luma([9]))));
        // The header says 60,000 x 60,000; its checksum is made to agree.
        file[16..24].copy_from_slice(&[0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60]);
        let sum = crc32(&file[12..29]).to_be_bytes();
        file[29..33].copy_from_slice(&sum);
        assert!(matches!(Picture::decode(&file), Err(CaptureProblem::Unreadable)));
    }

    #[test]
    fn four_quarter_turns_are_none_and_only_a_dark_picture_is_lifted() {
        let picture = Picture::from_rgb(5, 3, (0..45).collect());
        let once = picture.turned();
        assert_eq!((once.width, once.height), (3, 5));
        assert_eq!(once.turned().turned().turned().rgb(), picture.rgb());
        let lifted = picture.lifted().expect("nothing in it is bright");
        assert!(lifted.rgb().iter().zip(picture.rgb()).all(|(after, before)| after >= before));
        assert!(lifted.rgb().iter().max() > Some(&240));
        assert!(Picture::from_rgb(5, 3, (200..245).collect()).lifted().is_none());
    }

    #[test]
    fn a_large_picture_is_averaged_down_to_working_size() {
        let image = RgbImage::from_fn(2100, 30, |x, _| Rgb([if x % 3 == 0 { 90 } else { 0 }; 3]));
        let picture = Picture::decode(&png(DynamicImage::ImageRgb8(image))).unwrap();
        assert_eq!((picture.width, picture.height), (700, 10));
        assert!(picture.rgb().iter().all(|&value| value == 30));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |sum, &byte| {
            (0..8).fold(sum ^ u32::from(byte), |sum, _| {
                if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 }
            })
        })
    }
}
