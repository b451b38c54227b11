//! A scripted API server: one scenario is one ordered list of calls with their answers. A call that is not next in the list fails the
//! test, and so does a list that was not used up.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http_body_util::BodyExt as _;
use hyper::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// What is expected, and what is answered.
struct Line {
    method: &'static str,
    path: String,
    answer: Answer,
}

/// Of the scripted server.
pub(crate) enum Answer {
    /// This status and body.
    Json(u16, Value),
    /// This text.
    Text(&'static str),
    /// Never.
    Silence,
}

/// A request as it came, for a closer look.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) query: String,
    pub(crate) body: Value,
}

/// The scenario.
#[derive(Clone, Default)]
pub(crate) struct Script {
    lines: Arc<Mutex<VecDeque<Line>>>,
    calls: Arc<Mutex<Vec<Call>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// Then this call comes.
    pub(crate) fn then(self, method: &'static str, path: &str, answer: Answer) -> Self {
        self.lines.lock().unwrap().push_back(Line {
            method,
            path: path.to_owned(),
            answer,
        });
        self
    }

    pub(crate) fn client(&self) -> Client {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            async move { Ok::<_, Infallible>(script.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let bytes = body.collect().await.expect("a body of ours").to_bytes();
        let asked = format!("{} {}", head.method, head.uri.path());
        self.calls.lock().unwrap().push(Call {
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        });
        let line = self.lines.lock().unwrap().pop_front();
        let answer = match line {
            Some(line) if format!("{} {}", line.method, line.path) == asked => line.answer,
            Some(line) => self.note(&asked, &format!("{} {}", line.method, line.path)),
            None => self.note(&asked, "the end"),
        };
        let (status, text) = match answer {
            Answer::Json(status, body) => (status, body.to_string()),
            Answer::Text(text) => (200, text.to_owned()),
            Answer::Silence => std::future::pending().await,
        };
        Response::builder()
            .status(StatusCode::from_u16(status).expect("a status"))
            .body(Body::from(text.into_bytes()))
            .expect("a response")
    }

    fn note(&self, asked: &str, expected: &str) -> Answer {
        let text = format!("{asked} came, and {expected} was expected");
        self.wrong.lock().unwrap().push(text.clone());
        refusal(500, &text)
    }

    /// The script was followed to its end; the calls.
    #[track_caller]
    pub(crate) fn played(&self) -> Vec<Call> {
        assert_eq!(*self.wrong.lock().unwrap(), Vec::<String>::new());
        let left: Vec<_> = self
            .lines
            .lock()
            .unwrap()
            .iter()
            .map(|line| format!("{} {}", line.method, line.path))
            .collect();
        assert_eq!(left, Vec::<String>::new(), "these did not come");
        self.calls.lock().unwrap().clone()
    }
}

/// As the API server refuses something.
pub(crate) fn refusal(code: u16, message: &str) -> Answer {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    Answer::Json(
        code,
        json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "message": message, "reason": reason,
        }),
    )
}
