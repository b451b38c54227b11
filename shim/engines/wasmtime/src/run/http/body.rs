//! The bodies of requests and answers, and who makes whom wait.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::StatusCode;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};
use wasmtime_wasi_http::Error;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use super::clients::Asked;
use super::limits::{MIN_BYTES_PER_SECOND, STALL};

/// The body of a request, whose client has to keep it coming while the guest waits for it.
pub(super) struct Question {
    inner: Incoming,
    /// How long the client may still be waited for.
    patience: Duration,
    /// The guest waits, since when and until when.
    waiting: Option<(Instant, Pin<Box<Sleep>>)>,
}

impl Question {
    pub(super) fn new(inner: Incoming) -> Self {
        Self {
            inner,
            patience: STALL,
            waiting: None,
        }
    }

    fn came(&mut self, bytes: usize) {
        if let Some((since, _)) = self.waiting.take() {
            self.patience = patience_after(self.patience, since.elapsed(), bytes);
        }
    }
}

/// What is left of a client's time when it was waited for and has sent something.
fn patience_after(before: Duration, waited: Duration, bytes: usize) -> Duration {
    let earned = Duration::from_millis((bytes as u64).saturating_mul(1000) / MIN_BYTES_PER_SECOND);
    before
        .saturating_sub(waited)
        .saturating_add(earned)
        .min(STALL)
}

impl Body for Question {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(cx) {
            if let Some(Ok(frame)) = &frame {
                self.came(frame.data_ref().map_or(0, Buf::remaining));
            }
            return Poll::Ready(frame.map(|frame| frame.map_err(Error::from)));
        }
        let patience = self.patience;
        let (_, sleep) = self.waiting.get_or_insert_with(|| {
            let now = Instant::now();
            (now, Box::pin(sleep_until(now + patience)))
        });
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Some(Err(Error::ConnectionReadTimeout)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// How it went with the guest of a request: set before anything of it is dropped. The status is for
/// a client that has no answer yet; `None` when all went well.
#[derive(Debug, Default)]
pub(super) struct Fate(OnceLock<Option<StatusCode>>);

impl Fate {
    pub(super) fn set(&self, failed: Option<StatusCode>) {
        // Only its own task sets it, once.
        let _ = self.0.set(failed);
    }

    /// The status with which the guest failed, as far as is known.
    pub(super) fn failed(&self) -> Option<StatusCode> {
        self.0.get().copied().flatten()
    }
}

/// The body of an answer.
pub(super) struct Answer {
    inner: HyperOutgoingBody,
    asked: Asked,
    /// Of the guest that makes it.
    fate: Option<Arc<Fate>>,
}

impl Answer {
    /// Made by a guest that may still be at it.
    pub(super) fn of_guest(inner: HyperOutgoingBody, asked: Asked, fate: Arc<Fate>) -> Self {
        Self {
            inner,
            asked,
            fate: Some(fate),
        }
    }

    /// A line of text.
    pub(super) fn of_text(text: &'static str, asked: Asked) -> Self {
        let inner = Full::new(Bytes::from_static(text.as_bytes()));
        Self {
            inner: inner.map_err(Error::from).boxed_unsync(),
            asked,
            fate: None,
        }
    }
}

/// Ends the connection, so that the client sees that something is missing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    /// By us.
    #[error("the guest failed before the end of its answer")]
    Failed,
    /// By the guest.
    #[error("the guest broke its answer off: {0}")]
    BrokenOff(Error),
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Pending => {
                self.asked.turn().is_the_guests();
                Poll::Pending
            }
            Poll::Ready(Some(frame)) => {
                self.asked.turn().is_the_clients();
                Poll::Ready(Some(frame.map_err(Cut::BrokenOff)))
            }
            // A body also ends when the guest that makes it is dropped, wherever it was.
            Poll::Ready(None) if self.fate.as_ref().is_some_and(|f| f.failed().is_some()) => {
                Poll::Ready(Some(Err(Cut::Failed)))
            }
            Poll::Ready(None) => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_earns_time_by_sending() {
        let second = Duration::from_secs(1);
        let enough = usize::try_from(MIN_BYTES_PER_SECOND).expect("small");
        assert_eq!(patience_after(STALL, second, enough), STALL);
        assert_eq!(patience_after(STALL, second, 1 << 20), STALL, "and no more");
        let mut patience = STALL;
        let mut sent = 0;
        while patience >= second * 10 {
            patience = patience_after(patience, second * 10, 1);
            sent += 1;
        }
        assert_eq!(sent, 3, "a byte now and then is not enough");
    }
}
