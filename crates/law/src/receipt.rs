//! Consent receipts after ISO/IEC TS 27560:2023, as JSON-LD with the W3C Data Privacy Vocabulary
//! (profile `receipt-eu-gdpr` of the guide of 15 February 2026). The shopper keeps the copy.

use crate::papers::House;
use palmgate_policy::Pack;
use palmgate_protocol::{Timestamp, cloud::Consent};
use palmgate_seal::sign::{SigningKey, VerifyingKey};
use serde_json::{Value, json};

const LABEL: &str = "consent receipt";

/// A receipt cannot be made, or does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// The pack has no basis for the purpose.
    #[error("{0} has no basis in the law pack: there is nothing to consent to")]
    NoBasis(String),
    /// Not a receipt of this form.
    #[error("not a consent receipt of this form")]
    Malformed,
    /// The signature is not of this key, or the receipt was changed.
    #[error("the receipt was changed, or is signed with another key")]
    Signature,
    /// Too large for one QR code.
    #[error("too large for a QR code")]
    TooLarge,
}

/// A signed receipt, as text: one line of JSON-LD.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentReceipt(String);

impl ConsentReceipt {
    /// Makes and signs the receipt of one consent. `record` is a random id of the record.
    ///
    /// # Errors
    /// [`ReceiptError::NoBasis`] when the pack has none for the purpose.
    pub fn issue(
        house: &House,
        pack: &Pack,
        consent: &Consent,
        record: [u8; 16],
        key: &SigningKey,
    ) -> Result<Self, ReceiptError> {
        let purpose = consent.purpose.as_str();
        let basis = pack.purposes().iter().find(|basis| basis.purpose == consent.purpose);
        let basis = basis.ok_or_else(|| ReceiptError::NoBasis(purpose.into()))?;
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        let mut body = json!({
            "@context": "https://w3id.org/dpv/",
            "@type": "dpv:ConsentReceipt",
            "@id": format!("urn:palmgate:consent:{}", hex(&record)),
            "dct:conformsTo": "https://w3id.org/dpv/guides/consent-27560#receipt-eu-gdpr",
            "dpv:schemaVersion": "27560-2023",
            "dct:created": rfc3339(consent.given_at),
            "dpv:hasDataSubject": "dpv:Customer",
            "dpv:hasJurisdiction": pack.top().name,
            "dpv:hasLegalBasis": "eu-gdpr:A9-2-a",
            "dpv:hasNotice": {
                "@type": "dpv:ConsentNotice",
                "dct:identifier": consent.notice,
                "dct:language": consent.language,
            },
            "dpv:hasPurpose": {
                "@id": format!("urn:palmgate:purpose:{purpose}"),
                "dct:description": basis.text.get(&consent.language),
            },
            "dpv:hasPersonalData": ["dpv-pd:PalmPrint"],
            "dpv:hasProcessing": ["dpv:Collect", "dpv:Store", "dpv:Match", "dpv:Erase"],
            "dpv:hasStorageCondition": { "dpv:hasLocation": house.place, "dpv:isDuration": house.inactivity_days },
            "dpv:hasDataController": { "dct:title": house.controller, "dpv:hasContact": house.contact },
            "dpv:hasRecipient": house.processors.iter().map(|p| p.name.clone()).collect::<Vec<_>>(),
            "dpv:hasRight": ["eu-gdpr:A7-3", "eu-gdpr:A15", "eu-gdpr:A16", "eu-gdpr:A17",
                             "eu-gdpr:A18", "eu-gdpr:A20", "eu-gdpr:A77"],
            "dpv:hasConsentStatus": [{
                "@type": "dpv:ConsentGiven",
                "dct:date": rfc3339(consent.given_at),
                "dpv:hasExpiry": rfc3339(consent.expires_at),
                "dpv:isIndicatedBy": "dpv:DataSubject",
            }],
            "dpv:hasWithdrawalMethod": "at every reader of the store, at any time",
            "law": hex(&pack.hash()),
        });
        let signature = key.sign(LABEL, body.to_string().as_bytes());
        if let Value::Object(fields) = &mut body {
            fields.insert("signature".into(), data_encoding::BASE64.encode(&signature).into());
        }
        Ok(Self(body.to_string()))
    }

    /// Checks a receipt's signature and returns its JSON-LD.
    ///
    /// # Errors
    /// [`ReceiptError`] says whether it is malformed or changed.
    pub fn verify(text: &str, key: &VerifyingKey) -> Result<Value, ReceiptError> {
        let mut body: Value = serde_json::from_str(text).map_err(|_| ReceiptError::Malformed)?;
        let fields = body.as_object_mut().ok_or(ReceiptError::Malformed)?;
        let signature = fields.remove("signature").ok_or(ReceiptError::Malformed)?;
        let bytes = data_encoding::BASE64.decode(signature.as_str().unwrap_or_default().as_bytes());
        let bytes: Vec<u8> = bytes.map_err(|_| ReceiptError::Malformed)?;
        let bytes: [u8; 64] = bytes.try_into().map_err(|_| ReceiptError::Malformed)?;
        key.verify(LABEL, body.to_string().as_bytes(), &bytes)
            .map_err(|_| ReceiptError::Signature)?;
        Ok(body)
    }

    /// The receipt as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The receipt as a QR code, in SVG.
    ///
    /// # Errors
    /// [`ReceiptError::TooLarge`] when it does not fit version 40.
    pub fn qr(&self) -> Result<String, ReceiptError> {
        let code = qrcode::QrCode::with_error_correction_level(&self.0, qrcode::EcLevel::L);
        let code = code.map_err(|_| ReceiptError::TooLarge)?;
        Ok(code.render::<qrcode::render::svg::Color<'_>>().min_dimensions(320, 320).build())
    }
}

/// A moment in RFC 3339; the Unix epoch for one that has no such form.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default().to_string()
}
