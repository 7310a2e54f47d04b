//! Which address a request comes from when proxies stand before us. Pure.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;

/// The proxies whose word counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Proxies(Vec<Net>);

/// The addresses that begin with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Net {
    /// In IPv6; IPv4 addresses are mapped (RFC 4291 §2.5.5.2).
    first: u128,
    mask: u128,
}

/// What each proxy adds the address to that it was called from.
const FORWARDED_FOR: &str = "x-forwarded-for";

impl Proxies {
    /// Reads addresses, and networks such as `10.0.0.0/8`.
    ///
    /// # Errors
    ///
    /// The first that is neither, as the end of a sentence.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let net = |text| {
            let what =
                || format!("`{text}` is neither an address nor a network such as 10.0.0.0/8");
            Net::parse(text).ok_or_else(what)
        };
        let nets: Result<_, String> = texts.into_iter().map(net).collect();
        Ok(Self(nets?))
    }

    /// Where a request comes from that reached us from `remote`: that, or, as long as that is a
    /// proxy of ours, what it says of where it was called from.
    #[must_use]
    pub fn client(&self, remote: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = remote;
        let values = headers.get_all(FORWARDED_FOR).iter();
        let told: Vec<&str> = values
            .map(|value| value.to_str().unwrap_or_default())
            .flat_map(|value| value.split(','))
            .collect();
        // The nearest proxy wrote the last. Whatever a stranger wrote stands before that.
        for text in told.into_iter().rev().map(str::trim) {
            if !self.contain(client) {
                break;
            }
            let port = || text.parse::<SocketAddr>().map(|at| at.ip());
            let Ok(address) = text.parse().or_else(|_| port()) else {
                break;
            };
            client = address;
        }
        client
    }

    fn contain(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.0.iter().any(|net| bits & net.mask == net.first)
    }
}

impl Net {
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = match text.split_once('/') {
            None => (text.parse::<IpAddr>().ok()?, None),
            Some((address, length)) => (address.parse().ok()?, Some(length.parse::<u32>().ok()?)),
        };
        let width = if address.is_ipv4() { 32 } else { 128 };
        let length = length.unwrap_or(width);
        let fixed = (length <= width).then(|| 128 - width + length)?;
        let mask = u128::MAX.checked_shl(128 - fixed).unwrap_or(0);
        let first = bits(address) & mask;
        Some(Self { first, mask })
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderName, HeaderValue};

    use super::*;

    fn client(remote: &str, forwarded: &[&'static str]) -> String {
        let proxies = Proxies::parse(["10.0.0.0/8", "::1", "2001:db8::/32"]).unwrap();
        let header = |text: &&'static str| {
            let name = HeaderName::from_static(FORWARDED_FOR);
            (name, HeaderValue::from_static(text))
        };
        let mut headers = HeaderMap::new();
        headers.extend(forwarded.iter().map(header));
        proxies
            .client(remote.parse().unwrap(), &headers)
            .to_string()
    }

    #[test]
    fn only_a_listed_proxy_is_believed_and_only_what_it_wrote_itself() {
        for (remote, forwarded, expected) in [
            ("192.0.2.1", &["198.51.100.7"][..], "192.0.2.1"),
            ("10.1.2.3", &[], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.7"], "198.51.100.7"),
            ("::ffff:10.1.2.3", &["198.51.100.7:4711"], "198.51.100.7"),
            ("::1", &["2001:db9::7"], "2001:db9::7"),
            // The client wrote the first itself.
            ("10.1.2.3", &["127.0.0.1, 198.51.100.7"], "198.51.100.7"),
            ("10.1.2.3", &["127.0.0.1", "198.51.100.7"], "198.51.100.7"),
            // Through two proxies of ours.
            (
                "10.1.2.3",
                &["1.1.1.1, 198.51.100.7, 2001:db8::5"],
                "198.51.100.7",
            ),
            ("10.1.2.3", &["nonsense"], "10.1.2.3"),
            ("10.1.2.3", &["198.51.100.7, nonsense"], "10.1.2.3"),
        ] {
            assert_eq!(
                client(remote, forwarded),
                expected,
                "{remote} {forwarded:?}"
            );
        }
    }

    #[test]
    fn what_is_no_network_is_not_taken() {
        for bad in [
            "",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "proxy.example.org",
            "10.0.0.1/x",
        ] {
            assert!(Proxies::parse([bad]).is_err(), "{bad}");
        }
        let everyone = Proxies::parse(["::/0"]).unwrap();
        assert!(everyone.contain(IpAddr::from([192, 0, 2, 1])));
    }
}
