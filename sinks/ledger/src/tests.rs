//! Tests of the ledger as a whole, over both databases.

mod alternates;
mod audit;
mod conservation;
mod crash;
mod durability;
mod encrypted;
mod facts;
mod group;
mod hosts;
mod log_retention;
mod measure;
mod migrations;
mod opt_outs;
mod quarantine;
mod relay;
mod shared;
mod tenants;

use faceflow_core::fact::Fact;
use faceflow_core::ledger::{DispatchReply, DispatchRequest, Ledger, LedgerError, QueueUpdate};
use faceflow_core::record::{
    ContentId, CopiedImage, Discovery, Disposition, Frame, Image, JobId, Page, QueueId, Visit, Work,
};
use faceflow_core::tally::Tally;
use faceflow_core::{Class, Fault};
use serde_json::Value;
use url::Url;

use super::{DatabaseLedger, LedgerSettings, Reader};
use crate::both;
use crate::testing::place::{self, Home};
use crate::testing::{self, postgres, *};
