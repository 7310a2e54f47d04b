//! How tasks reach the hub.

use tokio::sync::{mpsc, oneshot};

use super::Input;
use crate::signal::limits;

/// How everyone else reaches the hub, or another task that serves WebSockets.
#[derive(Debug)]
pub struct Handle<I = Input>(mpsc::Sender<I>);

impl<I> Clone for Handle<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The hub has ended: the server stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopping;

impl<I> Handle<I> {
    /// A handle, and the end where its inputs arrive.
    pub fn new() -> (Self, mpsc::Receiver<I>) {
        let (sender, inputs) = mpsc::channel(limits::INBOX_MESSAGES);
        (Self(sender), inputs)
    }

    /// Tells the hub something; waits while its queue is full.
    ///
    /// # Errors
    ///
    /// [`Stopping`].
    pub async fn tell(&self, input: I) -> Result<(), Stopping> {
        self.0.send(input).await.map_err(|_| Stopping)
    }

    /// Asks the hub something, for instance [`Input::Asked`].
    ///
    /// # Errors
    ///
    /// [`Stopping`].
    pub async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> I,
    ) -> Result<T, Stopping> {
        let (reply, answer) = oneshot::channel();
        self.tell(question(reply)).await?;
        answer.await.map_err(|_| Stopping)
    }
}
