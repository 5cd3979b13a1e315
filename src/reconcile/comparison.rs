//! One snapshot on its way through.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::task::JoinHandle;

use super::{
    cells::{Cells, location_hash},
    correction::Of,
    missing::{self, Scope},
    policy::{Plan, Policy, Tolerance},
    record,
    settle::{plan_of, settle},
    tally::{Cell, Finding, Tally, count_actions},
};
use crate::{
    domain::{
        balances::Loc,
        movement::{Invalid, TimeUs, check_source, text},
        reconcile::{AsOf, Chunk, Compared, Physical, StatedUnits},
    },
    instance::{CompareError, Instance},
    intake::PostError,
    limits::{
        ACTOR_BYTES_MAX, AHEAD_US_MAX, CLOCK_TOLERANCE_MS_MAX, ID_BYTES_MAX, QUANTITY_MAX,
        SNAPSHOT_CHUNK_LINES, SNAPSHOT_CHUNKS_MAX, SNAPSHOT_FINDINGS_MAX, SNAPSHOT_LINES_MAX,
    },
    log::Position,
    proto::v1::{self as pb, ReconciliationAction as Action, snapshot_header::Moment},
    wire::{
        movement::{optional_time_us, timestamp},
        snapshot::{check, stated},
    },
};

/// How comparisons are done.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Variances of one snapshot that are opened or corrected; of more, none is.
    pub variances_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            variances_max: 1_000_000,
        }
    }
}

/// A line that cannot be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number.
    pub line: u64,
    /// What is wrong with it.
    pub invalid: Invalid,
}

/// Why a snapshot was not compared, or not to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    /// Its header is wrong.
    #[error(transparent)]
    Header(Invalid),
    /// Lines of it cannot be compared: nothing is corrected or kept.
    #[error("{count} lines of the snapshot are wrong: nothing was corrected or kept")]
    BadLines {
        /// How many.
        count: u64,
        /// The first of them, in order.
        lines: Vec<BadLine>,
    },
    /// It did not come whole.
    #[error("the snapshot ends with {came} lines, and {sent} were sent: send it again")]
    NotWhole {
        /// As the sender says.
        sent: u64,
        /// As was counted.
        came: u64,
    },
    /// It is older than what is remembered.
    #[error("the snapshot is as of {}, and movements are remembered to compare one as of {} at the \
        earliest; take a newer one, or raise `ids.horizon_hours` and `ids.max`",
        timestamp(*.as_of_us), timestamp(*.oldest_us))]
    TooOld {
        /// Its moment.
        as_of_us: TimeUs,
        /// The oldest moment that can be compared with this tolerance.
        oldest_us: TimeUs,
    },
    /// No movement of that id is remembered.
    #[error("no movement {id:?} of {source_name:?} is remembered that changed a balance")]
    UnknownWatermark {
        /// The source.
        source_name: String,
        /// The movement's id.
        id: String,
    },
    /// No report of that name is kept.
    #[error("no report {0:?} is kept, and none about a snapshot of that id")]
    UnknownReport(String),
    /// Of a report, nothing that was asked for is held for approval.
    #[error("nothing of report {0} is held for approval, or nothing of what was asked for")]
    NothingHeld(String),
    /// The log did not take a correction or the report.
    #[error(transparent)]
    Post(#[from] PostError),
}

impl From<CompareError> for PostError {
    fn from(_: CompareError) -> Self {
        PostError::Stopping
    }
}

fn too_old(as_of: AsOf, oldest_us: TimeUs) -> ReconcileError {
    ReconcileError::TooOld {
        as_of_us: as_of.us,
        oldest_us: oldest_us.saturating_add(as_of.tolerance_us),
    }
}

/// What `error` means for a snapshot as of this moment.
pub(super) fn not_compared(error: CompareError, as_of: AsOf) -> ReconcileError {
    match error {
        CompareError::Stopping => PostError::Stopping.into(),
        CompareError::TooOld { kept_since_us } => too_old(as_of, kept_since_us),
    }
}

/// Lines that are compared together.
pub(super) struct Batch {
    pub(super) chunk: Arc<Chunk>,
    /// The number of each line, and its location.
    pub(super) lines: Vec<(u64, Arc<str>)>,
}

/// What came of them.
struct Told {
    batch: Batch,
    compared: Vec<Compared>,
    now: Vec<Option<Physical>>,
    position: Position,
}

/// A location that was met.
struct Place {
    name: Arc<str>,
    at: Option<Loc>,
    hash: u64,
}

/// A snapshot that is being compared. Bounded in what is under way and in what is kept of each line,
/// not in what it finds, see [`Options`].
pub struct Comparison {
    instance: Arc<Instance>,
    header: pb::SnapshotHeader,
    policy: Policy,
    scope: Scope,
    as_of: AsOf,
    tally: Tally,
    cells: Cells,
    places: HashMap<Box<str>, Place>,
    chunk: Chunk,
    lines: Vec<(u64, Arc<str>)>,
    under_way: VecDeque<JoinHandle<Result<Told, ReconcileError>>>,
    /// Which conditions any line states.
    conditions: [bool; 4],
    came: u64,
    compared: u64,
    bad: Vec<BadLine>,
    bad_count: u64,
    /// A cell is stated twice: which of them is right, nobody can know.
    twice: bool,
    position: Position,
}

/// What came of a snapshot.
#[derive(Debug)]
pub struct Finished {
    /// The report, as it is in the log.
    pub report: pb::Report,
    findings: Vec<Finding>,
    source: String,
    snapshot: String,
    as_of_us: TimeUs,
}

impl Finished {
    /// What was found, largest first.
    pub fn lines(&self) -> impl Iterator<Item = pb::ReportLine> {
        let of = Of {
            source: &self.source,
            snapshot: &self.snapshot,
            as_of_us: self.as_of_us,
            actor: "",
        };
        self.findings
            .iter()
            .map(move |finding| record::line(&of, finding))
    }
}

impl Comparison {
    /// Begins with what the snapshot says about itself.
    ///
    /// # Errors
    /// If that is wrong, or its moment cannot be compared.
    pub async fn begin(
        instance: &Arc<Instance>,
        header: pb::SnapshotHeader,
        options: Options,
    ) -> Result<Self, ReconcileError> {
        let policy = check_header(&header).map_err(ReconcileError::Header)?;
        let scope = Scope::parse(&header.scope).map_err(ReconcileError::Header)?;
        let as_of = moment(instance, &header).await?;
        // Before all of it is sent for nothing.
        if let Some(forgotten_us) = instance.ids().forgotten_before_us {
            let oldest_us = forgotten_us.saturating_add(AHEAD_US_MAX);
            if as_of.us.saturating_sub(as_of.tolerance_us) < oldest_us {
                return Err(too_old(as_of, oldest_us));
            }
        }
        Ok(Self {
            instance: Arc::clone(instance),
            header,
            policy,
            scope,
            as_of,
            tally: Tally::new(options.variances_max),
            cells: Cells::default(),
            places: HashMap::new(),
            chunk: Chunk::default(),
            lines: Vec::new(),
            under_way: VecDeque::new(),
            conditions: [false; 4],
            came: 0,
            compared: 0,
            bad: Vec::new(),
            bad_count: 0,
            twice: false,
            position: 0,
        })
    }

    /// Takes lines, and waits while too many are under way.
    ///
    /// # Errors
    /// If they cannot be compared at all. Lines that are wrong are told at the end, all of them.
    pub async fn add(
        &mut self,
        lines: impl IntoIterator<Item = pb::SnapshotLine>,
    ) -> Result<(), ReconcileError> {
        for line in lines {
            self.take(&line);
            if self.lines.len() >= SNAPSHOT_CHUNK_LINES {
                self.submit().await?;
            }
        }
        Ok(())
    }

    /// Notes a line that whoever read it could not read.
    pub fn reject(&mut self, bad: BadLine) {
        self.bad_count += 1;
        if self.bad.len() < SNAPSHOT_FINDINGS_MAX {
            self.bad.push(bad);
        }
    }

    /// How far it is.
    pub fn progress(&self) -> pb::CompareProgress {
        pb::CompareProgress {
            lines: self.compared,
            variance: self.tally.cells_with_variance(),
        }
    }

    /// Lines that have come so far.
    pub fn came(&self) -> u64 {
        self.came
    }

    fn take(&mut self, line: &pb::SnapshotLine) {
        self.came += 1;
        let number = match line.line {
            0 => self.came,
            given => given,
        };
        if let Err(invalid) = self.take_valid(line, number) {
            self.reject(BadLine {
                line: number,
                invalid,
            });
        }
    }

    fn take_valid(&mut self, line: &pb::SnapshotLine, number: u64) -> Result<(), Invalid> {
        check(line)?;
        if self.came > SNAPSHOT_LINES_MAX {
            self.twice = true;
            let reason = format!("is one of more than {SNAPSHOT_LINES_MAX}; split the snapshot");
            return Err(Invalid::new("line", reason));
        }
        if !self.places.contains_key(line.location.as_str()) {
            let place = Place {
                name: line.location.as_str().into(),
                at: self.instance.locations().get(&line.location),
                hash: location_hash(&line.location),
            };
            self.places.insert(line.location.as_str().into(), place);
        }
        let place = &self.places[line.location.as_str()];
        let units = stated(line);
        self.chunk.push(&line.sku, place.at, units);
        let pushed = self.chunk.lines.last().expect("it was just pushed");
        let short = u32::try_from(number).unwrap_or(u32::MAX);
        if let Err(first) = self.cells.insert(pushed.sku, place.hash, short) {
            self.chunk.lines.pop();
            self.twice = true;
            let reason = format!(
                "is stated at {:?} by line {first} already, and only one of them can be right",
                line.location
            );
            return Err(Invalid::new("sku", reason));
        }
        self.lines.push((number, Arc::clone(&place.name)));
        for (any, units) in self.conditions.iter_mut().zip(units) {
            *any |= units.is_some();
        }
        Ok(())
    }

    /// Has the lines gathered so far compared.
    async fn submit(&mut self) -> Result<(), ReconcileError> {
        let batch = Batch {
            chunk: Arc::new(std::mem::take(&mut self.chunk)),
            lines: std::mem::take(&mut self.lines),
        };
        if batch.lines.is_empty() {
            return Ok(());
        }
        self.submit_batch(batch).await
    }

    async fn submit_batch(&mut self, batch: Batch) -> Result<(), ReconcileError> {
        while self.under_way.len() >= SNAPSHOT_CHUNKS_MAX {
            self.receive().await?;
        }
        let (instance, as_of) = (Arc::clone(&self.instance), self.as_of);
        // On its own, so that it goes on while more lines are read.
        self.under_way.push_back(tokio::spawn(async move {
            let compared = instance.compare(Arc::clone(&batch.chunk), as_of).await;
            let (compared, position) = compared.map_err(|error| not_compared(error, as_of))?;
            let mut now = Vec::with_capacity(compared.len());
            instance.view().read().cells(&batch.chunk, |cell| {
                now.push(cell.map(|own| [own.0[0], own.0[1], own.0[2], own.0[3]]));
            });
            Ok(Told {
                batch,
                compared,
                now,
                position,
            })
        }));
        Ok(())
    }

    /// Counts the next batch that was compared, if any is under way.
    async fn receive(&mut self) -> Result<bool, ReconcileError> {
        let Some(next) = self.under_way.pop_front() else {
            return Ok(false);
        };
        let told = next.await.map_err(|_| PostError::Stopping)??;
        self.position = self.position.max(told.position);
        let chunk = &told.batch.chunk;
        let lines = chunk.lines.iter().zip(&told.batch.lines);
        for ((line, (number, location)), (compared, now)) in
            lines.zip(told.compared.iter().zip(&told.now))
        {
            self.compared += u64::from(*number > 0);
            self.tally.feed(&Cell {
                sku: chunk.sku(line),
                location,
                line: *number,
                stated: line.units,
                compared,
                now: *now,
            });
        }
        Ok(true)
    }

    /// Ends it: what the snapshot lacks is compared, what is to be corrected is, and the report is
    /// put into the log.
    ///
    /// # Errors
    /// See [`ReconcileError`]. What was corrected before an error is so for good; comparing the
    /// snapshot again goes on from there.
    pub async fn finish(mut self, end: pb::SnapshotEnd) -> Result<Finished, ReconcileError> {
        self.compare_all(end).await?;
        let mut tally = Tally::new(0);
        std::mem::swap(&mut tally, &mut self.tally);
        let (mut findings, mut summary) = tally.finish();
        summary.bad_lines = self.bad_count + end.skipped_lines;
        let (source, snapshot) = (self.header.source.clone(), self.header.snapshot.clone());
        let of = Of {
            source: &source,
            snapshot: &snapshot,
            as_of_us: self.as_of.us,
            actor: "",
        };
        let plan = match summary.too_many_variances {
            true => Policy::Report,
            false => self.policy,
        };
        plan_of(&mut findings, plan);
        if plan != Policy::Report {
            settle(&self.instance, &of, self.as_of, &mut findings, |own| {
                plan.plan(own.stated, own.book) == Plan::Correct
            })
            .await?;
        }
        count_actions(&findings, &mut summary);
        let report = self.report(summary);
        let (report, parts) = record::parts(report, &of, &findings);
        self.instance.put_comparison(parts).await?;
        let kept = self.instance.reports().find(&report.report);
        Ok(Finished {
            // Many others may have been compared at once.
            report: kept.map_or(report, |kept| kept.head.clone()),
            findings,
            as_of_us: self.as_of.us,
            source,
            snapshot,
        })
    }

    async fn compare_all(&mut self, end: pb::SnapshotEnd) -> Result<(), ReconcileError> {
        if end.lines != self.came {
            let (sent, came) = (end.lines, self.came);
            return Err(ReconcileError::NotWhole { sent, came });
        }
        if self.twice || (self.bad_count > 0 && !self.header.skip_bad_lines) {
            return Err(ReconcileError::BadLines {
                count: self.bad_count,
                lines: std::mem::take(&mut self.bad),
            });
        }
        if self.conditions == [false; 4] {
            let reason = "have not one that states anything; an empty snapshot says nothing";
            return Err(ReconcileError::Header(Invalid::new("lines", reason)));
        }
        self.submit().await?;
        while self.receive().await? {}
        if self.scope.is_empty() {
            return Ok(());
        }
        let stated: StatedUnits = self.conditions.map(|any| any.then_some(0));
        let cells = std::mem::take(&mut self.cells);
        let scope = std::mem::take(&mut self.scope);
        let mut missing = missing::walk(&self.instance, cells, scope, stated);
        while let Some(batch) = missing.recv().await {
            self.submit_batch(batch).await?;
        }
        while self.receive().await? {}
        Ok(())
    }

    fn report(&self, summary: pb::ReportSummary) -> pb::Report {
        let header = &self.header;
        let watermark = match &header.moment {
            Some(Moment::Watermark(id)) => id.clone(),
            _ => String::new(),
        };
        pb::Report {
            source: header.source.clone(),
            snapshot: header.snapshot.clone(),
            as_of: Some(timestamp(self.as_of.us)),
            watermark,
            clock_tolerance_ms: header.clock_tolerance_ms,
            scope: header.scope.clone(),
            policy: match self.policy {
                Policy::Report => pb::ReconciliationPolicy::Report.into(),
                Policy::Correct(_) => pb::ReconciliationPolicy::Correct.into(),
            },
            up_to_units: header.up_to_units,
            up_to_percent: header.up_to_percent,
            actor: header.actor.clone(),
            summary: Some(summary),
            ..pb::Report::default()
        }
    }
}

impl Drop for Comparison {
    fn drop(&mut self) {
        for task in &self.under_way {
            task.abort();
        }
    }
}

fn check_header(header: &pb::SnapshotHeader) -> Result<Policy, Invalid> {
    use pb::ReconciliationPolicy as Pb;
    text("snapshot", &header.snapshot, ID_BYTES_MAX)?;
    check_source(&header.source)?;
    if !(0..=CLOCK_TOLERANCE_MS_MAX).contains(&header.clock_tolerance_ms) {
        let reason = format!(
            "is {} ms; 0 to {CLOCK_TOLERANCE_MS_MAX}",
            header.clock_tolerance_ms
        );
        return Err(Invalid::new("clock_tolerance_ms", reason));
    }
    if header.actor.len() > ACTOR_BYTES_MAX {
        let reason = format!(
            "has {} bytes; at most {ACTOR_BYTES_MAX}",
            header.actor.len()
        );
        return Err(Invalid::new("actor", reason));
    }
    let tolerance = Tolerance {
        units: header.up_to_units,
        percent: header.up_to_percent,
    };
    if let Some(units) = tolerance.units
        && !(0..=QUANTITY_MAX).contains(&units)
    {
        let reason = format!("is {units}; 0 to {QUANTITY_MAX}");
        return Err(Invalid::new("up_to_units", reason));
    }
    if let Some(percent) = tolerance.percent.filter(|percent| *percent > 100) {
        let reason = format!("is {percent}; 0 to 100");
        return Err(Invalid::new("up_to_percent", reason));
    }
    match Pb::try_from(header.policy) {
        Ok(Pb::Correct) => Ok(Policy::Correct(tolerance)),
        Ok(_) if tolerance != Tolerance::default() => Err(Invalid::new(
            "policy",
            "is not CORRECT, and yet there is an `up_to_units` or `up_to_percent`",
        )),
        Ok(_) => Ok(Policy::Report),
        Err(_) => Err(Invalid::new(
            "policy",
            format!("is {}, which is none; REPORT or CORRECT", header.policy),
        )),
    }
}

async fn moment(instance: &Instance, header: &pb::SnapshotHeader) -> Result<AsOf, ReconcileError> {
    let tolerance_us = header.clock_tolerance_ms * 1_000;
    match &header.moment {
        None => Err(ReconcileError::Header(Invalid::new(
            "as_of",
            "is missing, and so is `watermark`; a snapshot tells of a moment",
        ))),
        Some(Moment::AsOf(at)) => {
            let us = optional_time_us("as_of", Some(at)).map_err(ReconcileError::Header)?;
            let us = us.unwrap_or_default();
            let log_us = instance.time_reaching(us).await?;
            if us > log_us {
                let reason = format!(
                    "is {}, after the log's time, {}; a moment that has not come cannot be compared",
                    timestamp(us),
                    timestamp(log_us)
                );
                return Err(ReconcileError::Header(Invalid::new("as_of", reason)));
            }
            Ok(AsOf {
                us,
                tolerance_us,
                exact_source: None,
            })
        }
        Some(Moment::Watermark(id)) => {
            text("watermark", id, ID_BYTES_MAX).map_err(ReconcileError::Header)?;
            let source = &header.source;
            let found = instance.occurred(source, id).await?;
            let us = found.ok_or_else(|| ReconcileError::UnknownWatermark {
                source_name: source.clone(),
                id: id.clone(),
            })?;
            Ok(AsOf {
                us,
                tolerance_us,
                exact_source: instance.source_number(source),
            })
        }
    }
}

/// Whether a finding was posted as a correction.
pub(super) fn is_posted(finding: &Finding) -> bool {
    matches!(
        finding.action,
        Action::Corrected | Action::Parked | Action::Approved
    )
}
