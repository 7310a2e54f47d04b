//! Every bound of the engine in one place, with its unit and what happens at it.

use std::time::Duration;

/// Peers of one shard. A join beyond it is refused with `Full`.
pub const SHARD_PEERS: usize = 10_000;

/// m-lines of one peer. An offer with more is refused.
pub const PEER_MEDIA_LINES: usize = 128;

/// Bytes of one session description. A longer one is refused before it is parsed.
pub const OFFER_BYTES: usize = 256 * 1024;

/// Candidates a peer may trickle. Further ones are ignored: an ICE-lite server needs none.
pub const PEER_CANDIDATES: u32 = 64;

/// Remote addresses of one peer. The one learned first makes room for the next.
pub const PEER_ADDRESSES: usize = 8;

/// Addresses other shards own, as told by them. When full, a new one is not remembered and its
/// datagrams are dropped until the client's next STUN request names its shard again.
pub const FOREIGN_ADDRESSES: usize = 200_000;

/// Media packets taken in within one turn. Beyond it the newest is dropped and counted: the
/// publishers' retransmission brings it back.
pub const TURN_PACKETS: usize = 8192;

/// Packets that wait for one peer's pacer: a quarter of a second of 77 Mbit/s. Beyond it they are
/// dropped, and what plays to the peer goes on with keyframes.
pub const WAITING_PACKETS: usize = 2048;

/// Data channels of one peer. A further one of its client is closed; the server opens no more.
pub const PEER_CHANNELS: usize = 32;

/// Bytes of a data channel's label. One with a longer label is closed.
pub const CHANNEL_LABEL_BYTES: usize = 256;

/// Bytes of data channel messages that str0m holds for one peer: two of the longest.
pub const CHANNEL_SENDING_BYTES: usize = 512 * 1024;

/// Bytes of data channel messages that wait beyond that. Then those are lost that may be, and
/// otherwise the newest; the peer is told.
pub const CHANNEL_WAITING_BYTES: usize = 4 * 1024 * 1024;

/// Streams (SSRCs) that one peer sends. Of more the one not heard for longest is forgotten.
pub const PEER_STREAMS: usize = 256;

/// Layers (RIDs) of one track. Packets of further ones are dropped.
pub const TRACK_LAYERS: usize = 4;

/// Bytes of sealed packets that lie ready. Beyond it the shard sends what there is before more is
/// written: into the same memory, which the kernel has just read and no cache has lost.
pub const ARENA_BYTES: usize = 128 << 10;

/// Datagrams of one run (`UDP_MAX_SEGMENTS` of kernels before 6.9). A longer one becomes two.
pub const RUN_SEGMENTS: usize = 64;

/// Bytes of one run, which is one IPv4 datagram until the device cuts it up.
pub const RUN_BYTES: usize = 65_507;

/// From a peer's first offer to ICE and DTLS being up. Then the peer is closed.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// From the last STUN request of a pair to str0m giving it up (crate `is`, `pair.rs`,
/// `RECENT_BINDING_REQUEST`). Before that it has nothing to find out about pairs.
pub const PAIR_EXPIRES: Duration = Duration::from_secs(15);

/// From lost connectivity (no STUN for 15 s) to giving the peer up. In between an ICE restart
/// brings it back.
pub const LOST_TIMEOUT: Duration = Duration::from_secs(30);

const _: () = assert!(
    PEER_MEDIA_LINES <= u8::MAX as usize,
    "slots are counted in a byte"
);
