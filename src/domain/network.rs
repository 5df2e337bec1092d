//! Networks of clients: those that count as one client for limits and lockouts, and wider ones for notices of sign-ins.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An IPv4 address or an IPv6 /64 network. A host with one IPv6 address usually has its whole /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// The network of an address. An IPv4-mapped IPv6 address is treated as the IPv4 address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(address) => Self(Ipv6Addr::from(u128::from(address) >> 64 << 64).into()),
            address => Self(address),
        }
    }
}

/// An IPv4 address, or an IPv6 network with its prefix length.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(address) => write!(f, "{address}/64"),
        }
    }
}

/// Where a user is, as far as an address shows it: an IPv4 /24 or IPv6 /48 network. All private networks are one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(Option<IpAddr>);

impl Place {
    /// The place of an address.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) if address.is_private() || address.is_loopback() || address.is_link_local() => None,
            IpAddr::V4(address) => Some(Ipv4Addr::from(u32::from(address) >> 8 << 8).into()),
            IpAddr::V6(address)
                if address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local() =>
            {
                None
            }
            IpAddr::V6(address) => Some(Ipv6Addr::from(u128::from(address) >> 80 << 80).into()),
        })
    }
}

/// The address of the network, or `private`.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(network) => network.fmt(f),
            None => f.write_str("private"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_wider_than_a_network_and_private_networks_are_one() {
        let place = |address: &str| Place::of(address.parse().unwrap()).to_string();
        assert_eq!(place("192.0.2.7"), "192.0.2.0");
        assert_eq!(place("::ffff:192.0.2.200"), "192.0.2.0");
        assert_eq!(place("2001:db8:1:2::3"), "2001:db8:1::");
        for address in ["10.1.2.3", "192.168.0.1", "127.0.0.1", "169.254.1.1", "::1", "fd00::1", "fe80::1"] {
            assert_eq!(place(address), "private", "{address}");
        }
        assert_ne!(place("192.0.3.7"), place("192.0.2.7"));
    }

    #[test]
    fn addresses_of_one_host_are_one_client() {
        let network = |address: &str| Network::of(address.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("2001:db8::1").to_string(), "2001:db8::/64");
        assert_eq!(network("192.0.2.1").to_string(), "192.0.2.1");
    }
}
