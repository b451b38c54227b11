//! A log that is read while it is written.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::io::AsyncBufReadExt as _;
use kube::api::LogParams;
use tokio::task::JoinHandle;

use crate::client::spawn;
use crate::pod::Pod;
use crate::wait::wait_for;

/// Lines of a log in a message.
const SHOWN_LINES: usize = 10;

#[derive(Debug, Default)]
struct Seen {
    lines: Vec<String>,
    /// How the stream ended.
    end: Option<Result<(), String>>,
}

impl Seen {
    /// The end of it, for messages.
    fn tail(&self) -> String {
        let count = self.lines.len();
        let last = &self.lines[count.saturating_sub(SHOWN_LINES)..];
        format!("{count} lines, the last {last:?}, {:?}", self.end)
    }
}

/// `logs -f`: stops reading when it is dropped.
pub struct Follow {
    what: String,
    seen: Arc<Mutex<Seen>>,
    reader: JoinHandle<()>,
}

impl Follow {
    pub(crate) fn start(pod: &Pod<'_>, container: &str) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (api, name) = (pod.api(), pod.name().to_owned());
        let parameters = LogParams {
            container: Some(container.to_owned()),
            follow: true,
            ..LogParams::default()
        };
        let into = Arc::clone(&seen);
        let reader = spawn(async move {
            let end = async {
                let stream = api
                    .log_stream(&name, &parameters)
                    .await
                    .map_err(|error| error.to_string())?;
                futures::pin_mut!(stream);
                let mut line = String::new();
                while stream
                    .read_line(&mut line)
                    .await
                    .map_err(|error| error.to_string())?
                    > 0
                {
                    let complete = line.trim_end_matches('\n').to_owned();
                    into.lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .lines
                        .push(complete);
                    line.clear();
                }
                Ok(())
            };
            let end = end.await;
            into.lock().unwrap_or_else(PoisonError::into_inner).end = Some(end);
        });
        Self {
            what: format!("log of {}/{container}", pod.name()),
            seen,
            reader,
        }
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        self.seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .lines
            .clone()
    }

    /// Waits for a line that holds this text.
    #[track_caller]
    pub fn until_line(&self, text: &str, within: Duration) -> String {
        let found = wait_for(within, || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let line = seen.lines.iter().find(|line| line.contains(text)).cloned();
            line.ok_or_else(|| seen.tail())
        });
        match found {
            Ok(line) => line,
            Err(last) => panic!("{}: no line with {text:?}: {last}", self.what),
        }
    }

    /// Waits until the log has come to its end, as it does when the container has.
    #[track_caller]
    pub fn until_end(&self, within: Duration) -> Vec<String> {
        let ended = wait_for(within, || {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            match &seen.end {
                Some(Ok(())) => Ok(seen.lines.clone()),
                other => Err(format!("{other:?} after {} lines", seen.lines.len())),
            }
        });
        match ended {
            Ok(lines) => lines,
            Err(last) => panic!("{}: not at its end: {last}", self.what),
        }
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        self.reader.abort();
    }
}
