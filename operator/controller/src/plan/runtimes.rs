//! Finalizers and status of the WasmRuntimes.

use wasmlet_api::conditions;

use super::accept::RuntimeView;
use super::action::{About, Action, Finalizer, Key, Note, Tone};
use super::site::Site;
use super::start::Outlook;
use super::{Context, Draft, classes, status};
use crate::world::Deleting;

/// Plans what has to be written of each WasmRuntime.
pub(super) fn keep(
    context: &Context<'_>,
    sites: &[Site<'_>],
    outlook: &Outlook<'_>,
    draft: &mut Draft,
) {
    for (index, runtime) in context.runtimes.iter().enumerate() {
        finalizer(context, sites, runtime, draft);
        say(context, sites, outlook, index, draft);
    }
}

fn finalizer(
    context: &Context<'_>,
    sites: &[Site<'_>],
    runtime: &RuntimeView<'_>,
    draft: &mut Draft,
) {
    let wanted = match runtime.deleting {
        Deleting::No => Finalizer::Present,
        Deleting::Yes => {
            if !runtime.has_finalizer() || !gone(context, sites, runtime, draft) {
                return;
            }
            Finalizer::Absent
        }
    };
    if wanted == Finalizer::Present && runtime.has_finalizer() {
        return;
    }
    draft.push(
        Key::Runtime(runtime.name.to_owned()),
        Action::Finalizer {
            runtime: runtime.name.to_owned(),
            uid: runtime.uid.to_owned(),
            finalizer: wanted,
        },
    );
}

/// Whether nothing of a runtime that is being removed is left; what can be taken away at the end is.
fn gone(
    context: &Context<'_>,
    sites: &[Site<'_>],
    runtime: &RuntimeView<'_>,
    draft: &mut Draft,
) -> bool {
    let others = context.runtimes.iter().any(|other| {
        other.uid != runtime.uid && other.handler() == runtime.handler() && other.accepted()
    });
    if others {
        // The nodes have the other one's: nothing was ever done for this.
        return true;
    }
    let on_nodes = sites.iter().any(|site| site.mentions(runtime.handler()));
    !on_nodes && classes::remove(context, runtime, draft)
}

fn say(
    context: &Context<'_>,
    sites: &[Site<'_>],
    outlook: &Outlook<'_>,
    index: usize,
    draft: &mut Draft,
) {
    let runtime = &context.runtimes[index];
    let old = runtime.object.status.clone().unwrap_or_default();
    let new = status::of(context, sites, outlook, index, &old);
    if new == old {
        return;
    }
    let reason = |conditions: &[_]| {
        conditions::find(conditions, conditions::PROGRESSING)
            .map(|found| (found.reason.clone(), found.message.clone()))
    };
    let key = Key::Status(runtime.name.to_owned());
    let (before, after) = (reason(&old.conditions), reason(&new.conditions));
    let note = after
        .filter(|(after, _)| before.is_none_or(|(before, _)| before != *after))
        .and_then(|(reason, message)| {
            let reason = wasmlet_api::reasons::Reason::of(&reason)?;
            Some(Note {
                about: About::Runtime {
                    name: runtime.name.to_owned(),
                    uid: runtime.uid.to_owned(),
                },
                tone: if reason == wasmlet_api::reasons::Reason::Halted {
                    Tone::Warning
                } else {
                    Tone::Normal
                },
                reason,
                text: message,
            })
        });
    draft.push(
        key.clone(),
        Action::WriteRuntime {
            runtime: runtime.name.to_owned(),
            status: Box::new(new),
        },
    );
    if let Some(note) = note {
        draft.push(key, Action::Note(Box::new(note)));
    }
}
