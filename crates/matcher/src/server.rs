//! The matcher's process: one thread a connection.

use crate::{
    Keyed, Matching, Reference,
    wire::{self, Asked, MAX_REFERENCES, Opening, Protected, Row, Told, VERSION},
};
use palmgate_gallery::RowId;
use palmgate_palm::Extractor;
use palmgate_protocol::Secret;
use std::{
    io,
    os::unix::net::{UnixListener, UnixStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Connections at once: a gateway has one more than threads that work on pictures or search, of
/// which it may have 96. A caller beyond sees the end of its connection.
pub const MAX_CONNECTIONS: usize = 128;

/// The listening socket that systemd gives to a service with `StandardInput=socket`.
///
/// # Errors
/// Standard input is no listening socket of the local machine.
pub fn standard_input() -> io::Result<UnixListener> {
    let input = rustix::stdio::stdin();
    let listens = rustix::net::sockopt::socket_acceptconn(input).unwrap_or(false);
    if !listens {
        return Err(io::Error::other(
            "standard input is no listening socket: pass --listen PATH, or start palmgate-matcher.socket",
        ));
    }
    input.try_clone_to_owned().map(UnixListener::from)
}

/// Serves one gateway at a time until the process ends. The session that was opened last counts;
/// all its references are wiped when the connection that opened it ends.
///
/// # Errors
/// No connection can be accepted any more.
pub fn serve(listener: &UnixListener, extractor: Extractor) -> io::Result<()> {
    let server = Arc::new(Server { extractor: Arc::new(extractor), current: Mutex::default() });
    let open = Arc::new(AtomicUsize::new(0));
    for connection in listener.incoming() {
        let connection = connection?;
        if open.load(Ordering::Acquire) >= MAX_CONNECTIONS {
            continue;
        }
        open.fetch_add(1, Ordering::AcqRel);
        let (server, place) = (Arc::clone(&server), Place(Arc::clone(&open)));
        let served = thread::Builder::new().name("connection".into()).spawn(move || {
            let _place = place;
            // A gateway that left or talks nonsense ends its own connection only.
            let _ = Connection { server, session: None, owns: false }.serve(&connection);
        });
        // Without a thread there is no answer, and the gateway tries again.
        let _ = served;
    }
    Ok(())
}

/// Given back when a connection ends, however it ends.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

struct Server {
    extractor: Arc<Extractor>,
    current: Mutex<Current>,
}

#[derive(Default)]
struct Current {
    number: u64,
    matching: Option<Arc<Matching>>,
}

impl Server {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Connection {
    server: Arc<Server>,
    session: Option<u64>,
    owns: bool,
}

impl Connection {
    fn serve(mut self, connection: &UnixStream) -> io::Result<()> {
        while let Some(asked) = wire::receive(connection)? {
            wire::send(connection, &self.answer(asked))?;
        }
        Ok(())
    }

    fn answer(&mut self, asked: Asked) -> Told {
        match asked {
            Asked::Open(opening) => return self.open(&opening),
            Asked::Join(session) => {
                self.session = Some(session);
                return self.matching().map_or(Told::Unknown, |_| Told::Opened(session));
            }
            _ => {}
        }
        let Some(matching) = self.matching() else { return Told::Unknown };
        match asked {
            Asked::Scan(frames, purposes) => match matching.scan(&frames, purposes) {
                Ok(scanned) => scanned.into(),
                Err(problem) => Told::Problem(problem, 0),
            },
            Asked::Enrolment(captures, purposes) => match matching.enrolment(&captures, purposes) {
                Ok(enrolled) => enrolled.into(),
                Err((problem, index)) => Told::Problem(problem, index),
            },
            Asked::Insert(rows) => insert(&matching, &rows),
            Asked::Remove(rows) => {
                matching.remove(&rows.into_iter().map(RowId).collect::<Vec<_>>());
                Told::Done
            }
            Asked::Identify(probes) => {
                let probes: Option<Vec<_>> = probes.iter().map(Protected::to_probe).collect();
                probes.map_or(Told::Unknown, |probes| Told::candidates(&matching.identify(&probes)))
            }
            Asked::Open(_) | Asked::Join(_) => Told::Unknown,
        }
    }

    fn open(&mut self, opening: &Opening) -> Told {
        let tenant = opening.tenant.parse();
        let key: Result<[u8; 32], _> = opening.key.expose().as_slice().try_into();
        let (Ok(tenant), Ok(key), VERSION) = (tenant, key, opening.version) else {
            return Told::Unknown;
        };
        let models = self.server.extractor.models_hash();
        if models != opening.models {
            return Told::Unknown;
        }
        let keyed = Keyed { key: Secret::new(key), tenant, fusion: opening.fusion(), models };
        let matching = Matching::new(Arc::clone(&self.server.extractor), &keyed);
        let mut current = self.server.current();
        current.number += 1;
        current.matching = Some(Arc::new(matching));
        (self.session, self.owns) = (Some(current.number), true);
        Told::Opened(current.number)
    }

    /// That of the session, while it is the current one.
    fn matching(&self) -> Option<Arc<Matching>> {
        let current = self.server.current();
        if self.session == Some(current.number) { current.matching.clone() } else { None }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut current = self.server.current();
        if self.owns && self.session == Some(current.number) {
            current.matching = None;
        }
    }
}

fn insert(matching: &Matching, rows: &[Row]) -> Told {
    let reference = |row: &Row| {
        let (purpose, template) = row.template.to_template()?;
        Some(Reference { row: RowId(row.row), purpose, template })
    };
    let references: Option<Vec<Reference>> = rows.iter().map(reference).collect();
    match references {
        Some(references) if rows.len() <= MAX_REFERENCES => match matching.insert(&references) {
            Ok(()) => Told::Done,
            Err(error) => Told::Refused(error.to_string()),
        },
        _ => Told::Unknown,
    }
}
