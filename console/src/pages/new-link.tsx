// How to get another link if one is not valid any more.
import type { ComponentChildren } from "preact";
import { useSettings } from "../settings";
import type { Purpose } from "./links";

/** Depends on what the link is for. */
export function NewLink({ purpose }: { purpose: Purpose }) {
  return <p>Is the link not valid any more? {useRenewal(purpose)}</p>;
}

function useRenewal(purpose: Purpose): ComponentChildren {
  const settings = useSettings();
  switch (purpose) {
    case "password-reset":
      return <a href="#/forgotten-password">Request a new one</a>;
    case "email-verification":
      return settings.value?.verified_email_required ? (
        <>
          <a href="#/sign-in">Sign in</a>: the server then sends a new one.
        </>
      ) : (
        <>
          Send it again in <a href="#/profile">your profile</a>.
        </>
      );
    case "registration":
      return <a href="#/register">Register again</a>;
    case "email-change":
      return (
        <>
          Request the change again in <a href="#/profile">your profile</a>.
        </>
      );
    case "email-undo":
      return (
        <>
          <a href="#/forgotten-password">Request a new one</a> with your old address.
        </>
      );
    case "invitation":
      return "Ask the person who invited you for a new one.";
  }
}
