//! A database with durable commits: a separate cluster with `fsync` on. The cluster of the tests has `fsync` off.

use tempfile::TempDir;

use crate::database::{Backend, Database};
use crate::postgres::Cluster;

/// A database with durable commits. Its cluster is stopped when dropped.
pub struct Durable {
    backend: Backend,
    cluster: Option<Cluster>,
    // Last, so that it outlives the server.
    _home: TempDir,
}

impl Durable {
    /// Creates an empty one. Without PostgreSQL's programs it is on the server of `TEST_POSTGRES_URL`, with the
    /// settings of that server.
    pub fn create(backend: Backend) -> Self {
        let home = TempDir::with_prefix("latchkey-durable-").unwrap();
        let cluster = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Cluster::create(home.path()).unwrap(),
        };
        let cluster = cluster.map(|mut cluster| {
            cluster.start(&["-c", "max_connections=400", "-c", "shared_buffers=32MB"]).unwrap();
            cluster
        });
        Self { backend, cluster, _home: home }
    }

    /// Returns the database.
    pub fn database(&self) -> Database {
        match &self.cluster {
            Some(cluster) => Database::at(&cluster.url()),
            None => Database::create(self.backend).expect("there is a database"),
        }
    }

    /// Returns the cluster, if it was started for the benchmark.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }
}
