//! Which RuntimeClasses are made, changed and deleted.

use k8s_openapi::api::node::v1::RuntimeClass;
use wasmlet_api::names::{MANAGED_BY, MANAGED_BY_LABEL, RUNTIME_LABEL};

use super::accept::RuntimeView;
use super::action::{Action, Key};
use super::{Context, Draft};
use crate::objects::{classes, quantity};
use crate::world::Deleting;

/// Whether a class was made by an operator of ours.
pub(super) fn is_ours(class: &RuntimeClass) -> bool {
    label(class, MANAGED_BY_LABEL) == Some(MANAGED_BY) && label(class, RUNTIME_LABEL).is_some()
}

fn label<'a>(class: &'a RuntimeClass, key: &str) -> Option<&'a str> {
    class.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Keeps the classes of accepted runtimes, and deletes ours that no runtime needs. Those of a runtime that is being removed stay until
/// its last node is clean, so that pods which are created meanwhile wait instead of being refused.
pub(super) fn keep(context: &Context<'_>, draft: &mut Draft) {
    let mut needed = std::collections::BTreeSet::new();
    for runtime in context.runtimes {
        let wanted = classes::of(runtime.object);
        if runtime.accepted() || super::frozen(runtime.handler(), context.runtimes) {
            needed.extend(
                wanted
                    .iter()
                    .filter_map(|class| class.metadata.name.clone()),
            );
        }
        if !runtime.live() {
            continue;
        }
        for class in wanted {
            let name = class.metadata.name.clone().unwrap_or_default();
            let found = context.world.classes.get(&name);
            let right = found.is_some_and(|found| !is_ours(found) || same(found, &class));
            if !right {
                draft.push(Key::Class(name), Action::ApplyClass(Box::new(class)));
            }
        }
    }
    for (name, class) in &context.world.classes {
        if is_ours(class) && !needed.contains(name) {
            delete(class, draft);
        }
    }
}

/// Deletes the classes of a runtime whose nodes are clean; whether none is left.
pub(super) fn remove(context: &Context<'_>, runtime: &RuntimeView<'_>, draft: &mut Draft) -> bool {
    let mut left = false;
    for class in context.world.classes.values() {
        let of_runtime = is_ours(class) && label(class, RUNTIME_LABEL) == Some(runtime.name);
        if of_runtime {
            left = true;
            delete(class, draft);
        }
    }
    !left
}

fn delete(class: &RuntimeClass, draft: &mut Draft) {
    let metadata = &class.metadata;
    let (Some(name), Some(uid), None) =
        (&metadata.name, &metadata.uid, &metadata.deletion_timestamp)
    else {
        return;
    };
    let key = Key::Class(name.clone());
    if !draft.sequences.contains_key(&key) {
        draft.push(
            key,
            Action::DeleteClass {
                name: name.clone(),
                uid: uid.clone(),
            },
        );
    }
}

/// Names of the classes that a runtime needs and that are somebody else's.
pub(super) fn conflicts(context: &Context<'_>, runtime: &RuntimeView<'_>) -> Vec<String> {
    if !runtime.accepted() || runtime.deleting == Deleting::Yes {
        return Vec::new();
    }
    classes::of(runtime.object)
        .into_iter()
        .filter_map(|class| class.metadata.name)
        .filter(|name| {
            context
                .world
                .classes
                .get(name)
                .is_some_and(|found| !is_ours(found))
        })
        .collect()
}

/// Whether what the API server has is what was asked for, in the fields that we write.
fn same(found: &RuntimeClass, wanted: &RuntimeClass) -> bool {
    let labels = wanted
        .metadata
        .labels
        .iter()
        .flatten()
        .all(|(key, value)| label(found, key) == Some(value));
    let owner = |class: &RuntimeClass| {
        class
            .metadata
            .owner_references
            .iter()
            .flatten()
            .map(|owner| owner.uid.clone())
            .collect::<Vec<_>>()
    };
    let selector = |class: &RuntimeClass| {
        class
            .scheduling
            .as_ref()
            .and_then(|scheduling| scheduling.node_selector.clone())
            .unwrap_or_default()
    };
    let overhead = |class: &RuntimeClass| {
        class
            .overhead
            .as_ref()
            .and_then(|overhead| overhead.pod_fixed.clone())
            .unwrap_or_default()
    };
    let (a, b) = (overhead(found), overhead(wanted));
    let overheads = a.len() == b.len()
        && a.iter()
            .all(|(key, a)| b.get(key).is_some_and(|b| quantity::equal(a, b)));
    labels
        && overheads
        && owner(found) == owner(wanted)
        && selector(found) == selector(wanted)
        && found.handler == wanted.handler
}
