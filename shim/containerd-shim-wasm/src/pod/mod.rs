//! The containers of a pod.
//!
//! The map of containers is the only thing that tasks share; a std mutex guards it, held for a map
//! operation and never across an await. Everything of one container belongs to its [`driver`], a task
//! that takes requests from a channel one by one, so no verb can see another half done.

mod choice;
pub mod create;
pub mod driver;
pub mod ending;
pub mod process;
pub mod queue;
pub mod request;
pub mod state;
mod verbs;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{Error, Result};
use crate::events::Publisher;
use crate::paths::Paths;
use crate::reaper::{Exit, Reaper};
use ending::{Ending, Occupancy};
use process::Snapshot;
use request::{Answer, CreateRequest, Operation};

/// What every container of the pod uses.
#[derive(Debug)]
pub struct Context {
    /// containerd's namespace.
    pub namespace: String,
    /// containerd's gRPC socket.
    pub address: String,
    /// Folders.
    pub paths: Paths,
    /// Folder of the engines.
    pub engines: PathBuf,
    /// Children.
    pub reaper: Arc<Reaper>,
    /// Events.
    pub publisher: Publisher,
}

/// The pod.
#[derive(Debug)]
pub struct Pod {
    context: Arc<Context>,
    seats: Arc<Seats>,
}

/// Who is there.
#[derive(Debug)]
struct Seats {
    containers: Mutex<HashMap<String, Handle>>,
    ending: Arc<Ending>,
}

/// A container's place in the pod, held by its driver: a caller may give up and its call be dropped, the
/// driver always comes to its end. Dropped before the answer that says so.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    id: String,
}

impl Seat {
    /// The caller of the call that ends the container has given up. containerd may then take the shim for
    /// dead and never ask it to end; an empty one that nobody knows of must not stay.
    pub(crate) fn abandon(&self) {
        self.seats.ending.ask(Occupancy::Occupied);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let occupancy = {
            let mut containers = lock(&self.seats.containers);
            containers.remove(&self.id);
            occupancy(&containers)
        };
        self.seats.ending.check(occupancy);
    }
}

fn occupancy(containers: &HashMap<String, Handle>) -> Occupancy {
    if containers.is_empty() {
        Occupancy::Empty
    } else {
        Occupancy::Occupied
    }
}

/// How to reach one container.
#[derive(Debug, Clone)]
struct Handle {
    requests: mpsc::Sender<Message>,
    view: Arc<Mutex<View>>,
}

/// A request and where its answer goes.
pub(crate) struct Message {
    pub(crate) operation: Operation,
    pub(crate) answer: oneshot::Sender<Result<Answer>>,
}

/// What can be read of a container without asking its driver, which may be busy.
#[derive(Debug, Default)]
pub(crate) struct View {
    pub(crate) bundle: PathBuf,
    pub(crate) init: Option<Snapshot>,
    pub(crate) execs: HashMap<String, Snapshot>,
}

/// Requests that may wait for one container before a caller has to wait to put one more.
const QUEUE_LENGTH: usize = 16;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Both maps are whole after every statement that can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pod {
    /// A pod without containers, which says in `ending` when the shim is to end.
    pub fn new(context: Context, ending: Arc<Ending>) -> Self {
        Self {
            context: Arc::new(context),
            seats: Arc::new(Seats {
                containers: Mutex::default(),
                ending,
            }),
        }
    }

    /// containerd wants the shim to end: it does once no container is left.
    pub fn shut_down(&self) {
        let occupancy = occupancy(&lock(&self.seats.containers));
        self.seats.ending.ask(occupancy);
    }

    /// Creates a container; returns its init's process id.
    ///
    /// # Errors
    /// When the id is taken, or the container cannot be created. Nothing is left of it then.
    pub async fn create(&self, request: CreateRequest) -> Result<u32> {
        let id = request.id.clone();
        let (requests, queue) = mpsc::channel(QUEUE_LENGTH);
        let view = Arc::new(Mutex::new(View {
            bundle: request.bundle.clone(),
            ..View::default()
        }));
        {
            let mut containers = lock(&self.seats.containers);
            if containers.contains_key(&id) {
                return Err(Error::ContainerExists(id));
            }
            containers.insert(
                id.clone(),
                Handle {
                    requests,
                    view: Arc::clone(&view),
                },
            );
        }
        let (created, answer) = oneshot::channel();
        let context = Arc::clone(&self.context);
        let seat = Seat {
            seats: Arc::clone(&self.seats),
            id: id.clone(),
        };
        // A task of its own: when containerd gives up and drops the call, the work must still come to
        // an end in one piece.
        tokio::spawn(driver::drive(context, request, view, queue, seat, created));
        answer.await.unwrap_or(Err(Error::Gone(id)))
    }

    /// Has a container do something.
    ///
    /// # Errors
    /// When there is no such container, or it refuses or fails.
    pub async fn ask(&self, id: &str, operation: Operation) -> Result<Answer> {
        let handle = self.handle(id)?;
        let (answer, answered) = oneshot::channel();
        handle
            .requests
            .send(Message { operation, answer })
            .await
            .map_err(|_| Error::UnknownContainer(id.to_owned()))?;
        answered.await.map_err(|_| Error::Gone(id.to_owned()))?
    }

    /// Where a process stands, and where its bundle is.
    ///
    /// # Errors
    /// When there is no such process.
    pub fn snapshot(&self, id: &str, exec: Option<&str>) -> Result<(PathBuf, Snapshot)> {
        let handle = self.handle(id)?;
        let view = lock(&handle.view);
        let snapshot = match exec {
            None => view
                .init
                .clone()
                .ok_or_else(|| Error::UnknownContainer(id.to_owned()))?,
            Some(exec) => view
                .execs
                .get(exec)
                .cloned()
                .ok_or_else(|| Error::UnknownExec {
                    id: id.to_owned(),
                    exec: exec.to_owned(),
                })?,
        };
        Ok((view.bundle.clone(), snapshot))
    }

    /// Waits for a process to end.
    ///
    /// # Errors
    /// When there is no such process.
    pub async fn wait(&self, id: &str, exec: Option<&str>) -> Result<Exit> {
        let (_, snapshot) = self.snapshot(id, exec)?;
        let mut ended: watch::Receiver<Option<Exit>> = snapshot.ended;
        let exit = ended.wait_for(Option::is_some).await.map(|exit| *exit);
        exit.ok()
            .flatten()
            .ok_or_else(|| Error::Gone(id.to_owned()))
    }

    fn handle(&self, id: &str) -> Result<Handle> {
        let handle = lock(&self.seats.containers).get(id).cloned();
        handle.ok_or_else(|| Error::UnknownContainer(id.to_owned()))
    }
}
