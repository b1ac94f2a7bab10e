// SPDX-License-Identifier: Apache-2.0
//! A fuzzer's bytes, read from the front as numbers and choices. At the end all
//! are zero.

pub(crate) struct Script<'a>(pub(crate) &'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    /// A number below `end`, which is at most 256.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::from(self.byte()) % end
    }

    pub(crate) fn choose<T: Copy>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())]
    }

    pub(crate) fn word(&mut self) -> u64 {
        (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte()))
    }

    /// A number that is mostly small, and else just anything or near an end.
    pub(crate) fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small % 20),
            200..=229 => u64::from(self.byte()) << (self.byte() % 57),
            230..=239 => self.word(),
            near => {
                [0_u64, 1 << 31, 1 << 32, 1 << 63, 1 << 62][usize::from(near) % 5].wrapping_sub(u64::from(near) % 3)
            }
        }
    }

    pub(crate) fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Text of a few characters.
    pub(crate) fn text(&mut self) -> String {
        let len = self.below(6);
        String::from_utf8_lossy(self.bytes(len)).into_owned()
    }
}
