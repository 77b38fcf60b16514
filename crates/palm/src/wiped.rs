use pulp::bytemuck::{Pod, cast_slice_mut, pod_align_to_mut};
use std::ops::{Deref, DerefMut};
use zeroize::Zeroize;

/// Values that are wiped when dropped, eight bytes at a time: `Zeroizing<Vec<_>>` takes them one by
/// one, which is felt where a picture is bytes.
pub(crate) struct Wiped<T: Pod>(Vec<T>);

impl<T: Pod> Wiped<T> {
    /// Takes over `values`; what lies in memory that they grew out of stays there.
    pub(crate) const fn new(values: Vec<T>) -> Self {
        Self(values)
    }

    pub(crate) fn zeros(length: usize) -> Self {
        Self(vec![T::zeroed(); length])
    }
}

impl<T: Pod> Deref for Wiped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Pod> DerefMut for Wiped<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl<T: Pod> Clone for Wiped<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Pod> Drop for Wiped<T> {
    fn drop(&mut self) {
        let (head, words, tail) = pod_align_to_mut::<u8, u64>(cast_slice_mut(&mut self.0));
        head.zeroize();
        words.zeroize();
        tail.zeroize();
    }
}
