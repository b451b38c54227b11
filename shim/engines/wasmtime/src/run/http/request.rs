//! One request: a place, an instance, an answer.

use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::{Duration, Instant, sleep, timeout, timeout_at};
use wasmlet_runner_core::{GuestExit, note, note_request};
use wasmtime::{Store, Trap};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::super::component::State;
use super::super::end;
use super::body::{Answer, Fate, Question};
use super::clients::Asked;
use super::limits;
use super::server::Shared;

/// What a guest gives to `response-outparam.set`.
type Given = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// Longest part of a path in the container's log, in characters.
const MAX_PATH: usize = 200;

/// How often an instance is tried again that found no memory although nobody else had an instance, and
/// after which time.
const TRIES_ALONE: u32 = 2;
const RETRY: Duration = Duration::from_millis(5);

/// Answers, whatever happens.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    asked: Asked,
) -> Response<Answer> {
    if request.method() == Method::CONNECT {
        return plain(StatusCode::NOT_IMPLEMENTED, asked);
    }
    if !names_a_host(&request) {
        return plain(StatusCode::BAD_REQUEST, asked);
    }
    let place = Arc::clone(&shared.places).acquire_owned();
    let Ok(Ok(place)) = timeout(limits::QUEUE, place).await else {
        shared.tell_of_the_queue();
        return plain(StatusCode::SERVICE_UNAVAILABLE, asked);
    };
    let name = name(&request);
    let fate = Arc::new(Fate::default());
    let (give, given) = oneshot::channel();
    tokio::spawn(run(Job {
        shared: Arc::clone(&shared),
        request,
        name: name.clone(),
        give,
        fate: Arc::clone(&fate),
        place,
    }));
    match given.await {
        Ok(Ok(response)) => response.map(|body| Answer::of_guest(body, asked, fate)),
        Ok(Err(code)) => {
            note(
                &shared.program,
                &format!("{name}: answered with the error {code:?}"),
            );
            plain(StatusCode::INTERNAL_SERVER_ERROR, asked)
        }
        Err(_) => {
            let status = fate.failed().unwrap_or_else(|| {
                note(&shared.program, &format!("{name}: ended without an answer"));
                StatusCode::INTERNAL_SERVER_ERROR
            });
            plain(status, asked)
        }
    }
}

/// Whether the guest can be told for whom the request is; RFC 9110 wants 400 where it cannot.
fn names_a_host(request: &Request<Incoming>) -> bool {
    request.uri().authority().is_some()
        || request
            .headers()
            .get(HOST)
            .is_some_and(|host| host.to_str().is_ok())
}

/// The request in the container's log, without the query: that is where people put what is secret.
fn name(request: &Request<Incoming>) -> String {
    let path: String = request.uri().path().chars().take(MAX_PATH).collect();
    format!("{} {path}", request.method())
}

fn plain(status: StatusCode, asked: Asked) -> Response<Answer> {
    let text = match status {
        StatusCode::BAD_REQUEST => "The request names no host.\n",
        StatusCode::NOT_IMPLEMENTED => "This server makes no tunnels.\n",
        StatusCode::SERVICE_UNAVAILABLE => "There are too many requests. Try again later.\n",
        StatusCode::GATEWAY_TIMEOUT => "The program took too long.\n",
        _ => "The program failed. Its log says why.\n",
    };
    let mut response = Response::new(Answer::of_text(text, asked));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

/// Everything that the guest of a request needs.
struct Job {
    shared: Arc<Shared>,
    request: Request<Incoming>,
    name: String,
    give: oneshot::Sender<Given>,
    fate: Arc<Fate>,
    place: OwnedSemaphorePermit,
}

/// Runs the guest to its end, which can be long after its answer.
async fn run(job: Job) {
    let Job {
        shared,
        request,
        name,
        give,
        fate,
        place,
    } = job;
    let mut store = None;
    let work = async {
        let proxy = instantiate(&shared, &mut store).await?;
        let Some(store) = &mut store else {
            return Err(GuestExit::StartFailed("the instance is gone".to_owned()));
        };
        call(&shared, store, &proxy, request, give).await
    };
    let result = match shared.program.timeout {
        None => work.await,
        Some(limit) => {
            let _ticks = shared.ticker.as_ref().map(|ticker| ticker.run());
            let late = Err(GuestExit::Deadline { limit });
            timeout(limit, work).await.unwrap_or(late)
        }
    };
    let failed = result.as_ref().err().map(status);
    if let Err(exit) = &result {
        note_request(&shared.program, &name, exit);
    }
    // First this, as the client is answered when the rest is dropped.
    fate.set(failed);
    if store.is_some() {
        drop(store);
        shared.guest_ended();
    }
    drop(place);
}

fn status(exit: &GuestExit) -> StatusCode {
    match exit {
        GuestExit::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
        GuestExit::MemoryLimit { .. } => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Makes an instance, when there is memory for one: under a cap that is full, the end of another guest is
/// waited for.
async fn instantiate(
    shared: &Shared,
    store: &mut Option<Store<State>>,
) -> Result<Proxy, GuestExit> {
    let until = Instant::now() + limits::QUEUE;
    let mut tries_alone = 0;
    loop {
        // From here on no end of a guest is missed.
        let freed = shared.freed.notified();
        let was_alone = shared.is_alone();
        let mut new = shared.store();
        let error = match shared.pre.instantiate_async(&mut new).await {
            Ok(proxy) => {
                *store = Some(new);
                shared.guest_began();
                return Ok(proxy);
            }
            Err(error) => error,
        };
        let refused = new.data().memory.refused();
        let exit = end::of_instantiation(&error, &shared.program, refused);
        let is_full = refused.is_some() && error.downcast_ref::<Trap>().is_none();
        drop(new);
        if !is_full {
            return Err(exit);
        }
        if was_alone && shared.is_alone() {
            // Another one that is only being made can have been in the way, and fail like this one.
            tries_alone += 1;
            if tries_alone > TRIES_ALONE {
                return Err(exit);
            }
            sleep(RETRY).await;
        } else if timeout_at(until, freed).await.is_err() {
            return Err(exit);
        }
    }
}

async fn call(
    shared: &Shared,
    store: &mut Store<State>,
    proxy: &Proxy,
    request: Request<Incoming>,
    give: oneshot::Sender<Given>,
) -> Result<(), GuestExit> {
    let failed = |error: &wasmtime::Error| GuestExit::StartFailed(end::text(error));
    let request = request.map(Question::new);
    let mut http = store.data_mut().http();
    let request = http
        .new_incoming_request(Scheme::Http, request)
        .map_err(|e| failed(&e))?;
    let out = http.new_response_outparam(give).map_err(|e| failed(&e))?;
    proxy
        .wasi_http_incoming_handler()
        .call_handle(&mut *store, request, out)
        .await
        .map_err(|error| {
            let refused = store.data().memory.refused();
            end::of_run(&error, &shared.program, refused)
        })
}
