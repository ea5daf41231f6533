//! The kinds of channels. A new one adds a line to `kinds!`.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InvalidId, invalid};

/// Declares the kinds, each with its name in ids, paths, files and labels: lower-case letters.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// The kind of a channel.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum ChannelKind {
            $($(#[$doc])* #[serde(rename = $name)] $kind,)*
        }

        impl ChannelKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The name used in ids, paths and labels.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }

        /// Completes "is no channel: ...".
        const KNOWN: &str = concat!("known channels:" $(, " ", $name)*);
    };
}

kinds! {
    /// WhatsApp Cloud API.
    Whatsapp = "whatsapp",
    /// Signed JSON webhooks, to and from a program of one's own.
    Http = "http",
}

impl fmt::Display for ChannelKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ChannelKind {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let named = Self::ALL.iter().find(|kind| kind.as_str() == text);
        named.copied().ok_or_else(|| invalid("channel", text, KNOWN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_reads_back_and_fits_into_ids() {
        for kind in ChannelKind::ALL {
            let name = kind.to_string();
            assert_eq!(name.parse::<ChannelKind>().unwrap(), *kind);
            assert_eq!(serde_json::to_string(kind).unwrap(), format!("\"{name}\""));
            assert!(name.len() <= 16 && name.bytes().all(|c| c.is_ascii_lowercase()), "{name}");
        }
        let fault = "sms".parse::<ChannelKind>().unwrap_err().to_string();
        assert!(fault.contains("whatsapp"), "{fault}");
    }
}
