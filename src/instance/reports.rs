//! Comparisons of snapshots, as far as the log is concerned.

use bytes::Bytes;
use prost::Message;

use super::{Instance, now_us};
use crate::{
    domain::movement::TimeUs,
    intake::{PostError, ReportBook},
    log::Position,
    proto::v1 as pb,
};

impl Instance {
    /// Reports of snapshots that were compared.
    pub fn reports(&self) -> &ReportBook {
        &self.reports
    }

    /// Writes what came of a comparison into the log, part by part, and waits until all of it is in
    /// force. Several instances may write the same.
    ///
    /// # Errors
    /// See [`PostError`]. Writing it again is always safe.
    pub async fn put_comparison(
        &self,
        parts: Vec<(String, pb::Comparison)>,
    ) -> Result<Position, PostError> {
        let mut last = 0;
        for (name, part) in parts {
            let body = pb::record::Body::Comparison(part);
            last = last.max(self.append_once(body, &name).await?);
        }
        self.applied(last).await?;
        Ok(last)
    }

    /// The log's time, once it has reached `us` if this machine's clock has: an idle log is given a
    /// tick for it.
    ///
    /// # Errors
    /// See [`PostError`].
    pub async fn time_reaching(&self, us: TimeUs) -> Result<TimeUs, PostError> {
        let now_us = now_us();
        let log_us = self.view.progress().time_us();
        if log_us >= us || now_us < us {
            return Ok(log_us);
        }
        let body = pb::record::Body::Tick(pb::Tick {});
        // By the moment and not by the second: one of this second may have come before it.
        let position = self.append_once(body, &format!("tick-{now_us}")).await?;
        self.applied(position).await?;
        Ok(self.view.progress().time_us())
    }

    async fn append_once(&self, body: pb::record::Body, name: &str) -> Result<Position, PostError> {
        self.check_writable()?;
        let record = pb::Record {
            version: 1,
            instance: self.id,
            // Nobody waits for it by its token: another instance's may be the one that is taken.
            token: 0,
            body: Some(body),
        };
        let record: Bytes = record.encode_to_vec().into();
        Ok(self.log.append_once(record, name).await?)
    }

    async fn applied(&self, position: Position) -> Result<(), PostError> {
        let mut failed = self.failed.clone();
        tokio::select! {
            () = self.view.progress().wait_for(position) => Ok(()),
            _ = failed.wait_for(Option::is_some) => Err(PostError::Stopping),
        }
    }
}
