//! From the bytes of a PNG or JPEG file to the numbers a model wants.

use std::io::Cursor;

use image::imageops::{self, FilterType};
use image::{
    DynamicImage, GrayImage, ImageBuffer, ImageDecoder as _, ImageError, ImageFormat, ImageReader,
    Pixel, RgbImage,
};

/// ImageNet's statistics, which nearly every published model of colour pictures was trained with.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];
/// Side of what is kept of a picture by the usual "scale to 256, crop 224".
const CROP_SHARE: f64 = 224.0 / 256.0;
/// What a decoder may allocate. Two million pixels in 16-bit RGBA take 16 MiB; a progressive JPEG
/// needs as much again.
const DECODER_BYTES: u64 = 40 * 1024 * 1024;

/// Where the numbers of a channel lie in the tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// 1 x channels x height x width.
    ChannelsFirst,
    /// 1 x height x width x channels.
    ChannelsLast,
}

/// One or three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Brightness only.
    Grey,
    /// Red, green, blue.
    Rgb,
}

impl Channels {
    /// How many.
    pub fn count(self) -> usize {
        match self {
            Channels::Grey => 1,
            Channels::Rgb => 3,
        }
    }
}

/// The picture a model takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Grey or colour.
    pub channels: Channels,
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
    /// Order of the numbers.
    pub order: Order,
}

/// How a picture of another aspect ratio is brought to the model's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// Distorted.
    Stretch,
    /// The middle 7/8 of the largest part with the right ratio: "scale to 256, crop 224".
    Crop,
    /// Whole, with the average colour of its edge around it.
    Pad,
}

/// How pixels become numbers.
#[derive(Clone, Debug, PartialEq)]
pub enum Normalise {
    /// Mean 0 and deviation 1 within each picture.
    Picture,
    /// `(x / 255 - mean) / std`, one of each or one per channel.
    Fixed {
        /// Subtracted.
        mean: Vec<f32>,
        /// Divided by.
        std: Vec<f32>,
    },
}

/// Everything that happens between a file and the model.
#[derive(Clone, Debug, PartialEq)]
pub struct Preparation {
    shape: Shape,
    fit: Fit,
    normalise: Normalise,
    max_pixels: u64,
}

/// MEAN and STD that do not fit the model.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "MEAN and STD have {given} numbers each, but the model takes {channels} channels; give one or {channels}"
)]
pub struct ChannelMismatch {
    given: usize,
    channels: usize,
}

/// Why a picture cannot be classified.
#[derive(Debug, thiserror::Error)]
pub enum PictureError {
    /// No body.
    #[error("the body is empty; send a PNG or JPEG file: curl --data-binary @picture.png …")]
    Empty,
    /// Not a picture at all.
    #[error("the body is not a PNG or JPEG file")]
    Unrecognised,
    /// A picture, but neither.
    #[error("{0} pictures are not supported; send PNG or JPEG")]
    Format(String),
    /// Its size.
    #[error(
        "the picture has {width}x{height} pixels, more than the {limit} that are accepted; scale it down"
    )]
    TooLarge {
        /// Columns.
        width: u32,
        /// Rows.
        height: u32,
        /// What is accepted.
        limit: u64,
    },
    /// Broken.
    #[error("the picture cannot be decoded: {0}")]
    Decode(#[source] ImageError),
}

impl PictureError {
    /// The HTTP status that says so.
    pub fn status(&self) -> u16 {
        match self {
            PictureError::Empty => 400,
            PictureError::Unrecognised | PictureError::Format(_) => 415,
            PictureError::TooLarge { .. } => 413,
            PictureError::Decode(_) => 422,
        }
    }
}

impl Preparation {
    /// What the user did not set follows from the number of channels.
    pub fn new(
        shape: Shape,
        fit: Option<Fit>,
        normalise: Option<Normalise>,
        max_pixels: u64,
    ) -> Result<Preparation, ChannelMismatch> {
        let normalise = normalise.unwrap_or_else(|| match shape.channels {
            Channels::Grey => Normalise::Picture,
            Channels::Rgb => Normalise::Fixed {
                mean: IMAGENET_MEAN.into(),
                std: IMAGENET_STD.into(),
            },
        });
        if let Normalise::Fixed { mean, .. } = &normalise {
            let (given, channels) = (mean.len(), shape.channels.count());
            if given != 1 && given != channels {
                return Err(ChannelMismatch { given, channels });
            }
        }
        let fit = fit.unwrap_or(match shape.channels {
            Channels::Grey => Fit::Pad,
            Channels::Rgb => Fit::Crop,
        });
        Ok(Preparation {
            shape,
            fit,
            normalise,
            max_pixels,
        })
    }

    /// The numbers for the model, in its order.
    pub fn tensor(&self, file: &[u8]) -> Result<Vec<f32>, PictureError> {
        let picture = decode(file, self.max_pixels)?;
        Ok(match self.shape.channels {
            Channels::Grey => self.numbers(self.fitted(grey(picture)).as_raw()),
            Channels::Rgb => self.numbers(self.fitted(rgb(picture)).as_raw()),
        })
    }

    fn fitted<P>(&self, picture: ImageBuffer<P, Vec<u8>>) -> ImageBuffer<P, Vec<u8>>
    where
        P: Pixel<Subpixel = u8> + 'static,
    {
        let (width, height) = (self.shape.width, self.shape.height);
        if picture.dimensions() == (width, height) && self.fit != Fit::Crop {
            return picture;
        }
        let scale = |picture: &ImageBuffer<P, Vec<u8>>| {
            // Averages what it makes smaller, as training did.
            imageops::resize(picture, width, height, FilterType::Triangle)
        };
        match self.fit {
            Fit::Stretch => scale(&picture),
            Fit::Crop => {
                let (w, h) = largest_within(picture.dimensions(), (width, height));
                let keep = |side: u32| ((f64::from(side) * CROP_SHARE).round() as u32).max(1);
                let (w, h) = (keep(w), keep(h));
                let (x, y) = ((picture.width() - w) / 2, (picture.height() - h) / 2);
                scale(&imageops::crop_imm(&picture, x, y, w, h).to_image())
            }
            Fit::Pad => scale(&padded(picture, (width, height))),
        }
    }

    /// Bytes, channels interleaved, to numbers in the model's order.
    fn numbers(&self, bytes: &[u8]) -> Vec<f32> {
        let channels = self.shape.channels.count();
        let mut numbers: Vec<f32> = match self.shape.order {
            Order::ChannelsLast => bytes.iter().map(|b| f32::from(*b) / 255.0).collect(),
            Order::ChannelsFirst => (0..channels)
                .flat_map(|channel| bytes.iter().skip(channel).step_by(channels))
                .map(|b| f32::from(*b) / 255.0)
                .collect(),
        };
        match &self.normalise {
            Normalise::Picture => standardise(&mut numbers),
            Normalise::Fixed { mean, std } => {
                let plane = numbers.len() / channels;
                for (index, number) in numbers.iter_mut().enumerate() {
                    let channel = match self.shape.order {
                        Order::ChannelsLast => index % channels,
                        Order::ChannelsFirst => index / plane,
                    };
                    // One number stands for every channel.
                    let channel = channel.min(mean.len() - 1);
                    *number = (*number - mean[channel]) / std[channel];
                }
            }
        }
        numbers
    }
}

impl std::fmt::Display for Preparation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Shape {
            channels,
            height,
            width,
            ..
        } = self.shape;
        let channels = match channels {
            Channels::Grey => "grey",
            Channels::Rgb => "RGB",
        };
        let fit = match self.fit {
            Fit::Stretch => "stretch",
            Fit::Crop => "crop",
            Fit::Pad => "pad",
        };
        write!(f, "{width}x{height} {channels}, {fit}, ")?;
        match &self.normalise {
            Normalise::Picture => write!(f, "each picture standardised"),
            Normalise::Fixed { mean, std } => write!(f, "mean {mean:?}, std {std:?}"),
        }
    }
}

fn standardise(numbers: &mut [f32]) {
    let count = numbers.len() as f32;
    let mean = numbers.iter().sum::<f32>() / count;
    let variance = numbers.iter().map(|n| (n - mean).powi(2)).sum::<f32>() / count;
    // A picture of one colour has no deviation: it becomes zeros, not infinities.
    let deviation = variance.sqrt().max(1e-5);
    for number in numbers {
        *number = (*number - mean) / deviation;
    }
}

/// The largest (width, height) within `outer` that has the aspect ratio of `ratio`.
fn largest_within(outer: (u32, u32), ratio: (u32, u32)) -> (u32, u32) {
    let ((w, h), (rw, rh)) = (
        (u64::from(outer.0), u64::from(outer.1)),
        (u64::from(ratio.0), u64::from(ratio.1)),
    );
    if w * rh > h * rw {
        (
            u32::try_from(h * rw / rh).unwrap_or(u32::MAX).max(1),
            outer.1,
        )
    } else {
        (
            outer.0,
            u32::try_from(w * rh / rw).unwrap_or(u32::MAX).max(1),
        )
    }
}

/// The picture in the middle of the smallest canvas around it that has the aspect ratio of `ratio`.
fn padded<P>(picture: ImageBuffer<P, Vec<u8>>, ratio: (u32, u32)) -> ImageBuffer<P, Vec<u8>>
where
    P: Pixel<Subpixel = u8> + 'static,
{
    let (w, h) = picture.dimensions();
    let up = |a: u32, b: u32, c: u32| (u64::from(a) * u64::from(b)).div_ceil(u64::from(c));
    let (wide, high) = (
        u64::from(w).max(up(h, ratio.0, ratio.1)),
        u64::from(h).max(up(w, ratio.1, ratio.0)),
    );
    if (wide, high) == (u64::from(w), u64::from(h)) {
        return picture;
    }
    // A line of a million pixels would become a canvas of 10^12: make it thinner first, it is not a
    // picture anyway.
    const MOST: u64 = 2048;
    if wide > MOST || high > MOST {
        let by = wide.max(high);
        let smaller = |side: u32| {
            u32::try_from(u64::from(side) * MOST / by)
                .unwrap_or(1)
                .max(1)
        };
        return padded(
            imageops::resize(&picture, smaller(w), smaller(h), FilterType::Triangle),
            ratio,
        );
    }
    let (wide, high) = (wide as u32, high as u32);
    let mut canvas = ImageBuffer::from_pixel(wide, high, edge_colour(&picture));
    imageops::replace(
        &mut canvas,
        &picture,
        i64::from((wide - w) / 2),
        i64::from((high - h) / 2),
    );
    canvas
}

/// The average of the outermost pixels.
fn edge_colour<P: Pixel<Subpixel = u8>>(picture: &ImageBuffer<P, Vec<u8>>) -> P {
    let (w, h) = picture.dimensions();
    let mut sums = [0_u64; 4];
    let mut count = 0;
    for (x, y, pixel) in picture.enumerate_pixels() {
        if x == 0 || y == 0 || x == w - 1 || y == h - 1 {
            for (sum, value) in sums.iter_mut().zip(pixel.channels()) {
                *sum += u64::from(*value);
            }
            count += 1;
        }
    }
    let mut colour = *picture.get_pixel(0, 0);
    for (value, sum) in colour.channels_mut().iter_mut().zip(sums) {
        *value = (sum / count) as u8;
    }
    colour
}

fn decode(file: &[u8], max_pixels: u64) -> Result<DynamicImage, PictureError> {
    if file.is_empty() {
        return Err(PictureError::Empty);
    }
    let format = image::guess_format(file).map_err(|_| PictureError::Unrecognised)?;
    if !matches!(format, ImageFormat::Png | ImageFormat::Jpeg) {
        return Err(PictureError::Format(format!("{format:?}").to_uppercase()));
    }
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(PictureError::Decode)?;
    let (width, height) = decoder.dimensions();
    // Before a pixel is decoded: a file of some kilobytes can say that it is a gigabyte large.
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(PictureError::TooLarge {
            width,
            height,
            limit: max_pixels,
        });
    }
    // A camera writes the picture as the sensor lies and says here how it was held. A broken note
    // is no reason to refuse.
    let orientation = decoder
        .orientation()
        .unwrap_or(image::metadata::Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(PictureError::Decode)?;
    picture.apply_orientation(orientation);
    Ok(picture)
}

/// Without its alpha channel, as if it lay on white paper.
fn rgb(picture: DynamicImage) -> RgbImage {
    if !picture.color().has_alpha() {
        return picture.into_rgb8();
    }
    let transparent = picture.into_rgba8();
    let (width, height) = transparent.dimensions();
    let mut flat = RgbImage::new(width, height);
    for (out, pixel) in flat.pixels_mut().zip(transparent.pixels()) {
        let [r, g, b, a] = pixel.0.map(u32::from);
        let over_white = |c: u32| ((c * a + 255 * (255 - a) + 127) / 255) as u8;
        out.0 = [over_white(r), over_white(g), over_white(b)];
    }
    flat
}

/// Brightness as television has it (ITU-R 601), which is what training used.
fn grey(picture: DynamicImage) -> GrayImage {
    if matches!(picture, DynamicImage::ImageLuma8(_)) {
        return picture.into_luma8();
    }
    let colour = rgb(picture);
    let (width, height) = colour.dimensions();
    let mut grey = GrayImage::new(width, height);
    for (out, pixel) in grey.pixels_mut().zip(colour.pixels()) {
        let [r, g, b] = pixel.0.map(u32::from);
        out.0 = [((299 * r + 587 * g + 114 * b + 500) / 1000) as u8];
    }
    grey
}

#[cfg(test)]
#[path = "picture_tests.rs"]
mod tests;
