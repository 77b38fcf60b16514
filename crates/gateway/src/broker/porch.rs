//! Connections that have not been let in: they wait here, few of them and not for long.

use super::Limits;
use std::{
    collections::VecDeque,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// When it is full, the one that has waited longest gives way, first among those of the same
/// address: an honest terminal is through in milliseconds, one that keeps silent is not.
#[derive(Default)]
pub(super) struct Porch(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    queue: VecDeque<Visitor>,
    arrivals: u64,
}

struct Visitor {
    number: u64,
    address: IpAddr,
    /// Dropped to send the visitor away.
    _farewell: oneshot::Sender<()>,
}

/// A place on the porch; dropping it leaves.
pub(super) struct Place {
    porch: Arc<Porch>,
    number: u64,
    leave: oneshot::Receiver<()>,
}

impl Porch {
    /// Takes a place, if necessary another visitor's.
    pub(super) fn enter(self: &Arc<Self>, address: IpAddr, limits: &Limits) -> Place {
        let mut waiting = self.lock();
        let queue = &mut waiting.queue;
        if queue.iter().filter(|visitor| visitor.address == address).count()
            >= limits.handshakes_per_address
        {
            let oldest = queue.iter().position(|visitor| visitor.address == address);
            queue.remove(oldest.unwrap_or_default());
        } else if queue.len() >= limits.handshakes {
            queue.pop_front();
        }
        let (farewell, leave) = oneshot::channel();
        waiting.arrivals += 1;
        let number = waiting.arrivals;
        waiting.queue.push_back(Visitor { number, address, _farewell: farewell });
        Place { porch: self.clone(), number, leave }
    }

    /// Sends everybody away.
    pub(super) fn clear(&self) {
        self.lock().queue.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Resolves when somebody newer needs the place.
    pub(super) async fn lost(&mut self) {
        let _ = (&mut self.leave).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.porch.lock().queue.retain(|visitor| visitor.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_longest_waiting_of_the_same_address_gives_way() {
        let limits = Limits { handshakes: 4, handshakes_per_address: 2, ..Limits::default() };
        let porch = Arc::new(Porch::default());
        let [a, b, c, d] = [1, 2, 3, 4].map(|last| IpAddr::from([10, 0, 0, last]));
        let mut first = porch.enter(a, &limits);
        let mut other = porch.enter(b, &limits);
        let mut second = porch.enter(a, &limits);
        let third = porch.enter(a, &limits);
        first.lost().await;
        let fourth = porch.enter(c, &limits);
        assert_eq!(porch.lock().queue.len(), 4);
        let fifth = porch.enter(d, &limits);
        other.lost().await;
        drop((third, fourth, fifth));
        assert_eq!(porch.lock().queue.len(), 1);
        tokio::select! { biased;
            () = second.lost() => panic!("it had a place"),
            () = std::future::ready(()) => {}
        }
    }
}
