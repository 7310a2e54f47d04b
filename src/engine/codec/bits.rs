//! Bits of a byte string, the highest of each byte first.

/// Reads bits.
#[derive(Debug)]
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Bits<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Up to 32 bits; `None` past the end.
    pub(crate) fn read(&mut self, count: u32) -> Option<u32> {
        let mut value = 0_u64;
        for _ in 0..count {
            let byte = self.bytes.get(self.at / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value as u32)
    }

    /// How many bits were read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn flag(&mut self) -> Option<bool> {
        self.read(1).map(|bit| bit == 1)
    }

    /// ue(v) of ITU-T H.264 §9.1, which AV1 calls uvlc(): an Exp-Golomb code below 2^32 - 1.
    pub(crate) fn exp_golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros == 32 {
                return None;
            }
        }
        let low = self.read(zeros)?;
        Some((1_u32 << zeros) - 1 + low)
    }

    /// se(v) of ITU-T H.264 §9.1.1.
    pub(crate) fn signed_exp_golomb(&mut self) -> Option<i64> {
        let code = i64::from(self.exp_golomb()?);
        Some(if code % 2 == 0 {
            -(code / 2)
        } else {
            code / 2 + 1
        })
    }

    /// ns(n) of the AV1 specification §4.10.7: a number below `n`, which is at least 1.
    pub(super) fn non_symmetric(&mut self, n: u32) -> Option<u32> {
        let (width, short) = non_symmetric(n);
        let value = self.read(width - 1)?;
        if value < short {
            return Some(value);
        }
        Some((value << 1) - short + self.read(1)?)
    }
}

/// Appends bits; what is left of the last byte is zero.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Bits of the last byte that are not written.
    free: u32,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, free: 0 }
    }

    /// The low bits of `value`.
    pub(crate) fn write(&mut self, value: u32, count: u32) {
        for place in (0..count).rev() {
            if self.free == 0 {
                self.out.push(0);
                self.free = 8;
            }
            self.free -= 1;
            let bit = (value >> place & 1) as u8;
            *self.out.last_mut().expect("pushed above") |= bit << self.free;
        }
    }

    /// As [`Bits::non_symmetric`].
    pub(super) fn non_symmetric(&mut self, value: u32, n: u32) {
        let (width, short) = non_symmetric(n);
        if value < short {
            self.write(value, width - 1);
        } else {
            self.write(value + short, width);
        }
    }
}

/// How many bits the longer numbers below `n` take, and how many numbers take one less.
const fn non_symmetric(n: u32) -> (u32, u32) {
    let width = u32::BITS - n.leading_zeros();
    (width, (1 << width) - n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut out = vec![0xAA];
        let mut writer = Writer::new(&mut out);
        for n in 1..40 {
            for value in 0..n {
                writer.non_symmetric(value, n);
            }
        }
        writer.write(u32::MAX, 32);
        let mut bits = Bits::new(&out[1..]);
        for n in 1..40 {
            for value in 0..n {
                assert_eq!(bits.non_symmetric(n), Some(value), "of {n}");
            }
        }
        assert_eq!(bits.read(32), Some(u32::MAX));
        assert!(bits.read(8).is_none());
    }

    #[test]
    fn of_five_numbers_three_take_two_bits() {
        // AV1 specification §4.10.7, the table for n = 5.
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        for value in 0..5 {
            writer.non_symmetric(value, 5);
        }
        // 00 01 10 110 111
        assert_eq!(out, [0b0001_1011, 0b0111_0000]);
    }
}
