//! Card numbers have no place in the box (rule P-PCI-1).

/// Whether a text looks like a card number: 13 to 19 digits, with spaces, dots, dashes or slashes
/// between them or not, and a valid check digit (ISO/IEC 7812-1). Phone numbers in E.164 form start
/// with `+` and are none. For every text that comes in or would be written down.
pub fn looks_like_card_number(text: &[u8]) -> bool {
    if text.first() == Some(&b'+') {
        return false;
    }
    let kept: Vec<u8> = text.iter().copied().filter(|byte| !b" -./\t".contains(byte)).collect();
    let mut runs = kept.split(|byte| !byte.is_ascii_digit());
    runs.any(|digits| (13..=19).contains(&digits.len()) && luhn3::valid(digits))
}

#[cfg(test)]
mod tests {
    use super::looks_like_card_number;
    use proptest::prelude::*;

    #[test]
    fn card_numbers_are_found_and_tokens_and_phones_are_not() {
        let numbers = [
            "4111111111111111",
            "4111 1111 1111 1111",
            "tok 5500-0000-0000-0004",
            "3782.822463.10005",
            "6011/0009/9013/9424",
        ];
        for number in numbers {
            assert!(looks_like_card_number(number.as_bytes()), "{number}");
        }
        for other in ["tok_9f8e7d6c", "4111111111111112", "+33612345678901", "411111", "", "é"] {
            assert!(!looks_like_card_number(other.as_bytes()), "{other}");
        }
    }

    proptest! {
        #[test]
        fn every_text_is_looked_at_without_harm(text in proptest::collection::vec(any::<u8>(), 0..64)) {
            looks_like_card_number(&text);
        }

        /// One changed digit is noticed (ISO/IEC 7812-1).
        #[test]
        fn a_changed_digit_is_no_card_number(at in 0_usize..16, by in 1_u8..10) {
            let mut number = *b"4111111111111111";
            number[at] = b'0' + (number[at] - b'0' + by) % 10;
            prop_assert!(!looks_like_card_number(&number));
        }
    }
}
