//! The events containerd publishes, collected in their order.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use containerd_client::events as proto;
use containerd_client::services::v1::events_client::EventsClient;
use containerd_client::services::v1::{PublishRequest, SubscribeRequest};
use prost_types::Any;
use tonic::transport::Channel;

use crate::client::{block_on, in_namespace, spawn};
use crate::{SHORT, eventually};

/// Topic, with a number behind it, of the events that only prove a subscription.
const MARKER: &str = "/conformance/marker";

/// A task event, reduced to what tests compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `/tasks/create`, …
    pub topic: String,
    /// Container id.
    pub container: String,
    /// Exec id; for exit and delete of the init what the shim put there.
    pub exec: String,
    /// Process id, where the event has one.
    pub pid: u32,
    /// Exit status, where the event has one.
    pub status: u32,
}

#[derive(Default)]
struct Shared {
    events: Mutex<Vec<Event>>,
    arrived: Condvar,
}

/// All task events of a namespace since the subscription.
#[derive(Clone)]
pub struct EventLog {
    shared: Arc<Shared>,
}

impl EventLog {
    /// Subscribes; returns once events arrive.
    #[track_caller]
    pub(crate) fn subscribe(channel: Channel, namespace: &str) -> Self {
        let log = Self {
            shared: Arc::default(),
        };
        log.follow(channel, namespace);
        log
    }

    /// Goes on collecting from a containerd that was started again.
    #[track_caller]
    pub(crate) fn follow(&self, channel: Channel, namespace: &str) {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let marker = format!("{MARKER}{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let filters = [
            format!("namespace=={namespace},topic~=\"/tasks/.+\""),
            format!("namespace=={namespace},topic==\"{marker}\""),
        ];
        let request = SubscribeRequest {
            filters: filters.to_vec(),
        };
        let shared = Arc::clone(&self.shared);
        let mut client = EventsClient::new(channel.clone());
        spawn(async move {
            // No headers come before the first event, so this waits for the marker below. The
            // stream ends with containerd.
            let Ok(stream) = client.subscribe(request).await else {
                return;
            };
            let mut stream = stream.into_inner();
            while let Ok(Some(envelope)) = stream.message().await {
                if let Some(event) = decode(&envelope.topic, envelope.event) {
                    shared
                        .events
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(event);
                    shared.arrived.notify_all();
                }
            }
        });
        // Only an event that came back proves that the subscription is there.
        let mut client = EventsClient::new(channel);
        eventually("a subscription to containerd's events", SHORT, || {
            let event = Some(Any {
                type_url: MARKER.to_owned(),
                value: Vec::new(),
            });
            let request = PublishRequest {
                topic: marker.clone(),
                event,
            };
            block_on(client.publish(in_namespace(request, namespace)))
                .map_err(|status| status.to_string())?;
            let events = self
                .shared
                .events
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if events.iter().any(|event| event.topic == marker) {
                Ok(())
            } else {
                Err("no marker came back".to_owned())
            }
        });
    }

    /// Events of container `id` so far.
    pub fn of(&self, id: &str) -> Vec<Event> {
        let events = self
            .shared
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        events
            .iter()
            .filter(|event| event.container == id)
            .cloned()
            .collect()
    }

    /// Topics of container `id` so far, without the `/tasks/`.
    pub fn topics(&self, id: &str) -> Vec<String> {
        self.of(id)
            .into_iter()
            .map(|event| event.topic.trim_start_matches("/tasks/").to_owned())
            .collect()
    }

    /// Waits for the first event `topic` (without `/tasks/`) of container `id`.
    #[track_caller]
    pub fn wait(&self, id: &str, topic: &str, within: Duration) -> Event {
        let wanted = format!("/tasks/{topic}");
        let deadline = Instant::now() + within;
        let mut events = self
            .shared
            .events
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            let found = events
                .iter()
                .find(|event| event.container == id && event.topic == wanted);
            if let Some(event) = found {
                return event.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "no event {topic} of {id} within {} s; there were {:?}",
                within.as_secs_f32(),
                events
                    .iter()
                    .filter(|event| event.container == id)
                    .collect::<Vec<_>>()
            );
            let (guard, _) = self
                .shared
                .arrived
                .wait_timeout(events, left)
                .unwrap_or_else(PoisonError::into_inner);
            events = guard;
        }
    }
}

fn decode(topic: &str, any: Option<Any>) -> Option<Event> {
    let mut any = any?;
    // containerd leaves out the slash that prost's `to_msg` insists on.
    if !any.type_url.starts_with('/') {
        any.type_url.insert(0, '/');
    }
    let mut event = Event {
        topic: topic.to_owned(),
        container: String::new(),
        exec: String::new(),
        pid: 0,
        status: 0,
    };
    match topic {
        "/tasks/create" => {
            let message: proto::TaskCreate = any.to_msg().ok()?;
            (event.container, event.pid) = (message.container_id, message.pid);
        }
        "/tasks/start" => {
            let message: proto::TaskStart = any.to_msg().ok()?;
            (event.container, event.pid) = (message.container_id, message.pid);
        }
        "/tasks/exit" => {
            let message: proto::TaskExit = any.to_msg().ok()?;
            (event.container, event.exec) = (message.container_id, message.id);
            (event.pid, event.status) = (message.pid, message.exit_status);
        }
        "/tasks/delete" => {
            let message: proto::TaskDelete = any.to_msg().ok()?;
            (event.container, event.exec) = (message.container_id, message.id);
            (event.pid, event.status) = (message.pid, message.exit_status);
        }
        "/tasks/oom" => event.container = any.to_msg::<proto::TaskOom>().ok()?.container_id,
        "/tasks/paused" => {
            event.container = any.to_msg::<proto::TaskPaused>().ok()?.container_id;
        }
        "/tasks/resumed" => {
            event.container = any.to_msg::<proto::TaskResumed>().ok()?.container_id;
        }
        "/tasks/exec-added" => {
            let message: proto::TaskExecAdded = any.to_msg().ok()?;
            (event.container, event.exec) = (message.container_id, message.exec_id);
        }
        "/tasks/exec-started" => {
            let message: proto::TaskExecStarted = any.to_msg().ok()?;
            (event.container, event.exec) = (message.container_id, message.exec_id);
            event.pid = message.pid;
        }
        _ if topic.starts_with(MARKER) => {}
        _ => return None,
    }
    Some(event)
}
