//! Tests of wasmlet on a Kubernetes cluster: real kubelets, real containerds, the shim on each node.
//!
//! This library is the harness; the tests are in `tests/suite/`, one file per topic.
//!
//! ```text
//! Env            what the surroundings say: kubeconfig, registry, which tests         env
//! Cluster        API server, nodes, images in the registry                            cluster, images, registry
//!  ├ Namespace   one test's, with a random name; its remains are told on failure      namespace, dump
//!  │  ├ PodSpec, Container   how a pod is written down                                spec
//!  │  ├ Pod      one pod: state, logs, exec, attach, ports, events                    pod, logs, streams
//!  │  └ Kubectl  what a user types and sees                                           kubectl
//!  ├ TemporaryClass  a RuntimeClass of a test's own                                classes
//!  ├ NodeControl breaks nodes, where hack/cluster made them                           control, unit
//!  ├ NodeFiles   what is on a node's disk, to compare                                  node_files
//!  ├ nodes       a look into one: cgroups, processes, what pods left there             nodes/
//!  ├ fleet       many pods that shall not notice what is done to their node            fleet
//!  └ operator    installing, upgrading and removing wasmlet itself                     operator/, derive
//! ```
//!
//! Nothing here knows how nodes were made, apart from [`NodeControl`]. Set-up that fails ends the test by
//! a panic that says what and where; what a test judges comes back as a value. Every wait has a deadline
//! and tells the last state that it saw.

#![forbid(unsafe_code)]

mod agent_process;
mod classes;
mod client;
mod cluster;
mod control;
mod derive;
mod dump;
mod env;
mod examples;
pub mod fleet;
mod http;
mod images;
mod kubectl;
mod logs;
mod manifest;
mod metrics;
mod namespace;
mod node_files;
pub mod nodes;
mod objects;
pub mod operator;
mod pod;
mod push;
mod registry;
mod spec;
mod status;
mod streams;
mod unit;
mod wait;

pub use agent_process::DeathAt;
pub use classes::TemporaryClass;
pub use cluster::{Cluster, Node};
pub use control::NodeControl;
pub use env::{Env, EnvError};
pub use examples::example_bytes;
pub use http::{Answer, HttpError};
pub use images::ImageRef;
pub use kubectl::{Kubectl, Running, Said};
pub use logs::Follow;
pub use manifest::{parse_yaml, set_at};
pub use metrics::{PodUsage, Usage};
pub use namespace::Namespace;
pub use node_files::NodeFiles;
pub use pod::Pod;
pub use push::PushError;
pub use registry::Registry;
pub use spec::{Container, PodSpec};
pub use status::{Ended, Event, State};
pub use streams::{Attached, Executed};
pub use unit::UnitLife;
pub use wait::{LONG, SHORT, eventually, wait_for};
pub use wasmlet_test_guests::{Guests, Target};
