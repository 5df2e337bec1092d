//! Use cases. They control transactions and time, and depend on neither HTTP nor SQL.

pub mod account;
pub mod audit;
pub mod forward_auth;
pub mod identity;
pub mod key;
pub mod lifecycle;
pub(crate) mod limits;
pub mod lists;
pub mod mail;
pub mod page;
pub mod password;
pub mod session;
pub mod stats;
pub mod token;
pub mod transfer;
mod validation;

use std::sync::Arc;

use self::audit::pruning::Pruning;
use self::audit::trail::AuditTrail;
use self::forward_auth::policy::ForwardPolicy;
use self::identity::authenticate::Identities;
use self::identity::cache::CacheCounts;
use self::identity::follow::Follower;
use self::lifecycle::Lifecycle;
use self::lifecycle::purge::Purge;
use self::limits::Limits;
use self::mail::Mail;
use self::mail::delivery::Delivery;
use self::mail::links::Links;
use self::mail::outgoing::Outgoing;
use self::password::Hasher;
use self::stats::writer::StatsWriter;
use crate::clock::Clock;
use crate::config::{AuthSettings, RegistrationSettings, SessionSettings, Settings};
use crate::db::Db;
pub use crate::db::{Caller, caller, for_one_request, set_caller};
use crate::domain::roles::Roles;
use crate::error::AppError;
use crate::metrics::hourly::{CountedEvent, HourlyCounters};
use crate::metrics::{Metrics, MetricsSnapshot, TextFormat};

/// The components that the use cases share. A process has one `Service` for all threads.
pub struct Service {
    db: Db,
    clock: Clock,
    settings: AuthSettings,
    session: SessionSettings,
    registration: RegistrationSettings,
    roles: Roles,
    passwords: Hasher,
    limits: Arc<Limits>,
    identities: Arc<Identities>,
    trail: AuditTrail,
    pruning: Arc<Pruning>,
    forwarding: ForwardPolicy,
    lifecycle: Lifecycle,
    mail: Mail,
    metrics: Arc<Metrics>,
    stats_writer: StatsWriter,
}

impl Service {
    /// Creates the components and starts the hashing threads. Mails are sent with `outgoing`. Errors: [`AppError`] if the
    /// threads cannot start.
    pub fn new(db: Db, clock: Clock, settings: &Settings, outgoing: Option<Outgoing>) -> Result<Self, AppError> {
        let Settings { auth, session, registration, authz, audit, limits, roles, .. } = settings;
        let roles = roles.roles().clone();
        let hourly = Arc::new(HourlyCounters::new(clock.clone()));
        let passwords = Hasher::start(auth, Arc::clone(&hourly))?;
        let stats_writer =
            StatsWriter::new(db.clone(), clock.clone(), Arc::clone(&hourly), settings.stats.retention_days);
        let metrics = Arc::new(Metrics::new(passwords.waits(), db.waits(), hourly));
        let limits = Arc::new(Limits::new(db.clone(), clock.clone(), limits, Arc::clone(&metrics)));
        let identities =
            Arc::new(Identities::new(&db, clock.clone(), (auth, *session), roles.clone(), Arc::clone(&limits)));
        let pruning = Arc::new(Pruning::new(db.clone(), clock.clone(), Arc::clone(&metrics), *audit));
        let links = Links::new(settings);
        let delivery = Delivery::new(db.clone(), clock.clone(), Arc::clone(&metrics), links.clone(), outgoing);
        let purge = Purge::new(db.clone(), clock.clone(), settings, Arc::clone(&pruning));
        Ok(Self {
            trail: AuditTrail::new(db.clone(), clock.clone(), Arc::clone(&metrics), Arc::clone(&limits), &identities),
            lifecycle: Lifecycle::new(db.clone(), clock.clone(), Arc::clone(&metrics), purge),
            pruning,
            mail: Mail::new(delivery, links, settings.mail.language),
            forwarding: ForwardPolicy::new(authz),
            settings: auth.clone(),
            session: *session,
            roles,
            registration: registration.clone(),
            db,
            clock,
            passwords,
            limits,
            identities,
            metrics,
            stats_writer,
        })
    }

    /// The component that authenticates callers.
    pub fn identities(&self) -> &Arc<Identities> {
        &self.identities
    }

    /// The audit trail.
    pub fn trail(&self) -> &AuditTrail {
        &self.trail
    }

    /// The removal of old entries of the audit trail.
    pub fn pruning(&self) -> &Pruning {
        &self.pruning
    }

    /// The writer of the counts of this process.
    pub fn stats_writer(&self) -> &StatsWriter {
        &self.stats_writer
    }

    /// Counts for statistics whether the guard allowed a request.
    pub fn count_decision(&self, is_authorized: bool) {
        let event = if is_authorized { CountedEvent::RequestAuthorized } else { CountedEvent::RequestRefused };
        self.metrics.hourly().add(event);
    }

    /// Whether the settings name an SMTP server.
    pub fn sends_mail(&self) -> bool {
        self.mail.is_configured()
    }

    /// Whether users sign in only after their address is verified.
    pub fn requires_verified_email(&self) -> bool {
        self.settings.require_verified_email
    }

    /// The task that sends mails.
    pub fn mail_delivery(&self) -> &Delivery {
        self.mail.delivery()
    }

    /// Readiness, shutdown and background work of the process.
    pub fn lifecycle(&self) -> &Lifecycle {
        &self.lifecycle
    }

    /// Starts to follow the change log, which contains the changes of other processes. Returns `None` if the cache is
    /// off.
    pub fn follow_changes(&self) -> Result<Option<Follower>, AppError> {
        self.identities.follow_changes(&self.db)
    }

    /// Closes the connections to the database at the end of the process. See [`Db::close`].
    pub async fn close_database(&self) -> Result<(), AppError> {
        self.db.close().await
    }

    /// The metrics of the process.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// Checks the readiness, and returns all metrics in the text format of Prometheus.
    pub async fn metrics_text(&self, format: TextFormat) -> Result<String, AppError> {
        let CacheCounts { hits, misses, uncertain, stale, invalidations } = self.identities.cache().counts();
        let now = MetricsSnapshot {
            cache: [hits, misses, uncertain, stale, invalidations],
            hash_queue: self.passwords.waiting(),
            hash_lanes: self.passwords.lanes_in_use(),
            connections: self.db.connections(),
            not_ready: match self.lifecycle.ready().await {
                Err(AppError::NotReady(reason)) => Some(reason.code),
                _ => None,
            },
        };
        let text = self.metrics.text(now, format);
        text.map_err(|error| AppError::Internal(error.into()))
    }
}
