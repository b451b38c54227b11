//! One pod: what it does, says and becomes.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod as PodObject;
use kube::api::{Api, DeleteParams, LogParams};

use crate::client::block_on;
use crate::http::{Answer, Ask, HttpError, ask_over};
use crate::logs::Follow;
use crate::namespace::Namespace;
use crate::status::{Ended, Event, State, condition, container_statuses, summary};
use crate::streams::{Attached, Executed};
use crate::wait::{LONG, SHORT, eventually, wait_for};

/// A pod of a namespace, by name.
#[derive(Clone)]
pub struct Pod<'a> {
    namespace: &'a Namespace,
    name: String,
}

impl<'a> Pod<'a> {
    pub(crate) fn new(namespace: &'a Namespace, name: String) -> Self {
        Self { namespace, name }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &'a Namespace {
        self.namespace
    }

    pub(crate) fn api(&self) -> Api<PodObject> {
        self.namespace.api()
    }

    /// The object as it is now; none once it is gone.
    pub fn try_get(&self) -> Result<Option<PodObject>, String> {
        block_on(self.api().get_opt(&self.name)).map_err(|error| error.to_string())
    }

    /// The object as it is now.
    #[track_caller]
    pub fn get(&self) -> PodObject {
        match self.try_get() {
            Ok(Some(pod)) => pod,
            Ok(None) => panic!("pod {} is gone", self.name),
            Err(error) => panic!("pod {}: {error}", self.name),
        }
    }

    /// Waits until `look` takes a value from the pod's object.
    #[track_caller]
    pub fn until<T>(
        &self,
        what: &str,
        within: Duration,
        mut look: impl FnMut(&PodObject) -> Option<T>,
    ) -> T {
        let seen = wait_for(within, || match self.try_get()? {
            Some(pod) => look(&pod).ok_or_else(|| summary(&pod)),
            None => Err("it is gone".to_owned()),
        });
        match seen {
            Ok(value) => value,
            Err(last) => panic!(
                "pod {} not within {} s: {what}; seen last: {last}",
                self.name,
                within.as_secs()
            ),
        }
    }

    /// Waits until all its containers are ready.
    #[track_caller]
    pub fn until_ready(&self) -> &Self {
        self.until("ready", LONG, |pod| condition(pod, "Ready").then_some(()));
        self
    }

    /// Waits until a container runs.
    #[track_caller]
    pub fn until_running(&self, container: &str) -> &Self {
        let what = format!("container {container} runs");
        self.until(&what, LONG, |pod| {
            (state_of(pod, container) == State::Running).then_some(())
        });
        self
    }

    /// Waits until its phase is `Succeeded` or `Failed`; gives the end of its first container.
    #[track_caller]
    pub fn until_ended(&self) -> Ended {
        self.until("ended", LONG, |pod| {
            let status = pod.status.as_ref()?;
            matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")).then_some(())?;
            let first = status.container_statuses.as_ref()?.first()?;
            match State::of(first.state.as_ref()) {
                State::Ended(ended) => Some(ended),
                _ => None,
            }
        })
    }

    /// Waits until a container has ended, whatever the others do.
    #[track_caller]
    pub fn until_container_ended(&self, container: &str) -> Ended {
        let what = format!("container {container} ended");
        self.until(&what, LONG, |pod| match state_of(pod, container) {
            State::Ended(ended) => Some(ended),
            _ => None,
        })
    }

    /// Waits until a container waits for this reason: `CrashLoopBackOff`; gives the message.
    #[track_caller]
    pub fn until_waiting(&self, container: &str, wanted: &str) -> String {
        let what = format!("container {container} waits with {wanted}");
        self.until(&what, LONG, |pod| match state_of(pod, container) {
            State::Waiting { reason, message } if reason == wanted => Some(message),
            _ => None,
        })
    }

    /// Where a container stands.
    #[track_caller]
    pub fn state(&self, container: &str) -> State {
        state_of(&self.get(), container)
    }

    /// How often a container was restarted.
    #[track_caller]
    pub fn restarts(&self, container: &str) -> i32 {
        let pod = self.get();
        let status = container_statuses(&pod)
            .into_iter()
            .find(|status| status.name == container);
        status.map_or(0, |status| status.restart_count)
    }

    /// The node it runs on.
    #[track_caller]
    pub fn node(&self) -> String {
        self.until("scheduled", SHORT, |pod| {
            pod.spec.as_ref()?.node_name.clone()
        })
    }

    /// Its address.
    #[track_caller]
    pub fn ip(&self) -> String {
        self.until("has an address", LONG, |pod| {
            pod.status.as_ref()?.pod_ip.clone()
        })
    }

    /// A container's log so far; all of it, if the container has ended.
    #[track_caller]
    pub fn logs(&self, container: &str) -> String {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            ..LogParams::default()
        };
        // containerd tells of an end before the last of the output is in its file, on a busy machine by a moment that counts.
        let has_ended = self
            .try_get()
            .ok()
            .flatten()
            .is_some_and(|pod| matches!(state_of(&pod, container), State::Ended(_)));
        let mut last = None;
        eventually(
            &format!("the log of {}/{container}", self.name),
            SHORT,
            || {
                let log = self.logs_with(&parameters)?;
                let is_whole = !has_ended || last.as_ref() == Some(&log);
                last = Some(log.clone());
                is_whole.then_some(log).ok_or("it still grows".to_owned())
            },
        )
    }

    /// Waits until the container's log from before its last restart holds a text. For a moment between two
    /// lives the kubelet has none, and says so in its place or refuses.
    #[track_caller]
    pub fn until_previous_log(&self, container: &str, text: &str) {
        let parameters = LogParams {
            container: Some(container.to_owned()),
            previous: true,
            ..LogParams::default()
        };
        eventually(
            &format!("the log of {}'s last life has {text:?}", self.name),
            LONG,
            || {
                let log = self.logs_with(&parameters)?;
                log.contains(text).then_some(()).ok_or(log)
            },
        );
    }

    fn logs_with(&self, parameters: &LogParams) -> Result<String, String> {
        block_on(self.api().logs(&self.name, parameters))
            .map_err(|error| format!("log of pod {}: {error}", self.name))
    }

    /// Waits until a container has been started, and reads its log from its begin for as long as the value
    /// lives.
    #[track_caller]
    pub fn follow(&self, container: &str) -> Follow {
        let what = format!("container {container} was started");
        self.until(&what, LONG, |pod| {
            (!matches!(state_of(pod, container), State::Waiting { .. })).then_some(())
        });
        Follow::start(self, container)
    }

    /// Runs a program in a container.
    #[track_caller]
    pub fn exec(&self, container: &str, command: &[&str]) -> Executed {
        match self.try_exec(container, command) {
            Ok(executed) => executed,
            Err(error) => panic!("exec {command:?} in {}/{container}: {error}", self.name),
        }
    }

    /// Runs a program in a container, or tells why there is no doing so.
    pub fn try_exec(&self, container: &str, command: &[&str]) -> Result<Executed, String> {
        block_on(Executed::run(self, container, command))
    }

    /// Attaches to a container's streams.
    #[track_caller]
    pub fn attach(&self, container: &str) -> Attached {
        Attached::start(self, container)
    }

    /// Asks a port of the pod through `port-forward`.
    pub fn http_get(&self, port: u16, path: &str) -> Result<Answer, String> {
        let asked = async {
            let mut forwarder = self
                .api()
                .portforward(&self.name, &[port])
                .await
                .map_err(|error| error.to_string())?;
            let stream = forwarder
                .take_stream(port)
                .ok_or("no stream for the port")?;
            let answer: Result<Answer, HttpError> =
                ask_over(stream, &format!("{}:{port}", self.name), Ask::get(path)).await;
            answer.map_err(crate::cluster::with_source)
        };
        block_on(asked)
    }

    /// The events about it, oldest first.
    #[track_caller]
    pub fn events(&self) -> Vec<Event> {
        match self.namespace.events(Some(&self.name)) {
            Ok(events) => events,
            Err(error) => panic!("events of pod {}: {error}", self.name),
        }
    }

    /// Waits for an event whose reason or message holds this text.
    #[track_caller]
    pub fn until_event(&self, text: &str) -> Event {
        let found = wait_for(LONG, || {
            let events = self.namespace.events(Some(&self.name))?;
            let mut matching = events
                .iter()
                .filter(|event| event.reason.contains(text) || event.message.contains(text));
            matching.next().cloned().ok_or_else(|| {
                let lines: Vec<_> = events.iter().map(ToString::to_string).collect();
                lines.join(" | ")
            })
        });
        match found {
            Ok(event) => event,
            Err(last) => panic!(
                "pod {}: no event with {text:?}; there are: {last}",
                self.name
            ),
        }
    }

    /// Deletes it and waits until it is gone; gives the time that took.
    #[track_caller]
    pub fn delete(&self) -> Duration {
        let begun = Instant::now();
        let uid = self.get().metadata.uid;
        if let Err(error) = block_on(self.api().delete(&self.name, &DeleteParams::default())) {
            panic!("pod {} cannot be deleted: {error}", self.name);
        }
        let gone = wait_for(LONG, || match self.try_get()? {
            // A StatefulSet's next pod has the same name.
            Some(pod) if pod.metadata.uid == uid => Err(summary(&pod)),
            _ => Ok(()),
        });
        if let Err(last) = gone {
            panic!(
                "pod {} is not gone after {} s: {last}",
                self.name,
                LONG.as_secs()
            );
        }
        begun.elapsed()
    }
}

fn state_of(pod: &PodObject, container: &str) -> State {
    let status = container_statuses(pod)
        .into_iter()
        .find(|status| status.name == container);
    State::of(status.and_then(|status| status.state.as_ref()))
}
