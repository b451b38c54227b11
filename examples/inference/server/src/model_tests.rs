use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/models")
        .join(format!("{name}.onnx"))
}

fn load(name: &str, size: Option<usize>) -> Classifier {
    Classifier::load(&fixture(name), size).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[track_caller]
fn refused(name: &str, text: &str) {
    match Classifier::load(&fixture(name), None) {
        Ok(_) => panic!("{name} was accepted"),
        Err(error) => assert!(
            error.to_string().contains(text),
            "{error} does not say {text:?}"
        ),
    }
}

#[test]
fn a_models_shape_is_that_of_its_picture() {
    let model = load("softmax", None);
    let shape = Shape {
        channels: Channels::Rgb,
        height: 8,
        width: 8,
        order: Order::ChannelsFirst,
    };
    assert_eq!((model.picture(), model.classes()), (shape, 3));
    assert_eq!(model.input().name, "x");
    assert_eq!(
        load("channels-last", None).picture(),
        Shape {
            order: Order::ChannelsLast,
            ..shape
        }
    );
}

#[test]
fn an_open_side_is_the_users_to_say() {
    refused("open-size", "set SIZE");
    let model = load("open-size", Some(16));
    assert_eq!((model.picture().height, model.picture().width), (16, 16));
    assert_eq!(model.input().to_string(), "? x 3 x ? x ?");
}

#[test]
fn scores_become_probabilities_once() {
    let picture: Vec<f32> = [[1.0_f32; 64], [2.0; 64], [4.0; 64]].concat();
    let from_scores = load("open-size", Some(8))
        .classify(picture.clone())
        .expect("runs");
    let from_softmax = load("softmax", None).classify(picture).expect("runs");
    let sum: f32 = [1.0_f32, 2.0, 4.0].iter().map(|score| score.exp()).sum();
    for (index, score) in [1.0_f32, 2.0, 4.0].iter().enumerate() {
        let expected = score.exp() / sum;
        assert!(
            (from_scores[index] - expected).abs() < 1e-5,
            "{from_scores:?}"
        );
        assert!(
            (from_softmax[index] - expected).abs() < 1e-5,
            "{from_softmax:?}"
        );
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let all = probabilities(vec![1000.0, 999.0, -1000.0]);
    assert!(
        (all.iter().sum::<f32>() - 1.0).abs() < 1e-5 && all[0] > all[1],
        "{all:?}"
    );
}

#[test]
fn channels_last_are_averaged_per_channel() {
    let picture: Vec<f32> = [1.0, 2.0, 3.0].repeat(64);
    let outputs = load("channels-last", None)
        .run(&[1, 8, 8, 3], picture)
        .expect("runs");
    assert_eq!(outputs[0].data, Numbers::Float(vec![1.0, 2.0, 3.0]));
}

#[test]
fn every_output_is_given_integers_too() {
    let picture: Vec<f32> = [[1.0_f32; 64], [4.0; 64], [2.0; 64]].concat();
    let outputs = load("two-outputs", None)
        .run(&[1, 3, 8, 8], picture)
        .expect("runs");
    assert_eq!(outputs[0].data, Numbers::Float(vec![1.0, 4.0, 2.0]));
    assert_eq!(
        (outputs[1].name.as_str(), &outputs[1].data),
        ("best", &Numbers::Int(vec![1]))
    );
}

#[test]
fn numbers_that_do_not_fill_the_shape_are_an_error() {
    let error = load("softmax", None)
        .run(&[1, 3, 8, 8], vec![0.0; 5])
        .expect_err("5 are not 192");
    assert_eq!(
        error.to_string(),
        "5 numbers do not fill the shape [1, 3, 8, 8]"
    );
}

#[test]
fn models_that_cannot_be_served_are_refused_when_loaded() {
    refused("nowhere", "mount it there, or set MODEL");
    refused("two-inputs", "the model has 2 inputs");
    refused("integers", "of type INT32; this server feeds float32");
    refused("vector", "has the shape 1 x 10; a picture is");
    refused("five-channels", "has the shape 1 x 5 x 8 x 8; a picture is");
    refused(
        "segmentation",
        "has the shape [1, 3, 8, 8]; a classifier gives one number per class",
    );
    refused("huge", "4096x4096 pixels; at most 1024");
    refused("wrong-weights", "does not run on a picture of its own size");
}

#[test]
fn a_file_that_is_no_model_is_refused_and_never_panics() {
    let whole = fs::read(fixture("softmax")).expect("the fixture is there");
    let folder = std::env::temp_dir().join(format!("inference-model-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a temporary folder");
    let file = folder.join("broken.onnx");
    for length in (0..whole.len()).step_by(7) {
        fs::write(&file, &whole[..length]).expect("a temporary file");
        // Cut behind the graph it still is a model; only a panic would be wrong there.
        let accepted = Classifier::load(&file, None).is_ok();
        assert!(
            !accepted || length > whole.len() / 2,
            "the first {length} bytes were accepted"
        );
    }
    fs::write(&file, "\0asm").expect("a temporary file");
    let error = Classifier::load(&file, None).err().expect("not a model");
    assert!(
        error
            .to_string()
            .ends_with("is not an ONNX model this server can run"),
        "{error}"
    );
    fs::remove_dir_all(&folder).expect("our own folder");
}
