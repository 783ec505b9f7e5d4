//! A guest with state, of one state shard: what it went through since its last snapshot is kept, so that a guest that
//! broke can be replaced by one in the same state.
//!
//! ```text
//!   snapshot ─▶ batch ─▶ watermark ─▶ batch ─▶ batch that fails
//!      └──────── kept, with the clock and randomness of each call ────────┘
//!   new guest ─▶ restore ─▶ the same calls again, what they put out is compared ─▶ halves of the batch that failed
//! ```
//!
//! Thus a failing row costs no rewinding of the pipeline, and the rows that are skipped, the dead letters, and the state
//! that never saw them belong to one checkpoint epoch.

use arrow::array::RecordBatch;
use logmill_pipelines::flow::Watermark;
use logmill_wasm::Moment;

use super::live::{Allowed, Failure, FailureKind, GuestState, Live, Made, Moments, Spawn};
use super::narrow::{Ran, Runner};
use super::patience::Patience;
use super::state::Kept;
use crate::conformance::as_text;
use crate::error::OperatorError;
use crate::operator::Port;

/// How many bytes of calls, what came of them included, are kept at least before a snapshot replaces them. As many as the
/// last snapshot has are always kept, as taking one costs about as much as replaying them.
const KEPT_CALL_BYTES: usize = 4 * 1024 * 1024;
/// What a call counts beside its rows.
const CALL_BYTES: usize = 128;

/// A guest and how it came to be as it is.
pub(super) struct Shard<G> {
    /// `None` if it broke, or was never needed.
    guest: Option<G>,
    /// The moment at which every guest of the shard is made and restored.
    born: Moment,
    /// What a new guest starts from; `None`: from nothing.
    base: Option<GuestState>,
    /// What happened since.
    calls: Vec<Call>,
    call_bytes: usize,
    /// Whether the state may differ from what the engine last got.
    changed: bool,
    /// Whether the guest knows that the input has ended: no rows came since it was told.
    ended: bool,
}

/// A call that went well.
struct Call {
    at: Moment,
    what: What,
    /// What came of it.
    made: Vec<(Port, RecordBatch)>,
}

enum What {
    Rows(RecordBatch),
    Watermark(i64),
}

impl What {
    fn call(&self, guest: &mut impl Live, at: Moment) -> Result<Made, Failure> {
        let mut made = Made::default();
        match self {
            Self::Rows(rows) => guest.on_batch(at, rows, &mut made)?,
            Self::Watermark(time_us) => guest.on_watermark(at, *time_us, &mut made)?,
        }
        Ok(made)
    }

    fn size_bytes(&self) -> usize {
        match self {
            Self::Rows(rows) => CALL_BYTES + rows_bytes(rows),
            Self::Watermark(_) => CALL_BYTES,
        }
    }
}

/// The bytes of the rows themselves: of a slice, not of what it is cut from.
fn rows_bytes(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0)).sum()
}

impl<G: Live> Shard<G> {
    /// A shard without state.
    pub(super) fn new(born: Moment) -> Self {
        Self { guest: None, born, base: None, calls: Vec::new(), call_bytes: 0, changed: false, ended: false }
    }

    /// A shard with what the engine kept of it. Fails if the guest refuses its state.
    pub(super) fn restored<S: Spawn<Guest = G>>(spawn: &S, born: Moment, kept: Kept) -> Result<Self, OperatorError> {
        let mut shard = Self::new(born);
        // A state of an earlier version is replaced by one of today's, so that the module need not read it for ever.
        shard.changed = spawn.state_version().is_some_and(|version| version != kept.state.version);
        shard.ended = kept.ended;
        shard.base = Some(kept.state);
        shard.guest = Some(shard.rebuilt(spawn)?);
        Ok(shard)
    }

    /// What processes the shard's rows with guests of `spawn`.
    pub(super) fn runner<'a, S: Spawn<Guest = G>>(
        &'a mut self,
        spawn: &'a S,
        moments: &'a mut Moments,
        patience: &'a mut Patience,
    ) -> ShardRunner<'a, S> {
        ShardRunner { shard: self, spawn, moments, patience }
    }

    /// Whether there is nothing to tell it of event time: its input has ended, and it knows.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether nothing ever happened to it: such a shard has no state to restore, so it must not live on either.
    pub(super) fn is_blank(&self) -> bool {
        self.base.is_none() && self.calls.is_empty()
    }

    /// A guest in the shard's state.
    fn rebuilt<S: Spawn<Guest = G>>(&self, spawn: &S) -> Result<G, OperatorError> {
        let failed = |message| OperatorError::Failed { operator: spawn.operator().to_owned(), message };
        let mut guest = spawn.spawn(self.born)?;
        guest.allow(Allowed::Ample);
        if let Some(state) = &self.base {
            let restored = guest.restore(self.born, state);
            restored.map_err(|failure| not_restored(spawn.operator(), state.version, &failure))?;
        }
        for call in &self.calls {
            let difference = match call.what.call(&mut guest, call.at) {
                Ok(made) if same_rows(&made.rows, &call.made) => continue,
                Ok(_) => "put out something else".to_owned(),
                Err(failure) if failure.kind.may_pass() => {
                    return Err(failed(format!(
                        "calls that went well cannot be made again on a new guest: {}",
                        with_remedy(&failure)
                    )));
                }
                Err(failure) => format!("failed: {}", failure.message),
            };
            return Err(failed(format!(
                "its guest does not do the same twice: a call that went well, made again on a guest with the same state, \
                 {difference}; a guest with state must depend on nothing but its input, its state, and the clock and \
                 randomness it is given"
            )));
        }
        guest.allow(Allowed::Deadline);
        Ok(guest)
    }
}

/// Whether two calls put out the same rows. Their order may differ, as that of a hash table does.
fn same_rows(a: &[(Port, RecordBatch)], b: &[(Port, RecordBatch)]) -> bool {
    if a == b {
        return true;
    }
    let sorted = |made: &[(Port, RecordBatch)]| {
        let texts = made.iter().flat_map(|(port, rows)| as_text(rows, None).into_iter().map(|text| (*port, text)));
        let mut texts: Vec<_> = texts.collect();
        texts.sort_unstable();
        texts
    };
    sorted(a) == sorted(b)
}

/// Why a state could not be restored. Only where the guest itself says so does another state help.
fn not_restored(operator: &str, version: u32, failure: &Failure) -> OperatorError {
    let operator = operator.to_owned();
    match failure.kind {
        FailureKind::Refused => {
            let message = format!("its guest does not take its state of version {version}: {}", failure.message);
            OperatorError::StateRefused { operator, message }
        }
        _ => {
            let why = with_remedy(failure);
            let message = format!("its guest fails while it takes over its state of version {version}: {why}");
            OperatorError::Failed { operator, message }
        }
    }
}

/// What went wrong on the operator's own account, and what to do about it.
fn with_remedy(failure: &Failure) -> String {
    match failure.kind {
        FailureKind::Deadline => {
            format!("{}; raise `deadline:`, of which this may take the tenfold", failure.message)
        }
        // A guest that ran out of memory is said to need more already.
        _ => failure.message.clone(),
    }
}

/// Calls a shard's guest, and replaces one that broke.
pub(super) struct ShardRunner<'a, S: Spawn> {
    shard: &'a mut Shard<S::Guest>,
    spawn: &'a S,
    moments: &'a mut Moments,
    patience: &'a mut Patience,
}

impl<S: Spawn> ShardRunner<'_, S> {
    /// Event time has reached a time. No row is to blame if this fails.
    pub(super) fn watermark(&mut self, time: Watermark) -> Result<Made, OperatorError> {
        let made = match self.call(What::Watermark(time.0))? {
            // There is no row to lose, so that a machine that stood still must not be an end.
            Err(failure) if failure.kind.may_pass() => self.call(What::Watermark(time.0))?,
            made => made,
        };
        let made = made.map_err(|failure| {
            self.failed(format!("its guest failed at an event-time watermark: {}", failure.message))
        })?;
        self.shard.ended = time == Watermark::END;
        Ok(made)
    }

    /// What the engine is to keep, if it may have changed since this was last asked.
    pub(super) fn changed_state(&mut self) -> Result<Option<Kept>, OperatorError> {
        if !self.shard.changed {
            return Ok(None);
        }
        self.rebase()?;
        self.shard.changed = false;
        let ended = self.shard.ended;
        Ok(self.shard.base.clone().map(|state| Kept { state, ended }))
    }

    /// Makes a snapshot what new guests start from.
    fn rebase(&mut self) -> Result<(), OperatorError> {
        let mut guest = self.guest()?;
        guest.allow(Allowed::Ample);
        let state = guest.snapshot(self.moments.next()).map_err(|failure| {
            self.failed(format!("its guest gives no snapshot of its state: {}", with_remedy(&failure)))
        })?;
        guest.allow(Allowed::Deadline);
        self.shard.guest = Some(guest);
        self.shard.base = Some(state);
        self.shard.calls.clear();
        self.shard.call_bytes = 0;
        Ok(())
    }

    /// The guest in the shard's state, taken out.
    fn guest(&mut self) -> Result<S::Guest, OperatorError> {
        match self.shard.guest.take() {
            Some(guest) => Ok(guest),
            None => self.shard.rebuilt(self.spawn),
        }
    }

    fn call(&mut self, what: What) -> Ran {
        let was_broken = self.shard.guest.is_none();
        let base_bytes = self.shard.base.as_ref().map_or(0, |state| state.bytes.len());
        // Guests that break are likely to break again soon: the shorter of the two ways back is prepared.
        let keep = if was_broken { base_bytes } else { base_bytes.max(KEPT_CALL_BYTES) };
        if self.shard.call_bytes > keep {
            self.rebase()?;
        }
        let mut guest = self.guest()?;
        let at = self.moments.next();
        match what.call(&mut guest, at) {
            Ok(made) => {
                self.shard.guest = Some(guest);
                self.shard.changed = true;
                self.shard.ended &= matches!(what, What::Watermark(_));
                let made_bytes = made.rows.iter().map(|(_, rows)| rows_bytes(rows)).sum::<usize>();
                self.shard.call_bytes += what.size_bytes() + made_bytes;
                self.shard.calls.push(Call { at, what, made: made.rows.clone() });
                Ok(Ok(made))
            }
            // Even one that only refused may have changed its state before.
            Err(failure) => Ok(Err(failure)),
        }
    }

    fn failed(&self, message: String) -> OperatorError {
        OperatorError::Failed { operator: self.spawn.operator().to_owned(), message }
    }
}

impl<S: Spawn> Runner for ShardRunner<'_, S> {
    fn run(&mut self, rows: &RecordBatch) -> Ran {
        self.call(What::Rows(rows.clone()))
    }

    /// Where there was no memory for a row, it is tried on a guest that has nothing but its state, and, if there is none
    /// even then, on one that has nothing at all: what does not fit there is the row's own fault, and else the state is
    /// too large. No row is put aside for that, as all that come after it would be.
    fn run_again(&mut self, row: &RecordBatch, failure: &Failure) -> Ran {
        if failure.kind != FailureKind::Memory {
            return self.run(row);
        }
        self.rebase()?;
        self.shard.guest = None;
        let ran = self.run(row)?;
        if !matches!(&ran, Err(failure) if failure.kind == FailureKind::Memory) {
            return Ok(ran);
        }
        let mut empty = self.spawn.spawn(self.moments.next())?;
        match empty.on_batch(self.moments.next(), row, &mut Made::default()) {
            Err(_) => Ok(ran),
            Ok(()) => Err(self.failed(format!(
                "the state of its guest leaves no room for a row that a guest without state takes: {}",
                failure.message
            ))),
        }
    }

    fn patience(&mut self) -> &mut Patience {
        self.patience
    }

    fn operator(&self) -> &str {
        self.spawn.operator()
    }
}
