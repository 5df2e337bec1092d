//! A database whose commits are on the disk when they are answered: a cluster of its own, where the tests' has `fsync` off.

use tempfile::TempDir;

use crate::database::{Backend, Database};
use crate::postgres::Cluster;

/// It ends with this.
pub struct Durable {
    backend: Backend,
    cluster: Option<Cluster>,
    // Last, so that it outlives the server.
    _home: TempDir,
}

impl Durable {
    /// An empty one. Without PostgreSQL's programs it is the server of `TEST_POSTGRES_URL`, as that is set up.
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

    /// The database on it.
    pub fn database(&self) -> Database {
        match &self.cluster {
            Some(cluster) => Database::at(&cluster.url()),
            None => Database::create(self.backend).expect("there is a database"),
        }
    }

    /// The server, unless it is somebody else's.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }
}
