//! The one exchange that makes a device a terminal: `POST` [`PATH`] over TLS that is pinned by the
//! pairing code, CBOR both ways. It is the only message of a terminal that is not MQTT, since a
//! terminal without a certificate cannot reach the broker.

use crate::{Name, Timestamp};
use minicbor::{Decode, Encode, bytes::ByteVec};

/// Where the gateway takes pairing requests.
pub const PATH: &str = "/v1/pair";
/// Media type of both bodies.
pub const MEDIA_TYPE: &str = "application/cbor";
/// Bytes of either body at most: a certificate request or two certificates fit several times.
pub const MAX_PAIRING_BYTES: usize = 16 * 1024;

/// A device asks to become a terminal. Not printable: it carries the code's secret half.
#[derive(Encode, Decode)]
pub struct PairRequest {
    /// The random half of the pairing code; good once.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub secret: [u8; 5],
    /// The name that the terminal will have.
    #[n(1)]
    pub name: Name,
    /// PKCS #10 certificate request (RFC 2986) with the terminal's key.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub csr_der: Vec<u8>,
}

/// The gateway made it one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct PairAnswer {
    /// The terminal's certificate, then the authority's, each as DER.
    #[n(0)]
    pub chain_der: Vec<ByteVec>,
    /// The certificate of the store's authority, as DER: what the terminal trusts from now on.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub authority_der: Vec<u8>,
    /// DNS name or IP address of the broker, as its certificate names it.
    #[n(2)]
    pub broker_host: String,
    /// TCP port of the broker.
    #[n(3)]
    pub broker_port: u16,
    /// The gateway's clock when it answered.
    #[n(4)]
    pub gateway_time: Timestamp,
    /// The store.
    #[n(5)]
    pub store: Name,
    /// The tenant that the store belongs to.
    #[n(6)]
    pub tenant: Name,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    fn request() -> PairRequest {
        PairRequest {
            secret: [1, 2, 3, 4, 5],
            name: "till-1".parse().unwrap(),
            csr_der: vec![0x30, 0x82],
        }
    }

    #[test]
    fn a_pairing_request_survives_the_wire() {
        let read: PairRequest = decode(&encode(&request())).unwrap();
        assert_eq!(read.secret, [1, 2, 3, 4, 5]);
        assert_eq!((read.name.as_str(), read.csr_der), ("till-1", vec![0x30, 0x82]));
    }

    #[test]
    fn a_pairing_answer_survives_the_wire() {
        let answer = PairAnswer {
            chain_der: vec![vec![1; 400].into(), vec![2; 300].into()],
            authority_der: vec![2; 300],
            broker_host: "box.store.example".into(),
            broker_port: 8883,
            gateway_time: Timestamp::from_millis(1_800_000_000_000),
            store: "lyon-part-dieu".parse().unwrap(),
            tenant: "grocer".parse().unwrap(),
        };
        let bytes = encode(&answer);
        assert!(bytes.len() < MAX_PAIRING_BYTES);
        assert_eq!(decode::<PairAnswer>(&bytes).unwrap(), answer);
    }

    #[test]
    fn a_pairing_request_that_is_cut_padded_or_oddly_named_is_refused() {
        let bytes = encode(&request());
        for end in 0..bytes.len() {
            assert!(decode::<PairRequest>(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(decode::<PairRequest>(&[&bytes[..], &[0]].concat()).is_err());
        let position = bytes.windows(6).position(|window| window == b"till-1").unwrap();
        let mut renamed = bytes;
        renamed[position] = b'/';
        assert!(decode::<PairRequest>(&renamed).is_err());
    }
}
