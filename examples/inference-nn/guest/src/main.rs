//! Says which character each of some pictures shows.
//!
//! ```text
//! picture ── decoded, scaled, standardised: here ──▶ tensor ── wasi-nn ──▶ the host computes "glyph" ──▶ 36 scores
//! ```

#[expect(
    dead_code,
    unreachable_pub,
    reason = "the server of examples/inference uses more of it"
)]
#[path = "../../../inference/server/src/picture.rs"]
mod picture;

use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use picture::{Channels, Order, Preparation, Shape};
use wasi_nn::{ExecutionTarget, GraphBuilder, GraphEncoding, GraphExecutionContext, TensorType};

/// As the pod calls the model: `wasmlet.dev/nn-models: glyph=/model/model.onnx`.
const MODEL: &str = "glyph";

/// A character for each score.
const LABELS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

const SIDE: u32 = 32;

/// What the shared code looks for here.
mod config {
    /// Largest picture that is decoded: 8 MiB of colours.
    pub(crate) const MAX_PIXELS: u64 = 2 * 1024 * 1024;
}
use config::MAX_PIXELS;

fn main() -> ExitCode {
    let mut pictures: Vec<String> = env::args().skip(1).collect();
    if pictures.is_empty() {
        pictures = pictures_of("/pictures");
    }
    match run(&pictures) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn pictures_of(folder: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut paths: Vec<String> = entries
        .flatten()
        .map(|entry| entry.path().to_string_lossy().into_owned())
        .collect();
    paths.sort();
    paths
}

fn run(pictures: &[String]) -> Result<(), Box<dyn Error>> {
    if pictures.is_empty() {
        return Err(
            "no picture: name PNG or JPEG files, or mount a folder of them at /pictures".into(),
        );
    }
    let shape = Shape {
        channels: Channels::Grey,
        height: SIDE,
        width: SIDE,
        order: Order::ChannelsFirst,
    };
    let preparation = Preparation::new(shape, None, None, MAX_PIXELS)?;
    let start = Instant::now();
    let graph = GraphBuilder::new(GraphEncoding::Onnx, ExecutionTarget::CPU)
        .build_from_cache(MODEL)
        .map_err(|error| format!("the model {MODEL:?} cannot be loaded: {error}"))?;
    let mut context = graph.init_execution_context()?;
    println!(
        "model loaded in {:.1} ms",
        start.elapsed().as_secs_f64() * 1000.0
    );
    for path in pictures {
        let answer = classify(&preparation, &mut context, path)
            .map_err(|error| format!("{path}: {error}"))?;
        let name = Path::new(path)
            .file_name()
            .map(|name| name.to_string_lossy());
        println!("{} {answer}", name.unwrap_or_default());
    }
    Ok(())
}

fn classify(
    preparation: &Preparation,
    context: &mut GraphExecutionContext<'_>,
    path: &str,
) -> Result<String, Box<dyn Error>> {
    let numbers = preparation.tensor(&fs::read(path)?)?;
    let side = SIDE as usize;
    context.set_input(0, TensorType::F32, &[1, 1, side, side], &numbers)?;
    let start = Instant::now();
    context.compute()?;
    let took = start.elapsed();
    let mut scores = [0_f32; LABELS.len()];
    context.get_output(0, &mut scores)?;
    let (label, probability) = best(&scores).ok_or("the model gave no number")?;
    Ok(format!(
        "{label} {:.0}% {:.2}ms",
        probability * 100.0,
        took.as_secs_f64() * 1000.0
    ))
}

/// The likeliest label and its probability: softmax over the scores.
fn best(scores: &[f32]) -> Option<(char, f32)> {
    let (label, score) = LABELS
        .chars()
        .zip(scores)
        .max_by(|a, b| a.1.total_cmp(b.1))?;
    let sum: f32 = scores.iter().map(|other| (other - score).exp()).sum();
    sum.is_finite().then(|| (label, 1.0 / sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_score_wins() {
        let mut scores = [0.0; LABELS.len()];
        scores[10] = 20.0;
        let (label, probability) = best(&scores).expect("numbers");
        assert_eq!(label, 'A');
        assert!(probability > 0.99);
        assert!(best(&[f32::NAN; 36]).is_none());
        assert!(best(&[]).is_none());
    }

    #[test]
    fn the_labels_are_those_of_the_model() {
        let file = include_str!("../../../inference/model/labels.txt");
        assert_eq!(file.lines().collect::<String>(), LABELS);
    }
}
