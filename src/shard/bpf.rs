//! The two steering programs, assembled by hand: they read a datagram and name a shard.
//!
//! Both read the ICE ufrag of the server from a STUN USERNAME ("server:client", RFC 8445 §7.2.2),
//! whose first two characters are [`crate::id::ShardId::ufrag_prefix`].

use libc::sock_filter;

/// `bpf(2)` commands, from `linux/bpf.h`.
pub(super) const MAP_CREATE: i32 = 0;
pub(super) const MAP_LOOKUP_ELEM: i32 = 1;
pub(super) const MAP_UPDATE_ELEM: i32 = 2;
pub(super) const MAP_DELETE_ELEM: i32 = 3;
pub(super) const PROG_LOAD: i32 = 5;
/// Kinds of maps and programs, from `linux/bpf.h`.
pub(super) const MAP_TYPE_LRU_HASH: u32 = 9;
pub(super) const MAP_TYPE_REUSEPORT_SOCKARRAY: u32 = 20;
pub(super) const PROG_TYPE_SK_REUSEPORT: u32 = 21;

/// Bytes of a flow's key: its address as IPv6 (IPv4 mapped), its port in network order, zeros.
pub(super) const FLOW_KEY_BYTES: usize = 20;
/// STUN attributes looked at before giving up. Browsers put USERNAME first.
const ATTRIBUTES: u32 = 8;
const STUN_MAGIC: u32 = 0x2112_A442;
const STUN_HEADER_BYTES: u32 = 20;
const STUN_USERNAME: u32 = 6;
const UDP_HEADER_BYTES: i32 = 8;
/// What the classic program returns to leave the choice to the kernel's hash: no such socket.
const NO_SOCKET: u32 = u32::MAX;

/// The eBPF program: the shard that learned the sender's address, else the one whose ufrag is
/// asked for, else one by hash. Of a learned sender SRTCP goes to the shard's second
/// socket. `flows` and `sockets` are the descriptors of its maps; the second holds the sockets of
/// all shards, then their second ones.
pub(super) fn ebpf(flows: i32, sockets: i32, shards: u16) -> Vec<u64> {
    // Frame: key at -24 (address 16, port 2, zeros 2), scratch at -32, socket at -40.
    let mut p = Ebpf::default();
    p.op(MOV_REG, 6, 1, 0, 0);
    p.find_flow(flows);
    p.tell_apart(shards);
    p.find_username(shards);
    p.jump(JUMP, 0, 0, "select");
    // Not the kernel's own choice: that would be among the second sockets as well.
    p.label("hash");
    p.op(LOAD_32, 1, 6, MD_HASH, 0);
    p.op(MOD_IMM, 1, 0, 0, i32::from(shards));
    p.op(STORE_32, 10, 1, -40, 0);
    p.label("select");
    p.op(MOV_REG, 1, 6, 0, 0);
    p.load_map(2, sockets);
    p.frame_address(3, -40);
    p.op(MOV_IMM, 4, 0, 0, 0);
    p.op(CALL, 0, 0, 0, SELECT_REUSEPORT);
    // SK_PASS: to the selected socket, or to the kernel's choice when there is none such.
    p.op(MOV_IMM, 0, 0, 0, 1);
    p.op(EXIT, 0, 0, 0, 0);
    p.finish()
}

/// The classic program: the shard whose ufrag is asked for, else the kernel's hash. Its data
/// begins at the UDP payload; it has no memory of flows.
pub(super) fn cbpf() -> Vec<sock_filter> {
    let mut p = Cbpf::default();
    // A load outside the datagram ends the program with 0, which would be shard 0: check first.
    p.op(C_LENGTH, 0);
    p.jump(
        C_JUMP_GE,
        STUN_HEADER_BYTES + 6,
        Some("long enough"),
        Some("hash"),
    );
    p.label("long enough");
    p.op(C_LOAD_8, 0);
    p.jump(C_JUMP_SET, 0xC0, Some("hash"), None);
    p.op(C_LOAD_32, 4);
    p.jump(C_JUMP_EQ, STUN_MAGIC, None, Some("hash"));
    p.op(C_X_IMM, STUN_HEADER_BYTES);
    for _ in 0..ATTRIBUTES {
        // Attribute header and two characters must lie inside: length - 6 >= X.
        p.op(C_LENGTH, 0);
        p.op(C_SUB, 6);
        p.jump(C_JUMP_GE_X, 0, None, Some("hash"));
        p.op(C_LOAD_16_X, 0);
        p.jump(C_JUMP_EQ, STUN_USERNAME, Some("username"), None);
        p.op(C_LOAD_16_X, 2);
        p.op(C_ADD, 4 + 3);
        p.op(C_AND, !3);
        p.op(C_ADD_X, 0);
        p.op(C_TO_X, 0);
    }
    p.label("hash");
    p.op(C_RETURN, NO_SOCKET);
    p.label("username");
    p.digit(4, ["high letter", "high digit", "high"]);
    p.op(C_MUL, 36);
    p.op(C_STORE, 0);
    p.digit(5, ["low letter", "low digit", "low"]);
    p.op(C_X_MEMORY, 0);
    p.op(C_ADD_X, 0);
    p.op(C_RETURN_A, 0);
    p.finish()
}

// eBPF operation codes, from `linux/bpf.h`: class, source or size, operation.
const MOV_REG: u8 = 0xBF;
const MOV_IMM: u8 = 0xB7;
const ADD_REG: u8 = 0x0F;
const ADD_IMM: u8 = 0x07;
const MUL_IMM: u8 = 0x27;
const AND_IMM: u8 = 0x57;
const MOD_IMM: u8 = 0x97;
const TO_BIG_ENDIAN: u8 = 0xDC;
const LOAD_8: u8 = 0x71;
const LOAD_16: u8 = 0x69;
const LOAD_32: u8 = 0x61;
const STORE_32: u8 = 0x63;
const STORE_16_IMM: u8 = 0x6A;
const STORE_32_IMM: u8 = 0x62;
const STORE_64_IMM: u8 = 0x7A;
const LOAD_IMM_64: u8 = 0x18;
const JUMP: u8 = 0x05;
const JUMP_EQ: u8 = 0x15;
const JUMP_NE: u8 = 0x55;
const JUMP_GT: u8 = 0x25;
const JUMP_GE: u8 = 0x35;
const JUMP_LT: u8 = 0xA5;
const CALL: u8 = 0x85;
const EXIT: u8 = 0x95;
/// Source register of [`LOAD_IMM_64`] that makes its value a map's descriptor.
const PSEUDO_MAP_FD: u8 = 1;
/// Helper functions.
const MAP_LOOKUP: i32 = 1;
const LOAD_BYTES: i32 = 26;
const LOAD_NET_BYTES: i32 = 68;
const SELECT_REUSEPORT: i32 = 82;
/// Where `struct sk_reuseport_md` has the protocol of the network header, in network order, and
/// the kernel's hash of the flow.
const MD_PROTOCOL: i16 = 20;
const MD_HASH: i16 = 32;
/// `BPF_HDR_START_NET`: offsets of [`LOAD_NET_BYTES`] count from the network header.
const FROM_NETWORK_HEADER: i32 = 1;

/// An eBPF program being written; jumps name labels, resolved at the end.
#[derive(Default)]
struct Ebpf {
    code: Vec<u64>,
    labels: Vec<(&'static str, usize)>,
    jumps: Vec<(&'static str, usize)>,
}

impl Ebpf {
    /// One instruction: `struct bpf_insn` in the byte order of this machine.
    fn op(&mut self, code: u8, dst: u8, src: u8, offset: i16, immediate: i32) {
        let registers = if cfg!(target_endian = "little") {
            dst | src << 4
        } else {
            dst << 4 | src
        };
        let [o0, o1] = offset.to_ne_bytes();
        let [i0, i1, i2, i3] = immediate.to_ne_bytes();
        self.code.push(u64::from_ne_bytes([
            code, registers, o0, o1, i0, i1, i2, i3,
        ]));
    }

    fn jump(&mut self, code: u8, register: u8, immediate: i32, label: &'static str) {
        self.jumps.push((label, self.code.len()));
        self.op(code, register, 0, 0, immediate);
    }

    fn label(&mut self, name: &'static str) {
        self.labels.push((name, self.code.len()));
    }

    fn frame_address(&mut self, register: u8, offset: i32) {
        self.op(MOV_REG, register, 10, 0, 0);
        self.op(ADD_IMM, register, 0, 0, offset);
    }

    fn load_map(&mut self, register: u8, map: i32) {
        self.op(LOAD_IMM_64, register, PSEUDO_MAP_FD, 0, map);
        self.op(0, 0, 0, 0, 0);
    }

    /// Goes on with the shard that learned the sender's address, else to "stun".
    fn find_flow(&mut self, flows: i32) {
        self.op(STORE_64_IMM, 10, 0, -24, 0);
        self.op(STORE_64_IMM, 10, 0, -16, 0);
        self.op(STORE_32_IMM, 10, 0, -8, 0);
        self.load_bytes(LOAD_BYTES, 0, -8, 2, "hash");
        self.op(LOAD_32, 1, 6, MD_PROTOCOL, 0);
        self.jump(JUMP_EQ, 1, i32::from(0x0800_u16.to_be()), "v4");
        self.jump(JUMP_NE, 1, i32::from(0x86DD_u16.to_be()), "hash");
        self.load_bytes(LOAD_NET_BYTES, 8, -24, 16, "hash");
        self.jump(JUMP, 0, 0, "find");
        self.label("v4");
        self.op(STORE_16_IMM, 10, 0, -14, 0xFFFF);
        self.load_bytes(LOAD_NET_BYTES, 12, -12, 4, "hash");
        self.label("find");
        self.load_map(1, flows);
        self.frame_address(2, -24);
        self.op(CALL, 0, 0, 0, MAP_LOOKUP);
        self.jump(JUMP_EQ, 0, 0, "stun");
        self.op(LOAD_32, 1, 0, 0, 0);
        self.op(STORE_32, 10, 1, -40, 0);
    }

    /// Goes to "select", with the second socket for RTCP: packet types 192 to 223 where RTP has
    /// its payload type (RFC 7983 §7, RFC 5761 §4).
    fn tell_apart(&mut self, shards: u16) {
        self.load_bytes(LOAD_BYTES, UDP_HEADER_BYTES, -32, 2, "select");
        self.op(LOAD_8, 1, 10, -32, 0);
        self.op(AND_IMM, 1, 0, 0, 0xC0);
        self.jump(JUMP_NE, 1, 0x80, "select");
        self.op(LOAD_8, 1, 10, -31, 0);
        self.op(AND_IMM, 1, 0, 0, 0xE0);
        self.jump(JUMP_NE, 1, 0xC0, "select");
        self.op(LOAD_32, 1, 10, -40, 0);
        self.op(ADD_IMM, 1, 0, 0, i32::from(shards));
        self.op(STORE_32, 10, 1, -40, 0);
        self.jump(JUMP, 0, 0, "select");
    }

    /// Goes to "select" with the shard whose ufrag the datagram asks for, else to "hash".
    fn find_username(&mut self, shards: u16) {
        self.label("stun");
        self.load_bytes(LOAD_BYTES, UDP_HEADER_BYTES, -32, 8, "hash");
        self.op(LOAD_32, 1, 10, -28, 0);
        self.op(TO_BIG_ENDIAN, 1, 0, 0, 32);
        self.jump(JUMP_NE, 1, STUN_MAGIC as i32, "hash");
        self.op(LOAD_8, 1, 10, -32, 0);
        self.op(AND_IMM, 1, 0, 0, 0xC0);
        self.jump(JUMP_NE, 1, 0, "hash");
        // r7: offset of the attribute. Unrolled, because a verifier that follows speculation (any
        // process without CAP_PERFMON) follows a loop beyond its end and gives up.
        self.op(
            MOV_IMM,
            7,
            0,
            0,
            UDP_HEADER_BYTES + STUN_HEADER_BYTES as i32,
        );
        for _ in 0..ATTRIBUTES {
            self.load_attribute();
            self.op(LOAD_16, 1, 10, -32, 0);
            self.op(TO_BIG_ENDIAN, 1, 0, 0, 16);
            self.jump(JUMP_EQ, 1, STUN_USERNAME as i32, "username");
            self.op(LOAD_16, 1, 10, -30, 0);
            self.op(TO_BIG_ENDIAN, 1, 0, 0, 16);
            self.op(ADD_IMM, 1, 0, 0, 4 + 3);
            self.op(AND_IMM, 1, 0, 0, !3);
            self.op(ADD_REG, 7, 1, 0, 0);
        }
        self.jump(JUMP, 0, 0, "hash");

        self.label("username");
        self.digit(1, -28, ["high letter", "high"]);
        self.digit(2, -27, ["low letter", "low"]);
        self.op(MUL_IMM, 1, 0, 0, 36);
        self.op(ADD_REG, 1, 2, 0, 0);
        self.jump(JUMP_GE, 1, i32::from(shards), "hash");
        self.op(STORE_32, 10, 1, -40, 0);
    }

    /// Copies bytes of the datagram to the frame, or goes to `missing`.
    fn load_bytes(&mut self, helper: i32, from: i32, to: i32, bytes: i32, missing: &'static str) {
        self.op(MOV_IMM, 2, 0, 0, from);
        self.load_bytes_from_r2(helper, to, bytes, missing);
    }

    /// Copies the attribute at r7 (type, length, two bytes of value) to the frame at -32.
    fn load_attribute(&mut self) {
        self.op(MOV_REG, 2, 7, 0, 0);
        self.load_bytes_from_r2(LOAD_BYTES, -32, 6, "hash");
    }

    fn load_bytes_from_r2(&mut self, helper: i32, to: i32, bytes: i32, missing: &'static str) {
        self.op(MOV_REG, 1, 6, 0, 0);
        self.frame_address(3, to);
        self.op(MOV_IMM, 4, 0, 0, bytes);
        self.op(MOV_IMM, 5, 0, 0, FROM_NETWORK_HEADER);
        self.op(CALL, 0, 0, 0, helper);
        self.jump(JUMP_NE, 0, 0, missing);
    }

    /// Reads a base 36 digit of the frame into a register; anything else goes by hash.
    fn digit(&mut self, register: u8, at: i16, [letter, end]: [&'static str; 2]) {
        self.op(LOAD_8, register, 10, at, 0);
        self.jump(JUMP_GE, register, i32::from(b'a'), letter);
        self.jump(JUMP_LT, register, i32::from(b'0'), "hash");
        self.jump(JUMP_GT, register, i32::from(b'9'), "hash");
        self.op(ADD_IMM, register, 0, 0, -i32::from(b'0'));
        self.jump(JUMP, 0, 0, end);
        self.label(letter);
        self.jump(JUMP_GT, register, i32::from(b'z'), "hash");
        self.op(ADD_IMM, register, 0, 0, 10 - i32::from(b'a'));
        self.label(end);
    }

    fn finish(mut self) -> Vec<u64> {
        for (label, at) in self.jumps {
            let distance = position(&self.labels, label) as i64 - at as i64 - 1;
            let [low, high] = i16::try_from(distance)
                .expect("a short program")
                .to_ne_bytes();
            let mut instruction = self.code[at].to_ne_bytes();
            instruction[2..4].copy_from_slice(&[low, high]);
            self.code[at] = u64::from_ne_bytes(instruction);
        }
        self.code
    }
}

// Classic BPF operation codes, from `linux/bpf_common.h`.
const C_LOAD_8: u16 = 0x30;
const C_LOAD_32: u16 = 0x20;
const C_LENGTH: u16 = 0x80;
const C_LOAD_8_X: u16 = 0x50;
const C_LOAD_16_X: u16 = 0x48;
const C_X_IMM: u16 = 0x01;
const C_X_MEMORY: u16 = 0x61;
const C_STORE: u16 = 0x02;
const C_ADD: u16 = 0x04;
const C_SUB: u16 = 0x14;
const C_MUL: u16 = 0x24;
const C_AND: u16 = 0x54;
const C_ADD_X: u16 = 0x0C;
const C_TO_X: u16 = 0x07;
const C_JUMP_EQ: u16 = 0x15;
const C_JUMP_GT: u16 = 0x25;
const C_JUMP_GE: u16 = 0x35;
const C_JUMP_GE_X: u16 = 0x3D;
const C_JUMP_SET: u16 = 0x45;
const C_RETURN: u16 = 0x06;
const C_RETURN_A: u16 = 0x16;

/// A classic BPF program being written; its jumps lead forward only.
#[derive(Default)]
struct Cbpf {
    code: Vec<sock_filter>,
    labels: Vec<(&'static str, usize)>,
    /// Where to when the condition holds and when not; `None` is the next instruction.
    jumps: Vec<([Option<&'static str>; 2], usize)>,
}

impl Cbpf {
    fn op(&mut self, code: u16, k: u32) {
        self.code.push(sock_filter {
            code,
            jt: 0,
            jf: 0,
            k,
        });
    }

    fn jump(&mut self, code: u16, k: u32, yes: Option<&'static str>, no: Option<&'static str>) {
        self.jumps.push(([yes, no], self.code.len()));
        self.op(code, k);
    }

    fn label(&mut self, name: &'static str) {
        self.labels.push((name, self.code.len()));
    }

    /// Reads a base 36 digit at X + `at`; anything else goes by hash.
    fn digit(&mut self, at: u32, [letter, digit, end]: [&'static str; 3]) {
        self.op(C_LOAD_8_X, at);
        self.jump(C_JUMP_GE, u32::from(b'a'), Some(letter), None);
        self.jump(C_JUMP_GT, u32::from(b'9'), Some("no digit"), None);
        self.jump(C_JUMP_GE, u32::from(b'0'), Some(digit), Some("no digit"));
        self.label(letter);
        self.jump(C_JUMP_GT, u32::from(b'z'), Some("no digit"), None);
        self.op(C_SUB, u32::from(b'a') - 10);
        self.jump(C_JUMP_GE, 0, Some(end), None);
        self.label(digit);
        self.op(C_SUB, u32::from(b'0'));
        self.label(end);
    }

    fn finish(mut self) -> Vec<sock_filter> {
        self.label("no digit");
        self.op(C_RETURN, NO_SOCKET);
        for ([yes, no], at) in self.jumps {
            let distance = |label: Option<&'static str>| {
                let to = label.map_or(at + 1, |label| position(&self.labels, label));
                u8::try_from(to - at - 1).expect("a short program whose jumps lead forward")
            };
            (self.code[at].jt, self.code[at].jf) = (distance(yes), distance(no));
        }
        self.code
    }
}

fn position(labels: &[(&'static str, usize)], name: &str) -> usize {
    let found = labels.iter().find(|(label, _)| *label == name);
    found.expect("every jump has its label").1
}
