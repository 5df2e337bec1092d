//! The commands `latchkey user …` that create links, or take the place of one.

use serde_json::json;

use super::Invite;
use crate::cli::{Outcome, Output, explain, user_by_email};
use crate::domain::audit::RequestContext;
use crate::service::Service;
use crate::service::account::invitations::InvitationDelivery;
use crate::service::mail::links::Link;

pub(super) async fn reset_link(service: &Service, email: &str, output: Output) -> Outcome {
    let user = user_by_email(service, email).await?;
    let link = service.create_reset_link(RequestContext::command_line(), user.id).await.map_err(explain)?;
    let valid_seconds = link.valid_seconds;
    eprintln!("latchkey: the link is valid for {} minutes, and works once", valid_seconds / 60);
    let link = link.reveal();
    output.show(&json!({ "link": link, "valid_seconds": valid_seconds }), &link)
}

pub(super) async fn verify_email(service: &Service, email: &str, output: Output) -> Outcome {
    let user = user_by_email(service, email).await?;
    let changed = service.mark_email_verified(RequestContext::command_line(), user.id).await.map_err(explain)?;
    let line = if changed { format!("verified {email}") } else { format!("{email} is verified already") };
    output.show(&json!({ "id": user.id.0, "verified": changed }), line)
}

pub(super) async fn invite(service: &Service, invite: &Invite, output: Output) -> Outcome {
    let Invite { email, role, language, print_link } = invite;
    let delivery = match service.sends_mail() && !print_link {
        true => InvitationDelivery::Mail,
        false => InvitationDelivery::Link,
    };
    let context = RequestContext::command_line();
    let invited = service.invite(context, email, Some(role), language.as_deref(), delivery).await;
    let (invitation, link) = invited.map_err(explain)?;
    let (id, expires_at) = (invitation.id.0, invitation.expires_at);
    match link.map(Link::reveal) {
        Some(link) => {
            eprintln!("latchkey: the link is valid until {}, and works once", expires_at.to_minutes());
            output.show(&json!({ "id": id, "expires_at": expires_at, "link": link }), &link)
        }
        None => {
            let until = expires_at.to_minutes();
            let line = format!("invited {email} until {until}; a running server sends the mail");
            output.show(&json!({ "id": id, "expires_at": expires_at }), line)
        }
    }
}
