//! The medium as a file system that this process serves to itself (FUSE).

use std::{
    ffi::OsStr,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use rustix::mount::{UnmountFlags, unmount};

use super::{Change, Machine, Node, Tree};

const VALID: Duration = Duration::from_secs(1);
const BLOCK: u64 = 4096;

/// Which changes fail, and how.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    /// The first change that fails, counted from zero.
    pub(crate) at: usize,
    /// Whether all after it fail, too.
    pub(crate) lasting: bool,
    /// `EIO`, `ENOSPC` or `EROFS`.
    pub(crate) errno: Errno,
}

/// A mounted medium; unmounted when dropped.
pub(crate) struct Medium {
    state: Arc<Mutex<State>>,
    machine: Machine,
    session: Option<BackgroundSession>,
}

struct State {
    tree: Tree,
    changes: Vec<Change>,
    attempts: usize,
    fault: Option<Fault>,
    capacity: u64,
}

impl Medium {
    /// Whether this machine lets a process serve a file system to itself. `cargo xtask forensic`
    /// insists on it.
    pub(crate) fn is_possible() -> bool {
        let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
        device
            .inspect_err(|error| eprintln!("not shown on this machine: /dev/fuse: {error}"))
            .is_ok()
    }

    /// Mounts a medium with these contents.
    pub(crate) fn mount(tree: Tree) -> Self {
        let capacity = 1 << 40;
        let state = State { tree, changes: Vec::new(), attempts: 0, fault: None, capacity };
        let state = Arc::new(Mutex::new(state));
        let machine = Machine::new();
        let served = Served(Arc::clone(&state));
        let session = fuser::spawn_mount(served, machine.all(), &Config::default());
        let session = Some(session.expect("FUSE: /dev/fuse and the right to mount are needed"));
        Self { state, machine, session }
    }

    /// The machine whose disk this is.
    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Contents now, whether synced or not.
    pub(crate) fn tree(&self) -> Tree {
        self.lock().tree.clone()
    }

    /// Every change since the medium was mounted.
    pub(crate) fn changes(&self) -> Vec<Change> {
        self.lock().changes.clone()
    }

    /// How many changes were tried since the medium was mounted.
    pub(crate) fn attempts(&self) -> usize {
        self.lock().attempts
    }

    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.lock().fault = fault;
    }

    /// Leaves so many bytes free.
    pub(crate) fn leave_free(&self, bytes: u64) {
        let mut state = self.lock();
        state.capacity = state.tree.bytes() + bytes;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Drop for Medium {
    fn drop(&mut self) {
        // sled may still hold a file, after a failed test or when it is stuck.
        let _ = unmount(self.machine.all(), UnmountFlags::DETACH);
        drop(self.session.take());
    }
}

impl State {
    fn change(&mut self, change: Change) -> Result<(), Errno> {
        let attempt = self.attempts;
        self.attempts += 1;
        if let Some(fault) = self.fault
            && (attempt == fault.at || (attempt > fault.at && fault.lasting))
        {
            return Err(fault.errno);
        }
        let length = |tree: &Tree, node| match tree.node(node) {
            Some(Node::File(bytes)) => bytes.len() as u64,
            _ => 0,
        };
        let grows = match &change {
            Change::Write { node, offset, bytes } => {
                (offset + bytes.len() as u64).saturating_sub(length(&self.tree, *node))
            }
            Change::Resize { node, length: new } => new.saturating_sub(length(&self.tree, *node)),
            _ => 0,
        };
        if grows > 0 && self.tree.bytes() + grows > self.capacity {
            return Err(Errno::ENOSPC);
        }
        self.tree.apply(&change);
        self.changes.push(change);
        Ok(())
    }

    fn attributes(&self, node: u64) -> Result<FileAttr, Errno> {
        let (kind, size, perm) = match self.tree.node(node).ok_or(Errno::ENOENT)? {
            Node::File(bytes) => (FileType::RegularFile, bytes.len() as u64, 0o600),
            Node::Directory(_) => (FileType::Directory, 0, 0o700),
        };
        let process = rustix::process::getuid().as_raw();
        Ok(FileAttr {
            ino: INodeNo(node),
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: process,
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: BLOCK as u32,
            flags: 0,
        })
    }

    fn create(&mut self, parent: u64, name: &OsStr, directory: bool) -> Result<FileAttr, Errno> {
        let node = self.tree.next_number();
        self.change(Change::Create { node, parent, name: name.into(), directory })?;
        self.attributes(node)
    }
}

struct Served(Arc<Mutex<State>>);

impl Served {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn change(&self, change: Change, reply: ReplyEmpty) {
        match self.lock().change(change) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }
}

fn entry(found: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match found {
        Ok(attributes) => reply.entry(&VALID, &attributes, Generation(0)),
        Err(errno) => reply.error(errno),
    }
}

impl Filesystem for Served {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let state = self.lock();
        let node = state.tree.find(parent.0, name).ok_or(Errno::ENOENT);
        entry(node.and_then(|node| state.attributes(node)), reply);
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.lock().attributes(node.0) {
            Ok(attributes) => reply.attr(&VALID, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut state = self.lock();
        let resized =
            size.map_or(Ok(()), |length| state.change(Change::Resize { node: node.0, length }));
        match resized.and_then(|()| state.attributes(node.0)) {
            Ok(attributes) => reply.attr(&VALID, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        entry(self.lock().create(parent.0, name, true), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.lock().create(parent.0, name, false) {
            Ok(attributes) => reply.created(
                &VALID,
                &attributes,
                Generation(0),
                FileHandle(0),
                FopenFlags::empty(),
            ),
            Err(errno) => reply.error(errno),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(Change::Remove { parent: parent.0, name: name.into() }, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.change(Change::Remove { parent: parent.0, name: name.into() }, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, new_name) = (name.into(), new_name.into());
        self.change(Change::Rename { parent: parent.0, name, to: to.0, new_name }, reply);
    }

    fn link(&self, _: &Request, node: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut state = self.lock();
        let linked =
            state.change(Change::Link { node: node.0, parent: parent.0, name: name.into() });
        entry(linked.and_then(|()| state.attributes(node.0)), reply);
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.lock().tree.node(node.0) {
            Some(Node::File(bytes)) => {
                let start = bytes.len().min(offset as usize);
                let end = bytes.len().min(start + size as usize);
                reply.data(&bytes[start..end]);
            }
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.lock().change(Change::Write { node: node.0, offset, bytes: data.into() }) {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }

    /// Not there: a process that ends must not wait for itself to close its files.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.change(Change::Sync { node: node.0 }, reply);
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.change(Change::Sync { node: node.0 }, reply);
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let state = self.lock();
        let Some(names) = state.tree.names(node.0) else { return reply.error(Errno::ENOENT) };
        for (index, (name, number)) in names.iter().enumerate().skip(offset as usize) {
            let kind = match state.tree.node(*number) {
                Some(Node::Directory(_)) => FileType::Directory,
                _ => FileType::RegularFile,
            };
            if reply.add(INodeNo(*number), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let state = self.lock();
        let (all, used) = (state.capacity / BLOCK, state.tree.bytes().div_ceil(BLOCK));
        let free = all.saturating_sub(used);
        reply.statfs(all, free, free, 1 << 20, 1 << 20, BLOCK as u32, 255, BLOCK as u32);
    }

    fn fallocate(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        _: i32,
        reply: ReplyEmpty,
    ) {
        let mut state = self.lock();
        let present = state.attributes(node.0).map_or(0, |found| found.size);
        let length = present.max(offset + length);
        match state.change(Change::Resize { node: node.0, length }) {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }
}
