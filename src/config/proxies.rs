//! What stands between clients and this server: proxies, and browsers that come from elsewhere.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A list, or in an environment variable its members separated by commas.
#[derive(Deserialize)]
#[serde(untagged)]
enum List {
    Members(Vec<String>),
    Text(String),
}

impl List {
    fn members(self) -> Vec<String> {
        match self {
            Self::Members(members) => members,
            Self::Text(text) => {
                text.split(',').map(str::trim).filter(|member| !member.is_empty()).map(str::to_owned).collect()
            }
        }
    }
}

/// Addresses and networks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "List")]
pub struct Networks(Vec<IpNet>);

impl Networks {
    /// Whether the address is in one of them.
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }

    /// Whether there are none.
    pub fn are_none(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<List> for Networks {
    type Error = String;

    fn try_from(list: List) -> Result<Self, String> {
        let network = |text: String| {
            let address = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse().or_else(|_| address()).map_err(|_neither| {
                format!("{text:?} is no address and no network: use 10.0.0.7, 10.0.0.0/8 or 2001:db8::/32")
            })
        };
        list.members().into_iter().map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// The header in which a proxy says where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub enum ClientHeader {
    /// `X-Forwarded-For`, with `X-Forwarded-Proto`.
    #[serde(rename = "x-forwarded-for")]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    #[serde(rename = "forwarded")]
    Forwarded,
}

impl TryFrom<String> for ClientHeader {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match name.as_str() {
            "x-forwarded-for" => Ok(Self::XForwardedFor),
            "forwarded" => Ok(Self::Forwarded),
            _ => Err("use \"x-forwarded-for\" or \"forwarded\""),
        }
    }
}

/// Origins of web pages, as browsers send them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "List")]
pub struct Origins(Vec<String>);

impl Origins {
    /// Each.
    pub fn all(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<List> for Origins {
    type Error = String;

    fn try_from(list: List) -> Result<Self, String> {
        let checked = |text: String| match url::Url::parse(&text) {
            Ok(url) if url.origin().is_tuple() && url.origin().ascii_serialization() == text => Ok(text),
            _ => Err(format!("{text:?} is no origin: use https://app.example.com, without a path")),
        };
        list.members().into_iter().map(checked).collect::<Result<_, _>>().map(Self)
    }
}
