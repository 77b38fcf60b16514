use super::MlsError;
use minicbor::{Decoder, Encoder};
use openmls_rust_crypto::OpenMlsRustCrypto;
use palmgate_protocol::Secret;
use std::{
    collections::HashMap,
    ops::Deref,
    sync::{PoisonError, RwLock},
};
use zeroize::Zeroize;

/// Layout of [`Store::snapshot`].
const FORMAT: u8 = 1;
/// Bytes of a snapshot, at most; a session of two members needs about 12 KiB.
const MAX_SNAPSHOT_BYTES: usize = 1024 * 1024;

type Values = HashMap<Vec<u8>, Vec<u8>>;

/// The storage of openmls for one session: a map in memory, written out as a whole and wiped when
/// dropped. Values that openmls replaced in between are beyond reach.
#[derive(Default)]
pub(super) struct Store(OpenMlsRustCrypto);

impl Deref for Store {
    type Target = OpenMlsRustCrypto;

    fn deref(&self) -> &OpenMlsRustCrypto {
        &self.0
    }
}

impl Store {
    /// Everything, with the identifier of the session's group.
    pub(super) fn snapshot(&self, group: &[u8]) -> Secret<Vec<u8>> {
        let values = self.values().read().unwrap_or_else(PoisonError::into_inner);
        let size: usize = values.iter().map(|(key, value)| key.len() + value.len() + 10).sum();
        // One allocation of the final size: a growing vector would leave copies behind.
        let mut encoder = Encoder::new(Vec::with_capacity(size + group.len() + 32));
        let written = write(&mut encoder, group, &values);
        written.expect("encoding into a vector is infallible");
        Secret::new(encoder.into_writer())
    }

    /// Reads what [`Store::snapshot`] wrote.
    pub(super) fn restore(snapshot: &[u8]) -> Result<(Self, Vec<u8>), MlsError> {
        if snapshot.len() > MAX_SNAPSHOT_BYTES {
            return Err(MlsError::state("it is too large"));
        }
        let store = Self::default();
        let group = {
            let mut values = store.values().write().unwrap_or_else(PoisonError::into_inner);
            read(snapshot, &mut values).map_err(MlsError::state)?
        };
        Ok((store, group))
    }

    /// Forgets everything.
    pub(super) fn wipe(&self) {
        let mut values = self.values().write().unwrap_or_else(PoisonError::into_inner);
        values.values_mut().for_each(Zeroize::zeroize);
        values.clear();
    }

    fn values(&self) -> &RwLock<Values> {
        use openmls_traits::OpenMlsProvider as _;
        &self.0.storage().values
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.wipe();
    }
}

fn write(
    encoder: &mut Encoder<Vec<u8>>,
    group: &[u8],
    values: &Values,
) -> Result<(), minicbor::encode::Error<std::convert::Infallible>> {
    encoder.array(3)?.u8(FORMAT)?.bytes(group)?.map(values.len() as u64)?;
    for (key, value) in values {
        encoder.bytes(key)?.bytes(value)?;
    }
    Ok(())
}

fn read(snapshot: &[u8], values: &mut Values) -> Result<Vec<u8>, minicbor::decode::Error> {
    let mut decoder = Decoder::new(snapshot);
    let malformed = || minicbor::decode::Error::message("it is malformed or of another version");
    if decoder.array()? != Some(3) || decoder.u8()? != FORMAT {
        return Err(malformed());
    }
    let group = decoder.bytes()?.to_vec();
    for _ in 0..decoder.map()?.ok_or_else(malformed)? {
        values.insert(decoder.bytes()?.to_vec(), decoder.bytes()?.to_vec());
    }
    if decoder.position() == snapshot.len() { Ok(group) } else { Err(malformed()) }
}
