//! Which WasmRuntimes are worked with, and what each asks of a node.

use std::collections::BTreeMap;

use wasmlet_api::handlers::handlers;
use wasmlet_api::names::{FINALIZER, RETRY_ANNOTATION};
use wasmlet_api::node::Cause;
use wasmlet_api::runtime::WasmRuntimeSpec;
use wasmlet_api::{NodeRuntime, NodeTarget, WasmRuntime};

use crate::world::{Deleting, World};

/// A WasmRuntime as the planner sees it.
#[derive(Debug)]
pub(super) struct RuntimeView<'a> {
    pub(super) object: &'a WasmRuntime,
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
    /// All its handlers, its own first.
    pub(super) handlers: Vec<String>,
    /// What a chosen node shall have.
    pub(super) want: NodeRuntime,
    /// Why a node is changed now.
    pub(super) cause: Cause,
    pub(super) deleting: Deleting,
    pub(super) verdict: Verdict,
}

/// Whether a runtime is worked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    /// An older one has one of its handlers.
    Conflict {
        with: String,
        handler: String,
    },
}

impl RuntimeView<'_> {
    pub(super) fn spec(&self) -> &WasmRuntimeSpec {
        &self.object.spec
    }

    pub(super) fn handler(&self) -> &str {
        &self.want.handler
    }

    pub(super) fn accepted(&self) -> bool {
        self.verdict == Verdict::Accepted
    }

    /// Whether nodes may be chosen for it.
    pub(super) fn live(&self) -> bool {
        self.accepted() && self.deleting == Deleting::No
    }

    pub(super) fn has_finalizer(&self) -> bool {
        self.object
            .metadata
            .finalizers
            .iter()
            .flatten()
            .any(|found| found == FINALIZER)
    }
}

/// All runtimes, the oldest first.
pub(super) fn views(world: &World) -> Vec<RuntimeView<'_>> {
    let mut views: Vec<_> = world
        .runtimes
        .values()
        .filter_map(|object| view(object))
        .collect();
    views.sort_by(|a, b| {
        let age = |view: &RuntimeView<'_>| view.object.metadata.creation_timestamp.clone();
        age(a).cmp(&age(b)).then_with(|| a.name.cmp(b.name))
    });

    let mut taken: BTreeMap<String, &str> = BTreeMap::new();
    for view in &mut views {
        let conflict = view
            .handlers
            .iter()
            .find_map(|handler| Some((handler.clone(), *taken.get(handler)?)));
        match conflict {
            Some((handler, with)) => {
                view.verdict = Verdict::Conflict {
                    with: with.to_owned(),
                    handler,
                };
            }
            None => taken.extend(
                view.handlers
                    .iter()
                    .map(|handler| (handler.clone(), view.name)),
            ),
        }
    }
    views
}

fn view(object: &WasmRuntime) -> Option<RuntimeView<'_>> {
    let spec = &object.spec;
    let metadata = &object.metadata;
    // In the order that `NodeTarget` gives it: compared with what comes back from nodes.
    let want = NodeTarget::new(vec![NodeRuntime {
        handler: spec.handler.clone(),
        engines: spec.engines.clone(),
        digest: spec.artifact.digest.clone(),
        options: spec.options.clone(),
    }])
    .runtimes
    .pop()?;
    Some(RuntimeView {
        object,
        name: metadata.name.as_deref()?,
        uid: metadata.uid.as_deref()?,
        handlers: handlers(&spec.handler, &spec.engines)
            .into_iter()
            .map(|handler| handler.name)
            .collect(),
        cause: Cause {
            handler: spec.handler.clone(),
            generation: metadata.generation.unwrap_or_default(),
            retry: metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(RETRY_ANNOTATION))
                .cloned()
                .unwrap_or_default(),
        },
        want,
        deleting: if metadata.deletion_timestamp.is_some() {
            Deleting::Yes
        } else {
            Deleting::No
        },
        verdict: Verdict::Accepted,
    })
}
