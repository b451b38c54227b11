//! HTTP/1.1 over any stream: to the registry, to a node's port, through a forwarded port.

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::{HeaderMap, Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::client::{block_on, spawn};

/// For one request; what takes longer is a finding.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody listens, or the way there is closed.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: String,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The connection was taken and then no answer came.
    #[error("{method} {path}: no complete answer: {source}")]
    Broken {
        /// What was asked.
        method: Method,
        /// For what.
        path: String,
        /// What went wrong.
        #[source]
        source: hyper::Error,
    },
    /// The request itself cannot be written.
    #[error("{path:?} is no request")]
    Request {
        /// For what.
        path: String,
        /// What is wrong with it.
        #[source]
        source: hyper::http::Error,
    },
    /// Silence.
    #[error("{method} {path}: no answer within {} s", REQUEST_LIMIT.as_secs())]
    Late {
        /// What was asked.
        method: Method,
        /// For what.
        path: String,
    },
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text, for messages and comparisons.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// What is asked.
pub(crate) struct Ask<'a> {
    pub(crate) method: Method,
    pub(crate) path: &'a str,
    pub(crate) content_type: Option<&'a str>,
    pub(crate) accept: Option<&'a str>,
    pub(crate) body: Vec<u8>,
}

impl<'a> Ask<'a> {
    pub(crate) fn get(path: &'a str) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn new(method: Method, path: &'a str) -> Self {
        Self {
            method,
            path,
            content_type: None,
            accept: None,
            body: Vec::new(),
        }
    }

    pub(crate) fn accept(mut self, media_types: &'a str) -> Self {
        self.accept = Some(media_types);
        self
    }

    pub(crate) fn body(mut self, content_type: &'a str, body: Vec<u8>) -> Self {
        self.content_type = Some(content_type);
        self.body = body;
        self
    }
}

/// One request over a stream that is then closed.
pub(crate) async fn ask_over<S>(stream: S, host: &str, ask: Ask<'_>) -> Result<Answer, HttpError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (method, path) = (ask.method.clone(), ask.path.to_owned());
    let late = HttpError::Late {
        method: method.clone(),
        path: path.clone(),
    };
    let broken = |source| HttpError::Broken {
        method: method.clone(),
        path: path.clone(),
        source,
    };
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(&broken)?;
        // Its error is the request's error, too.
        spawn(async move { drop(connection.await) });
        let mut request = Request::builder()
            .method(ask.method)
            .uri(ask.path)
            .header("host", host)
            .header("connection", "close");
        for (name, value) in [("content-type", ask.content_type), ("accept", ask.accept)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let request = request
            .body(Full::new(Bytes::from(ask.body)))
            .map_err(|source| HttpError::Request {
                path: path.clone(),
                source,
            })?;
        let response = sender.send_request(request).await.map_err(&broken)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(&broken)?.to_bytes().to_vec();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body,
        })
    };
    tokio::time::timeout(REQUEST_LIMIT, exchange)
        .await
        .unwrap_or(Err(late))
}

/// One request over a connection of its own.
pub(crate) async fn ask_at(address: &str, ask: Ask<'_>) -> Result<Answer, HttpError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| HttpError::Connect {
            address: address.to_owned(),
            source,
        })?;
    ask_over(stream, address, ask).await
}

impl Answer {
    /// `GET` from this machine, as somebody outside the cluster asks.
    pub fn get(address: &str, path: &str) -> Result<Self, HttpError> {
        block_on(ask_at(address, Ask::get(path)))
    }

    /// `POST` from this machine.
    pub fn post(address: &str, path: &str, body: &[u8]) -> Result<Self, HttpError> {
        let ask = Ask::new(Method::POST, path).body("application/octet-stream", body.to_vec());
        block_on(ask_at(address, ask))
    }
}
