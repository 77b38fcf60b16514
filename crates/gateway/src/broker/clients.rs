//! Who is connected: one session for each name.

use super::{Limits, Reason};
use palmgate_protocol::{Name, topic::GATEWAY};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    time::timeout,
};

/// How long a displaced session may take to leave: it only has to be polled once.
const LEAVING: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct Clients(Mutex<HashMap<Name, Live>>);

struct Live {
    address: IpAddr,
    stop: Option<oneshot::Sender<Reason>>,
    gone: watch::Receiver<()>,
}

/// A session's place. Everybody may know that the session has ended once it is dropped, so the
/// session's link to the router must be dropped before.
pub(super) struct Seat {
    clients: Arc<Clients>,
    name: Name,
    stop: oneshot::Receiver<Reason>,
    _here: watch::Sender<()>,
}

impl Clients {
    /// Gives `name` its place, after the session that has it now is gone.
    pub(super) async fn seat(
        self: &Arc<Self>,
        name: &Name,
        address: IpAddr,
        limits: &Limits,
    ) -> Result<Seat, Reason> {
        loop {
            let Some(mut older) = self.displace(name) else {
                match self.sit(name, address, limits)? {
                    Some(seat) => return Ok(seat),
                    None => continue,
                }
            };
            let gone = timeout(LEAVING, older.changed());
            gone.await.map_err(|_| Reason::Busy)?.ok();
        }
    }

    /// Ends a session, if there is one.
    pub(super) fn stop(&self, name: &Name, reason: Reason) {
        if let Some(live) = self.lock().get_mut(name) {
            live.stop(reason);
        }
    }

    /// Ends every session and waits until they are gone.
    pub(super) async fn clear(&self, reason: Reason) {
        for mut gone in self.stop_all(reason) {
            let _ = timeout(LEAVING, gone.changed()).await;
        }
    }

    pub(super) fn stop_all(&self, reason: Reason) -> Vec<watch::Receiver<()>> {
        let stop = |live: &mut Live| {
            live.stop(reason);
            live.gone.clone()
        };
        self.lock().values_mut().map(stop).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    fn displace(&self, name: &Name) -> Option<watch::Receiver<()>> {
        let mut clients = self.lock();
        let live = clients.get_mut(name)?;
        live.stop(Reason::Displaced);
        Some(live.gone.clone())
    }

    /// `None` when somebody else with this name was quicker. The gateway itself always fits in.
    fn sit(
        self: &Arc<Self>,
        name: &Name,
        address: IpAddr,
        limits: &Limits,
    ) -> Result<Option<Seat>, Reason> {
        let mut clients = self.lock();
        if clients.contains_key(name) {
            return Ok(None);
        }
        if name.as_str() != GATEWAY {
            if clients.keys().filter(|name| name.as_str() != GATEWAY).count() >= limits.clients {
                return Err(Reason::TooManyClients);
            }
            let neighbours = clients.values().filter(|live| live.address == address).count();
            if neighbours >= limits.clients_per_address {
                return Err(Reason::TooManyFromAddress);
            }
        }
        let (stop, stopped) = oneshot::channel();
        let (here, gone) = watch::channel(());
        clients.insert(name.clone(), Live { address, stop: Some(stop), gone });
        Ok(Some(Seat { clients: self.clone(), name: name.clone(), stop: stopped, _here: here }))
    }

    /// No code panics while it holds the lock, and a map is never half changed.
    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Live>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn stop(&mut self, reason: Reason) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(reason);
        }
    }
}

impl Seat {
    /// Resolves when the session has to end.
    pub(super) async fn stopped(&mut self) -> Reason {
        (&mut self.stop).await.unwrap_or(Reason::Shutdown)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.clients.lock().remove(&self.name);
    }
}
