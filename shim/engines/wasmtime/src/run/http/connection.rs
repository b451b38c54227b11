//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::body::Answer;
use super::clients::{Client, Entered};
use super::server::Shared;
use super::stream::{Protocol, Stream};
use super::{limits, request};

/// How long a client that connected just before a stop may take to say what it wants.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Serves a client until it leaves, takes too long, has to make room for another one, or the container
/// stops. The place is free afterwards.
pub(super) async fn serve(
    shared: Arc<Shared>,
    tcp: TcpStream,
    place: Entered,
    mut stopping: watch::Receiver<bool>,
) {
    let client = Arc::clone(&place.client);
    let begun = tokio::select! {
        biased;
        begun = Stream::begin(tcp, Arc::clone(&client)) => begun,
        () = client.evicted.notified() => None,
        () = sleep_until(client.deadline()) => None,
        () = async { stopped(&mut stopping).await; sleep(LAST_WORD).await } => None,
    };
    let Some((protocol, stream)) = begun else {
        return;
    };
    let service = {
        let client = Arc::clone(&client);
        service_fn(move |request: Request<Incoming>| {
            let (shared, asked) = (Arc::clone(&shared), client.asks());
            async move {
                Ok::<Response<Answer>, Infallible>(request::answer(shared, request, asked).await)
            }
        })
    };
    let stream = TokioIo::new(stream);
    match protocol {
        Protocol::Http1 => {
            let connection = http1::Builder::new()
                .max_buf_size(limits::MAX_HEADER_BYTES)
                .max_headers(limits::MAX_HEADERS)
                // `Client` knows all of its times.
                .header_read_timeout(None)
                .serve_connection(stream, service);
            drive(pin!(connection), &client, stopping).await;
        }
        Protocol::Http2 => {
            client.speaks_http2();
            let connection = http2::Builder::new(TokioExecutor::new())
                .max_concurrent_streams(limits::MAX_STREAMS)
                .max_header_list_size(limits::MAX_HEADER_LIST_BYTES)
                .initial_stream_window_size(limits::STREAM_WINDOW_BYTES)
                .initial_connection_window_size(limits::CONNECTION_WINDOW_BYTES)
                .max_send_buf_size(limits::SEND_BUFFER_BYTES)
                .serve_connection(stream, service);
            drive(pin!(connection), &client, stopping).await;
        }
    }
}

/// Comes when the container stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error says that the server is gone, which is a stop, too.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// A connection that can be told to finish what it has begun.
trait Connection: Future {
    fn finish(self: Pin<&mut Self>);
}

impl<S> Connection for http1::Connection<TokioIo<Stream>, S>
where
    S: hyper::service::HttpService<Incoming, ResBody = Answer>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Connection for http2::Connection<TokioIo<Stream>, S, TokioExecutor>
where
    S: hyper::service::HttpService<Incoming, ResBody = Answer>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    TokioExecutor: hyper::rt::bounds::Http2ServerConnExec<S::Future, Answer>,
{
    fn finish(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// How a connection ends is the client's affair: there is nobody to be told.
async fn drive<C: Connection>(
    mut connection: Pin<&mut C>,
    client: &Client,
    mut stopping: watch::Receiver<bool>,
) {
    let mut evicted = pin!(client.evicted.notified());
    let mut stop = pin!(stopped(&mut stopping));
    let mut is_told = false;
    let mut due = pin!(sleep_until(client.deadline()));
    poll_fn(|cx| {
        // First, so that what has come already is seen before it is told to finish.
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !is_told && stop.as_mut().poll(cx).is_ready() {
            is_told = true;
            connection.as_mut().finish();
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
        if evicted.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // Later deadlines are seen when the earlier one comes.
        loop {
            let deadline = client.deadline();
            if deadline < due.deadline() {
                due.as_mut().reset(deadline);
            }
            if due.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            due.as_mut().reset(deadline);
        }
    })
    .await;
}
