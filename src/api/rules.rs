//! The `Rules` service.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{Service, log_time, status};
use crate::{
    domain::{
        authority::Authority,
        document::Warning,
        rules::{ChangeTally, Rules as ChannelRules},
    },
    intake::AuthorityInForce,
    limits::{ACTOR_BYTES_MAX, NOTE_BYTES_MAX},
    proto::v1::{self as pb, rules_server::Rules},
    shard::RulesInForce,
};

#[tonic::async_trait]
impl Rules for Service {
    async fn get(
        &self,
        request: Request<pb::GetRulesRequest>,
    ) -> Result<Response<pb::GetRulesResponse>, Status> {
        let version = request.into_inner().version;
        let rulebook = self.instance.view().rulebook();
        let rules: Arc<RulesInForce> = match version {
            0 => Arc::clone(&rulebook.in_force()),
            version => rulebook
                .version(version)
                .ok_or_else(|| not_kept(RULES, version, rulebook.in_force().version))?,
        };
        Ok(Response::new(pb::GetRulesResponse {
            version: rules.version,
            toml: rules.rules.text().to_owned(),
            put_at: log_time(rules.put_us),
            actor: rules.actor.clone(),
            note: rules.note.clone(),
        }))
    }

    async fn put(
        &self,
        request: Request<pb::PutRulesRequest>,
    ) -> Result<Response<pb::PutRulesResponse>, Status> {
        let request = request.into_inner();
        check_texts(&request)?;
        let (rules, mut warnings) =
            ChannelRules::parse(&request.toml).map_err(|error| status::bad_document(&error))?;
        let locations = self.instance.view().locations();
        warnings.extend(rules.warnings(|name| locations.get(name).is_some()));
        warnings.extend(rules.pattern_warnings(locations.names()));
        let in_force = Arc::clone(&self.instance.view().rulebook().in_force());
        let mut response = pb::PutRulesResponse {
            warnings: warnings.iter().map(Warning::to_string).collect(),
            changed: in_force.version == 0 || *in_force.rules != rules,
            ..pb::PutRulesResponse::default()
        };
        if request.validate_only {
            return Ok(Response::new(response));
        }
        if !self.instance.ready() {
            return Err(status::not_ready(&self.instance));
        }
        if let Some(expected) = request.expected_version
            && expected != in_force.version
        {
            return Err(superseded(RULES, expected, in_force.version));
        }
        if request.dry_run {
            response.changes = self.dry_run(rules).await?;
        } else if response.changed {
            response.version = self.put_in_force(request).await?;
        } else {
            response.version = in_force.version;
        }
        Ok(Response::new(response))
    }

    async fn get_authority(
        &self,
        request: Request<pb::GetRulesRequest>,
    ) -> Result<Response<pb::GetRulesResponse>, Status> {
        let version = request.into_inner().version;
        let in_force = self.instance.authority();
        let authority: Arc<AuthorityInForce> = match version {
            0 => in_force,
            version => (self.instance.authority_book().version(version))
                .ok_or_else(|| not_kept(AUTHORITY, version, in_force.version))?,
        };
        Ok(Response::new(pb::GetRulesResponse {
            version: authority.version,
            toml: authority.authority.text().to_owned(),
            put_at: log_time(authority.put_us),
            actor: authority.actor.clone(),
            note: authority.note.clone(),
        }))
    }

    async fn put_authority(
        &self,
        request: Request<pb::PutRulesRequest>,
    ) -> Result<Response<pb::PutRulesResponse>, Status> {
        let request = request.into_inner();
        check_texts(&request)?;
        if request.dry_run {
            let reason = "source authority changes no number that could be compared; \
                          `validate_only` checks the document";
            return Err(status::bad_field("dry_run", reason));
        }
        let (authority, mut warnings) =
            Authority::parse(&request.toml).map_err(|error| status::bad_document(&error))?;
        let locations = self.instance.view().locations();
        warnings.extend(authority.warnings(|name| locations.get(name).is_some()));
        warnings.extend(authority.pattern_warnings(locations.names()));
        let in_force = self.instance.authority();
        let mut response = pb::PutRulesResponse {
            warnings: warnings.iter().map(Warning::to_string).collect(),
            changed: in_force.version == 0 || *in_force.authority != authority,
            ..pb::PutRulesResponse::default()
        };
        if request.validate_only {
            return Ok(Response::new(response));
        }
        if !self.instance.ready() {
            return Err(status::not_ready(&self.instance));
        }
        if let Some(expected) = request.expected_version
            && expected != in_force.version
        {
            return Err(superseded(AUTHORITY, expected, in_force.version));
        }
        response.version = if response.changed {
            self.put_authority_in_force(request).await?
        } else {
            in_force.version
        };
        Ok(Response::new(response))
    }
}

impl Service {
    async fn dry_run(&self, rules: ChannelRules) -> Result<Vec<pb::ChannelChange>, Status> {
        let instance = Arc::clone(&self.instance);
        // A walk over all cells is not for the threads that answer queries.
        let walk = tokio::task::spawn_blocking(move || instance.view().dry_run(&Arc::new(rules)));
        let tallies = walk.await.map_err(|_| status::stopping())?;
        Ok(tallies.into_iter().map(change).collect())
    }

    async fn put_in_force(&self, request: pb::PutRulesRequest) -> Result<u64, Status> {
        let put = pb::RulesPut {
            toml: request.toml.clone(),
            actor: request.actor,
            note: request.note,
            expected_version: request.expected_version,
        };
        let put = self.instance.put_rules(put).await;
        let version = put.map_err(|error| status::not_posted(&error))?;
        let rulebook = self.instance.view().rulebook();
        let ours = rulebook
            .version(version)
            .is_some_and(|rules| rules.rules.text() == request.toml);
        match request.expected_version {
            // Another change came between: the log's order decided.
            Some(expected) if !ours => Err(superseded(RULES, expected, version)),
            _ => Ok(version),
        }
    }

    async fn put_authority_in_force(&self, request: pb::PutRulesRequest) -> Result<u64, Status> {
        let put = pb::AuthorityPut {
            toml: request.toml.clone(),
            actor: request.actor,
            note: request.note,
            expected_version: request.expected_version,
        };
        let put = self.instance.put_authority(put).await;
        let version = put.map_err(|error| status::not_posted(&error))?;
        let ours = (self.instance.authority_book().version(version))
            .is_some_and(|own| own.authority.text() == request.toml);
        match request.expected_version {
            Some(expected) if !ours => Err(superseded(AUTHORITY, expected, version)),
            _ => Ok(version),
        }
    }
}

fn check_texts(request: &pb::PutRulesRequest) -> Result<(), Status> {
    check_text("actor", &request.actor, ACTOR_BYTES_MAX)?;
    check_text("note", &request.note, NOTE_BYTES_MAX)
}

fn check_text(field: &str, value: &str, bytes_max: usize) -> Result<(), Status> {
    if value.len() > bytes_max {
        let reason = format!("has {} bytes; at most {bytes_max}", value.len());
        return Err(status::bad_field(field, reason));
    }
    Ok(())
}

/// As they are called in messages.
const RULES: &str = "the rules";
const AUTHORITY: &str = "the source authority";

fn not_kept(document: &str, version: u64, in_force: u64) -> Status {
    Status::not_found(format!(
        "version {version} of {document} is not kept; the one in force is {in_force}"
    ))
}

fn superseded(document: &str, expected: u64, in_force: u64) -> Status {
    Status::aborted(format!(
        "version {expected} of {document} was expected, but {in_force} is in force; read it, and \
         make your change on top"
    ))
}

fn change((channel, tally): (String, ChangeTally)) -> pb::ChannelChange {
    let sku_change = |change: &crate::domain::rules::SkuChange| pb::SkuChange {
        sku: change.sku.to_string(),
        before: change.before,
        after: change.after,
    };
    pb::ChannelChange {
        channel,
        skus_changed: tally.skus_changed,
        skus_published: tally.skus_published,
        skus_to_zero: tally.skus_to_zero,
        skus_from_zero: tally.skus_from_zero,
        units_before: tally.units_before,
        units_after: tally.units_after,
        largest: tally.largest().iter().map(sku_change).collect(),
    }
}
