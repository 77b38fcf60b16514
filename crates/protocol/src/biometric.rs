use zeroize::Zeroize;

macro_rules! guarded {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        pub struct $name<T: Zeroize>(T);

        impl<T: Zeroize> $name<T> {
            /// Takes the value in; the caller keeps no copy.
            pub const fn new(value: T) -> Self {
                Self(value)
            }

            /// Lends the value to the code that works on it.
            pub const fn expose(&self) -> &T {
                &self.0
            }

            /// Lends the value for change in place.
            pub const fn expose_mut(&mut self) -> &mut T {
                &mut self.0
            }
        }

        impl<T: Zeroize> Drop for $name<T> {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl<C> minicbor::Encode<C> for $name<Vec<u8>> {
            fn encode<W: minicbor::encode::Write>(
                &self,
                e: &mut minicbor::Encoder<W>,
                _: &mut C,
            ) -> Result<(), minicbor::encode::Error<W::Error>> {
                e.bytes(&self.0)?.ok()
            }
        }

        impl<'b, C> minicbor::Decode<'b, C> for $name<Vec<u8>> {
            fn decode(
                d: &mut minicbor::Decoder<'b>,
                _: &mut C,
            ) -> Result<Self, minicbor::decode::Error> {
                Ok(Self(d.bytes()?.to_vec()))
            }
        }
    };
}

guarded! {
    /// Biometric data (GDPR Art. 4(14)) in memory: wiped on drop, and without `Debug`, `Display`,
    /// `Clone` or serde, so that it cannot reach a log, a metric or a file by accident.
    /// `Biometric<Vec<u8>>` has a wire form because captures travel inside sealed envelopes.
    ///
    /// ```compile_fail
    /// println!("{:?}", palmgate_protocol::Biometric::new(vec![0u8]));
    /// ```
    /// ```compile_fail
    /// let frame = palmgate_protocol::Biometric::new(vec![0u8]);
    /// let copy = frame.clone();
    /// ```
    Biometric
}

guarded! {
    /// A key, code or personal detail in memory, guarded like [`Biometric`].
    ///
    /// ```compile_fail
    /// println!("{:?}", palmgate_protocol::Secret::new([0u8; 32]));
    /// ```
    Secret
}
