//! Which process of which cluster this is.

/// Which process of which cluster this is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// Which process, from 0.
    pub process: usize,
    /// Every process's `host:port`, in the order of their numbers.
    pub addresses: Vec<String>,
}
