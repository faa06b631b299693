//! Why the processes of a cluster did not come together.

/// Why the processes did not come together.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Its own address cannot be listened at.
    #[error(
        "process {process} cannot listen at {address}: {reason}; is that an address of this machine, and is no other process started with -p {process}?"
    )]
    Listen {
        /// This process.
        process: usize,
        /// Its address by the hosts file.
        address: String,
        /// The system's message.
        reason: String,
    },
    /// A process did not come in time.
    #[error("process {process} ({address}) did not come within {waited_ms} ms (cluster.join_ms): {reason}")]
    Missing {
        /// Which one.
        process: usize,
        /// Its address by the hosts file.
        address: String,
        /// How long it was waited for.
        waited_ms: u64,
        /// What was seen instead.
        reason: String,
    },
    /// Two processes do not fit together.
    #[error("this process and process {process} differ in {what}: {ours} here, {theirs} there")]
    Differs {
        /// The other one.
        process: usize,
        /// In what.
        what: String,
        /// What this one has.
        ours: String,
        /// What the other one has.
        theirs: String,
    },
    /// A process left while all were getting ready.
    #[error("process {process} ({address}) left before the start: {reason}; its own log says why")]
    Left {
        /// Which one.
        process: usize,
        /// Its address by the hosts file.
        address: String,
        /// What was seen.
        reason: String,
    },
}
