//! What people get of their own data: receipts, a copy, what they may take along.

use super::Store;
use crate::{records, scribe::Deed};
use palmgate_law as papers;
use palmgate_policy::{Profile, Ticket};
use palmgate_protocol::{
    MemberId, PurposeSet,
    terminal::{AnswerBody, Document, Refusal},
};
use palmgate_seal::{
    envelope::{self, Label, SealingKey},
    sign::SigningKey,
};
use palmgate_vault::Column;

impl Store {
    /// One signed receipt for each consent of a new enrolment.
    pub(super) fn consent_receipts(&mut self, ticket: Ticket) -> Vec<String> {
        let person = self.work.sensitive(ticket).and_then(|kept| kept.enrolment.as_ref());
        let Some(profile) = person.and_then(|person| person.issued.as_ref()) else {
            return Vec::new();
        };
        let (house, pack) = (&self.around.law.house, self.engine.pack());
        let receipt = |consent| {
            let record = papers::record_id(&profile.salt, consent);
            let key = &self.around.signing_key;
            papers::ConsentReceipt::issue(house, pack, consent, record, key)
                .map(|receipt| receipt.as_str().to_owned())
        };
        let receipts = profile.consents.iter().map(receipt).collect::<Result<_, _>>();
        receipts.unwrap_or_else(|error| {
            tracing::error!(%error, "no consent receipt can be made");
            Vec::new()
        })
    }

    /// The person's own data; with a key, what they provided and their templates sealed to it.
    pub(super) fn export(
        &mut self,
        ticket: Ticket,
        member: MemberId,
        profile: Profile,
        key: Option<[u8; 32]>,
    ) {
        let sealed = match key.map(|key| self.seal_templates(ticket, member, &profile, key)) {
            None => None,
            Some(Some(sealed)) => Some(sealed),
            // The key is none, or the record cannot be opened with what was shown.
            Some(None) => {
                let refused = AnswerBody::Refused { reason: Refusal::Malformed };
                return self.reply(ticket, refused);
            }
        };
        let around = &self.around;
        let text = |column| {
            let read = around.vault.read(&member, column).ok().flatten();
            read.and_then(|value| String::from_utf8(value.expose().clone()).ok())
        };
        let (phone, card_token) = (text(Column::Phone), text(Column::CardToken));
        let (house, pack) = (around.law.house.clone(), self.engine.pack().clone());
        let signing_key = SigningKey::from_pkcs8(around.signing_key.pkcs8().expose());
        let Ok(signing_key) = signing_key else {
            return self.reply(ticket, AnswerBody::Refused { reason: Refusal::Internal });
        };
        let answer = Box::new(move |uses: Vec<_>| {
            let subject = papers::Subject {
                profile: &profile,
                uses: &uses,
                phone: phone.as_deref(),
                card_token: card_token.as_deref(),
            };
            let document = papers::export(&house, &pack, &subject, sealed.as_ref(), &signing_key);
            AnswerBody::Exported { document: Document(document) }
        });
        around.scribe.submit(Deed::WithHistory { ticket, member, answer });
    }

    fn seal_templates(
        &mut self,
        ticket: Ticket,
        member: MemberId,
        profile: &Profile,
        key: [u8; 32],
    ) -> Option<papers::Sealed> {
        let around = &self.around;
        let claim = self.work.sensitive(ticket).and_then(|kept| kept.claim.as_ref());
        let purposes: PurposeSet = profile.hands.iter().map(|(purpose, _)| *purpose).collect();
        let templates = records::own_templates(around, member, profile, claim, purposes)?;
        let plain = palmgate_protocol::encode_for_sealing(&templates);
        let to = SealingKey(key);
        let envelope =
            envelope::seal(&to, Label::Portability, &around.tenant, &key, plain.expose()).ok()?;
        Some(papers::Sealed { key, envelope, tenant: around.tenant.clone() })
    }

    /// While somebody is on pause, the cloud and with it the other stores hold nothing of them.
    pub(super) fn tell_recipients(&mut self, ticket: Ticket, member: MemberId, profile: &Profile) {
        let around = &self.around;
        let claim = self.work.sensitive(ticket).and_then(|kept| kept.claim.as_ref());
        let registration = records::restricted(around, member, profile, claim);
        let (gone, changed) = (Vec::new(), Vec::new());
        if registration.is_some() {
            around.scribe.submit(Deed::Withdraw { member, gone, changed, registration });
        }
    }
}
