//! Calls that a guest makes: `wasi:http/outgoing-handler`.
//!
//! HTTP/1.1 in plain text, a connection for each call, inside the pod's network namespace: what the pod
//! may reach, its guests may. There is no TLS in the runner: it would bring a second list of certificate
//! authorities to the node, which nobody there keeps up to date. A call to `https:` fails with an error
//! that says so, and is never made in plain text instead.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, Sleep, sleep, timeout};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks};

use super::limits;

/// What the functions of `wasi:http` work on.
#[derive(Debug)]
pub(in crate::run) struct Http {
    pub(in crate::run) ctx: WasiHttpCtx,
    pub(in crate::run) hooks: Outgoing,
}

impl Http {
    pub(in crate::run) fn new() -> Self {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(limits::MAX_GUEST_FIELD_BYTES);
        Self {
            ctx,
            hooks: Outgoing,
        }
    }
}

/// Makes the calls.
#[derive(Debug, Clone, Copy)]
pub(in crate::run) struct Outgoing;

/// What a guest is told that wants to call `https:`.
const NO_TLS: &str = "https is not supported by this runner, as it has no TLS: call http, for example \
                      through a proxy in the pod that adds TLS";

type Sent = (
    Response<WasiBody>,
    Box<dyn Future<Output = Result<(), Error>> + Send>,
);

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        // How sending the body went, for hosts that want to know.
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        Box::new(send(request, options))
    }
}

async fn send(
    mut request: Request<WasiBody>,
    options: Option<RequestOptions>,
) -> Result<Sent, Error> {
    let options = options.unwrap_or_default();
    let first_byte = options
        .first_byte_timeout
        .unwrap_or(limits::OUTGOING_ANSWER);
    let between_bytes = options
        .between_bytes_timeout
        .unwrap_or(limits::OUTGOING_ANSWER);
    if request.uri().scheme() == Some(&Scheme::HTTPS) {
        return Err(Error::InternalError(Some(NO_TLS.to_owned())));
    }
    let authority = request
        .uri()
        .authority()
        .cloned()
        .ok_or(Error::HttpRequestUriInvalid)?;
    let connecting = connect(&authority);
    let connect_limit = options.connect_timeout.unwrap_or(limits::OUTGOING_CONNECT);
    let stream = timeout(connect_limit, connecting)
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(limits::MAX_HEADER_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    // Ends with the call: when the guest lets go of it, or of the answer.
    let connection = wasmtime_wasi::runtime::spawn(connection);

    // The scheme and the authority are for proxies only.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(path.unwrap_or(PathAndQuery::from_static("/")));
    let response = timeout(first_byte, sender.send_request(request))
        .await
        .map_err(|_| Error::HttpResponseTimeout)??;
    let response = response.map(|body| Answer::new(body, between_bytes).boxed_unsync());
    let driving = Box::new(async move { connection.await.map_err(Error::from) });
    Ok((response, driving))
}

async fn connect(authority: &Authority) -> Result<TcpStream, Error> {
    let port = authority.port_u16().unwrap_or(80);
    // Brackets are of the URI, not of the address.
    let host = authority
        .host()
        .trim_start_matches('[')
        .trim_end_matches(']');
    let addresses: Vec<SocketAddr> = lookup_host((host, port))
        .await
        .map_err(|error| Error::DnsError {
            rcode: Some(format!("{host}: {error}")),
            info_code: None,
        })?
        .collect();
    let mut last = Error::DestinationNotFound;
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true).map_err(refused)?;
                return Ok(stream);
            }
            Err(error) => last = refused(error),
        }
    }
    Err(last)
}

fn refused(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            Error::DestinationIpUnroutable
        }
        io::ErrorKind::PermissionDenied => Error::DestinationIpProhibited,
        _ => Error::InternalError(Some(format!("cannot connect: {error}"))),
    }
}

/// The body of an answer, each piece of which has to come in time.
struct Answer {
    inner: Incoming,
    limit: Duration,
    sleep: Pin<Box<Sleep>>,
}

impl Answer {
    fn new(inner: Incoming, limit: Duration) -> Self {
        Self {
            inner,
            limit,
            sleep: Box::pin(sleep(limit)),
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(frame) => {
                let next = Instant::now() + self.limit;
                self.sleep.as_mut().reset(next);
                Poll::Ready(frame.map(|frame| frame.map_err(Error::from)))
            }
            Poll::Pending => self
                .sleep
                .as_mut()
                .poll(cx)
                .map(|()| Some(Err(Error::ConnectionReadTimeout))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
