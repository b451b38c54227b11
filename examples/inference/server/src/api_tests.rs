use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::config::{Labels, MAX_PIXELS};
use crate::labels;

/// The real model, as the image has it.
pub(crate) fn app() -> App {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../model");
    let model = Classifier::load(&folder.join("glyph.onnx"), None).expect("the committed model");
    let labels = labels::load(
        &Labels::Required(folder.join("labels.txt")),
        model.classes(),
    )
    .expect("its labels");
    let preparation =
        Preparation::new(model.picture(), None, None, MAX_PIXELS).expect("its own settings");
    App {
        name: "glyph".to_owned(),
        model,
        labels,
        preparation,
        metrics: Metrics::new(Duration::from_millis(1)),
    }
}

pub(crate) fn picture(name: &str) -> Vec<u8> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../pictures")
        .join(name);
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn request(method: Method, path: &str, body: impl Into<Vec<u8>>) -> Request {
    Request {
        method,
        path: path.to_owned(),
        content_type: None,
        body: body.into(),
    }
}

#[track_caller]
fn json_of(response: &Response) -> Value {
    serde_json::from_slice(&response.body)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&response.body)))
}

#[track_caller]
fn get(app: &mut App, path: &str) -> (u16, Value) {
    let response = app.answer(&request(Method::Get, path, "")).response;
    (response.status, json_of(&response))
}

#[track_caller]
fn post(app: &mut App, path: &str, body: impl Into<Vec<u8>>) -> (u16, Value) {
    let response = app.answer(&request(Method::Post, path, body)).response;
    (response.status, json_of(&response))
}

#[track_caller]
fn assert_error((status, body): (u16, Value), wanted: u16, text: &str) {
    let error = body["error"].as_str().unwrap_or_default();
    assert!(
        status == wanted && error.contains(text),
        "{status} {body} is not {wanted} … {text:?}"
    );
}

#[test]
fn every_picture_gets_its_known_answer() {
    let mut app = app();
    let answers = String::from_utf8(picture("answers.txt")).expect("text");
    let lines: Vec<&str> = answers
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    assert!(lines.len() >= 8, "answers.txt has lost its lines");
    for line in lines {
        let (file, label) = line.split_once(' ').expect("FILE LABEL");
        let (status, body) = post(&mut app, "/v1/classify", picture(file));
        assert_eq!(
            (status, &body["top"][0]["label"]),
            (200, &json!(label)),
            "{file}: {body}"
        );
        let top = body["top"].as_array().expect("a list");
        assert_eq!(top.len(), 5);
        let p: Vec<f64> = top
            .iter()
            .map(|guess| guess["p"].as_f64().expect("a number"))
            .collect();
        assert!(
            p.is_sorted_by(|a, b| a >= b) && p.iter().sum::<f64>() <= 1.001,
            "{p:?}"
        );
        assert!(body["ms"].as_f64().expect("a number") > 0.0);
    }
}

#[test]
fn the_protocols_paths_answer() {
    let mut app = app();
    let (status, server) = get(&mut app, "/v2");
    assert_eq!(
        (status, &server["name"], &server["extensions"]),
        (200, &json!("inference"), &json!([]))
    );
    assert_eq!(
        get(&mut app, "/v2/health/live"),
        (200, json!({"live": true}))
    );
    assert_eq!(
        get(&mut app, "/v2/health/ready"),
        (200, json!({"ready": true}))
    );
    assert_eq!(
        get(&mut app, "/v2/models/glyph/ready"),
        (200, json!({"name": "glyph", "ready": true}))
    );
    let metadata = json!({
        "name": "glyph",
        "versions": ["1"],
        "platform": "onnx",
        "inputs": [{"name": "picture", "datatype": "FP32", "shape": [1, 1, 32, 32]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [1, 36]}],
    });
    assert_eq!(get(&mut app, "/v2/models/glyph"), (200, metadata.clone()));
    assert_eq!(
        get(&mut app, "/v2/models/glyph/versions/1"),
        (200, metadata.clone())
    );
    assert_eq!(get(&mut app, "/v2/models/glyph/"), (200, metadata));
    assert_eq!(get(&mut app, "/v2/models/glyph/versions/1/ready").0, 200);
}

#[test]
fn numbers_and_the_same_picture_give_the_same_answer() {
    let mut app = app();
    let file = picture("K.png");
    let tensor = app.preparation.tensor(&file).expect("a picture");
    let body = json!({
        "id": "42",
        "parameters": {"priority": 1},
        "inputs": [{"name": "picture", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": tensor}],
        "outputs": [{"name": "logits"}],
    });
    for path in [
        "/v2/models/glyph/infer",
        "/v2/models/glyph/versions/1/infer",
    ] {
        let (status, answer) = post(&mut app, path, body.to_string());
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            (
                &answer["model_name"],
                &answer["model_version"],
                &answer["id"]
            ),
            (&json!("glyph"), &json!("1"), &json!("42"))
        );
        let output = &answer["outputs"][0];
        assert_eq!(
            (&output["name"], &output["datatype"], &output["shape"]),
            (&json!("logits"), &json!("FP32"), &json!([1, 36]))
        );
        let scores: Vec<f64> = output["data"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|n| n.as_f64().expect("a number"))
            .collect();
        let best = (0..scores.len())
            .max_by(|a, b| scores[*a].total_cmp(&scores[*b]))
            .expect("36 of them");
        assert_eq!(app.labels[best], "K");
    }
}

#[test]
fn nested_data_is_the_same_as_flat() {
    let mut app = app();
    let ask = |data: Value| {
        json!({"inputs": [{"name": "picture", "shape": [1, 1, 32, 32], "datatype": "FP32", "data": data}]}).to_string()
    };
    let flat = post(
        &mut app,
        "/v2/models/glyph/infer",
        ask(json!(vec![0.5; 1024])),
    );
    let nested = post(
        &mut app,
        "/v2/models/glyph/infer",
        ask(json!([[vec![vec![0.5; 32]; 32]]])),
    );
    assert_eq!(flat.0, 200, "{}", flat.1);
    assert_eq!(flat, nested);
    assert!(flat.1.get("id").is_none(), "an id nobody sent");
}

#[test]
fn bad_inference_requests_say_what_is_wrong() {
    let mut app = app();
    let mut infer = |body: String| post(&mut app, "/v2/models/glyph/infer", body);
    let input = |name: &str, shape: Value, datatype: &str, count: usize| json!({"name": name, "shape": shape, "datatype": datatype, "data": vec![0; count]});
    let ok = || input("picture", json!([1, 1, 32, 32]), "FP32", 1024);
    let one = |input: Value| json!({ "inputs": [input] }).to_string();

    assert_error(infer("{".to_owned()), 400, "not an inference request: EOF");
    assert_error(infer("{}".to_owned()), 400, "missing field `inputs`");
    assert_error(
        infer(json!({"inputs": []}).to_string()),
        400,
        "0 inputs given",
    );
    assert_error(
        infer(json!({"inputs": [ok(), ok()]}).to_string()),
        400,
        "2 inputs given",
    );
    assert_error(
        infer(one(input("x", json!([1, 1, 32, 32]), "FP32", 1024))),
        400,
        r#"no input "x""#,
    );
    assert_error(
        infer(one(input("picture", json!([1, 1, 32, 32]), "INT8", 1024))),
        400,
        r#"datatype "INT8""#,
    );
    assert_error(
        infer(one(input("picture", json!([1, 3, 32, 32]), "FP32", 3072))),
        400,
        "takes 1 x 1 x 32 x 32",
    );
    assert_error(
        infer(one(input("picture", json!([1024]), "FP32", 1024))),
        400,
        "takes 1 x 1 x 32 x 32",
    );
    assert_error(
        infer(one(input("picture", json!([1, 1, 32, -32]), "FP32", 1024))),
        400,
        "invalid value",
    );
    assert_error(
        infer(one(input("picture", json!([1, 1, 32, 32]), "FP32", 1023))),
        400,
        "1023 numbers in data",
    );
    let unknown = json!({"inputs": [ok()], "outputs": [{"name": "boxes"}]}).to_string();
    assert_error(
        infer(unknown),
        400,
        r#"no output "boxes"; the model has "logits""#,
    );
}

#[test]
fn bad_pictures_say_what_is_wrong() {
    let mut app = app();
    assert_error(post(&mut app, "/v1/classify", ""), 400, "the body is empty");
    assert_error(
        post(&mut app, "/v1/classify", "hello"),
        415,
        "not a PNG or JPEG",
    );
    let mut with_type = |kind: &str| {
        let mut request = request(Method::Post, "/v1/classify", picture("K.png"));
        request.content_type = Some(kind.to_owned());
        let response = app.answer(&request).response;
        (response.status, json_of(&response))
    };
    assert_error(with_type("multipart/form-data"), 415, "--data-binary");
    assert_error(with_type("application/json"), 415, "/infer");
    assert_eq!(with_type("application/x-www-form-urlencoded").0, 200);
}

#[test]
fn unknown_paths_models_and_versions_are_not_found() {
    let mut app = app();
    assert_error(get(&mut app, "/v3"), 404, r#"no such path "/v3""#);
    assert_error(get(&mut app, "/v2/models"), 404, "no such path");
    assert_error(
        get(&mut app, "/v2/models/glyph/explain"),
        404,
        "no such path",
    );
    assert_error(
        get(&mut app, "/v2/models/resnet"),
        404,
        r#"no model "resnet"; this server has "glyph""#,
    );
    assert_error(
        post(&mut app, "/v2/models/resnet/infer", "{}"),
        404,
        "no model",
    );
    assert_error(
        get(&mut app, "/v2/models/glyph/versions/2"),
        404,
        r#"no version "2""#,
    );
}

#[test]
fn a_wrong_method_is_told_the_right_one() {
    let mut app = app();
    for (method, path, allow) in [
        (Method::Get, "/v1/classify", "POST"),
        (Method::Head, "/v2/models/glyph/infer", "POST"),
        (Method::Post, "/v2/health/ready", "GET, HEAD"),
        (Method::Other, "/", "GET, HEAD"),
    ] {
        let response = app.answer(&request(method, path, "")).response;
        assert_eq!(
            (response.status, response.allow),
            (405, Some(allow)),
            "{path}"
        );
    }
}

#[test]
fn metrics_name_routes_and_never_what_clients_made_up() {
    let mut app = app();
    let answer = app.answer(&request(Method::Get, "/v2/models/secret\"name", ""));
    app.metrics
        .count_request(answer.route, answer.response.status);
    let answer = app.answer(&request(Method::Post, "/v1/classify", picture("K.png")));
    app.metrics
        .count_request(answer.route, answer.response.status);
    assert!(answer.inference.is_some());
    let response = app.answer(&request(Method::Get, "/metrics", "")).response;
    let text = String::from_utf8(response.body).expect("text");
    assert!(!text.contains("secret"));
    for line in [
        r#"inference_requests_total{path="/v2/models/{model}",status="404"} 1"#,
        r#"inference_requests_total{path="/v1/classify",status="200"} 1"#,
        r#"inference_duration_seconds_count{model="glyph"} 1"#,
    ] {
        assert!(text.lines().any(|l| l == line), "{line} not in\n{text}");
    }
}

#[test]
fn the_index_lists_the_paths() {
    let mut app = app();
    let response = app.answer(&request(Method::Get, "/", "")).response;
    let text = String::from_utf8(response.body).expect("text");
    assert!(
        text.contains("/v1/classify") && text.contains("/v2/models/glyph/infer"),
        "{text}"
    );
}
