//! TLS to PostgreSQL: Latchkey connects only to a server with a valid certificate.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::support::installed;
use crate::support::postgres::Cluster;
use crate::support::program::{Serving, failure, latchkey, run};

const HOST: &str = "db.example.org";

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    // The name differs from that of the server certificate, which would otherwise count as its own issuer.
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// Gives the server in `home` a certificate for [`HOST`], and allows network connections only with TLS.
fn certify(home: &Path, authority: &CertifiedIssuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([HOST.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let rules = "local all all trust\nhostssl all all all trust\n".to_owned();
    let owner = fs::metadata(home).unwrap();
    for (name, text) in [("server.crt", certificate.pem()), ("server.key", key.serialize_pem()), ("pg_hba.conf", rules)]
    {
        let file = home.join("data").join(name);
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }
}

#[tokio::test]
async fn the_server_starts_only_with_a_postgresql_whose_certificate_is_valid() {
    let (home, directory) = (TempDir::with_prefix("latchkey-postgres-").unwrap(), TempDir::new().unwrap());
    let cluster = Cluster::create(home.path()).unwrap();
    let Some(mut cluster) = installed(cluster, "POSTGRES", "a PostgreSQL server") else { return };
    let (trusted, other) = (authority("trusted"), authority("other"));
    certify(home.path(), &trusted);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    cluster.start_on(port, &["-F", "-c", "ssl=on"]).unwrap();
    for (name, authority) in [("trusted.pem", &trusted), ("other.pem", &other)] {
        fs::write(directory.path().join(name), authority.pem()).unwrap();
    }
    let command = |host: &str, parameters: &str| -> Command {
        let url = format!("postgres://postgres@{host}:{port}/postgres?hostaddr=127.0.0.1&{parameters}");
        let mut command = latchkey(directory.path(), &[]);
        command.env("LATCHKEY__DATABASE__URL", url);
        command
    };

    for (host, parameters, error) in [
        (HOST, "sslmode=verify-full&sslrootcert=other.pem", "certificate verify failed"),
        ("other.example.org", "sslmode=verify-full&sslrootcert=trusted.pem", "does not match host name"),
        (HOST, "sslmode=verify-full&sslrootcert=nowhere.pem", "\"nowhere.pem\" does not exist"),
        (HOST, "sslmode=disable", "pg_hba.conf"),
    ] {
        let mut refused = command(host, parameters);
        let message = failure(&run(refused.env("LATCHKEY__DATABASE__TLS", "any")));
        assert!(message.contains(error), "{host} {parameters}: {message}");
    }
    let serving = Serving::start(&mut command(HOST, "sslmode=verify-full&sslrootcert=trusted.pem"));
    serving.client().user("ada@example.org").await;
}
