//! `POST /v1/classify`: the shortest way to ask. Not part of any standard.

use std::time::Duration;

use serde::Serialize;

use super::App;
use crate::http::{Request, Response};

/// Answers hold at most this many labels.
const TOP: usize = 5;

#[derive(Serialize)]
struct Body<'a> {
    top: Vec<Guess<'a>>,
    /// Milliseconds the model ran.
    ms: f64,
}

/// A label and its probability.
#[derive(Debug, PartialEq, Serialize)]
pub struct Guess<'a> {
    /// The label.
    pub label: &'a str,
    /// Between 0 and 1, to six places.
    pub p: f32,
}

/// The labels with the highest probability, best first.
pub fn best<'a>(labels: &'a [String], probabilities: &[f32]) -> Vec<Guess<'a>> {
    let mut guesses: Vec<Guess<'a>> = labels
        .iter()
        .zip(probabilities)
        .map(|(label, p)| Guess { label, p: *p })
        .collect();
    guesses.sort_by(|a, b| b.p.total_cmp(&a.p));
    guesses.truncate(TOP);
    for guess in &mut guesses {
        guess.p = (guess.p * 1e6).round() / 1e6;
    }
    guesses
}

pub(super) fn answer(
    app: &mut App,
    request: &Request,
    inference: &mut Option<Duration>,
) -> Response {
    match request.content_type.as_deref() {
        Some("multipart/form-data") => {
            let hint =
                "send the file as the body, not as a form: curl --data-binary @picture.png, not -F";
            return Response::error(415, hint);
        }
        Some("application/json") => {
            let hint = "send a PNG or JPEG file; numbers as JSON go to /v2/models/{model}/infer";
            return Response::error(415, hint);
        }
        // curl says x-www-form-urlencoded for --data-binary, so the type proves nothing: the bytes
        // are looked at.
        _ => {}
    }
    let picture = match app.preparation.tensor(&request.body) {
        Ok(picture) => picture,
        Err(error) => return Response::error(error.status(), error),
    };
    let result = app.timed(inference, |model| model.classify(picture));
    match result {
        Ok(probabilities) => {
            let millis = inference.unwrap_or_default().as_secs_f64() * 1000.0;
            let ms = (millis * 1000.0).round() / 1000.0;
            Response::json(
                200,
                &Body {
                    top: best(&app.labels, &probabilities),
                    ms,
                },
            )
        }
        Err(error) => Response::error(500, error),
    }
}
