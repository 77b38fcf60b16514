//! The root in the non-volatile memory of a TPM 2.0 (TCG TPM 2.0 Library, part 3, NV commands).
//!
//! Two indices take turns holding `generation, key, turn`; a third one is a counter. The root whose
//! turn the counter shows is the one that counts. To replace it, the new root is written to the
//! free index with the next turn, the counter is incremented, and the index of the old root is
//! overwritten and removed. The increment is one command, so a power cut finds either root whole. A
//! counter index never goes back, even if it is removed and defined again, so an old root that
//! somebody wrote down and wrote back is refused.

use std::str::FromStr;

use palmgate_protocol::Secret;
use tss_esapi::{
    Context, TctiNameConf,
    attributes::{NvIndexAttributesBuilder, ObjectAttributesBuilder, SessionAttributesBuilder},
    constants::{CapabilityType, NvIndexType, SessionType},
    handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle, TpmHandle},
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
        resource_handles::{Hierarchy, NvAuth, Provision},
    },
    structures::{
        Auth, CapabilityData, EccPoint, MaxNvBuffer, NvPublicBuilder, Public, PublicBuilder,
        PublicEccParametersBuilder, SymmetricDefinition, SymmetricDefinitionObject,
    },
};

use crate::{
    error::RootError,
    root::{Promise, Root, RootKeeper},
};

const SLOTS: [u32; 2] = [TpmRoot::FIRST_INDEX, TpmRoot::FIRST_INDEX + 1];
const COUNTER: u32 = TpmRoot::FIRST_INDEX + 2;
const COUNTER_BYTES: usize = 8;
const SLOT_BYTES: usize = Root::BYTES + COUNTER_BYTES;

/// Keeps the root in a TPM 2.0, where replacing it destroys the one before.
///
/// Each change of the root costs two writes of 48 bytes and one increment; TPMs are commonly rated
/// for some 100,000 writes of one place, so erasures should come in batches. The session is salted
/// and encrypts what crosses the bus, against who listens there. Whoever can make the TPM accept
/// `auth` can read the root: keep it in a systemd credential.
pub struct TpmRoot {
    context: Context,
    auth: Auth,
}

/// A root and its turn, as an index holds them.
struct Slot {
    turn: u64,
    root: Root,
}

impl TpmRoot {
    /// The first of three consecutive NV indices, in the range that the TCG leaves to owners.
    pub const FIRST_INDEX: u32 = 0x0180_7040;

    /// Connects to a TPM: `device:/dev/tpmrm0`, or another TCTI as tpm2-tss spells it.
    ///
    /// `auth` authorises reading and writing of the indices, at most 32 bytes; the owner hierarchy
    /// must have no password of its own.
    ///
    /// # Errors
    /// [`RootError::Device`]: there is no TPM, or it does not answer.
    pub fn connect(tcti: &str, auth: &Secret<Vec<u8>>) -> Result<Self, RootError> {
        let open = || {
            let mut context = Context::new(TctiNameConf::from_str(tcti)?)?;
            start_session(&mut context)?;
            let auth = Auth::try_from(auth.expose().clone())?;
            Ok(Self { context, auth })
        };
        open().map_err(device)
    }

    /// Which of the three indices are there.
    fn defined(&mut self) -> tss_esapi::Result<Vec<u32>> {
        let (found, _) = self.context.execute_without_session(|context| {
            context.get_capability(CapabilityType::Handles, Self::FIRST_INDEX, 3)
        })?;
        let CapabilityData::Handles(handles) = found else { return Ok(Vec::new()) };
        let ours = Self::FIRST_INDEX..=COUNTER;
        let numbers = handles.into_inner().into_iter().map(u32::from);
        Ok(numbers.filter(|number| ours.contains(number)).collect())
    }

    fn open(&mut self, index: u32) -> tss_esapi::Result<ObjectHandle> {
        let name = TpmHandle::NvIndex(NvIndexTpmHandle::new(index)?);
        let object = self.context.execute_without_session(|c| c.tr_from_tpm_public(name))?;
        self.context.tr_set_auth(object, self.auth.clone())?;
        Ok(object)
    }

    /// Does something with an index that is there.
    fn with<T>(
        &mut self,
        index: u32,
        work: impl FnOnce(&mut Context, NvIndexHandle) -> tss_esapi::Result<T>,
    ) -> tss_esapi::Result<T> {
        let mut object = self.open(index)?;
        let done = work(&mut self.context, object.into());
        self.context.tr_close(&mut object)?;
        done
    }

    fn define(&mut self, index: u32, kind: NvIndexType, bytes: usize) -> tss_esapi::Result<()> {
        let attributes = NvIndexAttributesBuilder::new()
            .with_nv_index_type(kind)
            .with_auth_read(true)
            .with_auth_write(true)
            .with_no_da(true)
            .build()?;
        let public = NvPublicBuilder::new()
            .with_nv_index(NvIndexTpmHandle::new(index)?)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(attributes)
            .with_data_area_size(bytes)
            .build()?;
        let auth = Some(self.auth.clone());
        let handle = self.context.nv_define_space(Provision::Owner, auth, public)?;
        self.context.tr_close(&mut handle.into())
    }

    /// The contents of an index; `None` if it was never written.
    fn read(&mut self, index: u32, bytes: usize) -> tss_esapi::Result<Option<MaxNvBuffer>> {
        self.with(index, |context, handle| {
            let public = context.execute_without_session(|c| c.nv_read_public(handle))?.0;
            if !public.attributes().written() {
                return Ok(None);
            }
            context.nv_read(NvAuth::NvIndex(handle), handle, bytes as u16, 0).map(Some)
        })
    }

    fn write(&mut self, index: u32, bytes: &Secret<[u8; SLOT_BYTES]>) -> tss_esapi::Result<()> {
        let data = MaxNvBuffer::try_from(bytes.expose().to_vec())?;
        self.with(index, |context, handle| {
            context.nv_write(NvAuth::NvIndex(handle), handle, data, 0)
        })
    }

    fn increment(&mut self) -> tss_esapi::Result<()> {
        self.with(COUNTER, |context, handle| context.nv_increment(NvAuth::NvIndex(handle), handle))
    }

    /// Overwrites an index and removes it.
    fn destroy(&mut self, index: u32) -> tss_esapi::Result<()> {
        self.write(index, &Secret::new([0; SLOT_BYTES]))?;
        let handle = self.open(index)?;
        self.context.nv_undefine_space(Provision::Owner, handle.into())
    }

    /// What the counter shows; `None` before the first root.
    fn turn(&mut self, defined: &[u32]) -> tss_esapi::Result<Option<u64>> {
        if !defined.contains(&COUNTER) {
            return Ok(None);
        }
        let bytes = self.read(COUNTER, COUNTER_BYTES)?;
        Ok(bytes.and_then(|bytes| bytes.first_chunk().copied()).map(u64::from_be_bytes))
    }

    /// What an index holds; `None` if that is no root.
    fn slot(&mut self, index: u32) -> tss_esapi::Result<Option<Slot>> {
        let Some(bytes) = self.read(index, SLOT_BYTES)? else { return Ok(None) };
        Ok(bytes.first_chunk::<SLOT_BYTES>().map(|bytes| {
            let (root, turn) = bytes.split_first_chunk().expect("48 bytes begin with 40");
            let turn = *turn.first_chunk().expect("8 of 48 bytes are left");
            Slot { turn: u64::from_be_bytes(turn), root: Root::from_bytes(root) }
        }))
    }

    /// The root whose turn it is and its index. Every other one is destroyed: a crash left it.
    fn settle(&mut self) -> Result<Option<(u32, Root)>, RootError> {
        let defined = self.defined().map_err(device)?;
        let turn = self.turn(&defined).map_err(device)?;
        let (mut current, mut others) = (None, Vec::new());
        for index in SLOTS.into_iter().filter(|index| defined.contains(index)) {
            match self.slot(index).map_err(device)? {
                Some(slot) if Some(slot.turn) == turn => current = Some((index, slot.root)),
                other => others.push((index, other.map(|slot| slot.turn))),
            }
        }
        let unfinished =
            |held: &Option<u64>| held.is_none() || turn.is_some_and(|turn| *held == Some(turn + 1));
        if current.is_none() && !others.iter().all(|(_, held)| unfinished(held)) {
            return Err(RootError::RolledBack { keeper: self.describe() });
        }
        for (index, _) in others {
            self.destroy(index).map_err(device)?;
        }
        Ok(current)
    }

    fn exchange(&mut self, old: Option<u32>, new: &Root) -> tss_esapi::Result<()> {
        let defined = self.defined()?;
        if !defined.contains(&COUNTER) {
            self.define(COUNTER, NvIndexType::Counter, COUNTER_BYTES)?;
        }
        // A counter shows something from its first increment on.
        let turn = if let Some(turn) = self.turn(&defined)? {
            turn
        } else {
            self.increment()?;
            self.turn(&[COUNTER])?.unwrap_or_default()
        };
        let free = if old == Some(SLOTS[0]) { SLOTS[1] } else { SLOTS[0] };
        let mut bytes = Secret::new([0; SLOT_BYTES]);
        let (root, next) = bytes.expose_mut().split_at_mut(Root::BYTES);
        root.copy_from_slice(new.to_bytes().expose());
        next.copy_from_slice(&(turn + 1).to_be_bytes());
        self.define(free, NvIndexType::Ordinary, SLOT_BYTES)?;
        self.write(free, &bytes)?;
        self.increment()?;
        old.map_or(Ok(()), |index| self.destroy(index))
    }
}

impl RootKeeper for TpmRoot {
    fn load(&mut self) -> Result<Option<Root>, RootError> {
        Ok(self.settle()?.map(|(_, root)| root))
    }

    fn replace(&mut self, new: &Root) -> Result<(), RootError> {
        let old = self.settle()?.map(|(index, _)| index);
        self.exchange(old, new).map_err(device)
    }

    fn describe(&self) -> &'static str {
        "TPM"
    }

    fn promise(&self) -> Promise {
        Promise::Destroyed
    }
}

/// Starts a session, salted with a key of this TPM, that encrypts secrets on the bus both ways.
fn start_session(context: &mut Context) -> tss_esapi::Result<()> {
    let template = storage_key()?;
    let key = context
        .execute_with_nullauth_session(|c| {
            c.create_primary(Hierarchy::Null, template, None, None, None, None)
        })?
        .key_handle;
    let session = context.start_auth_session(
        Some(key),
        None,
        None,
        SessionType::Hmac,
        SymmetricDefinition::AES_128_CFB,
        HashingAlgorithm::Sha256,
    )?;
    context.flush_context(key.into())?;
    if let Some(session) = session {
        let encrypting = SessionAttributesBuilder::new().with_decrypt(true).with_encrypt(true);
        let (attributes, mask) = encrypting.build();
        context.tr_sess_set_attributes(session, attributes, mask)?;
    }
    context.set_sessions((session, None, None));
    Ok(())
}

/// The storage key of the TCG's EK credential profile, on P-256.
fn storage_key() -> tss_esapi::Result<Public> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_decrypt(true)
        .with_restricted(true)
        .build()?;
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    );
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters.build()?)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
}

fn device(error: tss_esapi::Error) -> RootError {
    RootError::Device(Box::new(error))
}
