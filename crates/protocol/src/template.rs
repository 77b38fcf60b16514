use zeroize::{Zeroize, ZeroizeOnDrop};

/// Dimensions of an [`Embedding`].
pub const EMBEDDING_DIMENSIONS: usize = 256;
/// Parts of the palm that a [`Code`] is made of: upper left, upper right, lower left, lower right.
pub const QUADRANTS: usize = 4;
/// Bytes of one quadrant's part of a [`Code`]: 256 index-of-maximum hashes of two bits.
pub const QUADRANT_BYTES: usize = 64;
/// Bytes of one [`Code`].
pub const CODE_BYTES: usize = QUADRANTS * QUADRANT_BYTES;
/// Codes in one [`Template`]: one for each enrolment capture of a hand.
pub const CODES_PER_TEMPLATE: usize = 3;
/// Shifts of a probe along one axis, one cell of the code's grid apart; the middle one is none.
pub const SHIFTS: usize = 13;
/// Codes of a probe for one turn of the palm: one for each shift, row by row.
pub const CODES_PER_TURN: usize = SHIFTS * SHIFTS;
/// Turns of the palm in one [`Probe`] at most.
pub const MAX_PROBE_TURNS: usize = 3;
/// Codes in one [`Probe`] at most.
pub const MAX_PROBE_CODES: usize = MAX_PROBE_TURNS * CODES_PER_TURN;
/// Bytes of a [`Template`] on the wire and at rest.
pub const TEMPLATE_BYTES: usize = EMBEDDING_DIMENSIONS + CODES_PER_TEMPLATE * CODE_BYTES;
/// Version of the template layout and of the models behind it; templates of different formats
/// cannot be compared.
pub const TEMPLATE_FORMAT: u16 = 5;

/// A unit vector after the keyed orthonormal transform, each component times 127·√8 rounded and
/// clamped to −127…127: similar hands point the same way, under the same tenant and purpose only.
pub type Embedding = [i8; EMBEDDING_DIMENSIONS];
/// Keyed index-of-maximum hashes of the palm's line code, [`QUADRANT_BYTES`] a quadrant: hash `i` of
/// a quadrant is the two bits at `2 (i mod 4)` of its byte `i / 4`. Quadrants are compared each by
/// itself; the similarity of two is their share of equal hashes, ¼ by chance.
pub type Code = [u8; CODE_BYTES];

/// A protected biometric reference (ISO/IEC 24745) of one hand for one tenant and purpose.
/// Wiped on drop; not printable, not clonable.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Template {
    /// Mean embedding of the enrolment captures.
    pub embedding: Embedding,
    /// The code of each enrolment capture; the last is repeated when there were fewer.
    pub codes: [Code; CODES_PER_TEMPLATE],
}

/// A protected biometric probe: one capture, with its code hashed at every alignment searched.
/// Wiped on drop; not printable, not clonable.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Probe {
    /// The capture's embedding.
    pub embedding: Embedding,
    /// For one to [`MAX_PROBE_TURNS`] turns of the palm, the code at every shift.
    pub codes: Vec<Code>,
}

/// The bytes are no template or probe of this format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// Not the length that the format asks for.
    #[error("a template or probe of the wrong length")]
    Length,
    /// The embedding is not near unit length, so every similarity would be off.
    #[error("a template or probe whose embedding is not of unit length")]
    Norm,
}

impl Template {
    /// The template's bytes: embedding, then codes. For sealing only.
    pub fn to_bytes(&self) -> super::Biometric<Vec<u8>> {
        super::Biometric::new(join(&self.embedding, &self.codes))
    }

    /// Reads what [`Template::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`TemplateError`] when the length or the norm is wrong; nothing is kept.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TemplateError> {
        let (embedding, codes) = split(bytes)?;
        let codes = codes.try_into().map_err(|_| TemplateError::Length)?;
        Ok(Self { embedding, codes })
    }

    /// A second copy in memory, wiped on its own. Deliberately not `Clone`.
    #[must_use]
    pub const fn duplicate(&self) -> Self {
        Self { embedding: self.embedding, codes: self.codes }
    }
}

impl Probe {
    /// Every probe is padded to this size before it is sealed, so that its number of codes does not
    /// show: the largest one with its padding (ISO/IEC 7816-4).
    pub const PADDED_BYTES: usize =
        (EMBEDDING_DIMENSIONS + MAX_PROBE_CODES * CODE_BYTES + 1).next_multiple_of(1024);

    /// The probe's bytes: embedding, then codes. For sealing only.
    pub fn to_bytes(&self) -> super::Biometric<Vec<u8>> {
        super::Biometric::new(join(&self.embedding, &self.codes))
    }

    /// Reads what [`Probe::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`TemplateError`] when the length or the norm is wrong; nothing is kept.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TemplateError> {
        let (embedding, codes) = split(bytes)?;
        let turns = codes.len() / CODES_PER_TURN;
        if codes.len() % CODES_PER_TURN != 0 || !(1..=MAX_PROBE_TURNS).contains(&turns) {
            return Err(TemplateError::Length);
        }
        Ok(Self { embedding, codes: codes.to_vec() })
    }
}

fn join(embedding: &Embedding, codes: &[Code]) -> Vec<u8> {
    embedding
        .iter()
        .map(|component| component.cast_unsigned())
        .chain(codes.iter().flatten().copied())
        .collect()
}

fn split(bytes: &[u8]) -> Result<(Embedding, &[Code]), TemplateError> {
    let (head, tail) =
        bytes.split_first_chunk::<EMBEDDING_DIMENSIONS>().ok_or(TemplateError::Length)?;
    let (codes, rest) = tail.as_chunks::<CODE_BYTES>();
    if !rest.is_empty() {
        return Err(TemplateError::Length);
    }
    let embedding = head.map(u8::cast_signed);
    if !(UNIT * 4 / 5..=UNIT * 6 / 5).contains(&norm(&embedding)) {
        return Err(TemplateError::Norm);
    }
    Ok((embedding, codes))
}

/// Squared length of a unit vector in units of the quantisation: (127·√8)².
const UNIT: i32 = 127 * 127 * 8;

fn norm(embedding: &Embedding) -> i32 {
    embedding.iter().map(|&component| i32::from(component) * i32::from(component)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_survives_its_bytes_and_a_wrong_one_is_refused() {
        let template =
            Template { embedding: [22; EMBEDDING_DIMENSIONS], codes: [[7; CODE_BYTES]; 3] };
        let bytes = template.to_bytes();
        assert_eq!(bytes.expose().len(), TEMPLATE_BYTES);
        assert!(Template::from_bytes(bytes.expose()).unwrap().codes == template.codes);
        assert!(matches!(Template::from_bytes(&bytes.expose()[1..]), Err(TemplateError::Length)));
        assert!(matches!(Template::from_bytes(&[]), Err(TemplateError::Length)));
        assert!(matches!(Template::from_bytes(&[0; TEMPLATE_BYTES]), Err(TemplateError::Norm)));
    }

    #[test]
    fn a_probe_has_every_shift_of_one_to_three_turns() {
        for codes in [0, 1, CODES_PER_TURN, CODES_PER_TURN + 1, MAX_PROBE_CODES, 4 * CODES_PER_TURN]
        {
            let probe = Probe {
                embedding: [22; EMBEDDING_DIMENSIONS],
                codes: vec![[5; CODE_BYTES]; codes],
            };
            let read = Probe::from_bytes(probe.to_bytes().expose());
            match codes {
                CODES_PER_TURN | MAX_PROBE_CODES => assert!(read.unwrap().codes == probe.codes),
                _ => assert!(matches!(read, Err(TemplateError::Length))),
            }
        }
    }
}
