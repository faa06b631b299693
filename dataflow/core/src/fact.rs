//! Facts: what happened and stays true.
//!
//! Facts are appended and never changed; states are derived from them. Everything that must survive a kill is a fact, and
//! a fact is written only after the outputs it speaks of exist.

use serde::{Deserialize, Serialize};

use crate::record::{
    CopiedImage, DetectedFrame, Discovery, Disposition, Key, StoredImage, TenantAssignment, TenantNumber,
};

/// Something that happened and stays true.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Fact {
    /// Pages and images were discovered (and, with a visit, the page that shows them is done). One transaction: a page is
    /// never done before everything it leads to is known.
    Discovered(Discovery),
    /// A try failed: when it is due again, or why it never will be.
    Failed(Disposition),
    /// An image's bytes are in the store.
    Stored(StoredImage),
    /// An image's bytes are those of a picture that was recorded before.
    Copied(CopiedImage),
    /// A picture's faces and crops are in the store.
    Detected(DetectedFrame),
    /// A picture has another representative than before.
    Assigned(TenantAssignment),
}

impl Fact {
    /// Whose ledger it belongs to.
    pub fn tenant(&self) -> TenantNumber {
        match self {
            Self::Discovered(found) => found.tenant(),
            Self::Failed(disposition) => disposition.tenant(),
            Self::Stored(stored) => stored.tenant(),
            Self::Copied(copied) => copied.tenant(),
            Self::Detected(detected) => detected.tenant(),
            Self::Assigned(assigned) => assigned.tenant(),
        }
    }
}

/// A record that carries a fact to the ledger.
pub trait ToFact {
    /// The fact.
    fn to_fact(&self) -> Fact;

    /// Whose ledger it belongs to.
    fn tenant(&self) -> TenantNumber;

    /// The work that comes to an end with it, for now or for good.
    fn completes(&self) -> Option<Key>;

    /// The work that it is about, which ends when the fact is refused.
    fn subject(&self) -> Option<Key>;
}

macro_rules! to_fact {
    ($($record:ident as $variant:ident, $self:ident of $tenant:expr, about $subject:expr, completes $key:expr;)*) => {$(
        impl ToFact for $record {
            fn to_fact(&self) -> Fact {
                Fact::$variant(self.clone())
            }

            fn tenant(&$self) -> TenantNumber {
                $tenant
            }

            fn completes(&$self) -> Option<Key> {
                $key
            }

            fn subject(&$self) -> Option<Key> {
                $subject
            }
        }
    )*};
}
to_fact! {
    Discovery as Discovered, self of self.job.tenant, about self.completes(),
        completes self.visit.as_ref().map(|visit| visit.page.key());
    Disposition as Failed, self of self.work().job().tenant, about self.completes(), completes Some(self.work().key());
    StoredImage as Stored, self of self.image.job.tenant, about self.completes(), completes Some(self.image.key());
    CopiedImage as Copied, self of self.image.job.tenant, about self.completes(), completes Some(self.image.key());
    // A degraded answer does not: what becomes of the full one is said by the fact that follows.
    DetectedFrame as Detected, self of self.frame.job.tenant, about Some(self.frame.key()),
        completes (!self.detection.degraded()).then(|| self.frame.key());
    TenantAssignment as Assigned, self of self.tenant, about None, completes None;
}
