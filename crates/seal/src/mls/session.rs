use super::{
    MlsError,
    credential::{self, LeafKey, Side},
    state::Store,
};
use crate::{pki::Identity, sha256, sign::VerifyingKey};
use openmls::prelude::{
    GroupId, LeafNodeParameters, Member, MlsGroup, MlsMessageBodyIn, MlsMessageIn, MlsMessageOut,
    OpenMlsProvider as _, PastEpochDeletion, ProcessedMessageContent, ProtocolMessage, Sender,
    StagedCommit,
    tls_codec::{Deserialize as _, Serialize as _},
};
use palmgate_protocol::{Name, Secret, Timestamp, limits};
use rustls::pki_types::CertificateDer;

/// One side of the session between a terminal and its gateway.
///
/// ```compile_fail,E0277
/// fn print(session: &palmgate_seal::mls::Session) {
///     println!("{session:?}");
/// }
/// ```
pub struct Session {
    pub(super) store: Store,
    pub(super) group: MlsGroup,
    pub(super) key: LeafKey,
    side: Side,
}

/// What came out of a message.
pub enum Opened {
    /// The other side's plaintext. Persist the state before acting on it.
    Message(Secret<Vec<u8>>),
    /// The other side renewed its keys. Persist the state; messages sealed before do not open any
    /// more.
    Changed,
    /// The gateway removed this terminal. The state is wiped; only joining anew helps.
    Removed,
}

impl Session {
    pub(super) const fn new(store: Store, group: MlsGroup, key: LeafKey, side: Side) -> Self {
        Self { store, group, key, side }
    }

    /// Seals a message for the other side, padded to a multiple of
    /// [`limits::ANSWER_PADDING`]. Persist the state before sending it.
    ///
    /// # Errors
    /// [`MlsError::Over`] after a removal; [`MlsError::State`] when the message is over
    /// [`limits::MAX_MESSAGE_BYTES`] or the own state is broken.
    pub fn seal(&mut self, plaintext: &[u8]) -> Result<Vec<u8>, MlsError> {
        self.peer()?;
        if plaintext.len() > limits::MAX_MESSAGE_BYTES {
            return Err(MlsError::state("the message to seal is over the limit"));
        }
        let message = self.group.create_message(&*self.store, &self.key, plaintext);
        serialize(message.map_err(MlsError::state)?)
    }

    /// Opens a message of the other side. Persist the state before acknowledging it.
    ///
    /// # Errors
    /// [`MlsError`]; the session goes on with the next message.
    pub fn open(&mut self, message: &[u8]) -> Result<Opened, MlsError> {
        let peer = self.peer()?;
        let message = self.parse(message)?;
        let processed =
            self.group.process_message(&*self.store, message).map_err(MlsError::processing)?;
        if *processed.sender() != Sender::Member(peer.index) {
            return Err(MlsError::Replayed);
        }
        match processed.into_content() {
            ProcessedMessageContent::ApplicationMessage(message) => {
                Ok(Opened::Message(Secret::new(message.into_bytes())))
            }
            ProcessedMessageContent::StagedCommitMessage(commit) => self.merge(*commit, &peer),
            _ => Err(MlsError::Forbidden("a proposal")),
        }
    }

    /// Everything that [`Session::restore`] needs, to be kept sealed under a key of its own.
    pub fn state(&self) -> Secret<Vec<u8>> {
        let content = self.store.snapshot(self.group.group_id().as_slice());
        let digest = sha256(content.expose());
        Secret::new([digest.as_slice(), content.expose()].concat())
    }

    /// Continues from the last [`Session::state`]; an older one leads to refused messages.
    ///
    /// # Errors
    /// [`MlsError::State`] when the state is unreadable or of another identity;
    /// [`MlsError::Over`] when the session had ended.
    pub fn restore(state: &[u8], identity: &Identity) -> Result<Self, MlsError> {
        // openmls trusts what it reads from its store: damage must not get that far.
        let (digest, content) =
            state.split_first_chunk::<32>().ok_or(MlsError::state("it is cut"))?;
        if sha256(content) != *digest {
            return Err(MlsError::state("it is damaged"));
        }
        let (store, group) = Store::restore(content)?;
        let group = MlsGroup::load(store.storage(), &GroupId::from_slice(&group))
            .map_err(MlsError::state)?
            .ok_or(MlsError::Over)?;
        let own = group.own_leaf_node().map(|leaf| leaf.signature_key().as_slice());
        if own != Some(identity.verifying_key().0.as_slice()) {
            return Err(MlsError::state("it belongs to another certificate"));
        }
        let side = Side::of(&identity.name());
        Ok(Self::new(store, group, LeafKey(identity.signing_key()), side))
    }

    /// Gateway: ends the session. The returned message tells the terminal; whether it arrives or
    /// not, nothing that the terminal sends or receives from now on opens.
    ///
    /// # Errors
    /// [`MlsError::Over`] when it has ended before; [`MlsError::State`] at a terminal, which ends a
    /// session by deleting its state.
    pub fn remove_peer(&mut self) -> Result<Vec<u8>, MlsError> {
        let peer = self.peer()?;
        if !self.is_gateway() {
            return Err(MlsError::state("only the gateway removes"));
        }
        let (commit, _, _) = self
            .group
            .remove_members(&*self.store, &self.key, &[peer.index])
            .map_err(MlsError::state)?;
        self.group.merge_pending_commit(&*self.store).map_err(MlsError::state)?;
        let message = serialize(commit)?;
        self.end()?;
        Ok(message)
    }

    /// Renews the own keys, so that a copy of the state taken before is worth nothing afterwards.
    /// The new epoch begins at once: send the message before any other, and do not let both sides
    /// renew at the same time.
    ///
    /// # Errors
    /// [`MlsError::Over`] after a removal; [`MlsError::State`] when the own state is broken.
    pub fn self_update(&mut self) -> Result<Vec<u8>, MlsError> {
        self.peer()?;
        let bundle = self
            .group
            .self_update(&*self.store, &self.key, LeafNodeParameters::default())
            .map_err(MlsError::state)?;
        let message = serialize(bundle.into_commit())?;
        self.group.merge_pending_commit(&*self.store).map_err(MlsError::state)?;
        self.forget_past()?;
        Ok(message)
    }

    /// Bytes that both sides derive in this epoch, and nobody else can (RFC 9420 section 8.5).
    ///
    /// # Errors
    /// [`MlsError::Over`] after a removal; [`MlsError::State`] when the own state is broken.
    pub fn export(&self, label: &str, length: usize) -> Result<Secret<Vec<u8>>, MlsError> {
        self.peer()?;
        let exported = self.group.export_secret(self.store.crypto(), label, &[], length);
        exported.map(Secret::new).map_err(MlsError::state)
    }

    /// Counts the changes of the session, from 1.
    pub fn epoch(&self) -> u64 {
        self.group.epoch().as_u64()
    }

    /// The name in the other side's certificate, as it was checked when the session began.
    ///
    /// # Errors
    /// [`MlsError::Over`] after a removal.
    pub fn peer_name(&self) -> Result<Name, MlsError> {
        credential::name(&self.peer()?.credential)
    }

    /// SHA-256 of the certificate of every member of the group, this side's own among them.
    ///
    /// # Errors
    /// [`MlsError::Over`] after a removal; [`MlsError::Certificate`] when a member has none.
    pub fn certificates(&self) -> Result<Vec<[u8; 32]>, MlsError> {
        if !self.group.is_active() {
            return Err(MlsError::Over);
        }
        let of = |member: Member| Ok(sha256(&credential::certificate(&member.credential)?));
        self.group.members().map(of).collect()
    }

    /// The key that the other side signs with: that of its certificate.
    ///
    /// # Errors
    /// [`MlsError::Over`] after a removal; [`MlsError::State`] when it is none of this suite.
    pub fn peer_key(&self) -> Result<VerifyingKey, MlsError> {
        let key = self.peer()?.signature_key;
        let key = <[u8; 32]>::try_from(key.as_slice()).map_err(MlsError::state)?;
        Ok(VerifyingKey(key))
    }

    /// Whether the other side's certificate still holds at `now`: a session outlives the join by
    /// weeks, a certificate may not.
    ///
    /// # Errors
    /// [`MlsError::Identity`] when it holds no more; [`MlsError::Over`] after a removal.
    pub fn check_peer(
        &self,
        authority_der: &CertificateDer<'_>,
        now: Timestamp,
    ) -> Result<(), MlsError> {
        let peer = self.peer()?;
        let side = if self.is_gateway() { Side::Terminal } else { Side::Gateway };
        credential::check(&peer.credential, &peer.signature_key, side, authority_der, now)?;
        Ok(())
    }

    fn peer(&self) -> Result<Member, MlsError> {
        if !self.group.is_active() {
            return Err(MlsError::Over);
        }
        let own = self.group.own_leaf_index();
        let mut others = self.group.members().filter(|member| member.index != own);
        let peer = others.next().ok_or(MlsError::Over)?;
        if others.next().is_some() {
            return Err(MlsError::Forbidden("a group that is not of two members"));
        }
        Ok(peer)
    }

    fn is_gateway(&self) -> bool {
        self.side == Side::Gateway
    }

    fn parse(&self, message: &[u8]) -> Result<ProtocolMessage, MlsError> {
        if message.len() > limits::MAX_PAYLOAD_BYTES {
            return Err(MlsError::TooLarge);
        }
        let message = MlsMessageIn::tls_deserialize_exact(message)
            .map_err(|_| MlsError::Malformed("something that is not MLS"))?;
        let MlsMessageBodyIn::PrivateMessage(message) = message.extract() else {
            return Err(MlsError::Malformed("something that is not encrypted"));
        };
        if message.group_id() != self.group.group_id() {
            return Err(MlsError::Forged);
        }
        let (theirs, ours) = (message.epoch().as_u64(), self.epoch());
        if theirs != ours {
            return Err(MlsError::Epoch { theirs, ours });
        }
        Ok(message.into())
    }

    fn merge(&mut self, commit: StagedCommit, peer: &Member) -> Result<Opened, MlsError> {
        self.check(&commit, peer)?;
        let removed = commit.self_removed();
        self.group.merge_staged_commit(&*self.store, commit).map_err(MlsError::state)?;
        if removed {
            self.end()?;
            return Ok(Opened::Removed);
        }
        self.forget_past()?;
        Ok(Opened::Changed)
    }

    /// Only two changes are ever asked for: new keys of the sender under the same certificate, and
    /// the removal of a terminal by the gateway.
    fn check(&self, commit: &StagedCommit, peer: &Member) -> Result<(), MlsError> {
        let removals = commit.remove_proposals().count();
        if commit.queued_proposals().count() != removals {
            return Err(MlsError::Forbidden("another member or another kind of group"));
        }
        if removals > 0 && (self.is_gateway() || !commit.self_removed()) {
            return Err(MlsError::Forbidden("the removal of a gateway"));
        }
        match commit.update_path_leaf_node() {
            Some(leaf)
                if *leaf.credential() != peer.credential
                    || leaf.signature_key().as_slice() != peer.signature_key =>
            {
                Err(MlsError::Forbidden("another certificate within a session"))
            }
            None if removals == 0 => Err(MlsError::Forbidden("a change without new keys")),
            _ => Ok(()),
        }
    }

    /// The configuration keeps no past epoch; a removed or compromised member must not depend on
    /// that alone.
    fn forget_past(&mut self) -> Result<(), MlsError> {
        self.group
            .delete_past_epoch_secrets(&*self.store, PastEpochDeletion::delete_all())
            .map_err(MlsError::state)
    }

    fn end(&mut self) -> Result<(), MlsError> {
        self.forget_past()?;
        self.store.wipe();
        Ok(())
    }
}

fn serialize(message: MlsMessageOut) -> Result<Vec<u8>, MlsError> {
    message.tls_serialize_detached().map_err(MlsError::state)
}
