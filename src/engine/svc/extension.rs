//! The dependency descriptor as an RTP header extension: taken in and given out as bytes, since
//! what it means depends on what came before it in its stream.

use std::sync::Arc;

use str0m::rtp::{Extension, ExtensionSerializer, ExtensionValues};

/// Its name in SDP (AV1 RTP specification §A.4).
const URI: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";

/// The id str0m has it under until a client says another: one that Chromium does not use.
pub(crate) const ID: u8 = 12;

/// What the one-byte form has room for (RFC 8285 §4.2).
const ONE_BYTE_MAX: usize = 16;

/// A packet's dependency descriptor, as its publisher sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescriptorBytes(pub(crate) Arc<[u8]>);

/// The extension as str0m is told of it.
pub(crate) fn extension() -> Extension {
    Extension::with_serializer(URI, Carrier)
}

#[derive(Debug)]
struct Carrier;

impl ExtensionSerializer for Carrier {
    fn write_to(&self, buf: &mut [u8], values: &ExtensionValues) -> usize {
        let Some(DescriptorBytes(bytes)) = values.user_values.get() else {
            return 0;
        };
        let Some(room) = buf.get_mut(..bytes.len()) else {
            return 0;
        };
        room.copy_from_slice(bytes);
        bytes.len()
    }

    fn parse_value(&self, buf: &[u8], values: &mut ExtensionValues) -> bool {
        values.user_values.set(DescriptorBytes(buf.into()));
        true
    }

    fn is_video(&self) -> bool {
        true
    }

    fn is_audio(&self) -> bool {
        false
    }

    fn requires_two_byte_form(&self, values: &ExtensionValues) -> bool {
        let bytes = values.user_values.get::<DescriptorBytes>();
        bytes.is_some_and(|DescriptorBytes(bytes)| bytes.len() > ONE_BYTE_MAX)
    }
}
