//! Values that are checked while they are read: a range, an address, a choice.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::record::template::Template;

/// A whole number from `MIN` to `MAX`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole<const MIN: u64, const MAX: u64>(u64);

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    /// A number known to be in range: the defaults are made with it.
    ///
    /// # Panics
    ///
    /// When it is not in range; in a constant that stops the build.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        assert!(MIN <= number && number <= MAX, "out of range");
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn value(self) -> u64 {
        self.0
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Whole<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Whole<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InRange<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> Visitor<'_> for InRange<MIN, MAX> {
            type Value = u64;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<u64, E> {
                if (MIN..=MAX).contains(&number) {
                    return Ok(number);
                }
                Err(E::invalid_value(Unexpected::Unsigned(number), &self))
            }
        }
        let number = deserializer.deserialize_any(InRange::<MIN, MAX>)?;
        Ok(Self(number))
    }
}

/// How many threads forward media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shards {
    /// One for each core the process may use.
    #[default]
    Auto,
    /// This many.
    Count(u16),
}

impl Shards {
    /// More threads than this on one machine is a typing error.
    pub const MAX: u16 = 256;
}

/// An address and a port to listen on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint(pub SocketAddr);

/// Where ICE-TCP listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tcp {
    /// On the port after the UDP one.
    #[default]
    Auto,
    /// Nowhere.
    Off,
    /// Here.
    At(SocketAddr),
}

/// An address to listen on, without the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Host(pub IpAddr);

/// What clients are told as the server's media address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Announced {
    /// The address the server listens on or, when that is all of them, each of its own.
    #[default]
    Auto,
    /// These, with the UDP port the server listens on.
    Addresses(Vec<IpAddr>),
}

/// Where a STUN or TURN server is: `stun:`, `stuns:`, `turn:` or `turns:`, then a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceUrl(String);

impl IceUrl {
    /// The address as it is written in an `RTCIceServer`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Something that nobody may read in a log. Empty for none.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// A secret of this text.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

/// The name of an HTTP header (RFC 9110 §5.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderField(String);

impl HeaderField {
    /// The name as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for HeaderField {
    fn default() -> Self {
        Self("X-Auth-Token".to_owned())
    }
}

/// The origin of a page (RFC 6454 §6.2), or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Every origin.
    #[must_use]
    pub fn any() -> Self {
        Self("*".to_owned())
    }

    /// As browsers write it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Scalar for Template {
    const EXPECTED: &'static str = "a path made of letters, digits, '-', '_', '.', {room}, \
                                    {date}, {time} and, in any case, {id}";

    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn text(&self) -> String {
        self.as_str().to_owned()
    }
}

/// An object store that recordings are uploaded to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Upload {
    /// None.
    #[default]
    Nowhere,
    /// A bucket of Google Cloud Storage.
    Google(String),
    /// A container of Azure's.
    Azure(String),
}

impl Scalar for Upload {
    const EXPECTED: &'static str = "nothing, gs://BUCKET or az://CONTAINER";

    fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::Nowhere);
        }
        let (scheme, name) = text.split_once("://")?;
        let is_legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(is_legal) {
            return None;
        }
        match scheme {
            "gs" => Some(Self::Google(name.to_owned())),
            "az" => Some(Self::Azure(name.to_owned())),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Nowhere => String::new(),
            Self::Google(name) => format!("gs://{name}"),
            Self::Azure(name) => format!("az://{name}"),
        }
    }
}

/// A value that the file writes as one piece of text (or a number), checked by `parse`.
pub(crate) trait Scalar: Sized {
    /// What is allowed, to follow "expected".
    const EXPECTED: &'static str;

    /// Reads the text; `None` when it is not what [`Scalar::EXPECTED`] says.
    fn parse(text: &str) -> Option<Self>;

    /// Writes what [`Scalar::parse`] reads.
    fn text(&self) -> String;
}

impl Scalar for Shards {
    const EXPECTED: &'static str = "`auto` or a whole number from 1 to 256";

    fn parse(text: &str) -> Option<Self> {
        if text == "auto" {
            return Some(Self::Auto);
        }
        let count = text.parse().ok()?;
        (1..=Self::MAX)
            .contains(&count)
            .then_some(Self::Count(count))
    }

    fn text(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Count(count) => count.to_string(),
        }
    }
}

/// A delay that another option says, unless this one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Delay {
    /// As the other option.
    #[default]
    Auto,
    /// So many milliseconds.
    Milliseconds(u32),
}

impl Scalar for Delay {
    const EXPECTED: &'static str = "`auto` or a whole number of milliseconds from 0 to 60000";

    fn parse(text: &str) -> Option<Self> {
        if text == "auto" {
            return Some(Self::Auto);
        }
        let number = text.parse().ok()?;
        (number <= 60_000).then_some(Self::Milliseconds(number))
    }

    fn text(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Milliseconds(number) => number.to_string(),
        }
    }
}

impl Scalar for Endpoint {
    const EXPECTED: &'static str =
        "an IP address and a port, such as 0.0.0.0:10000 or \"[::]:10000\"";

    fn parse(text: &str) -> Option<Self> {
        let text = text
            .strip_prefix("localhost:")
            .map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
        text.parse().ok().map(Self)
    }

    fn text(&self) -> String {
        self.0.to_string()
    }
}

impl Scalar for Tcp {
    const EXPECTED: &'static str = "`auto`, `off`, or an IP address and a port";

    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "off" => Some(Self::Off),
            _ => Endpoint::parse(text).map(|endpoint| Self::At(endpoint.0)),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Off => "off".to_owned(),
            Self::At(address) => address.to_string(),
        }
    }
}

impl Scalar for Host {
    const EXPECTED: &'static str = "an IP address, such as 0.0.0.0 (all IPv4 addresses), \
                                    \"::\" (all of IPv4 and IPv6) or 127.0.0.1 (this machine)";

    fn parse(text: &str) -> Option<Self> {
        if text == "localhost" {
            return Some(Self(Ipv4Addr::LOCALHOST.into()));
        }
        text.parse().ok().map(Self)
    }

    fn text(&self) -> String {
        self.0.to_string()
    }
}

impl Scalar for Announced {
    const EXPECTED: &'static str =
        "`auto`, or the IP address clients can reach (several are separated by commas)";

    fn parse(text: &str) -> Option<Self> {
        if text == "auto" {
            return Some(Self::Auto);
        }
        let addresses: Option<Vec<IpAddr>> = text
            .split(',')
            .map(|address| address.trim().parse().ok())
            .collect();
        let addresses = addresses?;
        let reachable = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
        (addresses.len() <= 8 && addresses.iter().all(reachable))
            .then_some(Self::Addresses(addresses))
    }

    fn text(&self) -> String {
        match self {
            Self::Auto => "auto".to_owned(),
            Self::Addresses(addresses) => {
                let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
                texts.join(",")
            }
        }
    }
}

impl Scalar for IceUrl {
    const EXPECTED: &'static str = "a STUN or TURN address, such as stun:stun.example.org:3478 \
                                    or turn:turn.example.org:3478?transport=udp";

    fn parse(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once(':')?;
        let known = matches!(scheme, "stun" | "stuns" | "turn" | "turns");
        let clean = !host.is_empty() && !host.contains(char::is_whitespace);
        (known && clean).then(|| Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl Scalar for Secret {
    const EXPECTED: &'static str = "a text";

    fn parse(text: &str) -> Option<Self> {
        Some(Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl Scalar for HeaderField {
    const EXPECTED: &'static str = "the name of an HTTP header, such as X-Auth-Token";

    fn parse(text: &str) -> Option<Self> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        let fits = !text.is_empty() && text.len() <= 64 && text.bytes().all(legal);
        fits.then(|| Self(text.to_owned()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

impl Scalar for Origin {
    const EXPECTED: &'static str = "`*`, or an origin such as https://call.example.org:8443";

    fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::any());
        }
        let (scheme, host) = text.split_once("://")?;
        let clean = !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']);
        let known = matches!(scheme, "http" | "https") && text.is_ascii();
        (known && clean).then(|| Self(text.to_ascii_lowercase()))
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// Gives a [`Scalar`] its serde and `FromStr` forms.
macro_rules! scalar {
    ($($value:ty),*) => {$(
        impl Serialize for $value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.text())
            }
        }

        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(ScalarVisitor(std::marker::PhantomData))
            }
        }

        impl std::str::FromStr for $value {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                Self::parse(text).ok_or_else(|| format!("expected {}", Self::EXPECTED))
            }
        }
    )*};
}

scalar!(
    Shards,
    Delay,
    Endpoint,
    Tcp,
    Host,
    Announced,
    IceUrl,
    Secret,
    HeaderField,
    Origin,
    Template,
    Upload
);

struct ScalarVisitor<T>(std::marker::PhantomData<T>);

impl<T: Scalar> Visitor<'_> for ScalarVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::parse(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        T::parse(&number.to_string())
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scalar_reads_what_it_writes() {
        for text in ["auto", "1", "256"] {
            assert_eq!(Shards::parse(text).unwrap().text(), text);
        }
        for text in ["auto", "203.0.113.9", "203.0.113.9,2001:db8::1"] {
            assert_eq!(Announced::parse(text).unwrap().text(), text);
        }
        assert_eq!(Endpoint::parse("[::]:10000").unwrap().text(), "[::]:10000");
        assert_eq!(
            Endpoint::parse("localhost:1").unwrap().text(),
            "127.0.0.1:1"
        );
        assert_eq!(Host::parse("localhost").unwrap().text(), "127.0.0.1");
    }

    #[test]
    fn an_impossible_scalar_is_refused() {
        for text in ["0", "257", "-1", "two", ""] {
            assert_eq!(Shards::parse(text), None, "{text}");
        }
        for text in ["0.0.0.0", "::", "224.0.0.1", "example.org", ""] {
            assert_eq!(Announced::parse(text), None, "{text}");
        }
        for text in ["http:example.org", "stun:", "stun", "stun:a b"] {
            assert_eq!(IceUrl::parse(text), None, "{text}");
        }
        assert_eq!(Endpoint::parse("10000"), None);
    }

    #[test]
    fn a_number_out_of_range_is_refused_with_the_range() {
        let error = serde_yaml::from_str::<Whole<1, 9>>("10").unwrap_err();
        assert!(
            error.to_string().contains("a whole number from 1 to 9"),
            "{error}"
        );
        assert_eq!(
            serde_yaml::from_str::<Whole<1, 9>>("9").unwrap(),
            Whole::new(9)
        );
        assert!(serde_yaml::from_str::<Whole<1, 9>>("1.5").is_err());
        assert!(serde_yaml::from_str::<Whole<1, 9>>("'5'").is_err());
    }
}
