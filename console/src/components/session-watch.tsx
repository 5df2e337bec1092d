// Warns before the session ends, and empties the screen when it has ended.
import { useEffect, useState } from "preact/hooks";
import type { Session } from "../api";
import { ENDED, clear, end, refresh, signOut } from "../session";
import { Button } from "./button";
import { Dialog } from "./dialog";
import { ErrorBox } from "./notice";

const WARN_BEFORE = 60_000;
/** Screen readers hear the remaining time this often, in seconds. */
const ANNOUNCE_EVERY = 20;

export function SessionWatch({ session }: { session: Session }) {
  const [seconds, setSeconds] = useState<number>();
  useEffect(() => {
    const check = () => {
      const left = end(session).at - Date.now();
      if (left <= 0) clear(ENDED);
      else setSeconds(left <= WARN_BEFORE ? Math.ceil(left / 1_000) : undefined);
    };
    check();
    // Timers stop while a computer sleeps, so the time is compared each second.
    const timer = setInterval(check, 1_000);
    document.addEventListener("visibilitychange", check);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", check);
    };
  }, [session]);
  return seconds === undefined ? null : <Warning seconds={seconds} isExtensible={end(session).isExtensible} />;
}

function Warning({ seconds, isExtensible }: { seconds: number; isExtensible: boolean }) {
  const [error, setError] = useState<unknown>();
  const stay = () => refresh().catch(setError);
  const announced = Math.ceil(seconds / ANNOUNCE_EVERY) * ANNOUNCE_EVERY;
  return (
    <Dialog title="Your session is about to end" role="alertdialog" onClose={() => void stay()} isDismissible={isExtensible}>
      <div class="prose">
        <p aria-hidden="true">
          You will be signed out in <strong>{seconds} s</strong>.{" "}
          {!isExtensible && "The session has reached its maximum duration. Save your work and sign in again."}
        </p>
        <p class="hidden" role="status">
          You will be signed out in {announced} seconds.
        </p>
      </div>
      <ErrorBox error={error} />
      <div class="form-actions">
        {isExtensible && (
          <Button kind="primary" onClick={stay}>
            Stay signed in
          </Button>
        )}
        <Button onClick={() => signOut()}>Sign out now</Button>
      </div>
    </Dialog>
  );
}
