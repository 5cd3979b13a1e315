//! A bucket of the object store beside the stream, in which instances leave their newest checkpoint.

use std::{collections::HashMap, path::Path};

use async_nats::jetstream::{
    Context,
    object_store::{Config, InfoErrorKind, ObjectMetadata, ObjectStore},
};
use async_trait::async_trait;
use tokio::fs::File;

use super::unavailable;
use crate::log::{Depot, LogError, Position};

/// The one object.
const NEWEST: &str = "newest";
/// Where its metadata says of which position it is.
const POSITION: &str = "position";

/// See the module.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) context: Context,
    pub(super) stream: String,
    pub(super) replicas: usize,
}

impl Bucket {
    fn name(&self) -> String {
        format!("{}_CHECKPOINTS", self.stream)
    }

    /// The bucket; `None`: nobody has left anything yet.
    async fn find(&self) -> Option<ObjectStore> {
        // Whether it is not there, or cannot be reached, the client does not tell apart.
        self.context.get_object_store(self.name()).await.ok()
    }

    async fn find_or_create(&self) -> Result<ObjectStore, LogError> {
        if let Some(bucket) = self.find().await {
            return Ok(bucket);
        }
        let config = Config {
            bucket: self.name(),
            description: Some(format!("newest checkpoint of the stream {}", self.stream)),
            num_replicas: self.replicas,
            ..Config::default()
        };
        let created = self.context.create_object_store(config).await;
        created.map_err(unavailable)
    }
}

#[async_trait]
impl Depot for Bucket {
    async fn newest(&self) -> Result<Option<Position>, LogError> {
        let Some(bucket) = self.find().await else {
            return Ok(None);
        };
        match bucket.info(NEWEST).await {
            Ok(info) if info.deleted => Ok(None),
            Ok(info) => Ok(info.metadata.get(POSITION).and_then(|at| at.parse().ok())),
            Err(error) if error.kind() == InfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(unavailable(error)),
        }
    }

    async fn fetch(&self, to: &Path) -> Result<(), LogError> {
        let bucket = self.context.get_object_store(self.name()).await;
        let bucket = bucket.map_err(unavailable)?;
        let mut object = bucket.get(NEWEST).await.map_err(unavailable)?;
        let written = async {
            let mut file = File::create(to).await?;
            tokio::io::copy(&mut object, &mut file).await?;
            file.sync_all().await
        };
        let failed = |error: std::io::Error| {
            LogError::Unavailable(format!(
                "the checkpoint in the bucket {} cannot be fetched to {}: {error}",
                self.name(),
                to.display()
            ))
        };
        written.await.map_err(failed)
    }

    async fn leave(&self, position: Position, from: &Path) -> Result<(), LogError> {
        let mut file = File::open(from).await.map_err(unavailable)?;
        let bucket = self.find_or_create().await?;
        let object = ObjectMetadata {
            name: NEWEST.to_owned(),
            metadata: HashMap::from([(POSITION.to_owned(), position.to_string())]),
            ..ObjectMetadata::default()
        };
        let put = bucket.put(object, &mut file).await;
        put.map(drop).map_err(unavailable)
    }
}
