//! The door in: which request gets which answer.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/classify` | a PNG or JPEG in, the five best labels out ([`classify`]) |
//! | `/v2…` | the Open Inference Protocol ([`v2`]) |
//! | `GET /metrics` | Prometheus |
//! | `GET /` | what there is |

pub mod classify;
pub mod v2;

use std::time::{Duration, Instant};

use crate::http::{Method, Request, Response};
use crate::metrics::Metrics;
use crate::model::Classifier;
use crate::picture::Preparation;

/// The one version of the one model that is served.
pub const MODEL_VERSION: &str = "1";

/// Everything an answer needs.
pub struct App {
    /// The model's name in the API.
    pub name: String,
    /// The model.
    pub model: Classifier,
    /// One per class.
    pub labels: Vec<String>,
    /// From file to numbers.
    pub preparation: Preparation,
    /// What happened so far.
    pub metrics: Metrics,
}

/// An answer, and what the log says beside it.
pub struct Answer {
    /// What the client gets.
    pub response: Response,
    /// The route as metrics name it: a closed set.
    pub route: &'static str,
    /// How long the model ran, if it did.
    pub inference: Option<Duration>,
}

/// A request's place in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route<'a> {
    Index,
    Metrics,
    Classify,
    ServerMetadata,
    Live,
    Ready,
    ModelMetadata(Model<'a>),
    ModelReady(Model<'a>),
    Infer(Model<'a>),
    Unknown,
}

/// A model as a path names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model<'a> {
    name: &'a str,
    version: Option<&'a str>,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Route<'a> {
        let path = path.strip_suffix('/').unwrap_or(path);
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match parts.as_slice() {
            [] => Route::Index,
            ["metrics"] => Route::Metrics,
            ["v1", "classify"] => Route::Classify,
            ["v2"] => Route::ServerMetadata,
            ["v2", "health", "live"] => Route::Live,
            ["v2", "health", "ready"] => Route::Ready,
            ["v2", "models", name, "versions", version, rest @ ..] => {
                Route::of_model(name, Some(version), rest)
            }
            ["v2", "models", name, rest @ ..] => Route::of_model(name, None, rest),
            _ => Route::Unknown,
        }
    }

    fn of_model(name: &'a str, version: Option<&'a str>, rest: &[&str]) -> Route<'a> {
        let model = Model { name, version };
        match rest {
            [] => Route::ModelMetadata(model),
            ["ready"] => Route::ModelReady(model),
            ["infer"] => Route::Infer(model),
            _ => Route::Unknown,
        }
    }

    /// For metrics: without names from the outside.
    fn label(self) -> &'static str {
        match self {
            Route::Index => "/",
            Route::Metrics => "/metrics",
            Route::Classify => "/v1/classify",
            Route::ServerMetadata => "/v2",
            Route::Live => "/v2/health/live",
            Route::Ready => "/v2/health/ready",
            Route::ModelMetadata(_) => "/v2/models/{model}",
            Route::ModelReady(_) => "/v2/models/{model}/ready",
            Route::Infer(_) => "/v2/models/{model}/infer",
            Route::Unknown => "unknown",
        }
    }

    /// The methods it takes.
    fn allow(self) -> &'static str {
        match self {
            Route::Classify | Route::Infer(_) => "POST",
            _ => "GET, HEAD",
        }
    }
}

/// The route a request that could not be read is counted under.
pub const UNREADABLE: &str = "unreadable";

impl App {
    /// Answers one request.
    pub fn answer(&mut self, request: &Request) -> Answer {
        let route = Route::of(&request.path);
        let mut inference = None;
        let response = self.respond(route, request, &mut inference);
        Answer {
            response,
            route: route.label(),
            inference,
        }
    }

    fn respond(
        &mut self,
        route: Route<'_>,
        request: &Request,
        inference: &mut Option<Duration>,
    ) -> Response {
        if let Route::Unknown = route {
            return Response::error(
                404,
                format!("no such path {:?}; GET / lists what there is", request.path),
            );
        }
        let right = match request.method {
            Method::Get | Method::Head => route.allow() != "POST",
            Method::Post => route.allow() == "POST",
            Method::Other => false,
        };
        if !right {
            let mut response =
                Response::error(405, format!("{} takes {}", route.label(), route.allow()));
            response.allow = Some(route.allow());
            return response;
        }
        if let Route::ModelMetadata(model) | Route::ModelReady(model) | Route::Infer(model) = route
            && let Err(error) = self.has(model)
        {
            return error;
        }
        match route {
            Route::Index => Response::text(self.index()),
            Route::Metrics => Response {
                content_type: "text/plain; version=0.0.4; charset=utf-8",
                ..Response::text(self.metrics.render(&self.name))
            },
            Route::Classify => classify::answer(self, request, inference),
            Route::ServerMetadata => v2::server_metadata(),
            Route::Live => v2::live(),
            // Nothing is accepted before the model is loaded, so whoever gets an answer finds it
            // ready.
            Route::Ready => v2::ready(),
            Route::ModelMetadata(_) => v2::model_metadata(self),
            Route::ModelReady(_) => v2::model_ready(self),
            Route::Infer(_) => v2::infer(self, &request.body, inference),
            Route::Unknown => Response::error(404, "no such path"),
        }
    }

    fn has(&self, model: Model<'_>) -> Result<(), Response> {
        if model.name != self.name {
            return Err(Response::error(
                404,
                format!("no model {:?}; this server has {:?}", model.name, self.name),
            ));
        }
        match model.version {
            None | Some(MODEL_VERSION) => Ok(()),
            Some(other) => Err(Response::error(
                404,
                format!(
                    "no version {other:?} of {:?}; there is only {MODEL_VERSION:?}",
                    self.name
                ),
            )),
        }
    }

    fn index(&self) -> String {
        format!(
            "POST /v1/classify             a PNG or JPEG file: curl --data-binary @picture.png http://…/v1/classify\n\
             GET  /v2                      Open Inference Protocol: this server\n\
             GET  /v2/health/live\n\
             GET  /v2/health/ready\n\
             GET  /v2/models/{name}\n\
             GET  /v2/models/{name}/ready\n\
             POST /v2/models/{name}/infer  {{\"inputs\":[{{\"name\":{input:?},\"shape\":[…],\"datatype\":\"FP32\",\"data\":[…]}}]}}\n\
             GET  /metrics                 Prometheus\n",
            name = self.name,
            input = self.model.input().name,
        )
    }

    /// Runs `run` on the model, and keeps the time.
    fn timed<T>(
        &mut self,
        inference: &mut Option<Duration>,
        run: impl FnOnce(&Classifier) -> T,
    ) -> T {
        let began = Instant::now();
        let result = run(&self.model);
        let time = began.elapsed();
        self.metrics.observe_inference(time);
        *inference = Some(time);
        result
    }
}

#[cfg(test)]
#[path = "../api_tests.rs"]
pub(crate) mod tests;
