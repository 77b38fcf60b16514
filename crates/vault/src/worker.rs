//! Threads that work beside whoever holds the vault.

use std::{
    cell::OnceCell,
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

/// Something for a thread to do.
type Work = Box<dyn FnOnce() + Send>;

/// A thread that does what it is given, one after the other: a thread for each would cost more than
/// some syncs do. It begins with its first work and ends with whoever gives.
pub(crate) struct Worker {
    name: &'static str,
    thread: OnceCell<Sender<Work>>,
}

impl Worker {
    /// One that has nothing to do yet; `name` is for a debugger.
    pub(crate) const fn new(name: &'static str) -> Self {
        Self { name, thread: OnceCell::new() }
    }

    /// Gives it something to do after what it has, and says where the answer comes. `None` where the
    /// system has no thread for it.
    pub(crate) fn begin<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<Receiver<T>> {
        let (done, waits) = mpsc::sync_channel(1);
        let work: Work = Box::new(move || drop(done.send(work())));
        self.thread()?.send(work).ok()?;
        Some(waits)
    }

    fn thread(&self) -> Option<&Sender<Work>> {
        if let Some(thread) = self.thread.get() {
            return Some(thread);
        }
        let (give, take) = mpsc::channel::<Work>();
        spawn(self.name, move || take.into_iter().for_each(|work| work()))?;
        Some(self.thread.get_or_init(|| give))
    }
}

/// Does one thing in a thread of its own, and says where the answer comes. `None` where the system has
/// no thread for it.
pub(crate) fn attempt<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<Receiver<T>> {
    let (done, waits) = mpsc::sync_channel(1);
    spawn(name, move || drop(done.send(work())))?;
    Some(waits)
}

fn spawn(name: &'static str, work: impl FnOnce() + Send + 'static) -> Option<()> {
    thread::Builder::new().name(name.into()).spawn(work).ok().map(drop)
}
