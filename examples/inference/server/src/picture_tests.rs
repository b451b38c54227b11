use image::{Luma, LumaA, Rgb, Rgba};

use super::*;
use crate::config::MAX_PIXELS;

const GREY_4X4: Shape = Shape {
    channels: Channels::Grey,
    height: 4,
    width: 4,
    order: Order::ChannelsFirst,
};
const RGB_2X2: Shape = Shape {
    channels: Channels::Rgb,
    height: 2,
    width: 2,
    order: Order::ChannelsFirst,
};

fn plain(std: f32) -> Option<Normalise> {
    Some(Normalise::Fixed {
        mean: vec![0.0],
        std: vec![std],
    })
}

fn preparation(shape: Shape, fit: Fit) -> Preparation {
    // 1/255: the numbers are the bytes again.
    Preparation::new(shape, Some(fit), plain(1.0 / 255.0), MAX_PIXELS)
        .expect("one number fits any model")
}

fn file(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture
        .into()
        .write_to(&mut bytes, format)
        .expect("memory takes everything");
    bytes.into_inner()
}

#[track_caller]
fn close(numbers: &[f32], expected: &[f32]) {
    assert_eq!(numbers.len(), expected.len());
    for (number, expected) in numbers.iter().zip(expected) {
        assert!(
            (number - expected).abs() < 0.01,
            "{numbers:?} is not {expected:?}"
        );
    }
}

#[test]
fn channels_are_ordered_as_the_model_wants_them() {
    let mut picture = RgbImage::new(2, 2);
    for (i, pixel) in picture.pixels_mut().enumerate() {
        *pixel = Rgb([i as u8, 10 + i as u8, 20 + i as u8]);
    }
    let png = file(picture, ImageFormat::Png);
    let first = preparation(RGB_2X2, Fit::Stretch)
        .tensor(&png)
        .expect("a picture");
    close(
        &first,
        &[0., 1., 2., 3., 10., 11., 12., 13., 20., 21., 22., 23.],
    );
    let shape = Shape {
        order: Order::ChannelsLast,
        ..RGB_2X2
    };
    let last = preparation(shape, Fit::Stretch)
        .tensor(&png)
        .expect("a picture");
    close(
        &last,
        &[0., 10., 20., 1., 11., 21., 2., 12., 22., 3., 13., 23.],
    );
}

#[test]
fn mean_and_deviation_are_those_of_the_channel() {
    let normalise = Normalise::Fixed {
        mean: vec![0.0, 0.5, 1.0],
        std: vec![1.0, 0.5, 0.25],
    };
    let preparation = Preparation::new(RGB_2X2, Some(Fit::Stretch), Some(normalise), MAX_PIXELS)
        .expect("three fit");
    let png = file(
        RgbImage::from_pixel(2, 2, Rgb([255, 255, 255])),
        ImageFormat::Png,
    );
    close(
        &preparation.tensor(&png).expect("a picture"),
        &[1., 1., 1., 1., 1., 1., 1., 1., 0., 0., 0., 0.],
    );
}

#[test]
fn numbers_of_another_number_of_channels_are_refused() {
    let two = Normalise::Fixed {
        mean: vec![0.0; 2],
        std: vec![1.0; 2],
    };
    let error =
        Preparation::new(RGB_2X2, None, Some(two), MAX_PIXELS).expect_err("two are not three");
    assert_eq!(
        error.to_string(),
        "MEAN and STD have 2 numbers each, but the model takes 3 channels; give one or 3"
    );
}

#[test]
fn a_standardised_picture_has_mean_0_and_deviation_1_and_one_colour_is_all_zero() {
    let preparation = Preparation::new(GREY_4X4, None, None, MAX_PIXELS).expect("valid");
    let gradient = GrayImage::from_fn(4, 4, |x, y| Luma([(x * 16 + y * 4) as u8]));
    let numbers = preparation
        .tensor(&file(gradient, ImageFormat::Png))
        .expect("a picture");
    let mean = numbers.iter().sum::<f32>() / 16.0;
    let deviation = (numbers.iter().map(|n| (n - mean).powi(2)).sum::<f32>() / 16.0).sqrt();
    assert!(
        mean.abs() < 1e-5 && (deviation - 1.0).abs() < 1e-4,
        "{mean} {deviation}"
    );

    let flat = file(GrayImage::from_pixel(9, 9, Luma([77])), ImageFormat::Png);
    close(&preparation.tensor(&flat).expect("a picture"), &[0.0; 16]);
}

#[test]
fn colour_becomes_brightness_and_transparency_becomes_paper() {
    let preparation = preparation(GREY_4X4, Fit::Stretch);
    let red = file(
        RgbImage::from_pixel(4, 4, Rgb([255, 0, 0])),
        ImageFormat::Png,
    );
    close(&preparation.tensor(&red).expect("a picture"), &[76.0; 16]);
    let glass = file(
        image::RgbaImage::from_pixel(4, 4, Rgba([0, 0, 0, 0])),
        ImageFormat::Png,
    );
    close(
        &preparation.tensor(&glass).expect("a picture"),
        &[255.0; 16],
    );
    let haze = file(
        image::GrayAlphaImage::from_pixel(4, 4, LumaA([0, 128])),
        ImageFormat::Png,
    );
    close(&preparation.tensor(&haze).expect("a picture"), &[127.0; 16]);
}

#[test]
fn a_narrow_picture_is_padded_with_its_edge_not_stretched() {
    // A white column on black, as high as the picture: padded it stays a column, stretched it fills
    // everything.
    let column = file(GrayImage::from_pixel(1, 4, Luma([200])), ImageFormat::Png);
    let stretched = preparation(GREY_4X4, Fit::Stretch)
        .tensor(&column)
        .expect("a picture");
    close(&stretched, &[200.0; 16]);

    let mut framed = GrayImage::from_pixel(2, 4, Luma([10]));
    framed.put_pixel(0, 1, Luma([10]));
    let padded = preparation(GREY_4X4, Fit::Pad)
        .tensor(&file(framed, ImageFormat::Png))
        .expect("a picture");
    close(&padded, &[10.0; 16]);

    let dark = GrayImage::from_fn(3, 12, |x, _| Luma([if x == 1 { 255 } else { 0 }]));
    let padded = preparation(
        Shape {
            height: 12,
            width: 12,
            ..GREY_4X4
        },
        Fit::Pad,
    )
    .tensor(&file(dark, ImageFormat::Png))
    .expect("a picture");
    let row = &padded[5 * 12..6 * 12];
    assert!(
        row[5] > 200.0 && row[0] == row[11] && row[0] < 60.0,
        "{row:?}"
    );
}

#[test]
fn a_line_does_not_become_a_huge_canvas() {
    let line = file(
        GrayImage::from_pixel(200_000, 1, Luma([9])),
        ImageFormat::Png,
    );
    let numbers = preparation(GREY_4X4, Fit::Pad)
        .tensor(&line)
        .expect("a picture, if a strange one");
    close(&numbers, &[9.0; 16]);
}

#[test]
fn cropping_keeps_the_middle() {
    let picture = GrayImage::from_fn(64, 32, |x, _| {
        Luma([if (16..48).contains(&x) { 90 } else { 255 }])
    });
    let numbers = preparation(GREY_4X4, Fit::Crop)
        .tensor(&file(picture, ImageFormat::Png))
        .expect("a picture");
    close(&numbers, &[90.0; 16]);
    let pixel = file(GrayImage::from_pixel(1, 1, Luma([3])), ImageFormat::Png);
    close(
        &preparation(GREY_4X4, Fit::Crop)
            .tensor(&pixel)
            .expect("a picture"),
        &[3.0; 16],
    );
}

#[test]
fn a_jpeg_is_read_too() {
    let jpeg = file(
        GrayImage::from_pixel(16, 16, Luma([120])),
        ImageFormat::Jpeg,
    );
    let numbers = preparation(GREY_4X4, Fit::Stretch)
        .tensor(&jpeg)
        .expect("a picture");
    assert!(
        numbers.iter().all(|n| (n - 120.0).abs() < 3.0),
        "{numbers:?}"
    );
}

#[track_caller]
fn refused(file: &[u8], status: u16, text: &str) {
    let error = preparation(GREY_4X4, Fit::Stretch)
        .tensor(file)
        .expect_err("must be refused");
    assert_eq!(error.status(), status, "{error}");
    assert!(
        error.to_string().contains(text),
        "{error} does not say {text:?}"
    );
}

#[test]
fn what_is_no_picture_is_refused() {
    refused(b"", 400, "--data-binary");
    refused(b"hello", 415, "not a PNG or JPEG");
    refused(
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
        415,
        "GIF pictures are not supported",
    );
    let png = file(GrayImage::new(40, 40), ImageFormat::Png);
    refused(&png[..png.len() / 2], 422, "cannot be decoded");
    refused(&png[..20], 422, "cannot be decoded");
    let jpeg = file(RgbImage::new(40, 40), ImageFormat::Jpeg);
    refused(&jpeg[..30], 422, "cannot be decoded");
}

#[test]
fn a_small_file_that_unpacks_to_a_huge_picture_is_refused_by_its_header() {
    let bomb = file(GrayImage::new(20_000, 1000), ImageFormat::Png);
    assert!(bomb.len() < 100_000);
    refused(&bomb, 413, "20000x1000 pixels, more than the 2097152");
}

#[test]
fn broken_pictures_never_panic() {
    let gradient = RgbImage::from_fn(24, 24, |x, y| Rgb([x as u8 * 9, y as u8 * 9, 50]));
    let preparation = preparation(GREY_4X4, Fit::Pad);
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let whole = file(gradient.clone(), format);
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut broken = whole.clone();
                broken[at] ^= flip;
                // Either outcome is fine; only a panic is not.
                if let Ok(numbers) = preparation.tensor(&broken) {
                    assert_eq!(numbers.len(), 16);
                }
            }
        }
    }
}
