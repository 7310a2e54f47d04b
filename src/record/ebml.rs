//! EBML (RFC 8794): the elements that Matroska is made of, written and read.

/// An element's ID, as it stands in the file, marker bits and all (§5).
pub(super) type Id = u32;

/// A size that is not known when it is written (§6.2): all bits set, in 8 bytes.
pub(super) const UNKNOWN_SIZE: [u8; 8] = [0x01, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];

/// Appends an ID.
pub(super) fn append_id(out: &mut Vec<u8>, id: Id) {
    let bytes = id.to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(3);
    out.extend_from_slice(&bytes[first..]);
}

/// Appends a size in 8 bytes, so that it can be replaced in place.
pub(super) fn append_size(out: &mut Vec<u8>, size: u64) {
    out.extend(wide_size(size));
}

/// A size in 8 bytes.
pub(super) fn wide_size(size: u64) -> [u8; 8] {
    (size | 1 << 56).to_be_bytes()
}

/// Appends an element with these bytes.
pub(super) fn append_bytes(out: &mut Vec<u8>, id: Id, bytes: &[u8]) {
    append_parts(out, id, &[], bytes);
}

/// Appends an element with these bytes one after the other.
pub(super) fn append_parts(out: &mut Vec<u8>, id: Id, first: &[u8], rest: &[u8]) {
    append_id(out, id);
    append_short_size(out, first.len() + rest.len());
    out.extend_from_slice(first);
    out.extend_from_slice(rest);
}

/// Appends an element with an unsigned number.
pub(super) fn append_uint(out: &mut Vec<u8>, id: Id, number: u64) {
    let bytes = number.to_be_bytes();
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(7);
    append_bytes(out, id, &bytes[first..]);
}

/// Appends an element with an unsigned number in 8 bytes, whatever its value.
pub(super) fn append_wide_uint(out: &mut Vec<u8>, id: Id, number: u64) {
    append_bytes(out, id, &number.to_be_bytes());
}

/// Appends an element with a floating-point number.
pub(super) fn append_float(out: &mut Vec<u8>, id: Id, number: f64) {
    append_bytes(out, id, &number.to_be_bytes());
}

/// Appends an element with others in it.
pub(super) fn append_master(out: &mut Vec<u8>, id: Id, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut inside = Vec::new();
    fill(&mut inside);
    append_bytes(out, id, &inside);
}

/// The fewest bytes that hold a size; all bits set would mean an unknown one.
fn append_short_size(out: &mut Vec<u8>, size: usize) {
    let size = size as u64;
    let bytes = (1..=8).find(|n| size < (1_u64 << (7 * n)) - 1).unwrap_or(8);
    let marked = size | 1 << (7 * bytes);
    out.extend_from_slice(&marked.to_be_bytes()[8 - bytes as usize..]);
}

/// The head of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// Which.
    pub(super) id: Id,
    /// Bytes of ID and size.
    pub(super) bytes: usize,
    /// Bytes of what follows; `None` when that is not known.
    pub(super) size: Option<u64>,
}

impl Head {
    /// Reads the head at the beginning of `bytes`; `None` when it is cut short or is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let id_bytes = bytes.first()?.leading_zeros() as usize + 1;
        if id_bytes > 4 {
            return None;
        }
        let id = bytes.get(..id_bytes)?;
        let id = id.iter().fold(0, |id, byte| id << 8 | u32::from(*byte));
        let (size, size_bytes) = number(bytes.get(id_bytes..)?)?;
        Some(Self {
            id,
            bytes: id_bytes + size_bytes,
            size,
        })
    }
}

/// A number of variable width (§4) and how wide it is; `None` inside when all bits are set.
pub(super) fn number(bytes: &[u8]) -> Option<(Option<u64>, usize)> {
    let &first = bytes.first()?;
    let width = first.leading_zeros() as usize + 1;
    if width > 8 {
        return None;
    }
    let all = bytes.get(..width)?;
    let value = all
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte));
    let mask = (1_u64 << (7 * width)) - 1;
    let value = value & mask;
    Some(((value != mask).then_some(value), width))
}

/// An unsigned number as an element holds it.
pub(super) fn uint(bytes: &[u8]) -> u64 {
    let last = &bytes[bytes.len().saturating_sub(8)..];
    last.iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read_back(id in 0x81..=0xFE_u32, length in 0..40_000_usize) {
            let mut out = Vec::new();
            append_bytes(&mut out, id, &vec![7; length]);
            let head = Head::parse(&out).unwrap();
            prop_assert_eq!((head.id, head.size), (id, Some(length as u64)));
            prop_assert_eq!(head.bytes + length, out.len());
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..14)) {
            if let Some(head) = Head::parse(&bytes) {
                prop_assert!(head.bytes <= bytes.len());
            }
        }
    }

    #[test]
    fn an_unknown_size_is_told_from_a_known_one() {
        let mut out = vec![0x18, 0x53, 0x80, 0x67];
        out.extend(UNKNOWN_SIZE);
        let head = Head::parse(&out).unwrap();
        assert_eq!((head.id, head.size, head.bytes), (0x1853_8067, None, 12));
        let mut out = vec![0xEC];
        append_size(&mut out, 300);
        assert_eq!(Head::parse(&out).unwrap().size, Some(300));
    }
}
