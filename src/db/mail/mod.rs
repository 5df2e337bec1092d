//! The tables of mails: what is to be sent, the secrets of links, and what links create.

pub mod invitations;
pub mod outbox;
pub mod registrations;
pub mod replaced_emails;
pub mod secrets;

use crate::domain::id::{InvitationId, UserId};

/// On what a mail or a link acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A user.
    User(UserId),
    /// A registration that waits for the proof of its address.
    Registration(i64),
    /// An invitation.
    Invitation(InvitationId),
}

/// The columns `user_id`, `registration_id` and `invitation_id`, of which one is set.
type SubjectColumns = (Option<i64>, Option<i64>, Option<i64>);

impl Subject {
    fn columns(self) -> SubjectColumns {
        match self {
            Self::User(user) => (Some(user.0), None, None),
            Self::Registration(registration) => (None, Some(registration), None),
            Self::Invitation(invitation) => (None, None, Some(invitation.0)),
        }
    }

    fn of(columns: SubjectColumns) -> Option<Self> {
        match columns {
            (Some(user), _, _) => Some(Self::User(user.into())),
            (_, Some(registration), _) => Some(Self::Registration(registration)),
            (_, _, Some(invitation)) => Some(Self::Invitation(invitation.into())),
            (None, None, None) => None,
        }
    }
}
