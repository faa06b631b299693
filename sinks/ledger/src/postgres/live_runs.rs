//! Which runs live: said once, and used wherever that is asked.

/// The one definition of a living run. Locks know no schemas, so the schema's name is half of their number.
pub(super) const LIVING: &str =
    "ended_at IS NULL AND heartbeat_at + lease_ms * interval '1 millisecond' > clock_timestamp()
    AND EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objid = runs.id::oid
    AND classid::bigint = hashtext('faceflow ' || current_schema())::bigint & 4294967295
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";
