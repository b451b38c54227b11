//! Whether a configuration, tried or loaded, is as it must be.

use super::Expectations;
use crate::facts::{Effective, HandlerConfig, Running};

/// What is not as it must be.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum Unmet {
    /// A handler of others is gone.
    #[error("the handler {0:?} would be lost")]
    Lost(String),
    /// A handler of others is another.
    #[error("the handler {name:?} would change at {place}")]
    Changed {
        /// Its name.
        name: String,
        /// The key.
        place: String,
    },
    /// The sandbox image is another.
    #[error("the image of sandboxes would be {after:?} instead of {before:?}")]
    Sandbox {
        /// As it was.
        before: String,
        /// As it is.
        after: Option<String>,
    },
    /// The default handler is another.
    #[error("the handler of pods without a RuntimeClass would be {after:?} instead of {before:?}")]
    Default {
        /// As it was.
        before: String,
        /// As it is.
        after: Option<String>,
    },
    /// A handler of ours is not there.
    #[error("the handler {0:?} is missing")]
    Missing(String),
    /// A handler of ours is not as it was written.
    #[error("the handler {0:?} is not as it was written")]
    Other(String),
    /// A handler that was removed is there.
    #[error("the handler {0:?} is still there")]
    NotGone(String),
}

impl Expectations {
    /// Whether a `config dump` is as it must be.
    ///
    /// # Errors
    /// The first [`Unmet`].
    pub fn candidate(&self, effective: &Effective) -> Result<(), Unmet> {
        for (name, before) in &self.others {
            let after = effective.handlers.get(name);
            let after = after.ok_or_else(|| Unmet::Lost(name.clone()))?;
            if let Some(place) = crate::config::difference(&before.table, &after.table) {
                let name = name.clone();
                return Err(Unmet::Changed { name, place });
            }
        }
        self.ours_and_gone(|name| effective.handlers.get(name))?;
        let sandbox_image = effective.sandbox_image.as_ref();
        self.images_and_default(sandbox_image, effective.default_handler.as_ref())
    }

    /// Whether a running containerd has loaded what it must.
    ///
    /// # Errors
    /// The first [`Unmet`].
    pub fn running(&self, running: &Running) -> Result<(), Unmet> {
        if let Some(name) = self
            .others
            .keys()
            .find(|name| !running.handlers.contains_key(*name))
        {
            return Err(Unmet::Lost(name.clone()));
        }
        self.ours_and_gone(|name| running.handlers.get(name))?;
        // containerd 2.x has the image in another plugin, of which CRI's status says nothing.
        let sandbox_image = running.sandbox_image.as_ref();
        let sandbox_image = sandbox_image.or(self.sandbox_image.as_ref());
        self.images_and_default(sandbox_image, running.default_handler.as_ref())
    }

    fn ours_and_gone<'a>(
        &self,
        get: impl Fn(&str) -> Option<&'a HandlerConfig>,
    ) -> Result<(), Unmet> {
        for (name, wanted) in &self.ours {
            match get(name) {
                None => return Err(Unmet::Missing(name.clone())),
                Some(found) if !found.starts_the_same(wanted) => {
                    return Err(Unmet::Other(name.clone()));
                }
                Some(_) => {}
            }
        }
        match self.gone.iter().find(|name| get(name).is_some()) {
            Some(name) => Err(Unmet::NotGone(name.clone())),
            None => Ok(()),
        }
    }

    fn images_and_default(
        &self,
        sandbox_image: Option<&String>,
        default_handler: Option<&String>,
    ) -> Result<(), Unmet> {
        match &self.sandbox_image {
            Some(before) if Some(before) != sandbox_image => {
                return Err(Unmet::Sandbox {
                    before: before.clone(),
                    after: sandbox_image.cloned(),
                });
            }
            _ => {}
        }
        match &self.default_handler {
            Some(before) if Some(before) != default_handler => Err(Unmet::Default {
                before: before.clone(),
                after: default_handler.cloned(),
            }),
            _ => Ok(()),
        }
    }
}
