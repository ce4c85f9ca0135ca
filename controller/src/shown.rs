//! The image that a process shows to its own parts: the newest of those that it has come to know, by raft or from the
//! stream of another member. It never goes back.

use std::sync::Arc;

use proto::metadata::Image;
use tokio::sync::watch;

/// Where images are shown. A cheap clone.
#[derive(Debug, Clone)]
pub(crate) struct Shown(Arc<watch::Sender<Arc<Image>>>);

impl Shown {
    /// Shows `image` from the beginning.
    pub(crate) fn new(image: Arc<Image>) -> Self {
        Self(Arc::new(watch::Sender::new(image)))
    }

    /// Shows `image` unless one is shown that is as new. What was committed is the same whichever way it came.
    pub(crate) fn show(&self, image: &Arc<Image>) {
        self.0.send_if_modified(|shown| {
            let newer = image.offset() > shown.offset();
            if newer {
                *shown = Arc::clone(image);
            }
            newer
        });
    }

    /// What is shown.
    pub(crate) fn image(&self) -> Arc<Image> {
        Arc::clone(&self.0.borrow())
    }

    /// Follows what is shown.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Image>> {
        self.0.subscribe()
    }
}
