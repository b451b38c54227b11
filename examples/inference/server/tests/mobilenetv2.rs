//! A user's own model, as large as MobileNetV2: the same server, other settings.

use std::path::Path;
use std::process::Command;

use inference::config::Labels;
use inference::labels;
use inference::model::{Classifier, Numbers};
use inference::picture::{Channels, Preparation};

/// What onnxruntime answers for this model and this input.
const REFERENCE: &str = include_str!("../../../inference-byo/reference.txt");

#[test]
fn it_is_loaded_prepared_for_and_run_as_onnxruntime_does() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::temp_dir().join(format!("inference-byo-{}", std::process::id()));
    let made = Command::new("python3")
        .arg(examples.join("inference-byo/make-mobilenetv2.py"))
        .arg(&folder)
        .output()
        .expect("python3 is installed");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );

    let model = Classifier::load(&folder.join("model.onnx"), None).expect("a model");
    let labels = labels::load(
        &Labels::Required(folder.join("labels.txt")),
        model.classes(),
    );
    std::fs::remove_dir_all(&folder).expect("our own folder");
    assert_eq!(labels.expect("a label per class").len(), 1000);
    let shape = model.picture();
    assert_eq!(
        (shape.channels, shape.height, shape.width),
        (Channels::Rgb, 224, 224)
    );

    let ramp: Vec<f32> = (0..3 * 224 * 224)
        .map(|i| (i % 255) as f32 / 127.0 - 1.0)
        .collect();
    let output = model
        .run(&[1, 3, 224, 224], ramp)
        .expect("runs")
        .swap_remove(0);
    let Numbers::Float(scores) = output.data else {
        panic!("scores are float")
    };
    let lines = REFERENCE.lines().filter(|line| !line.starts_with('#'));
    let mut compared = 0;
    for (class, expected) in lines.filter_map(|line| line.split_once(' ')) {
        if class == "best" {
            let best = (0..1000)
                .max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
                .expect("1000 of them");
            assert_eq!(best.to_string(), expected);
        } else {
            let class: usize = class.parse().expect("a class");
            let expected: f32 = expected.parse().expect("a score");
            let score = scores[class];
            assert!(
                (score - expected).abs() < 1e-2,
                "{class}: {score} is not {expected}"
            );
        }
        compared += 1;
    }
    assert_eq!(compared, 6);

    // A picture of any size, with ImageNet's settings unless told otherwise.
    let preparation = Preparation::new(shape, None, None, 1 << 21).expect("its own settings");
    let picture = std::fs::read(examples.join("inference/pictures/8.jpg")).expect("a picture");
    let probabilities = model
        .classify(preparation.tensor(&picture).expect("a picture"))
        .expect("runs");
    assert!((probabilities.iter().sum::<f32>() - 1.0).abs() < 1e-3);
}
