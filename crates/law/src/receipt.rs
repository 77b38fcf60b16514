//! Consent receipts after ISO/IEC TS 27560:2023, as JSON-LD with the W3C Data Privacy Vocabulary
//! (profile `receipt-eu-gdpr` of the guide of 15 February 2026). The shopper keeps the copy. Names
//! nobody: the record's id stands for the person.

use crate::papers::House;
use palmgate_policy::Pack;
use palmgate_protocol::{Timestamp, cloud::Consent};
use palmgate_seal::{
    hidden_id::IdHasher,
    sign::{SigningKey, VerifyingKey},
};
use serde_json::{Value, json};

const LABEL: &str = "consent receipt";
/// Rights of the person (GDPR Art. 7(3), 15 to 18, 20, 77).
const RIGHTS: [&str; 7] = [
    "eu-gdpr:A7-3",
    "eu-gdpr:A15",
    "eu-gdpr:A16",
    "eu-gdpr:A17",
    "eu-gdpr:A18",
    "eu-gdpr:A20",
    "eu-gdpr:A77",
];
/// Bytes of the longest text that is not ours: a receipt fits one QR code, whatever is configured.
/// The notice and the record of processing have it in full.
const LONGEST_NAME: usize = 160;

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
        let (given, record) = (rfc3339(consent.given_at), hex(&record));
        let party = |role: &str| json!({ "@type": role, "dct:identifier": record });
        let authority = &pack.top().authority;
        let mut body = json!({
            "@context": {
                "dpv": "https://w3id.org/dpv#",
                "pd": "https://w3id.org/dpv/pd#",
                "eu-gdpr": "https://w3id.org/dpv/legal/eu/gdpr#",
                "dct": "http://purl.org/dc/terms/",
                "law": "urn:palmgate:pack:",
            },
            "@type": "dpv:ConsentReceipt",
            "@id": format!("urn:palmgate:receipt:{record}"),
            "dct:conformsTo": "https://w3id.org/dpv/schema/dpv-27560#receipt-eu-gdpr",
            "dct:identifier": record,
            "dpv:hasDataSubject": party("dpv:Customer"),
            "dpv:hasNotice": {
                "@type": "dpv:ConsentNotice",
                "dct:identifier": consent.notice,
                "dct:language": consent.language,
            },
            "dpv:hasPurpose": {
                "@id": format!("urn:palmgate:purpose:{purpose}"),
                "dct:description": basis.text.get(&consent.language),
            },
            "dpv:hasLegalBasis": [
                "dpv:ExplicitlyExpressedConsent", "eu-gdpr:A6-1-a", "eu-gdpr:A9-2-a",
            ],
            "dpv:hasPersonalData": {
                "@id": "pd:Biometric",
                "@type": "dpv:SpecialCategoryPersonalData",
                "dpv:hasNecessity": "dpv:Optional",
            },
            "dpv:hasDataSource": "dpv:DataSubject",
            "dpv:hasProcessing": ["dpv:Collect", "dpv:Store", "dpv:Match", "dpv:Erase"],
            "dpv:hasStorageCondition": {
                "dpv:hasLocation": house.place,
                "dpv:hasDuration": format!("P{}D", house.inactivity_days),
            },
            "dpv:hasLocation": house.place,
            "dpv:hasJurisdiction": pack.top().name,
            "dpv:hasDataController": {
                "dpv:hasName": short(&house.controller),
                "dpv:hasContact": short(&house.contact),
            },
            "dpv:hasRecipient": house.processors.iter().map(|one| json!({
                "dpv:hasName": short(&one.name), "dpv:hasLocation": one.region,
            })).collect::<Vec<_>>(),
            "dpv:hasConsentControl": {
                "@type": "dpv:WithdrawConsent",
                "dct:description": "at every reader of the store, at any time",
            },
            "dpv:hasRight": RIGHTS,
            "dpv:hasAuthority": { "dpv:hasName": authority.name, "dpv:hasContact": authority.url },
            "dpv:hasConsentStatus": {
                "@type": "dpv:ConsentGiven",
                "dct:date": given,
                "dct:valid": rfc3339(consent.expires_at),
                "dpv:isImplementedByEntity": "dpv:DataSubject",
            },
            "law:hash": hex(&pack.hash()),
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

    /// A receipt as it was handed out. Not checked: [`ConsentReceipt::verify`] does.
    pub const fn from_text(text: String) -> Self {
        Self(text)
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

/// The id of a consent's record: the same each time it is asked for, and worth nothing to anybody
/// once the person's salt is destroyed.
pub fn record_id(salt: &[u8; 32], consent: &Consent) -> [u8; 16] {
    let hash = IdHasher::new(salt).consent(consent.purpose, consent.given_at);
    std::array::from_fn(|at| hash[at])
}

/// As much of a text as fits, whole letters only.
fn short(text: &str) -> String {
    let mut end = text.len().min(LONGEST_NAME);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}

/// A moment in RFC 3339; the Unix epoch for one that has no such form.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or_default().to_string()
}
