//! Whose work something is.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
const NAME_MAX: usize = 64;

/// The name of a tenant: up to 64 letters, digits, `-`, `_` and `.`, not starting with `.`. It is the first folder of every object
/// key, so no other name can be made. Clones share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Arc<str>);

/// A name that no tenant can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: up to 64 letters, digits, '-', '_' and '.', not starting with '.'")]
pub struct TenantIdError(String);

impl FromStr for TenantId {
    type Err = TenantIdError;

    fn from_str(name: &str) -> Result<Self, TenantIdError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if (1..=NAME_MAX).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('.') {
            return Ok(Self(name.into()));
        }
        Err(TenantIdError(name.to_owned()))
    }
}

impl TryFrom<String> for TenantId {
    type Error = TenantIdError;

    fn try_from(name: String) -> Result<Self, TenantIdError> {
        name.parse()
    }
}

impl From<TenantId> for String {
    fn from(tenant: TenantId) -> Self {
        tenant.0.as_ref().to_owned()
    }
}

impl Default for TenantId {
    /// The tenant of whoever names none.
    fn default() -> Self {
        Self("default".into())
    }
}

impl Deref for TenantId {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_a_plain_name_of_a_folder() {
        let longest = "x".repeat(NAME_MAX);
        for name in ["a", "default", "Acme-2_x.y", longest.as_str()] {
            assert_eq!(name.parse::<TenantId>().map(|tenant| tenant.to_string()).as_deref(), Ok(name));
        }
        let long = "x".repeat(NAME_MAX + 1);
        for name in ["", ".", "..", ".hidden", "../up", "a/b", "a b", "ä", long.as_str()] {
            assert_eq!(name.parse::<TenantId>(), Err(TenantIdError(name.to_owned())), "{name}");
        }
    }

    #[test]
    fn what_is_read_is_checked_too() {
        assert_eq!(serde_json::from_str::<TenantId>("\"a\"").ok(), "a".parse().ok());
        let refused = serde_json::from_str::<TenantId>("\"../up\"").expect_err("no name").to_string();
        assert!(refused.contains("../up"), "{refused}");
    }
}
