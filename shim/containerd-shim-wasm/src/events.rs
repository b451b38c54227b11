//! The only door out for events.
//!
//! Events leave in the order they were put in, each one once it was acknowledged, however long
//! containerd is away: containerd rebuilds its state from them after a restart, and CRI holds a
//! container for running until its exit was reported. One task owns the queue and the connection.
//!
//! The messages are packed by hand ([`pack`]): asking protobuf for a message's type name builds the
//! descriptors of whole files and keeps them, half a megabyte in every shim.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use containerd_shim_protos::events::task as messages;
use containerd_shim_protos::protobuf::well_known_types::timestamp::Timestamp;
use containerd_shim_protos::protobuf::{self, Message, well_known_types::any::Any};
use containerd_shim_protos::shim::{event::Envelope, events::ForwardRequest};
use containerd_shim_protos::shim_async::{Client, EventsClient};
use containerd_shim_protos::topics;
use containerd_shim_protos::ttrpc;
use tokio::sync::{mpsc, oneshot};

/// Bound on one attempt to deliver, so that a daemon that hangs does not hang the outbox.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait after a failed attempt: doubles from the first to the last of these.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(2);

/// Something that happened to a task.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A container was created.
    Create(Box<messages::TaskCreate>),
    /// Its init was started.
    Start(messages::TaskStart),
    /// The kernel killed one of its processes for memory.
    Oom(messages::TaskOOM),
    /// A process ended.
    Exit(messages::TaskExit),
    /// A process was deleted.
    Delete(messages::TaskDelete),
    /// A container was paused.
    Paused(messages::TaskPaused),
    /// A container was resumed.
    Resumed(messages::TaskResumed),
    /// A further process was added.
    ExecAdded(messages::TaskExecAdded),
    /// A further process was started.
    ExecStarted(messages::TaskExecStarted),
    /// A container was checkpointed.
    Checkpointed(messages::TaskCheckpointed),
}

impl Event {
    fn parts(&self) -> (&'static str, &'static str, protobuf::Result<Vec<u8>>) {
        match self {
            Self::Create(event) => (
                topics::TASK_CREATE_EVENT_TOPIC,
                "containerd.events.TaskCreate",
                event.write_to_bytes(),
            ),
            Self::Start(event) => (
                topics::TASK_START_EVENT_TOPIC,
                "containerd.events.TaskStart",
                event.write_to_bytes(),
            ),
            Self::Oom(event) => (
                topics::TASK_OOM_EVENT_TOPIC,
                "containerd.events.TaskOOM",
                event.write_to_bytes(),
            ),
            Self::Exit(event) => (
                topics::TASK_EXIT_EVENT_TOPIC,
                "containerd.events.TaskExit",
                event.write_to_bytes(),
            ),
            Self::Delete(event) => (
                topics::TASK_DELETE_EVENT_TOPIC,
                "containerd.events.TaskDelete",
                event.write_to_bytes(),
            ),
            Self::Paused(event) => (
                topics::TASK_PAUSED_EVENT_TOPIC,
                "containerd.events.TaskPaused",
                event.write_to_bytes(),
            ),
            Self::Resumed(event) => (
                topics::TASK_RESUMED_EVENT_TOPIC,
                "containerd.events.TaskResumed",
                event.write_to_bytes(),
            ),
            Self::ExecAdded(event) => (
                topics::TASK_EXEC_ADDED_EVENT_TOPIC,
                "containerd.events.TaskExecAdded",
                event.write_to_bytes(),
            ),
            Self::ExecStarted(event) => (
                topics::TASK_EXEC_STARTED_EVENT_TOPIC,
                "containerd.events.TaskExecStarted",
                event.write_to_bytes(),
            ),
            Self::Checkpointed(event) => (
                topics::TASK_CHECKPOINTED_EVENT_TOPIC,
                "containerd.events.TaskCheckpointed",
                event.write_to_bytes(),
            ),
        }
    }
}

/// An `Any` from a constant type name and bytes.
pub fn pack(type_url: &'static str, value: Vec<u8>) -> Any {
    Any {
        type_url: type_url.to_owned(),
        value,
        ..Default::default()
    }
}

/// A point in time as protobuf has it; before 1970 counts as 1970.
pub fn timestamp(at: SystemTime) -> Timestamp {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_nanos()).unwrap_or(i32::MAX),
        ..Default::default()
    }
}

/// Where events are put. Clones put into the same queue.
#[derive(Debug, Clone)]
pub struct Outbox {
    // Unbounded on purpose: an event is a few dozen bytes, there is one per call of containerd's, and
    // while containerd is away it calls nothing.
    queue: mpsc::UnboundedSender<Item>,
}

#[derive(Debug)]
enum Item {
    Envelope(Box<Envelope>),
    Flush(oneshot::Sender<()>),
}

impl Outbox {
    /// Starts the task that delivers to containerd's ttrpc socket.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(ttrpc_address: &str, namespace: &str) -> (Self, Publisher) {
        let (queue, items) = mpsc::unbounded_channel();
        let courier = Courier {
            address: unix_address(ttrpc_address),
            client: None,
        };
        tokio::spawn(deliver(items, courier));
        let outbox = Self { queue };
        let publisher = Publisher {
            outbox: outbox.clone(),
            namespace: namespace.to_owned(),
        };
        (outbox, publisher)
    }

    /// Waits until everything put in so far was delivered, at most `limit`.
    pub async fn flush(&self, limit: Duration) -> bool {
        let (done, flushed) = oneshot::channel();
        self.queue.send(Item::Flush(done)).is_ok()
            && matches!(tokio::time::timeout(limit, flushed).await, Ok(Ok(())))
    }
}

/// Puts events of one namespace into the outbox.
#[derive(Debug, Clone)]
pub struct Publisher {
    outbox: Outbox,
    namespace: String,
}

impl Publisher {
    /// Puts an event into the outbox; returns at once.
    pub fn publish(&self, event: &Event) {
        let (topic, type_url, bytes) = event.parts();
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(topic, %error, "an event cannot be encoded"),
        };
        let envelope = Envelope {
            timestamp: Some(timestamp(SystemTime::now())).into(),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(pack(type_url, bytes)).into(),
            ..Default::default()
        };
        if self
            .outbox
            .queue
            .send(Item::Envelope(Box::new(envelope)))
            .is_err()
        {
            tracing::error!(topic, "the outbox is closed, an event is lost");
        }
    }

    /// Waits until everything put in so far was delivered, at most `limit`.
    pub async fn flush(&self, limit: Duration) -> bool {
        self.outbox.flush(limit).await
    }
}

fn unix_address(address: &str) -> String {
    if address.contains("://") {
        address.to_owned()
    } else {
        format!("unix://{address}")
    }
}

async fn deliver(mut items: mpsc::UnboundedReceiver<Item>, mut courier: Courier) {
    while let Some(item) = items.recv().await {
        match item {
            Item::Envelope(envelope) => courier.bring(*envelope).await,
            // Nobody waits any more: fine, all before it is delivered.
            Item::Flush(done) => drop(done.send(())),
        }
    }
}

struct Courier {
    address: String,
    client: Option<EventsClient>,
}

impl Courier {
    /// Delivers one event, again and again until containerd takes it.
    async fn bring(&mut self, envelope: Envelope) {
        let request = ForwardRequest {
            envelope: Some(envelope).into(),
            ..Default::default()
        };
        let mut pause = FIRST_RETRY;
        loop {
            match self.attempt(&request).await {
                Ok(()) => return,
                Err(Refusal::Away(error)) => {
                    tracing::debug!(error, "containerd takes no events, trying again");
                    self.client = None;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LAST_RETRY);
                }
                // Sending the same bytes again would be refused again, and hold up what follows.
                Err(Refusal::Invalid(error)) => {
                    let topic = &request.envelope.topic;
                    return tracing::error!(topic, error, "containerd refused an event");
                }
            }
        }
    }

    async fn attempt(&mut self, request: &ForwardRequest) -> Result<(), Refusal> {
        let client = match &self.client {
            Some(client) => client,
            None => {
                let client = Client::connect(&self.address).await;
                self.client
                    .insert(EventsClient::new(client.map_err(Refusal::away)?))
            }
        };
        let timeout_nanos = i64::try_from(DELIVERY_TIMEOUT.as_nanos()).unwrap_or(i64::MAX);
        let context = ttrpc::context::with_timeout(timeout_nanos);
        match client.forward(context, request).await {
            Ok(_) => Ok(()),
            Err(ttrpc::Error::RpcStatus(status))
                if status.code() == ttrpc::Code::INVALID_ARGUMENT =>
            {
                Err(Refusal::Invalid(status.message))
            }
            Err(error) => Err(Refusal::away(error)),
        }
    }
}

enum Refusal {
    Away(String),
    Invalid(String),
}

impl Refusal {
    fn away(error: ttrpc::Error) -> Self {
        Self::Away(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use containerd_shim_protos::api::Empty;
    use containerd_shim_protos::shim_async::{Events, create_events};
    use containerd_shim_protos::ttrpc::asynchronous::{Server, TtrpcContext};

    use super::*;

    #[derive(Default)]
    struct Daemon {
        got: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Events for Daemon {
        async fn forward(&self, _: &TtrpcContext, request: ForwardRequest) -> ttrpc::Result<Empty> {
            let event = messages::TaskOOM::parse_from_bytes(&request.envelope.event.value)
                .expect("a TaskOOM");
            self.got
                .lock()
                .expect("not poisoned")
                .push(event.container_id);
            Ok(Empty::default())
        }
    }

    async fn serve(address: &str, daemon: Arc<Daemon>) -> Server {
        let server = Server::new().bind(address).expect("bound");
        let mut server = server.register_service(create_events(daemon));
        server.start().await.expect("started");
        server
    }

    fn oom(id: usize) -> Event {
        Event::Oom(messages::TaskOOM {
            container_id: id.to_string(),
            ..Default::default()
        })
    }

    #[tokio::test]
    async fn events_outlive_a_restart_in_their_order() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("s");
        let address = format!("unix://{}", path.display());
        let daemon = Arc::new(Daemon::default());
        let (outbox, publisher) = Outbox::start(&address, "default");

        // Nobody listens yet.
        (0..10).for_each(|id| publisher.publish(&oom(id)));
        let mut server = serve(&address, Arc::clone(&daemon)).await;
        assert!(outbox.flush(Duration::from_secs(20)).await);

        // A restart.
        server.shutdown().await.expect("down");
        std::fs::remove_file(&path).expect("the socket is there");
        (10..20).for_each(|id| publisher.publish(&oom(id)));
        let _server = serve(&address, Arc::clone(&daemon)).await;
        assert!(outbox.flush(Duration::from_secs(20)).await);

        let expected: Vec<String> = (0..20).map(|id| id.to_string()).collect();
        assert_eq!(*daemon.got.lock().expect("not poisoned"), expected);
    }
}
