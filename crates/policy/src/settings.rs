use palmgate_protocol::{Custody, DAY, Purpose, PurposeSet};
use std::time::Duration;

/// What the store's configuration and the law pack fix for the engine. Built once at start by the
/// gateway from values that were checked already; a value here is never laxer than the pack.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Whether real people enrol here; some rules bind production only.
    pub production: bool,
    /// Who can open a reference.
    pub custody: Custody,
    /// Purposes that this store serves.
    pub purposes: PurposeSet,
    /// Whether a miss may be escalated at all (a cloud is configured and the pack allows it).
    pub escalation: bool,
    /// Where the cloud is: `eu` or a country of the pack's regions.
    pub region: String,
    /// Lowest fused score that is a match, by [`Purpose::MATCHED`] position.
    pub thresholds: [f32; 4],
    /// References of a purpose that are searched at most: what the thresholds' calibration can vouch
    /// for, by [`Purpose::MATCHED`] position. Binds where the box searches.
    pub largest_galleries: [usize; 4],
    /// Lowest score that is no signs of a copy, by [`Purpose::MATCHED`] position.
    pub liveness: [f32; 4],
    /// Largest payment by palm alone, in minor units (RTS on SCA Art. 11).
    pub payment_limit: u64,
    /// Failed tries in a row before a block (RTS on SCA Art. 4(3)(b)).
    pub tries: u8,
    /// How long a block lasts.
    pub block: Duration,
    /// How far a terminal's clock may be off.
    pub clock_skew: Duration,
    /// An enrolment ends after this long without use.
    pub inactivity: Duration,
    /// An enrolment ends after this long in any case, unless consent is given anew.
    pub ceiling: Duration,
    /// Listed restricted zones for `staff`.
    pub zones: Vec<String>,
    /// The version of the notice that must have been shown.
    pub notice: String,
    /// Expired people erased in one sweep at most.
    pub sweep_limit: usize,
    /// Requests in work at once.
    pub pending_limit: usize,
}

impl Settings {
    pub(crate) fn threshold(&self, purpose: Purpose) -> f32 {
        Self::of(&self.thresholds, purpose)
    }

    pub(crate) fn least_liveness(&self, purpose: Purpose) -> f32 {
        Self::of(&self.liveness, purpose)
    }

    /// Infinity for a purpose that nobody is matched for: nothing reaches it.
    fn of(values: &[f32; 4], purpose: Purpose) -> f32 {
        values.get(purpose as usize).copied().unwrap_or(f32::INFINITY)
    }
}

impl Default for Settings {
    /// The safest store: `split` custody, payments only, no cloud, 180 days.
    fn default() -> Self {
        Self {
            production: false,
            custody: Custody::Split,
            purposes: PurposeSet::default().with(Purpose::Pay),
            escalation: false,
            region: "eu".into(),
            thresholds: [f32::INFINITY; 4],
            largest_galleries: [usize::MAX; 4],
            liveness: [0.0; 4],
            payment_limit: 5_000,
            tries: 5,
            block: Duration::from_mins(5),
            clock_skew: palmgate_protocol::limits::MAX_CLOCK_SKEW,
            inactivity: 180 * DAY,
            ceiling: 365 * DAY,
            zones: Vec::new(),
            notice: String::new(),
            sweep_limit: 100,
            pending_limit: 256,
        }
    }
}
